//! An empty folder becomes a registry.

use crate::support::{Place, files, mode};

#[test]
fn the_first_start_makes_a_token_shows_it_once_and_keeps_only_its_hash() {
    let place = Place::new();
    let server = place.serve(&[]);
    let address = server.address;
    let file = place.data().join("admin-token");
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!((mode(&place.data()), mode(&file)), (0o700, 0o600));
    let answer = server.request("GET", "/api/v1/packages", &[&format!("Authorization: Bearer {token}")], b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(server.request("GET", "/api/v1/packages", &[], b"").status, 401, "strangers may nothing");
    let (code, stdout, log) = server.stop();
    assert_eq!(code, Some(0));
    assert_eq!(stdout.matches(&token).count(), 1, "{stdout}");
    let path = file.canonicalize().unwrap();
    for line in [
        format!("    docker login {address} -u admin --password-stdin < {}", path.display()),
        format!("    curl -H \"Authorization: Bearer $(cat {})\" http://{address}/api/v1/packages", path.display()),
        format!("    registry-cli login --server http://{address} --token-stdin < {}", path.display()),
    ] {
        assert!(stdout.lines().any(|own| own == line), "{line}\n{stdout}");
    }
    assert!(!log.iter().any(|line| line.to_string().contains(&token)), "the log has no token");
    for stored in files(&place.data()).iter().filter(|stored| !stored.ends_with("admin-token")) {
        let bytes = std::fs::read(place.data().join(stored)).unwrap();
        let secret = token.rsplit('_').next().unwrap().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", stored.display());
    }

    let again = place.serve(&[]);
    let answer = again.request("GET", "/api/v1/packages", &[&format!("Authorization: Bearer {token}")], b"");
    assert_eq!(answer.status, 200, "it still opens the server");
    let (_, stdout, _) = again.stop();
    assert_eq!(stdout, "", "it is shown once");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
}

#[test]
fn a_token_file_that_opens_nothing_is_reported() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    std::fs::write(place.data().join("admin-token"), "fdy_of_another_registry\n").unwrap();
    let mut server = place.serve(&[]);
    server.signal(rustix::process::Signal::TERM);
    server.wait_for("stopped");
    let (_, stdout, log) = server.end();
    assert_eq!(stdout, "");
    assert!(log.iter().any(|line| line["message"].as_str().unwrap().contains("opens nothing any more")), "{log:?}");
}

#[test]
fn the_metadata_is_for_this_user_alone_in_any_folder() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let server = place.serve(&[]);
    assert_eq!(mode(&place.data().join("metadata.sqlite")), 0o600);
    drop(server);
}

#[test]
fn the_registries_of_the_start_and_of_the_configuration_are_there() {
    let place = Place::with_token().variable("FOUNDRY_REGISTRIES__MIRROR__FORMAT", "oci");
    let server = place.serve(&[]);
    for (path, status) in [
        ("/v2/team/app/blobs/uploads/", 202),
        ("/v2/mirror/app/blobs/uploads/", 202),
        ("/api/v1/artifacts/mypkg/1.0.0", 201),
    ] {
        let answer = server.authorized("POST", path, b"");
        assert_eq!(answer.status, status, "{path}: {} {}", answer.head, answer.text());
    }
    drop(server);
    let other = Place::with_token();
    std::fs::rename(place.data(), other.data()).unwrap();
    let refused = other.variable("FOUNDRY_REGISTRIES__MIRROR__FORMAT", "generic").run(&["-port", "0"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("the registry mirror exists with another format"), "{}", refused.stderr);
}
