//! Backups while writes go on, and what is in them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use registry_tests::oci::sha256;
use registry_tests::process::{Ended, server_command};
use registry_tests::{Image, Process, Random, Server, eventually};
use serde_json::{Value, json};

/// `registry-server backup`, beside the server.
fn back_up(server: &Server, folder: &Path) -> Ended {
    let mut command = server_command(server.folder());
    Process::run(command.args(["-config", "config.yaml", "backup"]).arg(folder))
}

fn artifact(number: u64) -> (String, Vec<u8>) {
    (format!("/api/v1/artifacts/load/{number}"), Random::new(number).bytes(3_000))
}

#[test]
fn a_backup_holds_all_that_was_acknowledged_before_it_and_nothing_torn() {
    let server = Server::builder().config("gc: {interval: 0s}").start();
    let image = Image::new(vec![Random::new(1_000_000).bytes(200_000)]);
    server.repository("team/app").push("1", &image);
    let body = json!({ "name": "ci", "scopes": ["generic:*:pull"] }).to_string();
    let token = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let registry = server.get("/auth/token?scope=repository:team/app:pull").expect(200).json();

    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("copy");
    let (stop, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let before = std::thread::scope(|threads| {
        for writer in 0..3_u64 {
            let (server, stop, acknowledged) = (&server, &stop, &acknowledged);
            threads.spawn(move || {
                let mut number = writer * 1_000_000;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let (target, bytes) = artifact(number);
                    server.request("POST", &target, &[], &bytes).expect(201);
                    acknowledged.lock().unwrap().push(number);
                    // Much comes and goes meanwhile, images too.
                    server.repository("load/app").push("latest", &Image::new(vec![bytes]));
                    if number % 3 == 0 {
                        let (gone, bytes) = artifact(number + 500_000);
                        server.request("POST", &gone, &[], &bytes).expect(201);
                        server.request("DELETE", &gone, &[], b"").expect(204);
                    }
                }
            });
        }
        let collector = threads.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                server.request("POST", "/api/v1/gc", &[], b"").expect(200);
            }
        });
        eventually("writing has begun", || (acknowledged.lock().unwrap().len() > 30).then_some(()));
        let before = acknowledged.lock().unwrap().clone();
        let ended = back_up(&server, &backup);
        stop.store(true, Ordering::SeqCst);
        collector.join().unwrap();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        before
    });
    let after = acknowledged.into_inner().unwrap();
    assert!(after.len() > before.len(), "writing went on during the backup");

    // The original is gone; a server over the copy has everything.
    drop(server);
    let restored = Server::builder().data(&backup).start();
    restored.repository("team/app").assert_holds("1", &image);
    for number in &before {
        let (target, bytes) = artifact(*number);
        assert_eq!(restored.get(&target).expect(200).body, bytes, "{target}");
    }
    // What came while it was made is there whole, or not at all.
    let mut versions = Vec::new();
    let mut target = "/api/v1/packages/load?limit=1000".to_owned();
    loop {
        let page = restored.get(&target).expect(200).json();
        versions.extend(page["versions"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/api/v1/packages/load?limit=1000&after={next}");
    }
    assert!(versions.len() >= before.len());
    for version in &versions {
        let number: u64 = version["version"].as_str().unwrap().parse().unwrap();
        let (target, bytes) = artifact(number);
        assert_eq!(version["digest"], sha256(&bytes));
        assert_eq!(restored.get(&target).expect(200).body, bytes, "{target}");
    }
    let latest = restored.get("/v2/load/app/manifests/latest").expect(200).json();
    for layer in latest["layers"].as_array().unwrap() {
        restored.repository("load/app").get_blob(layer["digest"].as_str().unwrap()).expect(200);
    }
    // Tokens and signing keys are part of it.
    restored.with_token(token["token"].as_str().unwrap(), "GET", "/api/v1/packages", &[], b"").expect(200);
    let registry: &Value = &registry["token"];
    restored.with_token(registry.as_str().unwrap(), "GET", "/v2/team/app/manifests/1", &[], b"").expect(200);
    let (healthy, findings) = restored.check(&["--deep"]);
    assert!(healthy, "{findings}");
    restored.request("POST", "/api/v1/artifacts/p/new", &[], b"x").expect(201);
}

#[test]
fn a_backup_stays_what_it_is_and_overwrites_nothing() {
    let server = Server::builder().config("gc: {interval: 0s}").start();
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"first").expect(201);
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("copy");
    assert_eq!(back_up(&server, &backup).code, Some(0));
    server.request("DELETE", "/api/v1/artifacts/p/1", &[], b"").expect(204);
    assert_eq!(server.gc("0s")["bytes_freed"], 5, "collecting here takes nothing away there");
    server.request("POST", "/api/v1/artifacts/p/2", &[], b"second").expect(201);

    let again = back_up(&server, &backup);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("not empty"), "{again:?}");

    let restored = Server::builder().data(&backup).start();
    assert_eq!(restored.get("/api/v1/artifacts/p/1").expect(200).body, b"first");
    restored.get("/api/v1/artifacts/p/2").expect(404);
    restored.request("DELETE", "/api/v1/artifacts/p/1", &[], b"").expect(204);
    restored.gc("0s");
    assert_eq!(server.get("/api/v1/artifacts/p/2").expect(200).body, b"second");
    assert_eq!((server.check(&["--deep"]).0, restored.check(&["--deep"]).0), (true, true));
}
