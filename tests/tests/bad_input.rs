//! What no well-behaved client sends: each gets its 4xx, or a clean end of the connection where HTTP wants that, and the
//! next request works.

use std::time::{Duration, Instant};

use registry_tests::oci::sha256;
use registry_tests::server::ADMIN;
use registry_tests::wait::pause;
use registry_tests::{Answer, Connection, Server, ServerBuilder, eventually};
use serde_json::json;

/// A server that does not wait long for a client that says nothing.
fn impatient() -> ServerBuilder {
    ["HEADER_TIMEOUT", "IDLE_TIMEOUT", "BODY_IDLE_TIMEOUT", "WRITE_IDLE_TIMEOUT"]
        .iter()
        .fold(Server::builder(), |builder, key| builder.environment(&format!("FOUNDRY_SERVER__{key}"), "1s"))
}

/// The answer to these bytes; `None` when the connection ends without one.
fn answer(server: &Server, bytes: &[u8]) -> Option<Answer> {
    let mut connection = Connection::open(server.address());
    // An answer may come, and the connection end, before all is sent.
    let _ = connection.send(bytes);
    connection.answer_to(if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" }).ok()
}

/// Whether an answer, or an end, has come.
fn has_come(connection: &Connection) -> bool {
    let mut first = [0; 1];
    connection.socket().set_nonblocking(true).expect("it is a socket");
    let peeked = connection.socket().peek(&mut first);
    connection.socket().set_nonblocking(false).expect("it is a socket");
    !peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A request as text, with the administrator's token.
fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line}\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The server does its work: an artifact goes in and comes out again.
#[track_caller]
fn assert_works(server: &Server, after: &str) {
    let version = format!("1.{}", server.log().len());
    let target = format!("/api/v1/artifacts/alive/{version}");
    let stored = server.request("POST", &target, &[], after.as_bytes());
    assert!(matches!(stored.status, 201 | 409), "after {after}: {} {}", stored.status, stored.text());
    assert_eq!(server.get(&target).status, 200, "after {after}");
}

#[track_caller]
fn assert_no_failure_logged(server: &Server) {
    for line in server.log() {
        assert!(!line.contains("\"level\":\"ERROR\"") && !line.contains("panick"), "{line}");
    }
}

/// Sends each and expects one of the statuses; 0 stands for an end of the connection without an answer.
#[track_caller]
fn try_all(server: &Server, cases: &[(&str, Vec<u8>, &[u16])]) {
    for (what, bytes, expected) in cases {
        let answer = answer(server, bytes);
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let text = answer.as_ref().map(Answer::text).unwrap_or_default();
        assert!(expected.contains(&status), "{what}: {status} and not {expected:?}: {text:.300}");
        if let Some(answer) = answer {
            assert!(answer.header("x-evil").is_none(), "{what}: {:?}", answer.headers);
            assert!(!text.contains("panick") && !text.contains("src/"), "{what}: {text}");
        }
        assert_works(server, what);
    }
    assert_no_failure_logged(server);
}

#[test]
fn names() {
    let server = impatient().start();
    let long = "a".repeat(10_000);
    let get = |path: &str| request(&format!("GET {path} HTTP/1.1"), &[]);
    let post = |path: &str| request(&format!("POST {path} HTTP/1.1"), &["Content-Length: 0"]);
    let mut cases: Vec<(String, Vec<u8>, &[u16])> = Vec::new();
    for name in [
        "..",
        ".",
        "%2e%2e",
        "%2E%2E%2F%2E%2E",
        "..%2f..%2fetc%2fpasswd",
        "a%2fb",
        "a%5Cb",
        "a%00b",
        "%00",
        "%ff",
        "%zz",
        "%",
        "a%20b",
        "%0d%0aX-Evil:%201",
        "%C3%A9",
        "a;b",
        "a:b",
        "a*",
        "~root",
        "-",
        &long,
    ] {
        for path in [format!("/api/v1/artifacts/{name}/1"), format!("/api/v1/packages/{name}")] {
            cases.push((format!("GET {path:.60}"), get(&path), &[400]));
        }
        let path = format!("/api/v1/artifacts/{name}/1");
        cases.push((format!("POST {path:.60}"), post(&path), &[400]));
        if name != "-" && name != "~root" {
            let path = format!("/api/v1/artifacts/p/{name}");
            cases.push((format!("POST {path:.60}"), post(&path), &[400]));
        }
        let path = format!("/v2/{name}/tags/list");
        cases.push((format!("GET {path:.60}"), get(&path), &[400]));
        for path in [format!("/v2/a/{name}/b/manifests/1"), format!("/v2/a/{name}/blobs/{}", sha256(b""))] {
            cases.push((format!("GET {path:.60}"), get(&path), &[400]));
        }
        let path = format!("/v2/a/{name}/blobs/uploads/");
        cases.push((format!("POST {path:.60}"), post(&path), &[400]));
    }
    for name in ["", "/", "//", "a//b", "/a", "a/", "A", "a..b", "a___b", "a/../b", "./a", "a/.", "_", "-a", "a-"] {
        // Where slashes collapse it is another endpoint, and there is none.
        let path = format!("/v2/{name}/manifests/1");
        cases.push((format!("GET {path}"), get(&path), &[400, 404]));
        cases.push((format!("POST {name}"), post(&format!("/v2/{name}/blobs/uploads/")), &[400, 404, 405]));
    }
    for tag in ["..", ".x", "-x", "%2e%2e", "a%2fb", "a%00", "a%20b", "%0d%0aX-Evil:1", &"a".repeat(129), &long] {
        let path = format!("/v2/a/manifests/{tag}");
        cases.push((format!("GET {path:.60}"), get(&path), &[400]));
        let put = request(&format!("PUT {path} HTTP/1.1"), &["Content-Length: 2"]);
        cases.push((format!("PUT {path:.60}"), [put, b"{}".to_vec()].concat(), &[400]));
    }
    for path in ["/v2/../../etc/passwd", "/../etc/passwd", "/%2e%2e/etc/passwd", "/v2", "/nothing", "//", "/api/v1/.."]
    {
        cases.push((path.to_owned(), get(path), &[200, 400, 404]));
    }
    let huge = "a".repeat(70_000);
    cases.push(("a long path".to_owned(), get(&format!("/v2/{huge}/tags/list")), &[400, 414, 431]));
    let cases: Vec<_> = cases.iter().map(|(what, bytes, expected)| (what.as_str(), bytes.clone(), *expected)).collect();
    try_all(&server, &cases);
    let outside: Vec<_> = std::fs::read_dir(server.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "nothing came to be beside the data folder and the configuration: {outside:?}");
}

#[test]
fn digests_ranges_and_queries() {
    let server = impatient().start();
    let repository = server.repository("a");
    let real = repository.push_blob(b"0123456789");
    let upload = repository.start_upload();
    repository.patch(&upload, b"01234").expect(202);
    let hex = real.strip_prefix("sha256:").unwrap();
    let mut cases: Vec<(String, Vec<u8>, &[u16])> = Vec::new();
    for digest in [
        "sha256:",
        "sha256:abc",
        "sha256:baddigeststring",
        &real[..70],
        &format!("{real}0"),
        &real.to_uppercase(),
        &format!("SHA256:{hex}"),
        &format!("sha512:{hex}"),
        &format!("md5:{}", &hex[..32]),
        &format!("sha256%00:{hex}"),
        "sha256:..%2f..%2f",
        &format!("sha256:{}", "z".repeat(64)),
        ":",
        "::",
        &format!("sha256:{}", "a".repeat(10_000)),
        &format!("{real}%0d%0aX-Evil:1"),
    ] {
        for (method, path) in [
            ("GET", format!("/v2/a/blobs/{digest}")),
            ("HEAD", format!("/v2/a/manifests/{digest}")),
            ("DELETE", format!("/v2/a/blobs/{digest}")),
            ("GET", format!("/v2/a/referrers/{digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?mount={digest}")),
            ("PUT", format!("{upload}?digest={digest}")),
        ] {
            let bytes = request(&format!("{method} {path} HTTP/1.1"), &["Content-Length: 0", "Connection: close"]);
            cases.push((format!("{method} {path:.80}"), bytes, &[400]));
        }
    }
    let get = format!("GET /v2/a/blobs/{real} HTTP/1.1");
    for range in ["bytes=9999999999999999999999-", "bytes=10-", "bytes=5-1", "bytes=-0"] {
        cases.push((range.to_owned(), request(&get, &[&format!("Range: {range}")]), &[416]));
    }
    let many = format!("bytes={}", "0-,".repeat(2_000));
    for range in ["bytes=a-b", "bytes=0x0-0x1", "bytes=--", "cats=1", "", "bytes=0-1,2-3,x", &many] {
        cases.push((format!("{range:.40}"), request(&get, &[&format!("Range: {range}")]), &[200]));
    }
    for range in ["bytes=0-1,2-3,4-5", "bytes=0-0,2-2,,", "bytes=0-0,99999999999999999999-"] {
        cases.push((range.to_owned(), request(&get, &[&format!("Range: {range}")]), &[206]));
    }
    let patch = format!("PATCH {upload} HTTP/1.1");
    for range in
        ["x", "0", "-", "5-", "-5", "9-5", "0-4", "4-8", "6-10", "5-9999999999999999999999", "5-9,10-11", "5–9", ""]
    {
        let range = format!("Content-Range: {range}");
        let bytes = [request(&patch, &[&range, "Content-Length: 5"]), b"56789".to_vec()].concat();
        cases.push((range, bytes, &[400, 416]));
    }
    for query in ["n=x", "n=-1", "n=99999999999999999999", "n=0", "n=1&last=%0d%0aX-Evil:1", "n=1&last=%ff", "&&=&"] {
        for list in ["/v2/a/tags/list", "/v2/_catalog", "/v2/tags/list"] {
            let bytes = request(&format!("GET {list}?{query} HTTP/1.1"), &[]);
            cases.push((format!("{list}?{query}"), bytes, &[200, 400, 404]));
        }
    }
    for id in ["x", "..", "%00", "00000000-0000-0000-0000-000000000000", &"a".repeat(10_000)] {
        let bytes = request(&format!("GET /v2/a/blobs/uploads/{id} HTTP/1.1"), &[]);
        cases.push((format!("upload {id:.40}"), bytes, &[400, 404]));
    }
    for (what, query) in [
        ("grace", "/api/v1/gc?grace=%ff"),
        ("a filename that is not UTF-8", "/api/v1/artifacts/p/1?filename=%ff"),
        ("a filename with a line end", "/api/v1/artifacts/p/1?filename=a%0d%0aX-Evil:%201"),
        ("a filename with a NUL", "/api/v1/artifacts/p/1?filename=a%00"),
        ("a filename that is a path", "/api/v1/artifacts/p/1?filename=..%2Fx"),
        ("a long filename", &format!("/api/v1/artifacts/p/1?filename={}", "a".repeat(10_000))),
    ] {
        cases.push((what.to_owned(), request(&format!("POST {query} HTTP/1.1"), &["Content-Length: 0"]), &[400]));
    }
    let cases: Vec<_> = cases.iter().map(|(what, bytes, expected)| (what.as_str(), bytes.clone(), *expected)).collect();
    try_all(&server, &cases);
    // After all that the upload is where it was.
    repository.finish(&upload, &sha256(b"0123456789"), b"56789").expect(201);
    server.get("/api/v1/packages/p").expect(404);
}

#[test]
fn documents() {
    let server = impatient().start();
    let put = |body: &[u8]| -> Vec<u8> {
        let length = format!("Content-Length: {}", body.len());
        let content_type = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        [request("PUT /v2/a/manifests/1 HTTP/1.1", &[&length, content_type]), body.to_vec()].concat()
    };
    let token = |body: &[u8]| -> Vec<u8> {
        let length = format!("Content-Length: {}", body.len());
        [request("POST /api/v1/tokens HTTP/1.1", &[&length]), body.to_vec()].concat()
    };
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let within = |inner: &str| {
        let config = json!({ "mediaType": "a/b", "digest": sha256(b""), "size": 0 });
        format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[],\"annotations\":{{\"x\":{inner}}}}}")
    };
    let mut cases: Vec<(String, Vec<u8>, &[u16])> = Vec::new();
    for (what, body) in [
        ("nothing", String::new()),
        ("no JSON", "hello".to_owned()),
        ("half of it", "{\"schemaVersion\":2".to_owned()),
        ("a list", "[]".to_owned()),
        ("null", "null".to_owned()),
        ("lists 10,000 deep", nested(10_000)),
        ("objects 10,000 deep", objects(10_000)),
        ("depth inside of a manifest", within(&nested(10_000))),
        ("lists a million deep", nested(1_000_000)),
        ("open lists alone", "[".repeat(2_000_000)),
        ("a number without end", "1".repeat(100_000)),
        ("a size out of range", within("1").replace("\"size\":0", "\"size\":99999999999999999999")),
        ("a negative size", within("\"1\"").replace("\"size\":0", "\"size\":-1")),
        ("a digest that is none", within("\"1\"").replace("sha256:", "sha256:x")),
        ("a lone surrogate", "{\"a\":\"\\ud800\"}".to_owned()),
    ] {
        cases.push((format!("manifest: {what}"), put(body.as_bytes()), &[400]));
        let expected: &[u16] = if body.len() > 64 * 1024 { &[400, 413] } else { &[400] };
        cases.push((format!("token: {what}"), token(body.as_bytes()), expected));
    }
    cases.push(("bytes that are not UTF-8".to_owned(), put(b"{\"a\":\"\xff\xfe\"}"), &[400]));
    cases.push((
        "bytes that are not UTF-8".to_owned(),
        token(b"{\"name\":\"\xff\",\"scopes\":[\"*:*:pull\"]}"),
        &[400],
    ));
    cases.push(("a manifest of 5 MiB".to_owned(), put(&vec![b' '; 5 << 20]), &[413]));
    let cases: Vec<_> = cases.iter().map(|(what, bytes, expected)| (what.as_str(), bytes.clone(), *expected)).collect();
    try_all(&server, &cases);
    server.get("/v2/a/tags/list").expect(404);
    assert_eq!(server.get("/api/v1/tokens").expect(200).json(), json!({ "tokens": [] }));
}

#[test]
fn clients_that_dawdle() {
    let server = impatient().start();
    // One byte of a head at a time: the whole has to come in time, however little pauses it makes.
    let mut dawdler = Connection::open(server.address());
    let since = Instant::now();
    let head = request("GET /healthz HTTP/1.1", &[&format!("X-Padding: {}", "a".repeat(5_000))]);
    let mut sent = 0;
    while sent < head.len() && !has_come(&dawdler) && dawdler.send(&head[sent..=sent]).is_ok() {
        sent += 1;
        pause();
    }
    assert!(sent < head.len() && since.elapsed() < Duration::from_secs(10), "{sent} bytes in {:?}", since.elapsed());
    assert_eq!(dawdler.answer().unwrap().status, 408);

    // Nothing at all.
    let since = Instant::now();
    let mut silent = Connection::open(server.address());
    assert!(matches!(silent.answer().map(|answer| answer.status), Ok(408) | Err(_)));
    assert!(since.elapsed() < Duration::from_secs(10));

    // Half a body, and then nothing, or next to nothing.
    let repository = server.repository("a");
    for trickle in [false, true] {
        let location = repository.start_upload();
        let mut connection = Connection::open(server.address());
        connection.send(&request(&format!("PATCH {location} HTTP/1.1"), &["Content-Length: 100000"])).unwrap();
        connection.send(&[b'x'; 5_000]).unwrap();
        let since = Instant::now();
        if trickle {
            while since.elapsed() < Duration::from_secs(20) && !has_come(&connection) && connection.send(b"x").is_ok() {
                pause();
            }
        }
        assert_eq!(connection.answer().unwrap().status, 408, "trickle: {trickle}");
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        // What came is kept, and the upload goes on.
        let status = repository.status(&location).expect(204);
        let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
        assert!(last >= 4_999, "{last}");
        let whole = vec![b'x'; last + 3];
        repository.patch_at(&location, last + 1, b"xx").expect(202);
        repository.finish(&location, &sha256(&whole), b"").expect(201);
    }
    let mut artifact = Connection::open(server.address());
    artifact.send(&request("POST /api/v1/artifacts/p/1 HTTP/1.1", &["Content-Length: 10"])).unwrap();
    artifact.send(b"01234").unwrap();
    assert_eq!(artifact.answer().unwrap().status, 408);
    server.get("/api/v1/artifacts/p/1").expect(404);
    assert_works(&server, "dawdling");
    assert_no_failure_logged(&server);
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let server = impatient().start();
    server.request("POST", "/api/v1/artifacts/p/1", &[], &vec![7; 30 << 20]).expect(201);
    let mut connection = Connection::open(server.address());
    connection.send(&request("GET /api/v1/artifacts/p/1 HTTP/1.1", &["X-Request-Id: takes-nothing"])).unwrap();
    let line = eventually("the server gives up", || {
        let log = server.log();
        log.into_iter().find(|line| line.contains("takes-nothing") && line.contains("\"access\""))
    });
    assert!(line.contains("\"whole\":false"), "{line}");
    assert_works(&server, "a client that took nothing");
}

#[test]
fn bodies_that_are_not_as_long_as_they_say() {
    let server = impatient().start();
    let post =
        |version: &str, header: &str| request(&format!("POST /api/v1/artifacts/p/{version} HTTP/1.1"), &[header]);
    // Shorter, and the connection ends: nothing is stored.
    for version in ["short", "torn"] {
        let header = if version == "short" { "Content-Length: 10" } else { "Transfer-Encoding: chunked" };
        let mut connection = Connection::open(server.address());
        connection.send(&post(version, header)).unwrap();
        connection.send(b"5\r\nab").unwrap();
        connection.cut();
        assert_works(&server, version);
        server.get(&format!("/api/v1/artifacts/p/{version}")).expect(404);
    }
    // Longer: what is too much is no request.
    let mut connection = Connection::open(server.address());
    connection.send(&[post("long", "Content-Length: 4"), b"12345678\r\n\r\n".to_vec()].concat()).unwrap();
    connection.answer().unwrap().expect(201);
    assert!(matches!(connection.answer().map(|answer| answer.status), Ok(400) | Err(_)));
    assert_eq!(server.get("/api/v1/artifacts/p/long").expect(200).body, b"1234");
    let empty = eventually("what was torn is cleared away", || {
        server.gc("0s");
        let left = std::fs::read_dir(server.data().join("uploads")).unwrap().count();
        (left == 0).then_some(left)
    });
    assert_eq!(empty, 0);
    assert_no_failure_logged(&server);
}
