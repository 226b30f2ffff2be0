//! Requests that were right until something happened to them. Whatever it was, the server never fails, never panics,
//! and serves the next one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use registry_tests::oci::sha256;
use registry_tests::server::ADMIN;
use registry_tests::{Image, Random, Server};

/// Most of them wait for the server to give up on a body that does not come.
const WORKERS: usize = 32;
/// For how long requests are sent; `FOUNDRY_FUZZ_SECONDS` sets it.
const SECONDS: u64 = 6;

/// Requests that are right, of every kind that there is.
fn corpus(server: &Server) -> Vec<Vec<u8>> {
    let repository = server.repository("team/app");
    let image = Image::new(vec![b"layer".to_vec()]);
    repository.push("1", &image);
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"0123456789").expect(201);
    let blob = sha256(b"layer");
    let upload = repository.start_upload();
    let manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let index = String::from_utf8(Image::index(&[&image]).manifest).unwrap();
    let mut corpus = Vec::new();
    let mut add = |line: &str, headers: &[&str], body: &str| {
        let mut text = format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n");
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() || !line.starts_with("GET") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        corpus.push(text.into_bytes());
    };
    add("GET /v2/", &[], "");
    add("GET /v2/_catalog?n=10&last=a", &[], "");
    add("GET /v2/tags/list?n=1", &[], "");
    add("GET /v2/team/app/tags/list?n=1&last=0", &[], "");
    add(&format!("GET /v2/team/app/blobs/{blob}"), &["Range: bytes=1-2,4-", "If-None-Match: \"x\""], "");
    add(&format!("HEAD /v2/team/app/blobs/{blob}"), &[], "");
    let tag = format!("If-Match: W/\"x\", \"{}\"", image.digest());
    add("GET /v2/team/app/manifests/1", &[&tag, "If-None-Match: \"x\""], "");
    add("DELETE /v2/team/app/manifests/3", &["If-Match: *"], "");
    add("GET /v2/team/app/manifests/1", &["Accept: application/vnd.oci.image.manifest.v1+json, */*;q=0.5"], "");
    add(&format!("GET /v2/team/app/referrers/{}?artifactType=a/b", image.digest()), &[], "");
    add("PUT /v2/team/app/manifests/2", &["Content-Type: application/vnd.oci.image.manifest.v1+json"], &manifest);
    add("PUT /v2/team/app/manifests/3", &["Content-Type: application/vnd.oci.image.index.v1+json"], &index);
    add("DELETE /v2/team/app/manifests/2", &[], "");
    add("POST /v2/team/app/blobs/uploads/", &[], "");
    add(&format!("POST /v2/team/app/blobs/uploads/?digest={blob}"), &[], "layer");
    add(&format!("POST /v2/team/other/blobs/uploads/?mount={blob}&from=team/app"), &[], "");
    add(&format!("PATCH {upload}"), &["Content-Range: 0-4", "Content-Type: application/octet-stream"], "01234");
    add(&format!("PUT {upload}?digest={}", sha256(b"01234")), &["Expect: 100-continue"], "");
    add(&format!("GET {upload}"), &[], "");
    add("POST /api/v1/artifacts/p/2?filename=a.bin", &["X-Checksum-Sha256: 00", "Content-Type: text/plain"], "x");
    add("POST /api/v1/artifacts/p/3", &["Content-Digest: sha-256=:AAAA:"], "x");
    add("GET /api/v1/artifacts/p/1", &["Range: bytes=2-5", "If-Range: \"x\"", "X-Request-Id: abc"], "");
    add("DELETE /api/v1/artifacts/p/2", &[], "");
    add("GET /api/v1/packages?search=p&limit=2&after=a", &[], "");
    add("GET /api/v1/packages/p?after=1.0", &[], "");
    add("POST /api/v1/gc?dry_run=true&grace=24h", &[], "");
    add("POST /api/v1/tokens", &[], r#"{"name":"a","scopes":["oci:team/*:pull,push"],"expires_in_seconds":60}"#);
    add("GET /auth/token?service=x&scope=repository:team/app:pull,push", &["Authorization: Basic YTpi"], "");
    let form = "grant_type=password&username=a&password=b&scope=repository%3Aa%3Apull";
    add("POST /auth/token", &["Content-Type: application/x-www-form-urlencoded"], form);
    add("GET /api/v1/artifacts/p/1", &["If-Modified-Since: Thu, 26 Nov 2026 12:00:00 GMT"], "");
    add("GET /readyz", &["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"], "");
    // The challenge holds the origin.
    let forwarded = [
        "X-Forwarded-For: [::1]:80, 1.2.3.4",
        "X-Forwarded-Host: a.example, b.example:80",
        "X-Forwarded-Proto: https, http",
        "X-Forwarded-Port: 8443",
        "Authorization: Bearer x",
    ];
    add("GET /v2/", &forwarded, "");
    corpus
}

/// What often breaks parsers.
const FRAGMENTS: [&[u8]; 30] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"%",
    b"%00",
    b"%2f",
    b"%2e%2e",
    b"..",
    b"/",
    b"//",
    b"?",
    b"&",
    b"=",
    b":",
    b"\"",
    b"{",
    b"[",
    b"-",
    b"99999999999999999999",
    b"-1",
    b"\xff",
    b"\xc3\x28",
    b"HTTP/1.0",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
    b"Connection: keep-alive\r\n",
    b"sha512:",
];

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| corpus[random.below(corpus.len() as u64) as usize].clone();
    let mut bytes = pick(random);
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = (at + random.below(20) as usize).min(bytes.len());
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => bytes.truncate(at),
            5 => {
                // The head of one and the tail of another.
                let other = pick(random);
                let from = random.below(other.len() as u64) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let fragment = FRAGMENTS[random.below(FRAGMENTS.len() as u64) as usize];
                bytes.splice(at..at, fragment.iter().copied());
            }
        }
    }
    bytes
}

/// All that the server says to these bytes, sent whole or in two pieces.
fn converse(server: &Server, bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.address()).expect("the server accepts connections");
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let middle = random.below(bytes.len() as u64 + 1) as usize;
    let _ = socket.write_all(&bytes[..middle]).and_then(|()| socket.write_all(&bytes[middle..]));
    let mut answer = Vec::new();
    // A reset is an end, too; silence is not.
    if let Err(error) = socket.read_to_end(&mut answer) {
        let silent = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!silent, "the connection hangs after {:?}", String::from_utf8_lossy(bytes));
    }
    answer
}

#[test]
fn no_mutation_of_a_request_makes_the_server_fail() {
    let timeouts = [("HEADER_TIMEOUT", "100ms"), ("BODY_IDLE_TIMEOUT", "100ms"), ("IDLE_TIMEOUT", "20ms")];
    let server = timeouts
        .iter()
        .fold(Server::builder(), |builder, (key, time)| builder.environment(&format!("FOUNDRY_SERVER__{key}"), time))
        .environment("FOUNDRY_AUTH__FAILED_ATTEMPTS_PER_MINUTE", "1000000")
        // So that X-Forwarded-* are read.
        .environment("FOUNDRY_SERVER__TRUSTED_PROXIES", "127.0.0.1")
        .start();
    let corpus = corpus(&server);
    for bytes in &corpus {
        let answer = converse(&server, bytes, &mut Random::new(0));
        assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(bytes));
    }
    let seconds = std::env::var("FOUNDRY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (started, time) = (Instant::now(), Duration::from_secs(seconds));
    let seed = Random::seeded("no_mutation_of_a_request_makes_the_server_fail", 20).next();
    let sent: usize = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (server, corpus) = (&server, &corpus);
                threads.spawn(move || {
                    let mut random = Random::new(seed ^ worker as u64);
                    let mut sent = 0;
                    while started.elapsed() < time {
                        let bytes = mutate(&mut random, corpus);
                        let answer = converse(server, &bytes, &mut random);
                        let text = String::from_utf8_lossy(&answer);
                        for status in text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)) {
                            assert!(!status.starts_with('5'), "{status} to {:?}", String::from_utf8_lossy(&bytes));
                        }
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let _ = writeln!(std::io::stderr(), "{sent} requests in {:?}", started.elapsed());
    assert!(sent > 100, "only {sent} requests");
    for line in server.log() {
        assert!(!line.contains("panick") && !line.contains("\"level\":\"ERROR\""), "{line}");
    }
    // It still serves, and nothing that was there is harmed.
    server.get("/healthz").expect(200);
    server.request("POST", "/api/v1/artifacts/after/1", &[], b"x").expect(201);
    server.gc("24h");
    let (healthy, findings) = server.check(&["--deep"]);
    assert!(healthy, "{findings}");
}
