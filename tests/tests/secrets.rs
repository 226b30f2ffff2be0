//! Secrets: how the first one is made, where none may be found, and that any process checks what another issued.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use registry_tests::process::server_command;
use registry_tests::server::{ADMIN, request, server_binary};
use registry_tests::{Process, Server, eventually};
use rustix::process::Signal;
use serde_json::json;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_start_makes_one_token_and_shows_it_once() {
    let folder = tempfile::tempdir().unwrap();
    // Whatever the user's mask lets others do.
    let mut careless = std::process::Command::new("sh");
    careless.args(["-c", "umask 0; exec \"$0\" -port 0"]).arg(server_binary()).current_dir(folder.path());
    let mut first = Process::start(&mut careless);
    let address = first.address();
    let file = folder.path().join("data/admin-token");
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!((mode(&file), mode(&folder.path().join("data"))), (0o600, 0o700));
    assert!(token.len() >= 64, "it cannot be guessed");
    let shown = first.stdout();
    assert_eq!(shown.matches(&token).count(), 1, "{shown}");
    for line in [
        format!("docker login {address} -u admin --password-stdin < "),
        format!("http://{address}/api/v1/packages"),
        format!("registry-cli login --server http://{address} --token-stdin < "),
    ] {
        assert!(shown.contains(&line), "{line}\n{shown}");
    }
    let get = |address, token: &str| request(address, Some(token), "GET", "/api/v1/tokens", &[], b"").unwrap().status;
    assert_eq!(get(address, &token), 200);
    assert_eq!(get(address, "wrong"), 401);
    first.signal(Signal::TERM);
    let first = first.wait();
    assert_eq!(first.code, Some(0));
    assert!(!first.stderr.contains(&token), "the log does not show it");

    let mut second = Process::start(server_command(folder.path()).args(["-port", "0"]));
    let address = second.address();
    assert_eq!(get(address, &token), 200, "it is kept");
    second.signal(Signal::TERM);
    let second = second.wait();
    assert!(!second.stdout.contains(&token) && !second.stderr.contains(&token), "it was shown already");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
}

#[test]
fn processes_that_start_at_once_agree_on_one_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers: Vec<Process> =
        (0..3).map(|_| Process::start(server_command(folder.path()).args(["-port", "0"]))).collect();
    let addresses: Vec<_> = servers.iter_mut().map(Process::address).collect();
    let token = std::fs::read_to_string(folder.path().join("data/admin-token")).unwrap().trim().to_owned();
    let shown: Vec<String> = servers.iter().map(Process::stdout).collect();
    assert_eq!(shown.iter().filter(|text| text.contains(&token)).count(), 1, "{shown:?}");
    assert_eq!(shown.iter().filter(|text| text.contains("fdy_")).count(), 1, "{shown:?}");
    for address in addresses {
        let answer = request(address, Some(&token), "GET", "/api/v1/tokens", &[], b"").unwrap().expect(200);
        assert_eq!(answer.json()["tokens"].as_array().unwrap().len(), 1, "the others' are gone again");
    }
}

#[test]
fn whoever_comes_too_late_with_a_token_takes_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // Nothing to read, and in the way of what is written: as if another process had made the file in between.
    std::os::unix::fs::symlink("nowhere", data.join("admin-token")).unwrap();
    let mut late = Process::start(server_command(folder.path()).args(["-port", "0"]));
    late.address();
    late.signal(Signal::TERM);
    let late = late.wait();
    assert!(!late.stdout.contains("fdy_") && !late.stderr.contains("fdy_"), "{late:?}");

    let mut command = server_command(folder.path());
    let mut server = Process::start(command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN));
    let answer = request(server.address(), Some(ADMIN), "GET", "/api/v1/tokens", &[], b"").unwrap().expect(200);
    assert_eq!(answer.json(), json!({ "tokens": [] }));
}

#[test]
fn configured_tokens_make_no_other() {
    let server = Server::start();
    assert!(!server.data().join("admin-token").exists());
    assert_eq!(server.get("/api/v1/tokens").expect(200).json(), json!({ "tokens": [] }));
}

/// The bytes of every file below `folder`.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn no_secret_is_written_down() {
    let server = Server::builder().environment("LOG_LEVEL", "trace").start();
    let body = json!({ "name": "ci", "scopes": ["*:*:pull,push,delete"] }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let token = made["token"].as_str().unwrap().to_owned();
    let registry = server.with_token(&token, "GET", "/auth/token?scope=repository:app:pull,push", &[], b"");
    let registry = registry.expect(200).json()["token"].as_str().unwrap().to_owned();
    let wrong = "a-secret-that-is-mistyped".to_owned();

    let basic = |password: &str| STANDARD.encode(format!("user:{password}"));
    let form = |password: &str| format!("grant_type=password&username=u&password={password}&scope=repository:app:pull");
    let mut secrets = BTreeSet::new();
    for secret in [ADMIN, &token, &registry, &wrong] {
        secrets.extend([secret.to_owned(), basic(secret)]);
        let headers = [format!("Authorization: Basic {}", basic(secret))];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        for target in ["/v2/", "/v2/app/manifests/1", "/api/v1/packages", "/auth/token", "/nowhere"] {
            server.with_token(secret, "GET", target, &[], b"");
            server.anonymous("GET", target, &headers, b"");
            // Where it does not belong, and yet people put it.
            server.anonymous("GET", &format!("{target}?token={secret}&password={secret}"), &[], b"");
        }
        let form_type = ["Content-Type: application/x-www-form-urlencoded"];
        server.anonymous("POST", "/auth/token", &form_type, form(secret).as_bytes());
        server.with_token(secret, "POST", "/v2/app/blobs/uploads/", &[], b"");
        server.with_token(secret, "POST", &format!("/api/v1/artifacts/p/{}", secrets.len()), &[], b"x");
        let malformed = format!("Authorization: {secret}");
        server.anonymous("GET", "/v2/", &[&malformed], b"");
    }
    server.request("DELETE", &format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()), &[], b"").expect(204);
    // The last of the requests is in the log: then so are all before it.
    server.anonymous("GET", "/healthz", &["X-Request-Id: the-last-one"], b"").expect(200);
    let log = eventually("the log is written", || {
        let log = server.log();
        log.iter().any(|line| line.contains("the-last-one")).then_some(log)
    });
    // Half of a secret is bad enough: its middle is what a log that shortens it would show.
    let telling = |secret: &str| secret[secret.len() / 4..secret.len() * 3 / 4].to_owned();
    for secret in &secrets {
        for line in &log {
            assert!(!line.contains(&telling(secret)), "{secret} is in the log: {line}");
        }
        for (path, bytes) in files(server.data()) {
            let telling = telling(secret);
            let found = bytes.windows(telling.len()).any(|window| window == telling.as_bytes());
            assert!(!found, "{secret} is in {}", path.display());
        }
    }
    assert!(log.len() > 50, "there was a log to search: {} lines", log.len());
    assert!(files(server.data()).iter().any(|(_, bytes)| bytes.windows(2).any(|window| window == b"ci")));
}

#[test]
fn any_process_checks_what_another_issued() {
    let one = Server::start();
    let two = Server::builder().data(one.data()).start();
    one.repository("app").push("1", &registry_tests::Image::new(vec![b"layer".to_vec()]));

    // Registry tokens in both directions.
    for (issuer, checker) in [(&one, &two), (&two, &one)] {
        let document = issuer.get("/auth/token?scope=repository:app:pull").expect(200).json();
        let token = document["token"].as_str().unwrap();
        checker.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").expect(200);
        checker.with_token(token, "POST", "/v2/app/blobs/uploads/", &[], b"").expect(401);
    }
    // Access tokens too, and their revocation within seconds.
    let body = json!({ "name": "t", "scopes": ["oci:app:pull"] }).to_string();
    let made = one.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let token = made["token"].as_str().unwrap();
    two.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").expect(200);
    one.request("DELETE", &format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()), &[], b"").expect(204);
    one.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").expect(401);
    eventually("the other process forgets the token", || {
        let status = two.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").status;
        (status == 401).then_some(())
    });
    // And a restart of both: the key is where the data are.
    let document = two.get("/auth/token?scope=repository:app:pull").expect(200).json();
    drop(two);
    let one = one.restart();
    one.with_token(document["token"].as_str().unwrap(), "GET", "/v2/app/manifests/1", &[], b"").expect(200);
}
