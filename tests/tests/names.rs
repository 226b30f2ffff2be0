//! One repository, two names: `/v2/<repository>` and `/v2/oci/<repository>`. Names are canonical before any permission,
//! scope or mount is looked at, and answers use the form that was asked for.

use registry_tests::oci::sha256;
use registry_tests::{Image, Server};
use serde_json::json;

#[track_caller]
fn token(server: &Server, scopes: &[&str]) -> String {
    let body = json!({ "name": "t", "scopes": scopes }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    made["token"].as_str().unwrap().to_owned()
}

fn image(name: &str) -> Image {
    Image::new(vec![name.as_bytes().to_vec()])
}

#[test]
fn both_names_mean_the_same_repository() {
    let server = Server::start();
    let (short, long) = (server.repository("team/app"), server.repository("oci/team/app"));
    let (one, two) = (image("one"), image("two"));
    short.push("1", &one);
    long.assert_holds("1", &one);
    long.push("2", &two);
    short.assert_holds("2", &two);
    let tags = short.server.get("/v2/oci/team/app/tags/list").expect(200).json();
    assert_eq!(tags, json!({ "name": "oci/team/app", "tags": ["1", "2"] }));
    assert_eq!(server.get("/v2/_catalog").expect(200).json(), json!({ "repositories": ["team/app"] }));

    // An upload begun under one name goes on under the other.
    let location = long.start_upload();
    assert!(location.starts_with("/v2/oci/team/app/blobs/uploads/"), "{location}");
    let answer = short.patch(&location.replace("/v2/oci/", "/v2/"), b"ab").expect(202);
    assert!(answer.header("location").unwrap().starts_with("/v2/team/app/blobs/uploads/"));
    let done = long.finish(&location, &sha256(b"abc"), b"c").expect(201);
    assert_eq!(done.header("location"), Some(format!("/v2/oci/team/app/blobs/{}", sha256(b"abc")).as_str()));
    assert_eq!(short.get_blob(&sha256(b"abc")).expect(200).body, b"abc");
    let put = long.put_manifest("3", &one).expect(201);
    assert_eq!(put.header("location"), Some(format!("/v2/oci/team/app/manifests/{}", one.digest()).as_str()));

    short.delete_manifest("1").expect(202);
    long.get_manifest("1").expect(404);
}

#[test]
fn permissions_and_scopes_hold_for_both_names() {
    let server = Server::start();
    server.repository("team/app").push("1", &image("app"));
    server.repository("oci-team/app").push("1", &image("other"));
    let targets = ["/v2/team/app/manifests/1", "/v2/oci/team/app/manifests/1"];
    for scope in ["oci:team/app:pull", "oci:team/*:pull"] {
        let token = token(&server, &[scope]);
        for target in targets {
            server.with_token(&token, "GET", target, &[], b"").expect(200);
        }
        server.with_token(&token, "GET", "/v2/oci-team/app/manifests/1", &[], b"").expect(401);
    }
    // A pattern is of canonical names: one that is none covers nothing.
    let none = token(&server, &["oci:oci/team/app:pull", "oci:oci/*:pull"]);
    for target in targets {
        server.with_token(&none, "GET", target, &[], b"").expect(401);
    }
    for scope in ["repository:team/app:pull", "repository:oci/team/app:pull"] {
        let document = server.get(&format!("/auth/token?scope={scope}")).expect(200).json();
        for target in targets {
            server.with_token(document["token"].as_str().unwrap(), "GET", target, &[], b"").expect(200);
        }
    }
    // The challenge asks in the client's words.
    let answer = server.anonymous("GET", targets[1], &[], b"").expect(401);
    assert!(answer.header("www-authenticate").unwrap().contains("scope=\"repository:oci/team/app:pull\""));
}

#[test]
fn a_mount_needs_permission_to_read_its_source_under_whatever_name() {
    let server = Server::start();
    let secret = b"a layer that only some may read".to_vec();
    let digest = server.repository("secret/app").push_blob(&secret);
    let insider = token(&server, &["oci:crew/*:pull,push", "oci:secret/app:pull"]);
    let stranger = token(&server, &["oci:team/*:pull,push", "oci:oci/secret/app:pull"]);
    for (number, source) in ["&from=secret/app", "&from=oci/secret/app", ""].into_iter().enumerate() {
        let mount = |team: &str| format!("/v2/{team}/app-{number}/blobs/uploads/?mount={digest}{source}");
        let head =
            |team: &str| server.request("HEAD", &format!("/v2/{team}/app-{number}/blobs/{digest}"), &[], b"").status;
        // Never 403: an ordinary upload starts, and nothing is told.
        let refused = server.with_token(&stranger, "POST", &mount("team"), &[], b"").expect(202);
        assert!(refused.header("location").unwrap().contains("/blobs/uploads/"), "{source}");
        assert_eq!(head("team"), 404, "{source}");

        let mounted = server.with_token(&insider, "POST", &mount("crew"), &[], b"").expect(201);
        assert_eq!(mounted.header("docker-content-digest"), Some(digest.as_str()), "{source}");
        assert_eq!(head("crew"), 200, "{source}");
    }
    let blob = server.get(&format!("/v2/crew/app-0/blobs/{digest}")).expect(200);
    assert_eq!(blob.body, secret);
    for source in ["nowhere/app", "Not%20A%20Name", "crew/app-9"] {
        let target = format!("/v2/crew/x/blobs/uploads/?mount={digest}&from={source}");
        server.with_token(&insider, "POST", &target, &[], b"").expect(202);
    }
    // A registry token says nothing of a source that it was not asked for: the challenge names both, and the client
    // comes again with a token that was; then it is 201 or 202.
    let exchange = |holder: &str, scopes: &str| {
        let document = server.with_token(holder, "GET", &format!("/auth/token?{scopes}"), &[], b"").expect(200).json();
        document["token"].as_str().unwrap().to_owned()
    };
    let target = "scope=repository:crew/y:pull,push";
    let both = format!("{target}&scope=repository:oci/secret/app:pull");
    let mount = format!("/v2/crew/y/blobs/uploads/?mount={digest}&from=oci/secret/app");
    let answer = server.with_token(&exchange(&insider, target), "POST", &mount, &[], b"").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"repository:crew/y:pull,push repository:oci/secret/app:pull\""), "{challenge}");
    let reader = token(&server, &["oci:crew/*:pull,push"]);
    server.with_token(&exchange(&reader, &both), "POST", &mount, &[], b"").expect(202);
    server.with_token(&exchange(&insider, &both), "POST", &mount, &[], b"").expect(201);
}

#[test]
fn registries_do_not_shadow_each_other() {
    let server = Server::builder().config("registries: {hub: {format: oci}}").start();
    let (own, other) = (server.repository("hub/team/app"), server.repository("team/app"));
    own.push("1", &image("hub's"));
    other.push("1", &image("ours"));
    own.assert_holds("1", &image("hub's"));
    other.assert_holds("1", &image("ours"));
    let team = token(&server, &["oci:team/*:pull"]);
    server.with_token(&team, "GET", "/v2/team/app/manifests/1", &[], b"").expect(200);
    server.with_token(&team, "GET", "/v2/hub/team/app/manifests/1", &[], b"").expect(401);
    let hub = token(&server, &["hub:team/*:pull"]);
    server.with_token(&hub, "GET", "/v2/hub/team/app/manifests/1", &[], b"").expect(200);
    server.with_token(&hub, "GET", "/v2/team/app/manifests/1", &[], b"").expect(401);
    // A digest of one is not readable in the other.
    let digest = sha256(b"hub's");
    own.get_blob(&digest).expect(200);
    other.get_blob(&digest).expect(404);
    // `hub` alone would be a repository of the default registry that the registry shadows.
    let single = server.request("POST", "/v2/hub/blobs/uploads/", &[], b"").expect(409);
    assert_eq!(single.oci_code(), "NAME_INVALID");
    server.request("POST", "/v2/oci/hub/app/blobs/uploads/", &[], b"").expect(409);
}

#[test]
fn a_first_segment_in_use_cannot_become_a_registry() {
    let server = Server::start();
    server.repository("hub/app").push("1", &image("app"));
    let config = server.config_file();
    let data = server.data().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(&config).unwrap() + "\nregistries: {hub: {format: oci}}\n";
    std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    let mut command = registry_tests::process::server_command(folder.path());
    let ended = registry_tests::Process::run(command.arg("-data-dir").arg(&data));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("hub") && ended.stderr.contains("in use"), "{}", ended.stderr);
    server.repository("hub/app").assert_holds("1", &image("app"));
}
