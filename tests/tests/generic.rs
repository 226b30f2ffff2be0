//! Generic artifacts by plain HTTP: what is uploaded is what is described, listed, downloaded and deleted.

use registry_tests::oci::{sha256, sha512};
use registry_tests::process::peak_memory;
use registry_tests::{Answer, Connection, Random, Server};
use serde_json::{Value, json};

fn path(package: &str, version: &str) -> String {
    format!("/api/v1/artifacts/{package}/{version}")
}

#[track_caller]
fn upload(server: &Server, package: &str, version: &str, bytes: &[u8]) -> Value {
    server.request("POST", &path(package, version), &[], bytes).expect(201).json()
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) -> Answer {
    let answer = answer.expect(status);
    let document = answer.json();
    assert_eq!(document["code"], code, "{document}");
    assert_eq!(document["request_id"].as_str(), answer.header("x-request-id"), "{document}");
    answer
}

/// Everything that a client can see of a version.
fn seen(server: &Server, package: &str, version: &str) -> (Answer, Answer, Value) {
    let get = server.get(&path(package, version));
    let head = server.request("HEAD", &path(package, version), &[], b"");
    let listed = server.get(&format!("/api/v1/packages/{package}"));
    let listed = if listed.status == 200 { listed.json() } else { Value::Null };
    (get, head, listed)
}

/// What the store holds: the names of the objects, and how many uploads are staged.
fn stored(server: &Server) -> (Vec<String>, usize) {
    let files = |folder: std::path::PathBuf| -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("the folder is there");
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let blobs = server.data().join("blobs");
    let shards = files(blobs.clone()).into_iter().filter(|name| name.len() == 2);
    let mut objects: Vec<_> = shards.flat_map(|shard| files(blobs.join(shard))).collect();
    objects.sort();
    (objects, files(server.data().join("uploads")).len())
}

#[test]
fn an_artifact_is_kept_with_all_that_was_said_of_it() {
    let server = Server::start();
    let bytes = Random::new(1).bytes(100_000);
    let target = format!("{}?filename=model.gguf", path("my_Pkg-x", "1.0.0+build.7"));
    let answer = server.request("POST", &target, &["Content-Type: application/x-gguf; v=3"], &bytes).expect(201);
    assert_eq!(answer.header("location"), Some("/api/v1/artifacts/my_Pkg-x/1.0.0+build.7"));
    let artifact = answer.json();
    let uploaded_at = artifact["uploaded_at"].as_str().unwrap().to_owned();
    let expected = json!({
        "package": "my_Pkg-x",
        "version": "1.0.0+build.7",
        "digest": sha256(&bytes),
        "size": 100_000,
        "content_type": "application/x-gguf; v=3",
        "filename": "model.gguf",
        "uploaded_at": uploaded_at,
    });
    assert_eq!(artifact, expected);

    let (get, head, listed) = seen(&server, "my_Pkg-x", "1.0.0+build.7");
    let (get, head) = (get.expect(200), head.expect(200));
    assert_eq!(get.body, bytes);
    assert!(head.body.is_empty());
    let digest = sha256(&bytes);
    for (name, value) in [
        ("content-type", "application/x-gguf; v=3"),
        ("content-length", "100000"),
        ("content-disposition", "attachment; filename=\"model.gguf\""),
        ("etag", &format!("\"{digest}\"")),
        ("accept-ranges", "bytes"),
        ("x-checksum-sha256", digest.strip_prefix("sha256:").unwrap()),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(get.header(name), Some(value), "{name}");
        assert_eq!(head.header(name), Some(value), "{name} of HEAD");
    }
    // RFC 3339 in the document, RFC 9110 in the header: the same second.
    let uploaded = humantime::parse_rfc3339(&uploaded_at).unwrap();
    let modified = httpdate::parse_http_date(get.header("last-modified").unwrap()).unwrap();
    assert_eq!(uploaded.duration_since(modified).unwrap().as_secs(), 0);
    let answered = httpdate::parse_http_date(get.header("date").unwrap()).unwrap();
    assert!(answered.duration_since(modified).unwrap().as_secs() < 60, "the upload was a moment ago");
    assert_eq!(listed, json!({ "package": "my_Pkg-x", "versions": [expected] }));
}

#[test]
fn what_is_not_said_has_a_default() {
    let server = Server::start();
    let artifact = upload(&server, "tool", "v2", b"");
    assert_eq!(artifact["size"], 0);
    assert_eq!(artifact["digest"], sha256(b""));
    assert_eq!(artifact["content_type"], "application/octet-stream");
    assert_eq!(artifact["filename"], "tool-v2");
    let get = server.get(&path("tool", "v2")).expect(200);
    assert_eq!((get.header("content-length"), get.body.len()), (Some("0"), 0));

    let target = format!("{}?filename=%C3%BCbung%20%221%22.txt", path("tool", "v3"));
    server.request("POST", &target, &[], b"x").expect(201);
    let disposition = "attachment; filename=\"_bung _1_.txt\"; filename*=UTF-8''%C3%BCbung%20%221%22%2Etxt";
    assert_eq!(server.get(&path("tool", "v3")).expect(200).header("content-disposition"), Some(disposition));
}

#[test]
fn a_body_without_a_length_is_streamed_in_and_out() {
    let server = Server::start();
    let bytes = Random::new(2).bytes(300_000);
    let mut chunked = Vec::new();
    for piece in bytes.chunks(7_001) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let headers = ["Transfer-Encoding: chunked"];
    let artifact = server.request("POST", &path("p", "1"), &headers, &chunked).expect(201).json();
    assert_eq!((&artifact["digest"], &artifact["size"]), (&sha256(&bytes).into(), &300_000.into()));
    assert_eq!(server.get(&path("p", "1")).expect(200).body, bytes);
}

#[test]
fn memory_does_not_grow_with_the_size_of_an_artifact() {
    const SIZE: usize = 160 << 20;
    let server = Server::start();
    let bytes = Random::new(3).bytes(SIZE);
    let artifact = upload(&server, "big", "1", &bytes);
    assert_eq!(artifact["digest"], sha256(&bytes));
    assert!(server.get(&path("big", "1")).expect(200).body == bytes);
    let peak = peak_memory(server.pid()).expect("it runs") >> 20;
    assert!(peak < 120, "{peak} MiB at most, for an artifact of {} MiB", SIZE >> 20);
}

#[test]
fn a_version_that_exists_is_never_touched() {
    let server = Server::start();
    let target = format!("{}?filename=first.bin", path("p", "1"));
    server.request("POST", &target, &["Content-Type: text/plain"], b"first").expect(201);
    let before = seen(&server, "p", "1");
    let objects = stored(&server);
    for body in [&b"second"[..], b"first", b""] {
        let target = format!("{}?filename=second.bin", path("p", "1"));
        refused(server.request("POST", &target, &["Content-Type: image/png"], body), 409, "version_exists");
    }
    let without_date = |(get, head, listed): (Answer, Answer, Value)| {
        let headers = |answer: Answer| -> Vec<(String, String)> {
            let kept = |name: &str| !matches!(name, "date" | "x-request-id");
            answer.headers.into_iter().filter(|(name, _)| kept(name)).collect()
        };
        (get.body.clone(), headers(get), headers(head), listed)
    };
    assert_eq!(without_date(before), without_date(seen(&server, "p", "1")));
    assert_eq!(objects, stored(&server), "nothing of the others is stored");

    // Told before it sends anything, if it asks.
    let mut connection = Connection::open(server.address());
    let token = format!("Authorization: Bearer {}", registry_tests::server::ADMIN);
    let head = [token, "Content-Length: 1000000000".to_owned(), "Expect: 100-continue".to_owned()];
    connection.send_head("POST", &path("p", "1"), &head).unwrap();
    refused(connection.answer().unwrap(), 409, "version_exists");
}

#[test]
fn of_two_who_publish_one_version_at_once_one_wins() {
    let server = Server::start();
    let bodies = [Random::new(4).bytes(50_000), Random::new(5).bytes(50_000)];
    let token = format!("Authorization: Bearer {}", registry_tests::server::ADMIN);
    // Both are under way before either is complete.
    let mut connections: Vec<Connection> = bodies
        .iter()
        .map(|body| {
            let mut connection = Connection::open(server.address());
            let head = [token.clone(), format!("Content-Length: {}", body.len())];
            connection.send_head("POST", &path("p", "1"), &head).unwrap();
            connection.send(&body[..25_000]).unwrap();
            connection
        })
        .collect();
    let answers: Vec<Answer> = connections
        .iter_mut()
        .zip(&bodies)
        .map(|(connection, body)| {
            connection.send(&body[25_000..]).unwrap();
            connection.answer().unwrap()
        })
        .collect();
    assert_eq!([answers[0].status, answers[1].status], [201, 409], "the first to be complete");
    assert_eq!(server.get(&path("p", "1")).expect(200).body, bodies[0]);
    assert_eq!(server.get("/api/v1/packages/p").expect(200).json()["versions"].as_array().unwrap().len(), 1);
    server.gc("0s");
    let (objects, staged) = stored(&server);
    assert_eq!((objects.len(), staged), (1, 0), "the loser leaves nothing behind");
}

#[test]
fn what_is_not_there_is_404() {
    let server = Server::start();
    upload(&server, "p", "1", b"x");
    for target in [&path("p", "2"), &path("q", "1"), &path("P", "1"), "/api/v1/packages/q"] {
        refused(server.get(target), 404, "not_found");
    }
    server.request("HEAD", &path("p", "2"), &[], b"").expect(404);
    refused(server.request("DELETE", &path("p", "2"), &[], b""), 404, "not_found");
    refused(server.get("/api/v1/artifacts/p"), 404, "not_found");
    refused(server.get("/api/v1/artifacts/p/1/2"), 404, "not_found");
    refused(server.request("PUT", &path("p", "1"), &[], b"x"), 405, "method_not_allowed");
    refused(server.get("/api/v1/gc"), 405, "method_not_allowed");
    server.get("/api/v1").expect(404);
    server.get("/api/v2/packages").expect(404);
}

#[test]
fn a_deleted_version_is_gone_and_may_come_again() {
    let server = Server::start();
    upload(&server, "p", "1", b"old");
    upload(&server, "p", "2", b"kept");
    let deleted = server.request("DELETE", &path("p", "1"), &[], b"").expect(204);
    assert!(deleted.body.is_empty());
    let (get, head, listed) = seen(&server, "p", "1");
    assert_eq!((get.status, head.status), (404, 404));
    assert_eq!(listed["versions"].as_array().unwrap().len(), 1);
    refused(server.request("DELETE", &path("p", "1"), &[], b""), 404, "not_found");

    upload(&server, "p", "1", b"new");
    assert_eq!(server.get(&path("p", "1")).expect(200).body, b"new");
    assert_eq!(server.get(&path("p", "2")).expect(200).body, b"kept");
}

#[test]
fn digests_of_clients_are_checked() {
    let server = Server::start();
    let bytes = Random::new(6).bytes(10_000);
    let hexadecimal = |digest: String| digest.split_once(':').unwrap().1.to_owned();
    let encode = |digest: String| {
        use base64::Engine;
        let hex = hexadecimal(digest);
        let raw: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        base64::engine::general_purpose::STANDARD.encode(raw)
    };
    let (right, wrong) = (hexadecimal(sha256(&bytes)), hexadecimal(sha256(b"other")));
    let content = |algorithm: &str, text: &str| format!("Content-Digest: {algorithm}=:{text}:");
    let right512 = encode(sha512(&bytes));

    for header in [
        format!("X-Checksum-Sha256: {wrong}"),
        content("sha-256", &encode(sha256(b"other"))),
        content("sha-512", &encode(sha512(b"other"))),
        format!("{}, sha-512=:{right512}:", content("sha-256", &encode(sha256(b"other")))),
    ] {
        let answer = server.request("POST", &path("p", "1"), &[&header], &bytes);
        refused(answer, 400, "digest_mismatch");
        server.get(&path("p", "1")).expect(404);
    }
    for header in [
        "X-Checksum-Sha256: abc",
        "X-Checksum-Sha256: ",
        "Content-Digest: sha-256",
        "Content-Digest: sha-256=:AAAA:",
        "Content-Digest: sha-256=abc",
    ] {
        refused(server.request("POST", &path("p", "1"), &[header], &bytes), 400, "invalid_digest");
    }
    server.get("/api/v1/packages/p").expect(404);
    assert_eq!(stored(&server), (Vec::new(), 0), "nothing that was refused is stored");

    for (version, header) in [
        ("1", format!("X-Checksum-Sha256: {right}")),
        ("2", format!("X-Checksum-Sha256: {}", right.to_uppercase())),
        ("3", content("sha-256", &encode(sha256(&bytes)))),
        ("4", "Content-Digest: md5=:AAAA:".to_owned()),
    ] {
        let answer = server.request("POST", &path("p", version), &[&header], &bytes).expect(201);
        assert_eq!(answer.json()["digest"], sha256(&bytes), "{header}");
        assert_eq!(server.get(&path("p", version)).expect(200).body, bytes);
    }
    // By one digest every client finds it again, whatever the publisher knew.
    let answer = server.request("POST", &path("p", "5"), &[&content("sha-512", &right512)], &bytes).expect(201);
    assert_eq!(answer.json()["digest"], sha256(&bytes));
    let get = server.get(&path("p", "5")).expect(200);
    assert_eq!((get.header("x-checksum-sha256"), get.body.as_slice()), (Some(right.as_str()), &bytes[..]));
}

#[test]
fn two_digests_that_contradict_each_other_are_refused() {
    let server = Server::start();
    let right = sha256(b"x").replace("sha256:", "X-Checksum-Sha256: ");
    let wrong = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    server.request("POST", &path("p", "1"), &[&right, wrong], b"x").expect(400);
    server.get(&path("p", "1")).expect(404);
}

#[test]
fn a_limit_is_413() {
    let server = Server::builder().config("limits: {max_artifact_bytes: 64KiB}").start();
    let limit = 65_536;
    let bytes = Random::new(7).bytes(limit + 1);
    upload(&server, "p", "exactly", &bytes[..limit]);
    assert_eq!(server.get(&path("p", "exactly")).expect(200).body, &bytes[..limit]);

    refused(server.request("POST", &path("p", "announced"), &[], &bytes), 413, "too_large");
    let mut chunked = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunked.extend_from_slice(&bytes);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let headers = ["Transfer-Encoding: chunked"];
    refused(server.request("POST", &path("p", "chunked"), &headers, &chunked), 413, "too_large");
    // An announcement alone is enough.
    let mut connection = Connection::open(server.address());
    let token = format!("Authorization: Bearer {}", registry_tests::server::ADMIN);
    let head = [token, format!("Content-Length: {}", u64::MAX / 2)];
    connection.send_head("POST", &path("p", "huge"), &head).unwrap();
    refused(connection.answer().unwrap(), 413, "too_large");

    for version in ["announced", "chunked", "huge"] {
        server.get(&path("p", version)).expect(404);
    }
    let (objects, staged) = stored(&server);
    assert_eq!((objects.len(), staged), (1, 0));
}

#[test]
fn names_outside_the_grammar_are_400_and_the_answer_says_the_grammar() {
    let server = Server::start();
    let long = "a".repeat(129);
    let file = |name: &str| format!("{}?filename={name}", path("p", "1"));
    for (target, grammar) in [
        (path(".hidden", "1"), "[a-zA-Z0-9][a-zA-Z0-9._-]*"),
        (path("a+b", "1"), "[a-zA-Z0-9][a-zA-Z0-9._-]*"),
        (path(&long, "1"), "128 characters"),
        (path("", "1"), "[a-zA-Z0-9][a-zA-Z0-9._-]*"),
        (path("p", "+1"), "[a-zA-Z0-9][a-zA-Z0-9._+~-]*"),
        (path("p", "1%20"), "[a-zA-Z0-9][a-zA-Z0-9._+~-]*"),
        (path("p", &long), "128 characters"),
        (file(".."), "neither . nor .."),
        (file("a%2Fb"), "[^/\\\\\\x00-\\x1f\\x7f]+"),
        (file(""), "[^/\\\\\\x00-\\x1f\\x7f]+"),
        (file(&"a".repeat(256)), "255 characters"),
    ] {
        let answer = refused(server.request("POST", &target, &[], b"x"), 400, "invalid_name");
        let text = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(text.contains(grammar), "{target}: {text}");
    }
    let content_type = format!("Content-Type: {}", "a".repeat(256));
    refused(server.request("POST", &path("p", "1"), &[&content_type], b"x"), 400, "invalid_content_type");
    assert_eq!(server.get("/api/v1/packages").expect(200).json(), json!({ "packages": [] }));
}

#[test]
fn every_endpoint_wants_a_token_with_the_right_scope() {
    let server = Server::start();
    upload(&server, "mine", "1", b"mine");
    upload(&server, "other", "1", b"other");
    let token = |scope: &str| {
        let body = json!({ "name": "t", "scopes": [scope] }).to_string();
        let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
        made["token"].as_str().unwrap().to_owned()
    };
    let (mine, other) = (path("mine", "1"), path("other", "1"));
    let (new, listed) = (path("mine", "2"), "/api/v1/packages/mine".to_owned());
    let (gc, tokens, packages) = ("/api/v1/gc".to_owned(), "/api/v1/tokens".to_owned(), "/api/v1/packages".to_owned());
    let requests = [
        ("GET", &mine),
        ("HEAD", &mine),
        ("POST", &new),
        ("DELETE", &mine),
        ("GET", &listed),
        ("GET", &packages),
        ("POST", &gc),
        ("GET", &tokens),
        ("POST", &tokens),
        ("GET", &other),
    ];
    for (method, target) in requests {
        let answer = server.anonymous(method, target, &[], b"").expect(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{method} {target}");
        server.with_token("wrong-token-wrong-token", method, target, &[], b"").expect(401);
    }
    for (scope, allowed) in [
        ("generic:mine:pull", vec![("GET", &mine), ("HEAD", &mine), ("GET", &listed), ("GET", &packages)]),
        ("generic:mine:push", vec![("POST", &new), ("GET", &packages)]),
        ("generic:mine:delete", vec![("DELETE", &mine), ("GET", &packages)]),
        ("generic:other:pull", vec![("GET", &other), ("GET", &packages)]),
        ("oci:mine:pull,push,delete,admin", vec![("GET", &packages)]),
    ] {
        let token = token(scope);
        for (method, target) in requests {
            let answer = server.with_token(&token, method, target, &[], b"x");
            if allowed.contains(&(method, target)) {
                assert!((200..300).contains(&answer.status), "{scope}: {method} {target}: {}", answer.status);
            } else if method == "HEAD" {
                answer.expect(403);
            } else {
                refused(answer, 403, "forbidden");
            }
        }
    }
    assert_eq!(server.get(&new).expect(200).body, b"x", "what was permitted was done");
    server.get(&mine).expect(404);
    server.get(&other).expect(200);
}

#[test]
fn a_version_is_deleted_only_where_the_precondition_holds() {
    let server = Server::start();
    let target = "/api/v1/artifacts/p/1";
    server.request("POST", target, &[], b"content").expect(201);
    let etag = server.get(target).expect(200).header("etag").unwrap().to_owned();
    for condition in [
        "If-Match: \"x\"",
        "If-None-Match: *",
        &format!("If-None-Match: {etag}"),
        &format!("If-Match: W/{etag}"),
        "If-Unmodified-Since: Thu, 01 Jan 2015 00:00:00 GMT",
    ] {
        let refused = server.request("DELETE", target, &[condition], b"").expect(412);
        assert_eq!(refused.json()["code"], "precondition_failed", "{condition}");
        assert_eq!(server.get(target).expect(200).body, b"content", "{condition}");
    }
    server.request("DELETE", "/api/v1/artifacts/p/2", &["If-Match: *"], b"").expect(404);
    server.request("DELETE", target, &[&format!("If-Match: {etag}")], b"").expect(204);
    server.get(target).expect(404);
}
