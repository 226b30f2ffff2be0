//! Mounts of blobs from other repositories.

use registry_tests::oci::{Repository, sha256};
use registry_tests::{Answer, Random, Server, ServerBuilder, clients};

use crate::{ALGORITHMS, absent};

fn mount(repository: &Repository<'_>, digest: &str, from: Option<&str>) -> Answer {
    repository.server.request("POST", &mount_path(repository, digest, from), &[], b"")
}

fn mount_path(repository: &Repository<'_>, digest: &str, from: Option<&str>) -> String {
    let from = from.map(|from| format!("&from={from}")).unwrap_or_default();
    format!("{}?mount={digest}{from}", repository.path("blobs/uploads/"))
}

/// Asserts that an ordinary session was started, and that it works.
#[track_caller]
fn assert_session(repository: &Repository<'_>, answer: Answer) {
    let answer = answer.expect(202);
    let session = answer.header("location").expect("a session has a location");
    let content = Random::new(9).bytes(100);
    repository.finish(session, &sha256(&content), &content).expect(201);
}

#[test]
fn a_blob_is_mounted_from_where_it_is() {
    let server = Server::start();
    let content = Random::new(1).bytes(10_000);
    for (algorithm, compute) in ALGORITHMS {
        let digest = compute(&content);
        let source = server.repository("team/source");
        source.finish(&source.start_upload(), &digest, &content).expect(201);
        for (name, from) in [("team/named", Some("team/source")), ("unnamed", None)] {
            let target = server.repository(name);
            target.head_blob(&digest).expect(404);
            let mounted = mount(&target, &digest, from).expect(201);
            assert_eq!(mounted.header("location"), Some(target.path(&format!("blobs/{digest}")).as_str()));
            assert_eq!(mounted.header("docker-content-digest"), Some(digest.as_str()), "{algorithm}");
            assert!(target.get_blob(&digest).expect(200).body == content);
            // Once more changes nothing.
            mount(&target, &digest, from).expect(201);
        }
    }
}

#[test]
fn a_mounted_blob_outlives_its_source() {
    let server = Server::start();
    let (source, target) = (server.repository("source"), server.repository("target"));
    let image = registry_tests::Image::new(vec![Random::new(2).bytes(10_000)]);
    source.push("1", &image);
    for blob in &image.blobs {
        mount(&target, &sha256(blob), Some("source")).expect(201);
    }
    target.put_manifest("1", &image).expect(201);
    source.delete_manifest(&image.digest()).expect(202);
    server.gc("0s");
    source.get_blob(&sha256(&image.blobs[0])).expect(404);
    target.assert_holds("1", &image);
}

#[test]
fn what_cannot_be_mounted_is_uploaded() {
    let server = Server::start();
    let target = server.repository("target");
    let digest = server.repository("source").push_blob(b"content");
    for (digest, from) in [
        (absent(), Some("source")),
        (absent(), None),
        (digest.clone(), Some("nowhere")),
        (digest.clone(), Some("target")),
        (digest.clone(), Some("..%2fsource")),
        (digest.clone(), Some("NOT/A/NAME")),
    ] {
        assert_session(&target, mount(&target, &digest, from));
        target.head_blob(&digest).expect(404);
    }
    assert_eq!(mount(&target, "sha256:bad", Some("source")).expect(400).oci_code(), "DIGEST_INVALID");
}

#[test]
fn what_may_not_be_read_is_not_mounted() {
    let server = Server::start();
    let secret = server.repository("secret/app").push_blob(b"secret");
    let open = server.repository("open/app").push_blob(b"open");
    let token = clients::token(&server, "team", &["oci:team/*:pull,push", "oci:open/*:pull"]);
    let target = server.repository("team/app");
    let ask = |digest: &str, from: Option<&str>| {
        server.with_token(&token, "POST", &mount_path(&target, digest, from), &[], b"")
    };
    ask(&open, Some("open/app")).expect(201);
    // 202 whether it is there or not: the answer tells nothing.
    for (digest, from) in [
        (&secret, Some("secret/app")),
        (&absent(), Some("secret/app")),
        (&secret, Some("secret/nowhere")),
        (&secret, None),
        (&absent(), None),
    ] {
        assert_session(&target, ask(digest, from));
        target.head_blob(digest).expect(404);
    }
    // To push where one may not is another matter.
    let elsewhere = mount_path(&server.repository("elsewhere"), &open, Some("open/app"));
    assert_eq!(server.with_token(&token, "POST", &elsewhere, &[], b"").expect(401).oci_code(), "UNAUTHORIZED");
}

#[test]
fn a_stranger_mounts_what_strangers_may_read() {
    let config = "registries:\n  closed:\n    format: oci\n    anonymous: none";
    let server = ServerBuilder::new().anonymous("push").config(config).start();
    let secret = server.repository("closed/app").push_blob(b"secret");
    let open = server.repository("app").push_blob(b"open");
    let target = server.repository("target");
    let ask = |digest: &str, from: Option<&str>| server.anonymous("POST", &mount_path(&target, digest, from), &[], b"");
    ask(&open, Some("app")).expect(201);
    ask(&open, None).expect(201);
    assert_session(&target, ask(&secret, Some("closed/app")));
    assert_session(&target, ask(&secret, None));
    target.head_blob(&secret).expect(404);
}

/// The token that `/auth/token` gives for these scopes.
fn registry_token(server: &Server, token: &str, scopes: &[&str]) -> String {
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
    let target = format!("/auth/token?service={}&{}", server.host(), scopes.join("&"));
    let given = server.with_token(token, "GET", &target, &[], b"").expect(200).json();
    given["token"].as_str().expect("a token is given").to_owned()
}

#[test]
fn a_registry_token_that_was_not_asked_for_the_source_is_sent_for_more() {
    let server = Server::start();
    let digest = server.repository("source").push_blob(b"content");
    let holder = clients::token(&server, "holder", &["oci:*:pull,push"]);
    let target = server.repository("target");
    let own = "repository:target:pull,push";
    let ask = |token: &str, from: Option<&str>| {
        server.with_token(token, "POST", &mount_path(&target, &digest, from), &[], b"")
    };
    let (from, more) = (Some("source"), "repository:source:pull");
    let refused = ask(&registry_token(&server, &holder, &[own]), from).expect(401);
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains(&format!("scope=\"{own} {more}\"")), "{challenge}");
    for from in [from, None] {
        ask(&registry_token(&server, &holder, &[own, more]), from).expect(201);
        server.request("DELETE", &target.path(&format!("blobs/{digest}")), &[], b"").expect(202);
    }
    // One who may not read the source asks, is given nothing for it, and uploads.
    let pusher = clients::token(&server, "pusher", &["oci:target:pull,push"]);
    assert_session(&target, ask(&registry_token(&server, &pusher, &[own, more]), from));
    target.head_blob(&digest).expect(404);
    // A list of names is no permission to read what they name.
    let lister = registry_token(&server, &holder, &[own, "registry:catalog:*"]);
    assert_session(&target, ask(&lister, None));
    target.head_blob(&digest).expect(404);
}
