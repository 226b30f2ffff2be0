//! Garbage collection: what nobody refers to goes, its bytes are freed, and nothing else is touched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use registry_tests::oci::sha256;
use registry_tests::wait::pause;
use registry_tests::{Connection, Image, Random, Repository, Server, ServerBuilder, eventually};
use serde_json::{Value, json};

/// A server that collects only when it is asked to.
fn builder() -> ServerBuilder {
    Server::builder().config("gc: {interval: 0s}")
}

fn artifact(package: &str, version: &str) -> String {
    format!("/api/v1/artifacts/{package}/{version}")
}

#[track_caller]
fn upload(server: &Server, package: &str, version: &str, bytes: &[u8]) {
    server.request("POST", &artifact(package, version), &[], bytes).expect(201);
}

#[track_caller]
fn delete(server: &Server, package: &str, version: &str) {
    server.request("DELETE", &artifact(package, version), &[], b"").expect(204);
}

/// A collection as the background does it: with the configured grace.
#[track_caller]
fn collect(server: &Server) -> Value {
    server.request("POST", "/api/v1/gc", &[], b"").expect(200).json()
}

#[track_caller]
fn dry_run(server: &Server, grace: &str) -> Value {
    let target = format!("/api/v1/gc?dry_run=true&grace={grace}");
    server.request("POST", &target, &[], b"").expect(200).json()
}

#[track_caller]
fn assert_freed(report: &Value, blobs: u64, bytes: usize) {
    assert_eq!((&report["blobs_deleted"], &report["bytes_freed"]), (&blobs.into(), &bytes.into()), "{report}");
}

/// Every file below `folder`, with its size.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(metadata) = path.metadata() {
            found.push((path, metadata.len()));
        }
    }
    found
}

/// How many objects there are, and their bytes.
fn objects(server: &Server) -> (usize, u64) {
    let mut files = files(&server.data().join("blobs"));
    files.retain(|(path, _)| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    (files.len(), files.iter().map(|(_, size)| size).sum())
}

fn staged(server: &Server) -> usize {
    files(&server.data().join("uploads")).len()
}

#[track_caller]
fn token(server: &Server, scope: &str) -> String {
    let body = json!({ "name": "t", "scopes": [scope] }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_deleted_artifacts_bytes_are_freed_by_the_next_collection() {
    let server = builder().start();
    let (one, two) = (Random::new(1).bytes(500_000), Random::new(2).bytes(300_000));
    upload(&server, "p", "1", &one);
    upload(&server, "p", "2", &two);
    upload(&server, "q", "1", &two);
    assert_eq!(objects(&server), (2, 800_000), "equal bytes are stored once");
    assert_freed(&collect(&server), 0, 0);

    delete(&server, "p", "1");
    assert_eq!(objects(&server), (2, 800_000), "deleting only forgets");
    assert_freed(&collect(&server), 1, 500_000);
    assert_eq!(objects(&server), (1, 300_000));
    assert_freed(&collect(&server), 0, 0);

    // Bytes that another version still has stay.
    delete(&server, "p", "2");
    assert_freed(&collect(&server), 0, 0);
    assert_eq!(server.get(&artifact("q", "1")).expect(200).body, two);
    delete(&server, "q", "1");
    assert_freed(&collect(&server), 1, 300_000);
    assert_eq!(objects(&server), (0, 0));
    assert!(server.check(&["--deep"]).0);
}

#[test]
fn a_pushed_blob_waits_for_its_manifest() {
    let server = builder().start();
    let repository = server.repository("app");
    let bytes = Random::new(3).bytes(100_000);
    let digest = repository.push_blob(&bytes);
    assert_freed(&collect(&server), 0, 0);
    assert_freed(&server.gc("23h"), 0, 0);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes, "a day is what it has by default");

    let report = server.gc("0s");
    assert_freed(&report, 1, 100_000);
    assert_eq!(report["references_dropped"], 1, "{report}");
    repository.head_blob(&digest).expect(404);
    repository.get_blob(&digest).expect(404);
    assert_eq!(objects(&server), (0, 0));

    // And it may come again.
    assert_eq!(repository.push_blob(&bytes), digest);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
    assert_eq!(objects(&server), (1, 100_000));
}

#[test]
fn a_dry_run_says_what_would_go_and_touches_nothing() {
    let server = builder().start();
    let repository = server.repository("app");
    upload(&server, "gone", "1", &Random::new(4).bytes(70_000));
    upload(&server, "kept", "1", &Random::new(5).bytes(9_000));
    delete(&server, "gone", "1");
    let image = Image::new(vec![Random::new(6).bytes(5_000)]);
    repository.push("1", &image);
    repository.push_blob(&Random::new(7).bytes(30_000));

    let before = files(server.data()).into_iter().filter(|(path, _)| path.to_string_lossy().contains("blobs"));
    let before: Vec<_> = before.collect();
    for (grace, blobs, bytes) in [("24h", 1, 70_000), ("0s", 2, 100_000)] {
        for _ in 0..2 {
            let report = dry_run(&server, grace);
            assert_eq!(report["dry_run"], true);
            assert_freed(&report, blobs, bytes);
        }
    }
    let after = files(server.data()).into_iter().filter(|(path, _)| path.to_string_lossy().contains("blobs"));
    assert_eq!(before, after.collect::<Vec<_>>());
    let report = server.gc("0s");
    assert_eq!(report["dry_run"], false);
    assert_freed(&report, 2, 100_000);
    assert_freed(&dry_run(&server, "0s"), 0, 0);
    repository.assert_holds("1", &image);
    server.get(&artifact("kept", "1")).expect(200);
}

#[test]
fn what_a_manifest_names_stays_until_the_manifest_goes_and_a_grace_longer() {
    let server = builder().start();
    let repository = server.repository("app");
    let (one, two) =
        (Image::new(vec![vec![1; 4_000], vec![2; 5_000]]), Image::new(vec![vec![2; 5_000], vec![3; 6_000]]));
    let index = Image::index(&[&one, &two]);
    repository.push("one", &one);
    repository.push("two", &two);
    repository.push("index", &index);
    for _ in 0..3 {
        assert_freed(&server.gc("0s"), 0, 0);
    }
    for (tag, image) in [("one", &one), ("two", &two), ("index", &index)] {
        repository.assert_holds(tag, image);
    }
    // A tag is not the manifest.
    repository.delete_manifest("one").expect(202);
    assert_freed(&server.gc("0s"), 0, 0);
    repository.assert_holds(&one.digest(), &one);

    repository.delete_manifest(&one.digest()).expect(202);
    assert_freed(&collect(&server), 0, 0);
    for blob in &one.blobs {
        assert_eq!(repository.get_blob(&sha256(blob)).expect(200).body, *blob, "a full grace from now on");
    }
    // The layer that the other image has too stays.
    assert_freed(&server.gc("0s"), 2, 4_000 + one.blobs[2].len());
    repository.assert_holds("two", &two);
    repository.head_blob(&sha256(&one.blobs[0])).expect(404);
    // Deleting the index leaves its child.
    repository.delete_manifest(&index.digest()).expect(202);
    assert_freed(&server.gc("0s"), 0, 0);
    repository.assert_holds("two", &two);
    assert!(server.check(&["--deep"]).0);
}

#[test]
fn a_blob_in_several_places_goes_with_the_last() {
    let server = builder().start();
    let (one, two) = (server.repository("one"), server.repository("two"));
    let image = Image::new(vec![Random::new(8).bytes(50_000)]);
    let layer = sha256(&image.blobs[0]);
    one.push("1", &image);
    // The second gets it by a mount, a package by bytes of its own.
    for blob in &image.blobs {
        let target = format!("{}?mount={}&from=one", two.path("blobs/uploads/"), sha256(blob));
        server.request("POST", &target, &[], b"").expect(201);
    }
    two.put_manifest("1", &image).expect(201);
    upload(&server, "p", "1", &image.blobs[0]);
    assert_eq!(objects(&server).0, 2, "the layer and the configuration, once each");

    let remove = |repository: &Repository<'_>| repository.delete_manifest(&image.digest()).expect(202);
    remove(&one);
    assert_freed(&server.gc("0s"), 0, 0);
    one.head_blob(&layer).expect(404);
    two.assert_holds("1", &image);

    remove(&two);
    assert_freed(&server.gc("0s"), 1, image.blobs[1].len());
    two.head_blob(&layer).expect(404);
    assert_eq!(server.get(&artifact("p", "1")).expect(200).body, image.blobs[0]);

    delete(&server, "p", "1");
    assert_freed(&collect(&server), 1, 50_000);
    assert_eq!(objects(&server), (0, 0));
}

#[test]
fn idle_uploads_are_ended_and_busy_ones_are_not() {
    let server = builder().environment("FOUNDRY_GC__UPLOAD_IDLE", "2s").start();
    let repository = server.repository("app");
    let (idle, busy) = (repository.start_upload(), repository.start_upload());
    repository.patch(&idle, &[1; 10_000]).expect(202);
    repository.patch(&busy, b"x").expect(202);
    assert_eq!(staged(&server), 2);
    let mut ended = 0;
    let mut length = 1;
    eventually("the idle upload is ended", || {
        length += 1;
        repository.patch(&busy, b"x").expect(202);
        ended += collect(&server)["uploads_ended"].as_u64().unwrap();
        (repository.status(&idle).status == 404).then_some(())
    });
    assert_eq!((ended, staged(&server)), (1, 1), "its bytes are gone with it");
    repository.patch(&idle, b"x").expect(404);
    let bytes = vec![b'x'; length];
    repository.finish(&busy, &sha256(&bytes), b"").expect(201);
    assert_eq!(repository.get_blob(&sha256(&bytes)).expect(200).body, bytes);
    assert_eq!(staged(&server), 0);
}

#[test]
fn staged_bytes_that_belong_to_no_upload_are_removed() {
    let server = builder().start();
    let repository = server.repository("app");
    let location = repository.start_upload();
    repository.patch(&location, b"abc").expect(202);
    let uploads = server.data().join("uploads");
    std::fs::write(uploads.join("0e8b4a56-8a3c-4d0e-9f43-3f6f0b8f1c11"), b"left over").unwrap();
    assert_eq!(staged(&server), 2);
    collect(&server);
    assert_eq!(staged(&server), 1);
    repository.finish(&location, &sha256(b"abcd"), b"d").expect(201);
}

#[test]
fn who_pushes_keeps_a_blob_alive_by_asking_and_who_reads_does_not() {
    const GRACE: Duration = Duration::from_secs(3);
    let server = builder().environment("FOUNDRY_GC__GRACE", "3s").start();
    let repository = server.repository("app");
    let digest = repository.push_blob(b"layer");
    let reader = token(&server, "oci:app:pull");
    let pusher = token(&server, "oci:app:pull,push");
    let head =
        |token: &str| server.with_token(token, "HEAD", &repository.path(&format!("blobs/{digest}")), &[], b"").status;
    let since = Instant::now();
    while since.elapsed() < GRACE * 2 {
        assert_eq!(head(&pusher), 200, "after {:?}", since.elapsed());
        collect(&server);
        pause();
    }
    let asked = Instant::now();
    eventually("the blob is collected although it is read", || {
        let status = head(&reader);
        collect(&server);
        (status == 404).then_some(())
    });
    assert!(asked.elapsed() >= GRACE / 2 - Duration::from_millis(100), "exists holds for half a grace");
    repository.push("1", &Image::new(vec![b"layer".to_vec()]));
}

#[test]
fn a_download_outlives_the_collection_of_what_it_reads() {
    let server = builder().start();
    let bytes = Random::new(9).bytes(30_000_000);
    upload(&server, "p", "1", &bytes);
    let mut connection = Connection::open(server.address());
    let token = format!("Authorization: Bearer {}", registry_tests::server::ADMIN);
    connection.send_head("GET", &artifact("p", "1"), &[token]).unwrap();
    // The answer's head is on its way, and far more than fits between the two ends.
    let mut first = [0; 15];
    eventually("the answer begins", || (connection.socket().peek(&mut first).unwrap() == 15).then_some(()));
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    delete(&server, "p", "1");
    assert_freed(&collect(&server), 1, 30_000_000);
    server.get(&artifact("p", "1")).expect(404);
    assert!(connection.answer().unwrap().expect(200).body == bytes);
}

#[test]
fn the_background_collects_too() {
    let server = Server::builder().environment("FOUNDRY_GC__INTERVAL", "200ms").start();
    upload(&server, "p", "1", &[7; 100_000]);
    upload(&server, "p", "2", &[8; 100_000]);
    delete(&server, "p", "1");
    eventually("the bytes are gone", || (objects(&server) == (1, 100_000)).then_some(()));
    eventually("the log says so", || {
        let log = server.log();
        log.iter().any(|line| line.contains("\"bytes_freed\":100000")).then_some(())
    });
    assert_eq!(server.get(&artifact("p", "2")).expect(200).body, [7 + 1; 100_000]);
}

#[test]
fn a_collection_can_be_run_from_the_command_line_beside_the_server() {
    let server = builder().start();
    upload(&server, "p", "1", &[7; 100_000]);
    delete(&server, "p", "1");
    let run = |arguments: &[&str]| {
        let mut command = registry_tests::process::server_command(server.folder());
        command.args(["gc", "-json"]).args(arguments);
        let ended = registry_tests::Process::run(&mut command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    assert_freed(&run(&["--dry-run"]), 1, 100_000);
    assert_eq!(objects(&server).0, 1);
    assert_freed(&run(&[]), 1, 100_000);
    assert_eq!(objects(&server).0, 0);
    let blob = server.repository("app").push_blob(b"x");
    assert_freed(&run(&["--grace", "0s"]), 1, 1);
    server.repository("app").head_blob(&blob).expect(404);
}

#[test]
fn only_administrators_collect_and_only_with_sane_wishes() {
    let server = builder().start();
    let token = token(&server, "*:*:pull,push,delete");
    server.with_token(&token, "POST", "/api/v1/gc", &[], b"").expect(403);
    server.anonymous("POST", "/api/v1/gc?grace=0s", &[], b"").expect(401);
    for query in ["grace=soon", "grace=-1s", "grace=", "dry_run=perhaps", "grace=99999999999999999999y"] {
        server.request("POST", &format!("/api/v1/gc?{query}"), &[], b"").expect(400);
    }
    // A longer grace than the configured one is a wish, too.
    let blob = server.repository("app").push_blob(b"x");
    assert_freed(&server.gc("1000000h"), 0, 0);
    server.repository("app").head_blob(&blob).expect(200);
}
