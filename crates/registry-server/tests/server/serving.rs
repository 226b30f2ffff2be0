//! A running server: its pages, its log, its end.

use std::io::Write as _;
use std::sync::Arc;

use rustix::process::Signal;

use crate::support::{Answer, Place, TOKEN, head};

#[test]
fn the_pages_of_operators_are_there_and_metrics_can_be_left_out() {
    let server = Place::with_token().serve(&[]);
    assert_eq!(server.request("GET", "/healthz", &[], b"").status, 200);
    let ready = server.request("GET", "/readyz", &[], b"");
    let ready: serde_json::Value = serde_json::from_str(&ready.text()).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    let names: Vec<_> = ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(names, ["metadata", "blobs"]);
    assert!(server.request("GET", "/metrics", &[], b"").text().contains("foundry_http_requests_total"));
    let without = Place::with_token().variable("FOUNDRY_METRICS__ENABLED", "false").serve(&[]);
    assert_eq!(without.request("GET", "/metrics", &[], b"").status, 404);
    assert_eq!(without.request("GET", "/healthz", &[], b"").status, 200);
}

#[test]
fn each_request_is_logged_with_its_id_and_without_its_secrets() {
    let server = Place::with_token().serve(&[]);
    let headers = ["X-Request-Id: my-request-1", &format!("Authorization: Bearer {TOKEN}")];
    let answer = server.request("GET", "/api/v1/packages?search=hunter2", &headers, b"");
    assert!(answer.head.contains("x-request-id: my-request-1"), "{}", answer.head);
    let (.., log) = server.stop();
    let line = log.iter().find(|line| line["request_id"] == "my-request-1").unwrap_or_else(|| panic!("{log:#?}"));
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/api/v1/packages".into(), &200.into())
    );
    assert!(!log.iter().any(|line| line.to_string().contains(TOKEN) || line.to_string().contains("hunter2")));
    let quiet = Place::with_token().variable("FOUNDRY_LOG__ACCESS", "false").serve(&[]);
    quiet.request("GET", "/healthz", &[], b"");
    let (.., log) = quiet.stop();
    assert!(!log.iter().any(|line| line["path"] == "/healthz"));
}

#[test]
fn the_start_warns_of_what_an_operator_may_not_have_meant() {
    let place = Place::new()
        .file("config.yaml", "auth: {tokens: [short], anonymous: push}\nregistries: {generic: {anonymous: admin}}\n")
        .variable("GRPC_PORT", "9000");
    let (.., log) = place.serve(&["-host", "0.0.0.0"]).stop();
    let warnings: Vec<_> = log.iter().filter(|line| line["level"] == "WARN").collect();
    let count = |message: &str| warnings.iter().filter(|line| line["message"] == message).count();
    assert_eq!(count("anybody who reaches this server may write to it"), 2);
    assert_eq!(count("a token of fewer than 16 characters can be guessed"), 1);
    assert_eq!(count("this key has no effect in this release"), 1);
    assert!(log.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("without encryption"))));
    let (.., log) = Place::with_token().serve(&[]).stop();
    assert!(!log.iter().any(|line| line["level"] == "WARN"), "{log:?}");
}

#[test]
fn garbage_is_collected_in_the_background() {
    let place = Place::with_token().variable("FOUNDRY_GC__INTERVAL", "20ms");
    let mut server = place.serve(&[]);
    let path = "/api/v1/artifacts/mypkg/1.0.0";
    assert_eq!(server.authorized("POST", path, b"some bytes").status, 201);
    assert_eq!(server.authorized("DELETE", path, b"").status, 204);
    // Collections that began before the deletion find nothing.
    while server.wait_for("garbage collected")["bytes_freed"] != 10 {}
    server.wait_for("garbage collected");
}

#[test]
fn a_stop_lets_the_requests_under_way_finish() {
    let place = Place::with_token();
    let mut server = place.serve(&[]);
    let mut stream = server.connect();
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let body = vec![7; 100_000];
    let text = head("POST", "/api/v1/artifacts/slow/1.0.0", &[&authorization, "Expect: 100-continue"], body.len());
    stream.write_all(text.as_bytes()).unwrap();
    // The server asks for the body: the request is under way.
    let mut asked = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body[..50_000]).unwrap();
    server.signal(Signal::TERM);
    server.wait_for("stopping: the requests under way may finish");
    stream.write_all(&body[50_000..]).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 201);
    let (code, _, log) = server.end();
    assert_eq!(code, Some(0));
    assert_eq!(log.last().unwrap()["abandoned"], 0);
    let again = place.serve(&[]);
    assert_eq!(again.authorized("GET", "/api/v1/artifacts/slow/1.0.0", b"").body, body);
}

#[test]
fn it_serves_on_for_a_while_when_it_is_not_ready_any_more() {
    let mut server = Place::with_token().variable("FOUNDRY_SERVER__SHUTDOWN_DELAY", "1h").serve(&[]);
    assert_eq!(server.authorized("GET", "/readyz", b"").status, 200);
    server.signal(Signal::TERM);
    server.wait_for("not ready any more");
    let answer = server.authorized("GET", "/readyz", b"");
    assert_eq!((answer.status, answer.text().contains("it was told to stop")), (503, true), "{}", answer.text());
    assert_eq!(server.authorized("GET", "/readyz?exclude=stores", b"").status, 503, "that is of the process itself");
    for path in ["/healthz", "/v2/", "/api/v1/packages"] {
        assert_eq!(server.authorized("GET", path, b"").status, 200, "{path}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(143));

    let brief = Place::with_token().variable("FOUNDRY_SERVER__SHUTDOWN_DELAY", "100ms").serve(&[]);
    brief.signal(Signal::TERM);
    assert_eq!(brief.end().0, Some(0));
    // A person does not want to wait.
    let server = Place::with_token().variable("FOUNDRY_SERVER__SHUTDOWN_DELAY", "1h").serve(&[]);
    server.signal(Signal::INT);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut server = Place::with_token().serve(&[]);
    let mut stream = server.connect();
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let text = head("POST", "/api/v1/artifacts/slow/1.0.0", &[&authorization, "Expect: 100-continue"], 10);
    stream.write_all(text.as_bytes()).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 25]).unwrap();
    server.signal(Signal::TERM);
    server.wait_for("stopping: the requests under way may finish");
    server.signal(Signal::INT);
    assert_eq!(server.end().0, Some(130));
}

#[test]
fn a_request_that_does_not_finish_in_time_is_given_up() {
    let server = Place::with_token().variable("FOUNDRY_SERVER__SHUTDOWN_GRACE", "50ms").serve(&[]);
    let mut stream = server.connect();
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let text = head("POST", "/api/v1/artifacts/slow/1.0.0", &[&authorization, "Expect: 100-continue"], 10);
    stream.write_all(text.as_bytes()).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 25]).unwrap();
    let (code, _, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(log.last().unwrap()["abandoned"].as_u64().unwrap() > 0, "{log:?}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let place = Place::with_token();
    let server = place.serve(&[]);
    let port = server.address.port().to_string();
    let second = Place::with_token().run(&["-port", &port]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("Address already in use") && second.stderr.contains(&port), "{}", second.stderr);
}

#[test]
fn two_servers_serve_one_folder() {
    let place = Place::with_token();
    let (first, second) = (place.serve(&[]), place.serve(&[]));
    assert_eq!(first.authorized("POST", "/api/v1/artifacts/shared/1.0.0", b"bytes").status, 201);
    assert_eq!(second.authorized("GET", "/api/v1/artifacts/shared/1.0.0", b"").text(), "bytes");
}

/// A certificate and its key in two files of `place`.
fn write_certificate(place: &Place) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(place.path("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(place.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().to_vec()
}

/// The answer to `GET /healthz`, trusting exactly `certificate`.
fn get_over_tls(address: std::net::SocketAddr, certificate: &[u8]) -> Result<Answer, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    match stream.write_all(head("GET", "/healthz", &[], 0).as_bytes()) {
        Ok(()) => Ok(Answer::read(&mut stream)),
        Err(error) => Err(error.downcast::<rustls::Error>().unwrap()),
    }
}

#[test]
fn tls_is_served_checked_and_renewed_without_a_restart() {
    let place = Place::with_token()
        .variable("FOUNDRY_SERVER__TLS__CERTIFICATE", "tls.crt")
        .variable("FOUNDRY_SERVER__TLS__KEY", "tls.key");
    let missing = place.run(&["-port", "0"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("tls.crt"), "{}", missing.stderr);

    let first = write_certificate(&place);
    let mut server = place.serve(&[]);
    let port = server.address.port().to_string();
    assert_eq!(get_over_tls(server.address, &first).unwrap().status, 200);
    assert_eq!(place.run(&["-port", &port, "healthcheck"]).code, Some(0));

    let second = write_certificate(&place);
    let mistaken = place.run(&["-port", &port, "healthcheck"]);
    assert_eq!(mistaken.code, Some(1));
    assert!(mistaken.stderr.contains("another certificate"), "{}", mistaken.stderr);
    server.signal(Signal::HUP);
    server.wait_for("certificate and key read again");
    assert_eq!(get_over_tls(server.address, &second).unwrap().status, 200);
    assert!(get_over_tls(server.address, &first).is_err(), "the old one is not shown any more");

    std::fs::write(place.path("tls.key"), "no key").unwrap();
    server.signal(Signal::HUP);
    server.wait_for("certificate and key stay as they are");
    assert_eq!(get_over_tls(server.address, &second).unwrap().status, 200);
}
