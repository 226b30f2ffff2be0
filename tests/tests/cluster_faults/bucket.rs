//! Buckets that die, are full, or have enough to do.

use std::io::Read;
use std::thread;

use registry_tests::oci::{offset, sha256};
use registry_tests::server::ADMIN;
use registry_tests::store_proxy::{Action, Kind};
use registry_tests::{Cluster, Connection, Image, Random, S3, StoreProxy, Stores};

use crate::{
    HalfSent, IMPATIENT, MIB, STEPS, assert_everywhere, assert_unavailable, eventually_not_ready, eventually_ready,
    reap_and_check,
};

#[test]
fn what_a_bucket_that_dies_cuts_short_goes_on_once_it_is_back() {
    let test = "a bucket that dies";
    let (Some(mut s3), Some(postgres)) = (S3::own(test), registry_tests::postgres::server(test)) else { return };
    let environment = [&IMPATIENT[..], &[STEPS]].concat();
    let cluster = Cluster::start_on(Stores::new(&s3.s3, postgres.database()), 3, &environment);
    let [first, second, third] = cluster.replicas.as_slice() else { panic!("there are three") };
    let mut random = Random::seeded("dying bucket", 5);
    let image = Image::new(vec![random.bytes(64 * MIB)]);
    // As they are without configuration, or nearly: a busy bucket takes more than a moment for so much.
    let patient = cluster.builder().environment("FOUNDRY_STORAGE__S3__READ_TIMEOUT", "30s");
    let patient = patient.environment("FOUNDRY_STORAGE__S3__RETRY_TIMEOUT", "3m").start();
    patient.repository("team/app").push("v1", &image);
    let layer = sha256(&image.blobs[0]);

    // Somebody uploads, and somebody downloads, when it dies.
    let bytes = random.bytes(27 * MIB);
    let location = first.repository("team/app").start_upload();
    first.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);
    let half = HalfSent::begin(second, &location, 9 * MIB, &bytes[9 * MIB..]);
    let mut download = Connection::open(third.address());
    let lines = [format!("Authorization: Bearer {ADMIN}"), "Connection: close".to_owned()];
    download.send_head("GET", &format!("/v2/team/app/blobs/{layer}"), &lines).unwrap();
    let mut received = vec![0; MIB];
    download.socket().read_exact(&mut received).unwrap();
    s3.kill();

    assert_unavailable(&half.end().expect("an answer"));
    let _ = download.socket().read_to_end(&mut received);
    let head = received.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer begins with its head") + 4;
    let received = received.split_off(head);
    assert!(received.len() >= MIB / 2 && received.len() < image.blobs[0].len(), "{} bytes came", received.len());
    // What is in the database is there all the same.
    assert_eq!(first.repository("team/app").get_manifest("v1").expect(200).body, image.manifest);
    first.repository("team/app").head_blob(&layer).expect(200);
    assert_unavailable(&first.repository("team/app").get_blob(&layer));
    let other = first.repository("team/app").start_upload();
    assert_unavailable(&first.repository("team/app").finish(&other, &sha256(b"other"), b"other"));
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "blobs");
    }

    s3.start_again();
    for replica in &cluster.replicas {
        eventually_ready(replica);
    }
    let rest = format!("Range: bytes={}-", received.len());
    let rest = second.request("GET", &format!("/v2/team/app/blobs/{layer}"), &[&rest], b"").expect(206);
    assert!([received, rest.body].concat() == image.blobs[0]);
    let durable = offset(&third.repository("team/app").status(&location).expect(204));
    assert_eq!(durable, 9 * MIB);
    third.repository("team/app").patch_at(&location, durable, &bytes[durable..]).expect(202);
    first.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
    first.repository("team/app").finish(&other, &sha256(b"other"), b"other").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    second.repository("team/app").assert_holds("v1", &image);

    // One that is back before patience ends is not noticed.
    s3.kill();
    let late = random.bytes(9 * MIB);
    thread::scope(|scope| {
        let push = scope.spawn(|| patient.repository("team/app").push_blob(&late));
        s3.start_again();
        assert_eq!(push.join().unwrap(), sha256(&late));
    });
    assert!(patient.repository("team/app").get_blob(&sha256(&late)).expect(200).body == late);
    reap_and_check(&cluster);
}

#[test]
fn a_bucket_that_is_full_or_busy_says_so_to_clients_and_the_upload_goes_on_later() {
    let test = "a full bucket, and a busy one";
    let (Some(s3), Some(postgres)) = (S3::shared(test), registry_tests::postgres::server(test)) else { return };
    let proxy = StoreProxy::start(&s3.endpoint);
    let stores = Stores { endpoint: proxy.endpoint(), ..Stores::new(s3, postgres.database()) };
    let cluster = Cluster::start_on(stores, 2, &IMPATIENT);
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("full bucket", 6);
    let bytes = random.bytes(30 * MIB);
    let kept = one.repository("team/app").push_blob(b"kept");
    let location = one.repository("team/app").start_upload();
    one.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);

    // There is room for one part more, and then for none.
    let mut parts = 0;
    proxy.rule(move |seen| match seen.kind {
        Kind::Part if parts == 0 => {
            parts += 1;
            Action::Pass
        }
        Kind::Part | Kind::Put => Action::Answer(507, "XMinioStorageFull"),
        _ => Action::Pass,
    });
    one.repository("team/app").patch_at(&location, 9 * MIB, &bytes[9 * MIB..]).expect(507);
    let status = other.repository("team/app").status(&location).expect(204);
    assert_eq!(offset(&status), 9 * MIB);
    assert_eq!(one.repository("team/app").get_blob(&kept).expect(200).body, b"kept");

    // Time and again, for longer than a request is tried.
    proxy.rule(|_| Action::Answer(503, "SlowDown"));
    assert_unavailable(&other.repository("team/app").patch_at(&location, 9 * MIB, &bytes[9 * MIB..]));
    assert_unavailable(&other.repository("team/app").get_blob(&kept));
    other.repository("team/app").head_blob(&kept).expect(200);

    // Now and then: nobody notices.
    let mut number = 0;
    proxy.rule(move |_| {
        number += 1;
        if number % 3 == 1 { Action::Answer(503, "SlowDown") } else { Action::Pass }
    });
    let durable = offset(&one.repository("team/app").status(&location).expect(204));
    assert_eq!(durable, 9 * MIB);
    one.repository("team/app").patch_at(&location, durable, &bytes[durable..]).expect(202);
    other.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
    proxy.rule(|_| Action::Pass);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    reap_and_check(&cluster);
}
