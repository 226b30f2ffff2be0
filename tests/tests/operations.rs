//! Running a server: probes, metrics, request ids, logs, an orderly stop.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry_tests::process::{free_port, server_command};
use registry_tests::server::{ADMIN, request};
use registry_tests::wait::pause;
use registry_tests::{Connection, Process, Random, Server, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The lines of the log as JSON; every line is.
#[track_caller]
fn log(server: &Server) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    server.log().iter().map(parse).collect()
}

/// The names at the top of a JSON object, each as often as it stands there.
struct Names(Vec<String>);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The lines of one request, once the last of them, that of the access log, is there.
#[track_caller]
fn lines_of(server: &Server, id: &str) -> Vec<Value> {
    eventually("the request is logged", || {
        let lines: Vec<Value> = log(server).into_iter().filter(|line| line["request_id"] == id).collect();
        lines.iter().any(|line| line["target"] == "access").then_some(lines)
    })
}

#[test]
fn liveness_says_that_the_process_answers() {
    let server = Server::start();
    let answer = server.anonymous("GET", "/healthz", &[], b"").expect(200);
    assert_eq!((answer.text().as_str(), answer.header("cache-control")), ("ok\n", Some("no-store")));
    let head = server.anonymous("HEAD", "/healthz", &[], b"").expect(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, Some("3")));
    for page in ["/healthz", "/readyz", "/metrics"] {
        let answer = server.request("POST", page, &[], b"").expect(405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{page}");
    }
    server.anonymous("GET", "/healthz", &["Authorization: Bearer wrong"], b"").expect(200);
}

#[test]
fn readiness_names_what_is_missing() {
    let server = Server::start();
    let ready = || server.anonymous("GET", "/readyz", &[], b"");
    let all = json!([{ "name": "metadata", "ok": true }, { "name": "blobs", "ok": true }]);
    assert_eq!(ready().expect(200).json(), json!({ "ready": true, "checks": all }));

    // The disk is gone: unmounted, say.
    let (data, away) = (server.data().to_owned(), server.folder().join("away"));
    std::fs::rename(&data, &away).unwrap();
    let answer = ready().expect(503);
    let document = answer.json();
    assert_eq!(document["ready"], false);
    let blobs = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == "blobs").unwrap().clone();
    assert_eq!(blobs["ok"], false, "{document}");
    assert!(!blobs["reason"].as_str().unwrap().is_empty());
    assert!(!answer.text().contains(server.folder().to_str().unwrap()), "strangers learn no paths: {}", answer.text());
    server.anonymous("GET", "/healthz", &[], b"").expect(200);
    let process = json!({ "ready": true, "checks": [{ "name": "process", "ok": true }] });
    assert_eq!(server.anonymous("GET", "/readyz?exclude=stores", &[], b"").expect(200).json(), process);
    server.anonymous("GET", "/readyz?exclude=blobs", &[], b"").expect(400);
    eventually("the log has the cause", || {
        server.log().iter().any(|line| line.contains("not ready") && line.contains("No such file")).then_some(())
    });
    std::fs::rename(&away, &data).unwrap();
    assert_eq!(ready().expect(200).json(), json!({ "ready": true, "checks": all }));
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"x").expect(201);
}

/// The value of a metric with these labels, in any order.
fn metric(page: &str, name: &str, labels: &[&str]) -> f64 {
    let line = page.lines().find(|line| {
        let (own, _) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        own == name && labels.iter().all(|label| line.contains(label))
    });
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn metrics_count_what_happened() {
    let server = Server::start();
    let answer = server.get("/metrics").expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(answer.text().ends_with("# EOF\n"));
    let before = answer.text();
    for version in 0..3 {
        server.request("POST", &format!("/api/v1/artifacts/p/{version}"), &[], &[7; 1_000]).expect(201);
    }
    server.get("/api/v1/artifacts/p/1").expect(200);
    server.get("/api/v1/artifacts/p/none").expect(404);
    server.repository("team/app").start_upload();
    let route = "route=\"/api/v1/artifacts/{package}/{version}\"";
    let grown = |name: &str, labels: &[&str]| {
        let page = server.get("/metrics").expect(200).text();
        metric(&page, name, labels) - metric(&before, name, labels)
    };
    // A request counts when its last byte is on its way, a moment after it was read.
    eventually("all requests are counted", || {
        (grown("foundry_http_requests_total", &[route, "method=\"GET\"", "status=\"4xx\""]) == 1.0).then_some(())
    });
    let total = "foundry_http_requests_total";
    assert_eq!(grown(total, &[route, "method=\"POST\"", "status=\"2xx\""]), 3.0);
    assert_eq!(grown(total, &[route, "method=\"GET\"", "status=\"2xx\""]), 1.0);
    assert_eq!(grown(total, &["route=\"/v2/<name>/blobs/uploads/\"", "method=\"POST\"", "status=\"2xx\""]), 1.0);
    assert_eq!(grown("foundry_http_request_duration_seconds_count", &[route, "method=\"POST\""]), 3.0);
    assert_eq!(grown("foundry_http_request_body_bytes_total", &[]), 3_000.0);
    assert!(grown("foundry_http_response_body_bytes_total", &[]) >= 1_000.0);
    let page = server.get("/metrics").expect(200).text();
    assert_eq!(metric(&page, "foundry_http_requests_in_flight", &[]), 1.0, "this one");
    assert!(metric(&page, "foundry_http_connections_accepted_total", &[]) >= 7.0);

    // Whatever strangers send, there are no more series.
    let series = |page: &str| page.lines().filter(|line| line.starts_with("foundry_http_requests_total")).count();
    server.anonymous("BREW", "/coffee/1", &[], b"");
    let few = series(&server.get("/metrics").expect(200).text());
    for number in 0..20 {
        server.anonymous(&format!("BREW{number}"), &format!("/coffee/{number}"), &[], b"");
        server.anonymous("GET", &format!("/v2/app{number}/manifests/1"), &[], b"");
    }
    let many = series(&server.get("/metrics").expect(200).text());
    assert!(many <= few + 2, "{few} → {many}");
}

#[test]
fn metrics_tell_of_uploads_and_collections() {
    let server = Server::builder().config("gc: {interval: 0s}").start();
    let value = |name: &str| metric(&server.get("/metrics").expect(200).text(), name, &[]);
    let all = |names: &[&str]| names.iter().map(|name| value(&format!("foundry_{name}"))).collect::<Vec<_>>();
    let page = server.get("/metrics").expect(200).text();
    assert!(!page.contains("gc_last_success"), "there was none: {page}");
    assert!(
        page.contains("# TYPE foundry_gc_runs counter") && page.contains("# TYPE foundry_gc_running gauge"),
        "{page}"
    );

    let repository = server.repository("team/app");
    repository.push_blob(&[1; 1_000]);
    let location = repository.start_upload();
    repository.finish(&location, &registry_tests::oci::sha256(b"one"), b"another").expect(400);
    server.request("POST", "/api/v1/artifacts/p/1", &[], &[2; 500]).expect(201);
    server.request("DELETE", "/api/v1/artifacts/p/1", &[], b"").expect(204);
    let uploads = ["uploads_begun_total", "uploads_committed_total", "uploads_refused_total"];
    assert_eq!(all(&uploads), [3.0, 2.0, 1.0]);

    server.request("POST", "/api/v1/gc?dry_run=true", &[], b"").expect(200);
    let runs = ["gc_runs_total", "gc_failures_total", "gc_running"];
    assert_eq!(all(&runs), [0.0, 0.0, 0.0]);
    let report = server.gc("0s");
    assert_eq!(all(&runs), [1.0, 0.0, 0.0]);
    let did = [
        "gc_references_reviewed_total",
        "gc_references_dropped_total",
        "gc_blobs_deleted_total",
        "gc_freed_bytes_total",
        "gc_objects_deleted_total",
        "gc_uploads_ended_total",
    ];
    assert_eq!(all(&did), [1.0, 1.0, 2.0, 1_500.0, 2.0, 0.0], "{report}");
    let date = server.get("/healthz").header("date").unwrap().to_owned();
    let now = httpdate::parse_http_date(&date).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let ended = value("foundry_gc_last_success_timestamp_seconds");
    assert!((now - 60.0..=now + 1.0).contains(&ended), "{ended} {now}");
    let took = value("foundry_gc_last_duration_seconds");
    assert!(took > 0.0 && took < 60.0, "{took}");

    // A store that fails: an object is a folder, which cannot be deleted like one.
    let bytes = [3; 700];
    server.request("POST", "/api/v1/artifacts/p/2", &[], &bytes).expect(201);
    server.request("DELETE", "/api/v1/artifacts/p/2", &[], b"").expect(204);
    let digest = registry_tests::oci::sha256(&bytes);
    let encoded = digest.strip_prefix("sha256:").unwrap();
    let object = server.data().join("blobs").join(&encoded[..2]).join(encoded);
    std::fs::remove_file(&object).unwrap();
    std::fs::create_dir(&object).unwrap();
    server.request("POST", "/api/v1/gc?grace=0s", &[], b"").expect(500);
    assert_eq!(all(&runs), [1.0, 1.0, 0.0]);
    std::fs::remove_dir(&object).unwrap();
    server.gc("0s");
    assert_eq!(all(&runs), [2.0, 1.0, 0.0]);
}

#[test]
fn metrics_can_be_switched_off() {
    let server = Server::builder().config("metrics: {enabled: false}").start();
    server.get("/metrics").expect(404);
    server.get("/healthz").expect(200);
}

#[test]
fn metrics_can_be_for_the_holders_of_tokens() {
    let builder = Server::builder().config("metrics: {access: token}").anonymous("admin");
    let server = builder.environment("FOUNDRY_AUTH__FAILED_ATTEMPTS_PER_MINUTE", "2").start();
    let get = |authorization: Option<&str>| {
        let header = authorization.map(|value| format!("Authorization: {value}"));
        let headers: Vec<_> = header.iter().map(String::as_str).collect();
        request(server.address(), None, "GET", "/metrics", &headers, b"").unwrap()
    };
    // One that permits as good as nothing.
    let body = json!({ "name": "prometheus", "scopes": ["oci:nothing:pull"] }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let scraper = made["token"].as_str().unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("prometheus:{scraper}")));
    for good in [format!("Bearer {scraper}"), basic, format!("Bearer {ADMIN}")] {
        let page = get(Some(&good)).expect(200).text();
        assert!(page.contains("foundry_http_requests_total"), "{page}");
    }
    // Strangers may do everything else here; and a token that is given to strangers proves nothing.
    let target = "/auth/token?scope=registry:catalog:*";
    let given = request(server.address(), None, "GET", target, &[], b"").unwrap().expect(200).json();
    let given = format!("Bearer {}", given["token"].as_str().unwrap());
    for bad in [None, Some(given.as_str()), Some("Bearer guessed")] {
        let refused = get(bad).expect(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{bad:?}");
        assert!(!refused.text().contains("foundry_"), "{}", refused.text());
    }
    // Who guesses is throttled, and who has shown a good one goes on.
    assert!(get(Some("Bearer guessed again")).expect(429).header("retry-after").is_some());
    get(Some(&format!("Bearer {scraper}"))).expect(200);
    for page in ["/healthz", "/readyz"] {
        request(server.address(), None, "GET", page, &[], b"").unwrap().expect(200);
    }
}

#[test]
fn every_answer_and_every_line_has_the_requests_id() {
    let server = Server::start();
    let own = |id: &str| format!("X-Request-Id: {id}");
    for (number, (method, target, status)) in [
        ("GET", "/healthz", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/", 401),
        ("GET", "/v2/a/b/c", 401),
        ("POST", "/api/v1/gc", 401),
        ("GET", "/api/v1/artifacts/../1", 400),
        ("BREW", "/v2/", 405),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("Client.chose_this-{number}");
        let answer = server.anonymous(method, target, &[&own(&id)], b"");
        assert!(answer.status == status || answer.status == 404, "{method} {target}: {}", answer.status);
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{method} {target}");
        let lines = lines_of(&server, &id);
        let access = lines.iter().find(|line| line["target"] == "access").unwrap();
        assert_eq!((&access["method"], &access["path"]), (&method.into(), &target.into()));
        assert_eq!(access["status"], answer.status);
    }
    let one = server.get("/healthz").header("x-request-id").unwrap().to_owned();
    let two = server.get("/healthz").header("x-request-id").unwrap().to_owned();
    assert!(one != two && one.len() == 24, "{one} {two}");
    lines_of(&server, &one);
    let longest = "a".repeat(128);
    let answer = server.anonymous("GET", "/healthz", &[&own(&longest)], b"");
    assert_eq!(answer.header("x-request-id"), Some(longest.as_str()));
}

#[test]
fn a_failure_is_logged_once_with_its_cause_and_the_client_learns_the_id_alone() {
    let server = Server::start();
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"content").expect(201);
    let image = registry_tests::Image::new(vec![b"layer".to_vec()]);
    server.repository("app").push("1", &image);
    // The disk ate the bytes.
    let blobs = server.data().join("blobs");
    for bytes in [b"content".as_slice(), b"layer"] {
        let hex = registry_tests::oci::sha256(bytes).replace("sha256:", "");
        std::fs::remove_file(blobs.join(&hex[..2]).join(&hex)).unwrap();
    }
    let blob = format!("/v2/app/blobs/{}", registry_tests::oci::sha256(b"layer"));
    for (id, target) in [("generic-failure", "/api/v1/artifacts/p/1"), ("oci-failure", blob.as_str())] {
        let answer = server.request("GET", target, &[&format!("X-Request-Id: {id}")], b"").expect(500);
        assert!(answer.text().contains(id), "{}", answer.text());
        assert!(!answer.text().contains("No such file") && !answer.text().contains('/'), "{}", answer.text());
        let lines = lines_of(&server, id);
        let errors: Vec<&Value> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{lines:?}");
        assert!(errors[0]["error"].as_str().is_some_and(|text| !text.is_empty()), "{lines:?}");
        assert_eq!(lines.len(), 2, "the cause and the access: {lines:?}");
    }
    server.get("/api/v1/packages/p").expect(200);
}

#[test]
fn the_log_is_json_and_says_who_did_what() {
    let server = Server::start();
    let body = json!({ "name": "ci of team", "scopes": ["generic:*:push"] }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let target = "/api/v1/artifacts/p/1?filename=x&secret=in-the-query";
    server
        .with_token(made["token"].as_str().unwrap(), "POST", target, &["X-Request-Id: push-1"], &[7; 100])
        .expect(201);
    let lines = lines_of(&server, "push-1");
    let access = &lines[lines.len() - 1];
    for (field, value) in [
        ("level", json!("INFO")),
        ("method", json!("POST")),
        ("path", json!("/api/v1/artifacts/p/1")),
        ("route", json!("/api/v1/artifacts/{package}/{version}")),
        ("status", json!(201)),
        ("bytes_in", json!(100)),
        ("user", json!("ci of team")),
        ("version", json!("1.1")),
        ("whole", json!(true)),
    ] {
        assert_eq!(access[field], value, "{field} in {access}");
    }
    assert!(access["duration_us"].as_u64().is_some_and(|duration| duration > 0), "{access}");
    assert!(access["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{access}");
    for line in log(&server) {
        humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        assert!(line["level"].is_string() && line["target"].is_string(), "{line}");
        assert!(!line.to_string().contains("in-the-query"), "{line}");
    }
}

#[test]
fn the_log_can_be_quieter() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let start =
        |arguments: &[&str]| Process::start(server_command(folder.path()).args(["-port", &port]).args(arguments));
    let reachable = |process: &mut Process| {
        eventually("it answers", || {
            assert!(!process.has_ended(), "{}", process.stderr());
            request(([127, 0, 0, 1], port.parse().unwrap()).into(), None, "GET", "/healthz", &[], b"").ok()
        })
    };
    let mut silent = start(&["-log-level", "error"]);
    reachable(&mut silent).expect(200);
    silent.signal(Signal::TERM);
    assert_eq!(silent.wait().stderr, "");

    let mut text = start(&["-log-format", "text"]);
    reachable(&mut text).expect(200);
    text.signal(Signal::TERM);
    let written = text.wait().stderr;
    assert!(written.contains("INFO") && written.contains("/healthz") && !written.starts_with('{'), "{written}");
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = ["-data-dir", "data"];
    let start = || {
        let mut command = server_command(folder.path());
        command.args(["-port", "0"]).args(tokens).env("FOUNDRY_AUTH__TOKENS", ADMIN);
        Process::start(&mut command)
    };
    let mut server = start();
    let address = server.address();
    let bytes = Random::new(1).bytes(40 << 20);
    request(address, Some(ADMIN), "POST", "/api/v1/artifacts/p/1", &[], &bytes).unwrap().expect(201);
    let token = format!("Authorization: Bearer {ADMIN}");

    // One who reads slowly, one who writes slowly, one who rests, and one who has sent half a head.
    let mut download = Connection::open(address);
    download.send_head("GET", "/api/v1/artifacts/p/1", std::slice::from_ref(&token)).unwrap();
    let mut upload = Connection::open(address);
    let head = [token.clone(), "Content-Length: 6".to_owned()];
    upload.send_head("POST", "/api/v1/artifacts/p/2", &head).unwrap();
    upload.send(b"abc").unwrap();
    let mut resting = Connection::open(address);
    resting.send_head("GET", "/healthz", &[]).unwrap();
    resting.answer().unwrap().expect(200);
    let mut first = [0; 1];
    eventually("the download has begun", || (download.socket().peek(&mut first).unwrap() == 1).then_some(()));
    eventually("both are under way", || {
        let metrics = request(address, Some(ADMIN), "GET", "/metrics", &[], b"").unwrap().text();
        (metric(&metrics, "foundry_http_requests_in_flight", &[]) == 3.0).then_some(())
    });

    server.signal(Signal::TERM);
    eventually("nobody new is let in", || Connection::try_open(address).is_err().then_some(()));
    assert!(resting.answer().is_err(), "who rests is sent away");
    assert!(!server.has_ended(), "two are not done");
    upload.send(b"def").unwrap();
    upload.answer().unwrap().expect(201);
    assert!(download.answer().unwrap().expect(200).body == bytes);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("\"abandoned\":0"), "{}", ended.stderr);

    let mut again = start();
    let address = again.address();
    let stored = request(address, Some(ADMIN), "GET", "/api/v1/artifacts/p/2", &[], b"").unwrap().expect(200);
    assert_eq!(stored.body, b"abcdef");
}

#[test]
fn stopping_does_not_wait_forever() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = server_command(folder.path());
    command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN).env("FOUNDRY_SERVER__SHUTDOWN_GRACE", "1s");
    let mut server = Process::start(&mut command);
    let address = server.address();
    let mut upload = Connection::open(address);
    let head = [format!("Authorization: Bearer {ADMIN}"), "Content-Length: 6".to_owned()];
    upload.send_head("POST", "/api/v1/artifacts/p/2", &head).unwrap();
    upload.send(b"abc").unwrap();
    eventually("the upload is under way", || {
        let metrics = request(address, Some(ADMIN), "GET", "/metrics", &[], b"").unwrap().text();
        (metric(&metrics, "foundry_http_requests_in_flight", &[]) == 2.0).then_some(())
    });
    let since = Instant::now();
    server.signal(Signal::INT);
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    assert!(!ended.stderr.contains("\"abandoned\":0"), "somebody was given up: {}", ended.stderr);
    assert!(upload.answer().is_err());
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = server_command(folder.path());
    let mut server = Process::start(command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN));
    let address = server.address();
    let mut upload = Connection::open(address);
    let head = [format!("Authorization: Bearer {ADMIN}"), "Content-Length: 6".to_owned()];
    upload.send_head("POST", "/api/v1/artifacts/p/2", &head).unwrap();
    upload.send(b"abc").unwrap();
    eventually("the upload is under way", || {
        let metrics = request(address, Some(ADMIN), "GET", "/metrics", &[], b"").unwrap().text();
        (metric(&metrics, "foundry_http_requests_in_flight", &[]) == 2.0).then_some(())
    });
    server.signal(Signal::TERM);
    eventually("it is stopping", || server.stderr().contains("stopping").then_some(()));
    while !server.has_ended() {
        server.signal(Signal::TERM);
        pause();
    }
    assert_eq!(server.wait().code, Some(143));
}

#[test]
fn no_line_of_the_log_has_a_name_twice() {
    let server = Server::builder().environment("FOUNDRY_LOG__LEVEL", "debug").start();
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"artifact").expect(201);
    let digest = server.repository("team/app").push_blob(b"blob");
    // Their bytes are lost: what fails unexpectedly is logged where it is decided, with its cause.
    std::fs::remove_dir_all(server.data().join("blobs")).unwrap();
    for (id, path) in [("v2", format!("/v2/team/app/blobs/{digest}")), ("v1", "/api/v1/artifacts/p/1".to_owned())] {
        server.request("GET", &path, &[&format!("X-Request-Id: {id}")], b"").expect(500);
        let failures = lines_of(&server, id);
        assert!(failures.iter().any(|line| line["message"] == "request failed" && line["level"] == "ERROR"), "{id}");
    }
    for line in server.log() {
        let Names(mut names) = serde_json::from_str(&line).unwrap();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{line}");
    }
}
