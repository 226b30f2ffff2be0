//! Messages that break HTTP itself (RFC 9110, RFC 9112): framing, versions, methods, targets, fields.

use registry_tests::server::ADMIN;
use registry_tests::wait::eventually;
use registry_tests::{Answer, Connection, Server};

/// A server that lets go of a silent client soon, so that a test need not wait for the end of a connection.
fn server() -> Server {
    let timeouts = [("HEADER_TIMEOUT", "1s"), ("BODY_IDLE_TIMEOUT", "1s"), ("IDLE_TIMEOUT", "100ms")];
    timeouts
        .iter()
        .fold(Server::builder(), |builder, (key, time)| builder.environment(&format!("FOUNDRY_SERVER__{key}"), time))
        .start()
}

/// All answers to these bytes until the connection ends.
fn answers(server: &Server, bytes: &[u8]) -> Vec<Answer> {
    let mut connection = Connection::open(server.address());
    let _ = connection.send(bytes);
    std::iter::from_fn(|| connection.answer().ok()).collect()
}

/// Sends each; 0 stands for an end without an answer, which is right where nothing sensible can be said.
#[track_caller]
fn try_all(server: &Server, cases: &[(&str, Vec<u8>, &[u16])]) {
    for (what, bytes, expected) in cases {
        let answers = answers(server, bytes);
        let status = answers.first().map_or(0, |answer| answer.status);
        assert!(expected.contains(&status), "{what}: {status} and not {expected:?}: {answers:?}");
        assert!(answers.iter().all(|answer| answer.status < 500), "{what}: {answers:?}");
        if status == 400 {
            assert_eq!(answers.len(), 1, "{what}: nothing after a broken message is believed: {answers:?}");
        }
        server.anonymous("GET", "/healthz", &[], b"").expect(200);
        server.get("/api/v1/packages").expect(200);
    }
    for line in server.log() {
        assert!(!line.contains("\"level\":\"ERROR\"") && !line.contains("panick"), "{line}");
    }
}

fn text(lines: &str) -> Vec<u8> {
    lines.replace('\n', "\r\n").replace("$T", ADMIN).into_bytes()
}

#[test]
fn heads() {
    let server = server();
    let many = |count: usize| {
        let lines: String = (0..count).map(|number| format!("X-{number}: a\r\n")).collect();
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
    };
    let huge = |length: usize| {
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "a".repeat(length)).into_bytes()
    };
    try_all(
        &server,
        &[
            ("90 headers", many(90), &[200]),
            ("101 headers", many(101), &[431]),
            ("100,000 headers", many(100_000), &[431]),
            ("a header of 10 kB", huge(10_000), &[200]),
            ("a header of 100 kB", huge(100_000), &[431]),
            ("a header of 5 MB", huge(5_000_000), &[431]),
            ("a header without end", vec![b'a'; 1_000_000], &[400, 414, 431]),
            ("no head at all", b"\r\n\r\n\r\n\r\n".to_vec(), &[0, 400, 408]),
            ("zeros", vec![0; 10_000], &[400]),
            ("TLS to a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[0, 400]),
            ("a method with a control character", text("G\x01T /healthz HTTP/1.1\nHost: x\n\n"), &[400]),
            ("a header without a colon", text("GET /healthz HTTP/1.1\nHost: x\nnonsense\n\n"), &[400]),
            ("a header without a name", text("GET /healthz HTTP/1.1\nHost: x\n: y\n\n"), &[400]),
            ("a space before the colon", text("GET /healthz HTTP/1.1\nHost: x\nA : b\n\n"), &[400]),
            ("a name with a space", text("GET /healthz HTTP/1.1\nHost: x\nA b: c\n\n"), &[400]),
            ("a folded header", text("GET /healthz HTTP/1.1\nHost: x\nContent-Type: a\n b\n\n"), &[400]),
            ("a NUL in a value", text("GET /healthz HTTP/1.1\nHost: x\nA: b\0c\n\n"), &[400]),
            ("a lone CR in a value", text("GET /healthz HTTP/1.1\nHost: x\nA: b\rX-Evil: 1\n\n"), &[400]),
            (
                "bytes that are not ASCII in a value",
                b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \xff\r\n\r\n".to_vec(),
                &[200],
            ),
            ("bytes that are not ASCII in a path", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400, 404]),
            ("a path with a NUL", b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
            ("a path with a space", text("GET /a b HTTP/1.1\nHost: x\n\n"), &[400]),
            ("no path", text("GET HTTP/1.1\nHost: x\n\n"), &[400]),
            ("a path without a slash", text("GET healthz HTTP/1.1\nHost: x\n\n"), &[400, 404]),
            ("a fragment", text("GET /healthz#x HTTP/1.1\nHost: x\n\n"), &[200, 400, 404]),
        ],
    );
}

#[test]
fn versions_hosts_and_targets() {
    let server = server();
    try_all(
        &server,
        &[
            ("HTTP/1.0 without Host", text("GET /healthz HTTP/1.0\n\n"), &[200]),
            ("HTTP/1.0 with a token", text("GET /api/v1/packages HTTP/1.0\nAuthorization: Bearer $T\n\n"), &[200]),
            ("HTTP/0.9", text("GET /healthz\n\n"), &[0, 400]),
            ("HTTP/1.2", text("GET /healthz HTTP/1.2\nHost: x\n\n"), &[200, 400]),
            ("HTTP/3.0", text("GET /healthz HTTP/3.0\nHost: x\n\n"), &[0, 400]),
            ("no version", text("GET /healthz HTTP\nHost: x\n\n"), &[400]),
            ("no Host", text("GET /healthz HTTP/1.1\n\n"), &[400]),
            ("two Hosts", text("GET /healthz HTTP/1.1\nHost: a\nHost: b\n\n"), &[400]),
            ("an empty Host", text("GET /healthz HTTP/1.1\nHost: \n\n"), &[400]),
            ("a Host with quotes", text("GET /v2/ HTTP/1.1\nHost: a\",realm=\"http://evil\n\n"), &[400]),
            ("a Host with a user", text("GET /v2/ HTTP/1.1\nHost: a@b\n\n"), &[400]),
            ("a Host with a path", text("GET /v2/ HTTP/1.1\nHost: a/b\n\n"), &[400]),
            ("a Host with a space", text("GET /v2/ HTTP/1.1\nHost: a b\n\n"), &[400]),
            ("an absolute target", text("GET http://localhost/healthz HTTP/1.1\nHost: localhost\n\n"), &[200]),
            (
                "an absolute target of a scheme of its own",
                text("GET ftp://x/healthz HTTP/1.1\nHost: x\n\n"),
                &[200, 400, 404],
            ),
            ("an absolute target with a user", text("GET http://a@b/v2/ HTTP/1.1\nHost: b\n\n"), &[400]),
            ("an asterisk", text("OPTIONS * HTTP/1.1\nHost: x\n\n"), &[404, 405]),
            ("a tunnel", text("CONNECT localhost:80 HTTP/1.1\nHost: localhost:80\n\n"), &[400, 404, 405]),
            ("TRACE", text("TRACE /v2/ HTTP/1.1\nHost: x\nAuthorization: Bearer $T\n\n"), &[405]),
            ("an invented method", text("FOO /v2/ HTTP/1.1\nHost: x\n\n"), &[405]),
            ("an invented method", text("BREW /api/v1/packages HTTP/1.1\nHost: x\n\n"), &[405]),
            ("an invented method", text("X /healthz HTTP/1.1\nHost: x\n\n"), &[405]),
            (
                "a method in lower case",
                text("get /api/v1/packages HTTP/1.1\nHost: x\nAuthorization: Bearer $T\n\n"),
                &[405],
            ),
            ("WebDAV", text("PROPFIND /v2/a/manifests/1 HTTP/1.1\nHost: x\nAuthorization: Bearer $T\n\n"), &[405]),
            ("an upgrade", text("GET /healthz HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: websocket\n\n"), &[200]),
            ("HTTP/2 that breaks off", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense".to_vec(), &[0, 400]),
        ],
    );
    // HTTP/1.0 ends its connection after the answer.
    let mut connection = Connection::open(server.address());
    connection.send(&text("GET /healthz HTTP/1.0\n\n")).unwrap();
    connection.answer().unwrap().expect(200);
    assert!(connection.answer().is_err());
}

#[test]
fn who_names_no_host_is_refused_in_the_shape_of_the_api() {
    let server = server();
    let refused = |path: &str, hosts: &str| {
        let answers = answers(&server, &text(&format!("GET {path} HTTP/1.1\nX-Request-Id: r-1\n{hosts}\n")));
        assert_eq!(answers[0].header("x-request-id"), Some("r-1"), "{answers:?}");
        answers.into_iter().next().unwrap().expect(400)
    };
    for hosts in ["", "Host: a\nHost: b\n", "Host: a/b\n"] {
        for path in ["/v2/", "/v2/a/manifests/1", "/auth/token"] {
            assert_eq!(refused(path, hosts).oci_code(), "UNSUPPORTED", "{path}");
        }
        for path in ["/api/v1/packages", "/healthz", "/nothing"] {
            let document = refused(path, hosts).json();
            assert_eq!((&document["code"], &document["request_id"]), (&"invalid_host".into(), &"r-1".into()), "{path}");
        }
    }
    eventually("they are logged", || {
        let is_one = |line: &&String| line.contains("\"request_id\":\"r-1\"") && line.contains("\"status\":400");
        (server.log().iter().filter(is_one).count() == 18).then_some(())
    });
}

#[test]
fn what_is_no_request_gets_a_bare_status_and_a_line_in_the_log() {
    let server = server();
    let many: String = (0..101).map(|number| format!("X-{number}: s3cret\n")).collect();
    for (lines, status) in [("s3cret\n", 400), ("Content-Length: -1\nX: s3cret\n", 400), (&many, 431)] {
        let mut connection = Connection::open(server.address());
        let peer = format!("\"peer\":\"{}\"", connection.socket().local_addr().unwrap());
        let _ = connection.send(&text(&format!("GET /v2/ HTTP/1.1\nHost: x\n{lines}\n")));
        let answer = connection.answer().unwrap().expect(status);
        assert!(answer.body.is_empty() && answer.header("x-request-id").is_none(), "{answer:?}");
        let line = eventually("it is logged", || server.log().into_iter().find(|line| line.contains(&peer)));
        assert!(line.contains("\"level\":\"INFO\"") && line.contains("what came is no HTTP request"), "{line}");
    }
    assert!(!server.log().join("\n").contains("s3cret"));
}

#[test]
fn a_405_says_which_methods_there_are() {
    let server = server();
    let digest = registry_tests::oci::sha256(b"");
    for (path, methods) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET"),
        ("/v2/tags/list", "GET"),
        ("/v2/a/tags/list", "GET"),
        ("/v2/a/manifests/1", "GET, HEAD, PUT, DELETE"),
        (&format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        (&format!("/v2/a/referrers/{digest}"), "GET"),
        ("/auth/token", "GET, POST"),
        ("/healthz", "GET, HEAD"),
        ("/api/v1/artifacts/p/1", "POST, GET, HEAD, DELETE"),
        ("/api/v1/packages", "GET"),
        ("/api/v1/packages/p", "GET"),
        ("/api/v1/gc", "POST"),
        ("/api/v1/tokens", "GET, POST"),
        ("/api/v1/tokens/x", "DELETE"),
    ] {
        let named: Vec<_> = methods.split(", ").collect();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"] {
            let answer = server.request(method, path, &[], b"");
            assert_eq!(answer.status == 405, !named.contains(&method), "{method} {path}: {answer:?}");
            if answer.status == 405 {
                assert_eq!(answer.header("allow"), Some(methods), "{method} {path}");
            }
        }
    }
}

#[test]
fn lengths() {
    let server = server();
    let post = |version: &str, headers: &str, body: &str| {
        let head =
            format!("POST /api/v1/artifacts/p/{version} HTTP/1.1\nHost: x\nAuthorization: Bearer $T\n{headers}\n\n");
        [text(&head), body.as_bytes().to_vec()].concat()
    };
    let smuggled = "GET /api/v1/packages HTTP/1.1\r\nHost: x\r\n\r\n";
    try_all(
        &server,
        &[
            ("a negative length", post("1", "Content-Length: -1", ""), &[400]),
            ("a length with a sign", post("1", "Content-Length: +5", "12345"), &[400]),
            ("a length in words", post("1", "Content-Length: five", "12345"), &[400]),
            ("a hexadecimal length", post("1", "Content-Length: 0x5", "12345"), &[400]),
            ("a length beyond all numbers", post("1", "Content-Length: 99999999999999999999", ""), &[400]),
            ("an empty length", post("1", "Content-Length: ", ""), &[400]),
            ("two lengths", post("1", "Content-Length: 5\nContent-Length: 6", "12345"), &[400]),
            ("two lengths in one", post("1", "Content-Length: 5, 6", "12345"), &[400]),
            ("chunks of no size", post("1", "Transfer-Encoding: chunked", "x\r\nabc\r\n0\r\n\r\n"), &[400]),
            ("chunks of a negative size", post("1", "Transfer-Encoding: chunked", "-1\r\nabc\r\n0\r\n\r\n"), &[400]),
            (
                "chunks beyond all numbers",
                post("1", "Transfer-Encoding: chunked", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
                &[400],
            ),
            (
                "chunks longer than they say",
                post("1", "Transfer-Encoding: chunked", "3\r\nabcdef\r\n0\r\n\r\n"),
                &[400],
            ),
            (
                "chunks with a long extension",
                post("1", "Transfer-Encoding: chunked", &format!("3;{}\r\n", "x".repeat(100_000))),
                &[400],
            ),
            ("chunks with a bare LF", post("1", "Transfer-Encoding: chunked", "3\nabc\n0\n\n"), &[400]),
            ("an unknown coding", post("1", "Transfer-Encoding: gzip", "abc"), &[400, 501]),
            ("chunked not last", post("1", "Transfer-Encoding: chunked, gzip", "3\r\nabc\r\n0\r\n\r\n"), &[400]),
            (
                "chunked in HTTP/1.0",
                text(
                    "POST /api/v1/artifacts/p/1 HTTP/1.0\nAuthorization: Bearer $T\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
                ),
                &[0, 400],
            ),
            // Both a length and chunks: whatever is made of it, the second request must not be taken for one of its own.
            (
                "a length and chunks",
                post("2", "Content-Length: 4\nTransfer-Encoding: chunked", &format!("3\r\nabc\r\n0\r\n\r\n{smuggled}")),
                &[201, 400],
            ),
        ],
    );
    server.get("/api/v1/artifacts/p/1").expect(404);
    // Trailers are read over.
    let trailers = post("3", "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX-Evil: 1\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(answers(&server, &trailers).first().map(|answer| answer.status), Some(201));
    assert_eq!(server.get("/api/v1/artifacts/p/3").expect(200).body, b"abc");
    // A length that is said twice alike is one length.
    let twice = answers(&server, &post("4", "Content-Length: 3\nContent-Length: 3", "abc"));
    assert!(matches!(twice.first().map(|answer| answer.status), Some(201 | 400)), "{twice:?}");
}

#[test]
fn what_is_taken_over_from_a_request_cannot_break_out_of_the_answer() {
    let server = server();
    for id in ["a b", "a\tb", "<script>", "a\"b", "é", "a;b", &"a".repeat(129), "", "../../etc"] {
        let answer = server.request("GET", "/healthz", &[&format!("X-Request-Id: {id}")], b"").expect(200);
        let made = answer.header("x-request-id").unwrap();
        assert!(made.len() == 24 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?} became {made:?}");
    }
    let two = ["X-Request-Id: one", "X-Request-Id: two"];
    assert!(server.request("GET", "/healthz", &two, b"").expect(200).header("x-request-id").is_some());
    // A content type comes back in a header: as it was, or not at all.
    for (number, content_type) in
        ["text/plain\tx", "text/html; charset=\"\u{fc}\"", "a\u{7f}b", "\"<>\"", "text/plain"].iter().enumerate()
    {
        let target = format!("/api/v1/artifacts/types/{number}");
        let stored = server.request("POST", &target, &[&format!("Content-Type: {content_type}")], b"x");
        assert!(matches!(stored.status, 201 | 400), "{content_type}: {}", stored.status);
        if stored.status == 201 {
            let answer = server.get(&target).expect(200);
            assert_eq!(answer.header("content-type"), Some(*content_type));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
    }
    let manifest = br#"{"schemaVersion":2}"#;
    let odd = server.request("PUT", "/v2/a/manifests/1", &["Content-Type: text/html; a=\"\u{fc}\""], manifest);
    assert_eq!(odd.status, 400, "{}", odd.text());
}
