//! Who may do what: access tokens, the token server, challenges, strangers, throttling.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use registry_tests::server::ADMIN;
use registry_tests::wait::pause;
use registry_tests::{Answer, Connection, Image, Server, ServerBuilder, eventually};
use serde_json::{Value, json};

/// A server on which any number of attempts may fail.
fn patient() -> ServerBuilder {
    Server::builder().environment("FOUNDRY_AUTH__FAILED_ATTEMPTS_PER_MINUTE", "100000")
}

/// An access token with these scopes.
#[track_caller]
fn token(server: &Server, scopes: &[&str]) -> String {
    let body = json!({ "name": "t", "scopes": scopes }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    made["token"].as_str().unwrap().to_owned()
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A token of `/auth/token` for `scopes`, got with an access token.
#[track_caller]
fn registry_token(server: &Server, access_token: &str, scopes: &[&str]) -> String {
    let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
    let target = format!("/auth/token?service=x&{}", query.join("&"));
    let answer = server.anonymous("GET", &target, &[&basic("any", access_token)], b"").expect(200);
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// The parameters of a Bearer challenge.
#[track_caller]
fn challenge(answer: &Answer) -> std::collections::BTreeMap<String, String> {
    let text = answer.header("www-authenticate").expect("a 401 has a challenge");
    let parameters = text.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{text}"));
    let mut rest = parameters;
    let mut found = std::collections::BTreeMap::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"').expect("a value is quoted");
        found.insert(name.trim_start_matches(',').to_owned(), value.to_owned());
        rest = after;
    }
    assert!(rest.is_empty(), "{text}");
    found
}

/// The claims of a registry token.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JSON Web Token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn image(name: &str) -> Image {
    Image::new(vec![name.as_bytes().to_vec()])
}

#[test]
fn the_base_always_challenges_strangers() {
    for level in ["none", "pull", "push", "admin"] {
        let server = Server::builder().anonymous(level).start();
        for path in ["/v2/", "/v2"] {
            let answer = server.anonymous("GET", path, &[], b"").expect(401);
            assert_eq!(answer.oci_code(), "UNAUTHORIZED");
            assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
            let challenge = challenge(&answer);
            // The host is the one that the client used.
            assert_eq!(challenge["realm"], "http://localhost/auth/token", "{level}");
            assert_eq!(challenge["service"], "localhost");
            assert!(!challenge.contains_key("scope"));
        }
        server.get("/v2/").expect(200);
        server.anonymous("GET", "/v2/", &[&basic("whoever", ADMIN)], b"").expect(200);
        if level != "none" {
            // What a stranger gets from the token server opens it: docker asks so.
            let token = server.anonymous("GET", "/auth/token?service=x", &[], b"").expect(200).json();
            server.with_token(token["token"].as_str().unwrap(), "GET", "/v2/", &[], b"").expect(200);
        } else {
            server.anonymous("GET", "/auth/token?service=x", &[], b"").expect(401);
        }
    }
}

#[test]
fn strangers_may_do_what_the_level_says() {
    for (level, pull, push, all) in [
        ("none", false, false, false),
        ("pull", true, false, false),
        ("push", true, true, false),
        ("admin", true, true, true),
    ] {
        let server = Server::builder().anonymous(level).start();
        let app = image(level);
        server.repository("app").push("1", &app);
        server.request("POST", "/api/v1/artifacts/p/1", &[], b"x").expect(201);
        let blob = format!("/v2/app/blobs/{}", registry_tests::oci::sha256(&app.blobs[0]));
        for (permitted, method, target, status) in [
            (pull, "GET", "/v2/app/manifests/1", 200),
            (pull, "HEAD", blob.as_str(), 200),
            (pull, "GET", "/v2/app/tags/list", 200),
            (pull, "GET", "/v2/_catalog", 200),
            (pull, "GET", "/v2/tags/list", 200),
            (pull, "GET", "/api/v1/artifacts/p/1", 200),
            (pull, "GET", "/api/v1/packages", 200),
            (pull, "GET", "/api/v1/packages/p", 200),
            (push, "POST", "/v2/app/blobs/uploads/", 202),
            (push, "POST", "/api/v1/artifacts/p/2", 201),
            (all, "POST", "/api/v1/gc?dry_run=true", 200),
            (all, "GET", "/api/v1/tokens", 200),
            (all, "DELETE", "/api/v1/artifacts/p/1", 204),
            (all, "DELETE", "/v2/app/manifests/1", 202),
        ] {
            let answer = server.anonymous(method, target, &[], b"");
            let expected = if permitted { status } else { 401 };
            assert_eq!(answer.status, expected, "{level}: {method} {target}: {}", answer.text());
            if !permitted {
                assert!(answer.header("www-authenticate").is_some_and(|text| text.starts_with("Bearer")));
            }
        }
    }
}

#[test]
fn a_registry_may_have_its_own_level() {
    let registries = "registries: {oci: {anonymous: pull}, hub: {format: oci, anonymous: push}}";
    let server = Server::builder().config(registries).start();
    for name in ["app", "hub/app"] {
        server.repository(name).push("1", &image(name));
        server.anonymous("GET", &format!("/v2/{name}/manifests/1"), &[], b"").expect(200);
    }
    server.anonymous("POST", "/v2/app/blobs/uploads/", &[], b"").expect(401);
    server.anonymous("POST", "/v2/hub/app/blobs/uploads/", &[], b"").expect(202);
    server.anonymous("DELETE", "/v2/hub/app/manifests/1", &[], b"").expect(401);
    server.anonymous("GET", "/api/v1/artifacts/p/1", &[], b"").expect(401);
    drop(server);

    let server = Server::builder().anonymous("pull").config("registries: {generic: {anonymous: none}}").start();
    server.repository("app").push("1", &image("app"));
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"x").expect(201);
    server.anonymous("GET", "/v2/app/manifests/1", &[], b"").expect(200);
    server.anonymous("GET", "/api/v1/artifacts/p/1", &[], b"").expect(401);
    let visible = server.anonymous("GET", "/api/v1/packages", &[], b"");
    assert!(visible.status == 401 || visible.json()["packages"] == json!([]), "{}", visible.text());
}

#[test]
fn bad_credentials_never_make_a_stranger() {
    let server = patient().anonymous("admin").start();
    server.repository("app").push("1", &image("app"));
    let expired = {
        let body = json!({ "name": "t", "scopes": ["*:*:admin"], "expires_in_seconds": 0 }).to_string();
        let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
        made["token"].as_str().unwrap().to_owned()
    };
    let registry = registry_token(&server, ADMIN, &["repository:app:pull"]);
    let parts: Vec<&str> = registry.split('.').collect();
    let mut forged = claims(&registry);
    forged["scopes"] = json!(["*:*:admin"]);
    let forged = URL_SAFE_NO_PAD.encode(forged.to_string());
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let made_up = format!("fdy_{}_{}", "0".repeat(16), "0".repeat(64));
    let bearer = |token: &str| vec![format!("Authorization: Bearer {token}")];
    let cases = [
        bearer("wrong"),
        bearer(&made_up),
        bearer(&expired),
        bearer(&format!("{ADMIN}x")),
        bearer(&ADMIN[1..]),
        bearer(&format!("{}.{forged}.{}", parts[0], parts[2])),
        bearer(&format!("{unsigned}.{forged}.")),
        bearer(&format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43))),
        bearer("eyJ.e30.AAAA"),
        vec![basic("any", "wrong")],
        vec![basic(ADMIN, "wrong")],
        vec![basic("any", &expired)],
        vec!["Authorization: Basic !!!".to_owned()],
        vec![format!("Authorization: Basic {}", STANDARD.encode("no colon"))],
        vec![basic("any", "")],
        vec!["Authorization: Bearer".to_owned()],
        vec!["Authorization:".to_owned()],
        vec!["Authorization: Digest username=\"any\"".to_owned()],
        vec![format!("Authorization: {ADMIN}")],
        // Which of two is meant is anybody's guess.
        vec![format!("Authorization: Bearer {ADMIN}"), "Authorization: Bearer wrong".to_owned()],
    ];
    for headers in &cases {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        for (method, target) in [
            ("GET", "/v2/"),
            ("GET", "/v2/app/manifests/1"),
            ("HEAD", "/v2/app/manifests/1"),
            ("GET", "/v2/_catalog"),
            ("POST", "/v2/app/blobs/uploads/"),
            ("GET", "/api/v1/packages"),
            ("POST", "/api/v1/artifacts/p/1"),
            ("GET", "/auth/token?service=x&scope=repository:app:pull"),
        ] {
            let answer = server.anonymous(method, target, &lines, b"");
            assert_eq!(answer.status, 401, "{headers:?} {method} {target}: {}", answer.text());
            assert!(answer.header("www-authenticate").is_some(), "{headers:?} {method} {target}");
        }
    }
    server.get("/api/v1/packages/p").expect(404);
    server.anonymous("GET", "/v2/app/manifests/1", &[], b"").expect(200);
}

#[test]
fn the_token_server_grants_what_is_asked_for_and_permitted() {
    let server = Server::start();
    for name in ["team/app", "team/base", "other"] {
        server.repository(name).push("1", &image(name));
    }
    let holder = token(&server, &["oci:team/*:pull,push", "oci:other:pull"]);
    let ask = |query: &str| {
        let answer = server.anonymous("GET", &format!("/auth/token?{query}"), &[&basic("u", &holder)], b"");
        let answer = answer.expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json()
    };
    let document = ask("service=localhost&client_id=docker&account=u&scope=repository:team/app:pull,push");
    assert_eq!(document["token"], document["access_token"]);
    assert_eq!(document["expires_in"], 300);
    let issued_at = humantime::parse_rfc3339(document["issued_at"].as_str().unwrap()).unwrap();
    let token = document["token"].as_str().unwrap();
    let claims_of = claims(token);
    let epoch = issued_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!((&claims_of["iat"], &claims_of["exp"]), (&epoch.into(), &(epoch + 300).into()));
    let access = |name: &str, actions: &[&str]| json!({ "type": "repository", "name": name, "actions": actions });
    assert_eq!(claims_of["access"], json!([access("team/app", &["pull", "push"])]));

    // It opens what it names, and nothing else that its holder might do.
    server.with_token(token, "GET", "/v2/team/app/manifests/1", &[], b"").expect(200);
    server.with_token(token, "POST", "/v2/team/app/blobs/uploads/", &[], b"").expect(202);
    server.with_token(token, "GET", "/v2/team/base/manifests/1", &[], b"").expect(401);
    server.with_token(token, "DELETE", "/v2/team/app/manifests/1", &[], b"").expect(401);
    server.with_token(token, "GET", "/api/v1/packages", &[], b"").expect(401);
    server.with_token(token, "GET", "/auth/token?service=x", &[], b"").expect(401);

    // Several scopes, as several parameters or in one; what is not permitted, or no scope at all, is left out.
    let both = json!([access("team/app", &["pull", "push"]), access("team/base", &["pull"])]);
    for query in [
        "scope=repository:team/app:pull,push&scope=repository:team/base:pull",
        "scope=repository:team/app:pull,push%20repository:team/base:pull",
        "scope=repository:team/app:push,pull,delete&scope=repository:team/base:pull&scope=nonsense&scope=a:b",
    ] {
        assert_eq!(claims(ask(query)["token"].as_str().unwrap())["access"], both, "{query}");
    }
    for (query, access_claim) in [
        ("service=x", json!([])),
        ("scope=repository:other:pull,push,delete", json!([access("other", &["pull"])])),
        ("scope=repository:nobody:pull", json!([access("nobody", &[])])),
        ("scope=repository:team/app:*", json!([access("team/app", &["pull", "push"])])),
        ("scope=repository:Not%20A%20Name:pull", json!([])),
    ] {
        assert_eq!(claims(ask(query)["token"].as_str().unwrap())["access"], access_claim, "{query}");
    }
    let many = "scope=repository:a:pull&".repeat(101);
    server.anonymous("GET", &format!("/auth/token?{many}"), &[&basic("u", &holder)], b"").expect(400);
    server.request("PUT", "/auth/token", &[], b"").expect(405);
    // Bearer is as good as Basic here.
    server.with_token(&holder, "GET", "/auth/token?scope=repository:other:pull", &[], b"").expect(200);
}

#[test]
fn the_token_server_answers_forms() {
    let server = patient().start();
    server.repository("app").push("1", &image("app"));
    let post = |form: &str| {
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        server.anonymous("POST", "/auth/token", &headers, form.as_bytes())
    };
    let scope = "service=x&client_id=c&scope=repository%3Aapp%3Apull";
    let password = format!("grant_type=password&username=u&password={ADMIN}&{scope}");
    let document = post(&password).expect(200).json();
    assert_eq!(document["token"], document["access_token"]);
    assert_eq!(document["expires_in"], 300);
    assert_eq!(document.get("refresh_token"), None, "only where it is asked for");
    let token = document["access_token"].as_str().unwrap();
    server.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").expect(200);
    server.with_token(token, "POST", "/v2/app/blobs/uploads/", &[], b"").expect(401);

    let offline = post(&format!("{password}&access_type=offline")).expect(200).json();
    let refresh = offline["refresh_token"].as_str().unwrap();
    let refreshed = post(&format!("grant_type=refresh_token&refresh_token={refresh}&{scope}")).expect(200).json();
    let token = refreshed["token"].as_str().unwrap();
    server.with_token(token, "GET", "/v2/app/manifests/1", &[], b"").expect(200);

    for form in ["grant_type=password&username=u&password=wrong", "grant_type=refresh_token&refresh_token=wrong"] {
        assert!(post(form).expect(401).header("www-authenticate").is_some());
    }
    for form in ["", "grant_type=password", "grant_type=refresh_token", "grant_type=magic&password=x", "password=x"] {
        post(form).expect(400);
    }
    post(&"x".repeat(100_000)).expect(400);
    server.anonymous("POST", "/auth/token", &["Content-Type: application/json"], b"{}").expect(400);
}

#[test]
fn a_registry_token_ends() {
    let server = patient().environment("FOUNDRY_AUTH__TOKEN_LIFETIME", "1s").start();
    server.repository("app").push("1", &image("app"));
    let document = server.get("/auth/token?scope=repository:app:pull").expect(200).json();
    assert_eq!(document["expires_in"], 1);
    let token = document["token"].as_str().unwrap().to_owned();
    let ended = eventually("the token ends", || {
        let answer = server.with_token(&token, "GET", "/v2/app/manifests/1", &[], b"");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(challenge(&ended.expect(401))["scope"], "repository:app:pull", "the client learns how to go on");
}

#[test]
fn an_upload_outlives_the_token_that_began_it() {
    let server = patient().environment("FOUNDRY_AUTH__TOKEN_LIFETIME", "2s").start();
    let token = || registry_token(&server, ADMIN, &["repository:app:pull,push"]);
    let first = token();
    let begun = server.with_token(&first, "POST", "/v2/app/blobs/uploads/", &[], b"").expect(202);
    let location = begun.header("location").unwrap().to_owned();
    // Who may is decided when a request begins: this one's body comes after the token has ended.
    let mut slow = Connection::open(server.address());
    let headers = [format!("Authorization: Bearer {first}"), "Content-Length: 4".to_owned()];
    slow.send_head("PATCH", &location, &headers).unwrap();
    slow.send(b"ab").unwrap();
    eventually("the token ends", || {
        (server.with_token(&first, "GET", "/v2/app/blobs/uploads/x", &[], b"").status == 401).then_some(())
    });
    slow.send(b"cd").unwrap();
    slow.answer().unwrap().expect(202);
    server.with_token(&first, "PATCH", &location, &[], b"ef").expect(401);
    // With new ones it goes on, and each may be another.
    server.with_token(&token(), "PATCH", &location, &[], b"ef").expect(202);
    let digest = registry_tests::oci::sha256(b"abcdef");
    let target = registry_tests::oci::with_digest(&location, &digest);
    server.with_token(&token(), "PUT", &target, &[], b"").expect(201);
    assert_eq!(server.repository("app").get_blob(&digest).expect(200).body, b"abcdef");
}

#[test]
fn too_little_scope_is_a_challenge_on_v2_and_403_elsewhere() {
    let server = Server::start();
    server.repository("team/app").push("1", &image("app"));
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"x").expect(201);
    let nothing = token(&server, &["oci:elsewhere:pull"]);
    let registry = registry_token(&server, ADMIN, &["repository:elsewhere:pull"]);
    let digest = image("app").digest();
    for (method, target, scope) in [
        ("GET", "/v2/team/app/manifests/1".to_owned(), "repository:team/app:pull"),
        ("HEAD", format!("/v2/team/app/blobs/{digest}"), "repository:team/app:pull"),
        ("GET", "/v2/team/app/tags/list".to_owned(), "repository:team/app:pull"),
        ("GET", format!("/v2/team/app/referrers/{digest}"), "repository:team/app:pull"),
        ("PUT", "/v2/team/app/manifests/2".to_owned(), "repository:team/app:pull,push"),
        ("POST", "/v2/team/app/blobs/uploads/".to_owned(), "repository:team/app:pull,push"),
        ("DELETE", "/v2/team/app/manifests/1".to_owned(), "repository:team/app:delete"),
        ("DELETE", format!("/v2/team/app/blobs/{digest}"), "repository:team/app:delete"),
    ] {
        for token in [&nothing, &registry] {
            let answer = server.with_token(token, method, &target, &[], b"{}").expect(401);
            let challenge = challenge(&answer);
            assert_eq!(challenge["scope"], scope, "{method} {target}");
            assert_eq!(challenge["error"], "insufficient_scope", "{method} {target}");
        }
        let answer = server.anonymous(method, &target, &[], b"{}").expect(401);
        assert_eq!(challenge(&answer)["scope"], scope, "{method} {target}");
    }
    for (method, target) in
        [("GET", "/api/v1/artifacts/p/1"), ("POST", "/api/v1/artifacts/p/2"), ("POST", "/api/v1/gc")]
    {
        server.with_token(&nothing, method, target, &[], b"").expect(403);
    }
    server.repository("team/app").assert_holds("1", &image("app"));
}

#[test]
fn tokens_are_made_listed_and_revoked_by_administrators() {
    let server = patient().start();
    let make = |body: Value| server.request("POST", "/api/v1/tokens", &[], body.to_string().as_bytes());
    let made =
        make(json!({ "name": "ci", "scopes": ["generic:*:pull", "oci:team/*:push"], "expires_in_seconds": 3600 }));
    let made = made.expect(201);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.json();
    let (id, secret) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    let created = humantime::parse_rfc3339(made["created_at"].as_str().unwrap()).unwrap();
    let expires = humantime::parse_rfc3339(made["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(expires.duration_since(created).unwrap().as_secs(), 3600);
    server.with_token(&secret, "GET", "/api/v1/packages", &[], b"").expect(200);

    let forever = make(json!({ "name": "é", "scopes": ["*:*:pull"] })).expect(201).json();
    assert_eq!(forever["expires_at"], Value::Null);
    let list = server.get("/api/v1/tokens").expect(200);
    assert!(!list.text().contains(&secret[24..]), "a secret is shown once");
    let listed = list.json()["tokens"].as_array().unwrap().clone();
    let mut expected = [made.clone(), forever.clone()];
    for token in &mut expected {
        token.as_object_mut().unwrap().remove("token");
    }
    expected.sort_by_key(|token| token["id"].as_str().unwrap().to_owned());
    assert_eq!(listed, expected);
    let first = server.get("/api/v1/tokens?limit=1").expect(200).json();
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/api/v1/tokens?limit=1&after={next}")).expect(200).json();
    assert_eq!((&first["tokens"][0], &second["tokens"][0]), (&expected[0], &expected[1]));
    assert_eq!(second.get("next"), None);

    for body in [
        json!({}),
        json!({ "name": "x" }),
        json!({ "name": "", "scopes": ["*:*:pull"] }),
        json!({ "name": "a\nb", "scopes": ["*:*:pull"] }),
        json!({ "name": "x".repeat(101), "scopes": ["*:*:pull"] }),
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "x", "scopes": ["pull"] }),
        json!({ "name": "x", "scopes": ["*:*:fly"] }),
        json!({ "name": "x", "scopes": vec!["*:*:pull"; 101] }),
        json!({ "name": "x", "scopes": ["*:*:pull"], "expires": 1 }),
        json!({ "name": "x", "scopes": ["*:*:pull"], "expires_in_seconds": -1 }),
        json!([]),
    ] {
        make(body.clone()).expect(400);
    }
    make(json!({ "name": "x", "scopes": ["*:*:pull"], "padding": "x".repeat(70_000) })).expect(400);
    // An end beyond all calendars is as good as none, and no failure.
    let late = make(json!({ "name": "x", "scopes": ["*:*:pull"], "expires_in_seconds": u64::MAX }));
    assert!(late.status < 500, "{}", late.text());
    server.get("/api/v1/tokens").expect(200);

    let lesser = token(&server, &["*:*:pull,push,delete", "generic:*:admin"]);
    for (method, target) in [
        ("GET", "/api/v1/tokens".to_owned()),
        ("POST", "/api/v1/tokens".to_owned()),
        ("DELETE", format!("/api/v1/tokens/{id}")),
    ] {
        server.with_token(&lesser, method, &target, &[], b"{}").expect(403);
        server.anonymous(method, &target, &[], b"{}").expect(401);
    }
    let target = format!("/api/v1/tokens/{id}");
    server.request("DELETE", &target, &[], b"").expect(204);
    server.with_token(&secret, "GET", "/api/v1/packages", &[], b"").expect(401);
    server.request("DELETE", &target, &[], b"").expect(404);
    server.request("DELETE", "/api/v1/tokens/nonsense", &[], b"").expect(404);
}

#[test]
fn a_token_ends_when_it_should() {
    let server = patient().start();
    let body = json!({ "name": "t", "scopes": ["generic:*:pull"], "expires_in_seconds": 1 }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let token = made["token"].as_str().unwrap();
    // It is asked for all the time, so that remembering that it was good is no excuse.
    eventually("the token ends", || {
        let status = server.with_token(token, "GET", "/api/v1/packages", &[], b"").status;
        assert!(matches!(status, 200 | 401), "{status}");
        (status == 401).then_some(())
    });
}

#[test]
fn who_fails_too_often_is_throttled_while_proven_tokens_go_on() {
    let server = Server::builder().environment("FOUNDRY_AUTH__FAILED_ATTEMPTS_PER_MINUTE", "5").start();
    let fresh = token(&server, &["generic:*:pull"]);
    for attempt in 0..5 {
        let target = ["/v2/", "/api/v1/packages", "/auth/token"][attempt % 3];
        server.with_token("wrong", "GET", target, &[], b"").expect(401);
    }
    for target in ["/v2/", "/v2/app/manifests/1", "/api/v1/packages", "/auth/token"] {
        // A right token that was not proven before is not even looked at.
        for token in ["wrong", fresh.as_str()] {
            let answer = server.with_token(token, "GET", target, &[], b"").expect(429);
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=61).contains(&after), "{after}");
        }
        server.get(if target.contains("app") { "/v2/_catalog" } else { target }).expect(200);
    }
    assert_eq!(server.with_token("wrong", "GET", "/v2/", &[], b"").oci_code(), "TOOMANYREQUESTS");
    // And on, while somebody at the same address goes on guessing: longer than anything is remembered without looking.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(6) {
        server.with_token("wrong", "GET", "/v2/", &[], b"").expect(429);
        server.get("/api/v1/packages").expect(200);
        pause();
    }
    server.with_token(&fresh, "GET", "/v2/", &[], b"").expect(429);
    server.anonymous("GET", "/healthz", &[], b"").expect(200);
    server.anonymous("GET", "/v2/", &[], b"").expect(401);
}

/// Clients send the credentials that were saved for a server with each request to it.
#[test]
fn who_has_a_token_may_do_no_less_than_a_stranger() {
    let server = Server::builder().anonymous("pull").start();
    server.repository("public/base").push("1", &image("base"));
    server.request("POST", "/api/v1/artifacts/pub/1", &[], b"x").expect(201);
    let team = token(&server, &["oci:team/*:pull,push"]);
    for target in ["/v2/public/base/manifests/1", "/api/v1/artifacts/pub/1"] {
        server.anonymous("GET", target, &[], b"").expect(200);
        server.with_token(&team, "GET", target, &[], b"").expect(200);
    }
    let scope = "/auth/token?service=registry&scope=repository:public/base:pull,push";
    let granted = server.with_token(&team, "GET", scope, &[], b"").expect(200).json();
    let granted = granted["token"].as_str().unwrap();
    server.with_token(granted, "GET", "/v2/public/base/manifests/1", &[], b"").expect(200);
    server.with_token(granted, "POST", "/v2/public/base/blobs/uploads/", &[], b"").expect(401);
    server.with_token("wrong", "GET", "/v2/public/base/manifests/1", &[], b"").expect(401);
}

#[test]
fn permissions_end_where_names_end() {
    let server = Server::start();
    for name in ["team", "team/app", "team/sub/app", "teamster/app", "tea", "app"] {
        server.repository(name).push("1", &image(name));
    }
    for (scope, readable) in [
        ("oci:team/*:pull", vec!["team/app", "team/sub/app"]),
        ("oci:team:pull", vec!["team"]),
        ("oci:team/app:pull", vec!["team/app"]),
        ("oci:*:pull", vec!["app", "tea", "team", "team/app", "team/sub/app", "teamster/app"]),
        ("*:*:admin", vec!["app", "tea", "team", "team/app", "team/sub/app", "teamster/app"]),
        ("generic:*:pull", vec![]),
        ("oci:*:push", vec![]),
    ] {
        let token = token(&server, &[scope]);
        for name in ["team", "team/app", "team/sub/app", "teamster/app", "tea", "app"] {
            let answer = server.with_token(&token, "GET", &format!("/v2/{name}/manifests/1"), &[], b"");
            assert_eq!(answer.status, if readable.contains(&name) { 200 } else { 401 }, "{scope}: {name}");
        }
        let catalog = server.with_token(&token, "GET", "/v2/_catalog", &[], b"").expect(200).json();
        assert_eq!(catalog["repositories"], json!(readable), "{scope}");
        let page = server.with_token(&token, "GET", "/v2/_catalog?n=2", &[], b"").expect(200).json();
        assert_eq!(page["repositories"], json!(readable[..readable.len().min(2)]), "{scope}");
    }
}

#[test]
fn a_token_for_the_catalog_lists_and_reads_nothing() {
    let server = Server::start();
    for name in ["team/app", "team/b", "other"] {
        server.repository(name).push("1", &image(name));
    }
    let blob = registry_tests::oci::sha256(&image("team/app").blobs[0]);
    let holder = token(&server, &["oci:team/*:pull,push"]);
    let exchange = |scopes: &str| {
        let target = format!("/auth/token?{scopes}");
        let document = server.with_token(&holder, "GET", &target, &[], b"").expect(200).json();
        document["token"].as_str().unwrap().to_owned()
    };
    let catalog = |token: &str| server.with_token(token, "GET", "/v2/_catalog", &[], b"");
    let lister = exchange("scope=registry:catalog:*");
    assert_eq!(catalog(&lister).expect(200).json()["repositories"], json!(["team/app", "team/b"]));
    let tags = server.with_token(&lister, "GET", "/v2/tags/list", &[], b"").expect(200).json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 2);
    let blob = format!("/v2/team/app/blobs/{blob}");
    let targets = ["/v2/team/app/manifests/1", blob.as_str(), "/v2/team/app/tags/list"];
    for target in targets {
        let refused = server.with_token(&lister, "GET", target, &[], b"").expect(401);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("scope=\"repository:team/app:pull\",error=\"insufficient_scope\""), "{challenge}");
    }
    server.with_token(&lister, "POST", "/v2/team/app/blobs/uploads/", &[], b"").expect(401);

    // Asked for both, it does both, and reads no more than was asked for.
    let both = exchange("scope=registry:catalog:*&scope=repository:team/app:pull");
    assert_eq!(catalog(&both).expect(200).json()["repositories"], json!(["team/app", "team/b"]));
    for target in targets {
        server.with_token(&both, "GET", target, &[], b"").expect(200);
    }
    server.with_token(&both, "GET", "/v2/team/b/manifests/1", &[], b"").expect(401);
    // Not asked for the catalog, it is sent for it.
    let refused = catalog(&exchange("scope=repository:team/app:pull")).expect(401);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"registry:catalog:*\",error=\"insufficient_scope\""), "{challenge}");
    // One who may read nothing sees nothing.
    let pusher = token(&server, &["oci:*:push"]);
    let target = "/auth/token?scope=registry:catalog:*";
    let given = server.with_token(&pusher, "GET", target, &[], b"").expect(200).json();
    assert_eq!(catalog(given["token"].as_str().unwrap()).expect(200).json()["repositories"], json!([]));
}
