//! Backups that are made while people push, delete and collect.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support::{Place, files, mode};

#[test]
fn a_backup_is_a_data_folder() {
    let place = Place::new();
    let server = place.serve(&[]);
    let token = std::fs::read_to_string(place.data().join("admin-token")).unwrap();
    let authorization = format!("Authorization: Bearer {}", token.trim());
    let put = |version: &str, bytes: &[u8]| {
        let path = format!("/api/v1/artifacts/mypkg/{version}");
        assert_eq!(server.request("POST", &path, &[&authorization], bytes).status, 201);
    };
    put("1.0.0", b"one");
    put("2.0.0", b"two");
    // An upload that nobody finished is not in it.
    let upload = server.request("POST", "/v2/team/app/blobs/uploads/", &[&authorization], b"");
    assert_eq!(upload.status, 202);
    for arguments in [&["backup", "linked"][..], &["backup", "copied", "--copy"]] {
        let made = place.run(arguments);
        assert_eq!(made.code, Some(0), "{made:?}");
        assert!(made.stdout.starts_with("Backed up 2 objects of 6 bytes to "), "{}", made.stdout);
    }
    put("3.0.0", b"three");
    drop(server);

    for name in ["linked", "copied"] {
        let backup = place.path(name);
        assert_eq!((mode(&backup), mode(&backup.join("admin-token"))), (0o700, 0o600));
        let stored = files(&backup);
        assert_eq!(stored.len(), 4, "metadata, token and two objects, nothing else: {stored:?}");
        let data = backup.to_str().unwrap();
        assert_eq!(place.run(&["-data-dir", data, "check", "--deep"]).code, Some(0));
        let restored = place.serve(&["-data-dir", data]);
        for (version, bytes) in [("1.0.0", Some("one")), ("2.0.0", Some("two")), ("3.0.0", None)] {
            let path = format!("/api/v1/artifacts/mypkg/{version}");
            let answer = restored.request("GET", &path, &[&authorization], b"");
            assert_eq!(answer.status, if bytes.is_some() { 200 } else { 404 }, "{name} {version}");
            assert!(bytes.is_none_or(|bytes| answer.text() == bytes));
        }
    }
    let again = place.run(&["backup", "linked"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("linked is not empty"), "{}", again.stderr);
}

/// Lets the workers end, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_is_whole_while_people_push_delete_and_collect() {
    let place = Place::with_token();
    let server = place.serve(&[]);
    let (stop, pushed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for worker in 0..2_u32 {
            let (server, stop, pushed) = (server.client(), &stop, &pushed);
            scope.spawn(move || {
                for version in 0.. {
                    let path = format!("/api/v1/artifacts/load-{worker}/{version}");
                    let body = format!("{worker}-{version}-").repeat(1000);
                    assert_eq!(server.authorized("POST", &path, body.as_bytes()).status, 201);
                    // Two of three go again, and their bytes with them.
                    if version % 3 != 0 {
                        assert_eq!(server.authorized("DELETE", &path, b"").status, 204);
                        assert_eq!(server.authorized("POST", "/api/v1/gc?grace=0s", b"").status, 200);
                    }
                    pushed.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for round in 0..5 {
            let before = pushed.load(Ordering::Relaxed);
            let name = format!("backup-{round}");
            let made = place.run(&["backup", &name]);
            assert_eq!(made.code, Some(0), "{made:?}");
            let data = place.path(&name);
            let checked = place.run(&["-data-dir", data.to_str().unwrap(), "check", "--deep"]);
            assert_eq!(checked.code, Some(0), "{checked:?}");
            // The next one meets other objects.
            while pushed.load(Ordering::Relaxed) < before + 6 {
                std::thread::yield_now();
            }
        }
    });
    drop(server);
    assert_eq!(place.run(&["check", "--deep"]).code, Some(0), "the links took nothing from the original");
}
