//! Commands that look after the data, beside a running server and without one.

use registry_core::ports::metadata::JobStore as _;
use registry_server::compose::{METADATA_FILE, open_metadata};
use std::path::PathBuf;

use crate::support::{Place, Server, files};

/// A server with one artifact.
fn with_artifact(place: &Place) -> Server {
    let server = place.serve(&[]);
    assert_eq!(server.authorized("POST", "/api/v1/artifacts/mypkg/1.0.0", b"some bytes").status, 201);
    server
}

fn object(place: &Place) -> PathBuf {
    let blobs = place.data().join("blobs");
    let objects: Vec<_> = files(&blobs).into_iter().filter(|file| !file.ends_with(".deletions.lock")).collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
    blobs.join(&objects[0])
}

fn overwrite(path: &PathBuf, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn no_command_makes_a_registry_where_there_is_none() {
    let place = Place::with_token();
    for arguments in [&["check"][..], &["gc"], &["backup", "copy"]] {
        let ended = place.run(arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}");
        assert!(ended.stderr.contains("there is no registry in ./data (key storage.dataDir)"), "{}", ended.stderr);
        assert!(!place.data().exists() && !place.path("copy").exists());
    }
}

#[test]
fn check_finds_nothing_where_nothing_is_wrong() {
    let place = Place::with_token();
    let server = with_artifact(&place);
    let summary = "{\"summary\":{\"bytes\":10,\"findings\":0,\"objects\":1,\"repaired\":0}}\n";
    for arguments in [&["check", "--json"][..], &["check", "--json", "--deep"], &["check", "--json", "--repair"]] {
        let ended = place.run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), summary), "{ended:?}");
    }
    drop(server);
    let text = place.run(&["check"]);
    assert_eq!(text.stdout, "Checked 1 objects of 10 bytes: 0 findings, 0 repaired.\n");
}

#[test]
fn check_reports_damage_by_its_exit_code_and_a_finding_a_line() {
    let place = Place::with_token();
    drop(with_artifact(&place));
    overwrite(&object(&place), b"same bytes");
    assert_eq!(place.run(&["check"]).code, Some(0), "only a deep check reads the bytes");
    let deep = place.run(&["check", "--deep", "--json"]);
    assert_eq!(deep.code, Some(3));
    let finding: serde_json::Value = serde_json::from_str(deep.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(finding["finding"], "wrong_content");
    overwrite(&object(&place), b"short");
    let size = place.run(&["check"]);
    assert_eq!(size.code, Some(3));
    assert!(
        size.stdout.starts_with("wrong size: sha256:") && size.stdout.contains("has 5 bytes at"),
        "{}",
        size.stdout
    );
    std::fs::remove_file(object(&place)).unwrap();
    let missing = place.run(&["check"]);
    assert_eq!(missing.code, Some(3));
    assert!(missing.stdout.starts_with("missing: sha256:"), "{}", missing.stdout);
}

#[test]
fn a_check_that_goes_on_says_so_and_counts_what_was_found_before() {
    let place = Place::with_token();
    drop(with_artifact(&place));
    let interrupted = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let metadata = open_metadata(&place.data().join(METADATA_FILE)).await.unwrap();
            // A check that was killed after its first finding.
            let cursor = "2 false false 1735689600000000 7 70 1 0 ledger 00/x";
            metadata.set_job_cursor("check", Some(cursor)).await.unwrap();
            metadata.close().await;
        });
    };
    interrupted();
    let ended = place.run(&["check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.stdout, "Checked 8 objects of 80 bytes: 1 findings, 0 repaired.\n");
    let said = "going on after 00/x with the check that was begun at 2025-01-01T00:00:00Z: 7 objects, 1 findings and 0";
    assert!(ended.stderr.contains(said), "{ended:?}");
    interrupted();
    let ended = place.run(&["check", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let resumed = serde_json::json!({
        "after": "00/x", "begun_at": "2025-01-01T00:00:00Z", "objects": 7, "findings": 1, "repaired": 0,
    });
    assert_eq!((ended.code, &summary["summary"]["resumed"]), (Some(3), &resumed));
    interrupted();
    let other = place.run(&["check", "--deep"]);
    assert_eq!((other.code, other.stderr.as_str()), (Some(0), ""), "{other:?}");
    assert_eq!(other.stdout, "Checked 1 objects of 10 bytes: 0 findings, 0 repaired.\n");
}

#[test]
fn check_repairs_what_can_be_repaired() {
    let place = Place::with_token();
    drop(with_artifact(&place));
    let hex = "c".repeat(64);
    let orphan = place.data().join("blobs/cc").join(&hex);
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"nobody's").unwrap();
    let found = place.run(&["check"]);
    assert_eq!(found.code, Some(3));
    assert!(found.stdout.contains(&format!("orphaned: nothing knows the 8 bytes at cc/{hex}")), "{}", found.stdout);
    let repaired = place.run(&["check", "--repair"]);
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(repaired.stdout.ends_with("1 findings, 1 repaired.\n") && !orphan.exists(), "{}", repaired.stdout);
    assert_eq!(place.run(&["check"]).code, Some(0));
}

#[test]
fn gc_deletes_what_nothing_refers_to() {
    let place = Place::with_token();
    let server = with_artifact(&place);
    assert_eq!(server.authorized("DELETE", "/api/v1/artifacts/mypkg/1.0.0", b"").status, 204);
    let dry = place.run(&["gc", "--dry-run"]);
    assert_eq!(dry.stdout, "A collection now would delete 1 blobs and free 10 bytes.\n");
    assert!(object(&place).exists());
    let done = place.run(&["gc", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&report["blobs_deleted"], &report["bytes_freed"]), (&1.into(), &10.into()), "{report}");
    assert_eq!(place.run(&["gc"]).stdout, "Deleted 0 blobs, freed 0 bytes, and ended 0 uploads.\n");
    assert_eq!(place.run(&["check"]).stdout, "Checked 0 objects of 0 bytes: 0 findings, 0 repaired.\n");
}

#[test]
fn healthcheck_asks_the_server_of_the_configuration() {
    let place = Place::with_token();
    let server = place.serve(&["-host", "0.0.0.0"]);
    let port = server.address.port().to_string();
    let well = place.run(&["-host", "0.0.0.0", "-port", &port, "healthcheck"]);
    assert_eq!(well.code, Some(0), "{well:?}");
    drop(server);
    let gone = place.run(&["-port", &port, "healthcheck", "--timeout", "2s"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains(&format!("127.0.0.1:{port}: Connection refused")), "{}", gone.stderr);

    // Somebody else on that port, who answers something else, or nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let silent = place.run(&["-port", &port, "healthcheck", "--timeout", "50ms"]);
    assert_eq!(silent.code, Some(1));
    assert!(silent.stderr.contains("no answer within 50ms"), "{}", silent.stderr);
    let answering = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        }
    });
    let unwell = place.run(&["-port", &port, "healthcheck"]);
    assert_eq!(unwell.code, Some(1));
    assert!(unwell.stderr.contains("503") || unwell.stderr.contains("reset"), "{}", unwell.stderr);
    answering.join().unwrap();
}
