//! What uploads and downloads keep in memory, and who waits for it.

use std::io::Read;
use std::thread;
use std::time::Instant;

use registry_tests::oci::sha256;
use registry_tests::process::peak_memory;
use registry_tests::server::{ADMIN, request};
use registry_tests::{Connection, Random, Server};

use crate::{Bucket, MIB, push};

#[test]
fn memory_does_not_grow_with_what_is_uploaded() {
    const UPLOADS: u64 = 16;
    const LENGTH: usize = 64 * MIB;
    let Some(bucket) = Bucket::new("memory") else { return };
    // So many at once may keep the bucket busy for minutes.
    let server = Server::builder()
        .s3_below(bucket.s3, &bucket.endpoint, &bucket.prefix)
        .environment("FOUNDRY_STORAGE__S3__READ_TIMEOUT", "20m")
        .environment("FOUNDRY_STORAGE__S3__RETRY_TIMEOUT", "20m")
        .start();
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..UPLOADS {
            let server = &server;
            scope.spawn(move || {
                let original = Random::new(100 + number).bytes(LENGTH);
                let target = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(&original));
                let answer = request(
                    server.address(),
                    Some(ADMIN),
                    "POST",
                    &target,
                    &["Content-Type: application/octet-stream"],
                    &original,
                );
                answer.expect("it is uploaded").expect(201);
            });
        }
    });
    let kib = peak_memory(server.pid()).expect("it runs") >> 10;
    assert!(kib < 400 * 1024, "{UPLOADS} uploads of {LENGTH} bytes took {kib} KiB, after {:?}", began.elapsed());
}

#[test]
fn clients_that_stand_still_hold_nobody_up_who_needs_the_memory_for_parts() {
    let Some(bucket) = Bucket::new("slow clients") else { return };
    let server = Server::builder()
        .s3_below(bucket.s3, &bucket.endpoint, &bucket.prefix)
        .environment("FOUNDRY_STORAGE__S3__UPLOAD_MEMORY", "8MiB")
        .start();
    let repository = server.repository("slow/clients");
    let authorization = format!("Authorization: Bearer {ADMIN}");
    let slow: Vec<_> = (0..3)
        .map(|number| {
            let original = Random::new(200 + number).bytes(10 * MIB);
            let location = repository.start_upload();
            let headers = [authorization.clone(), format!("Content-Length: {}", original.len())];
            let mut connection = Connection::open(server.address());
            connection.send_head("PATCH", &location, &headers).unwrap();
            // More than needs no memory of its own: one of them has all that there is.
            connection.send(&original[..200_000]).unwrap();
            (connection, location, original)
        })
        .collect();
    let quick = Random::new(210).bytes(9 * MIB);
    let digest = push(&server, &quick);
    assert!(server.repository("team/app").get_blob(&digest).expect(200).body == quick);
    for (mut connection, location, original) in slow {
        connection.send(&original[200_000..]).unwrap();
        assert_eq!(connection.answer().unwrap().status, 202);
        repository.finish(&location, &sha256(&original), b"").expect(201);
        assert!(repository.get_blob(&sha256(&original)).expect(200).body == original);
    }
    let (sound, findings) = server.check(&["--deep"]);
    assert!(sound, "{findings}");
}

#[test]
fn downloads_that_nobody_takes_do_not_fill_the_memory() {
    const STALLED: usize = 8;
    const LENGTH: usize = 64 * MIB;
    let Some(bucket) = Bucket::new("stalled downloads") else { return };
    let server = Server::builder().s3_below(bucket.s3, &bucket.endpoint, &bucket.prefix).start();
    let original = Random::new(8).bytes(LENGTH);
    let digest = push(&server, &original);
    let repository = server.repository("team/app");
    // What one download takes counts before.
    assert!(repository.get_blob(&digest).expect(200).body == original);
    let before = peak_memory(server.pid()).expect("it runs");
    let stalled: Vec<_> = (0..STALLED)
        .map(|_| {
            let mut connection = Connection::open(server.address());
            let headers = [format!("Authorization: Bearer {ADMIN}"), "Connection: close".to_owned()];
            connection.send_head("GET", &format!("/v2/team/app/blobs/{digest}"), &headers).unwrap();
            connection.socket().read_exact(&mut [0; 1000]).unwrap();
            connection
        })
        .collect();
    // While another one takes everything, theirs would come from the bucket as well.
    for _ in 0..2 {
        assert!(repository.get_blob(&digest).expect(200).body == original);
    }
    let grown = peak_memory(server.pid()).expect("it runs").saturating_sub(before);
    assert!(grown < (STALLED * LENGTH / 2) as u64, "{STALLED} stalled downloads of {LENGTH} bytes took {grown}");
    // They may go on.
    let mut rest = Vec::new();
    stalled[0].socket().read_to_end(&mut rest).unwrap();
    assert!(original.ends_with(&rest) && rest.len() > LENGTH - 1000);
}
