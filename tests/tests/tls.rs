//! TLS from a certificate and a key.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use registry_tests::oci::sha256;
use registry_tests::process::server_command;
use registry_tests::server::ADMIN;
use registry_tests::{Connection, Process, Random, eventually};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

struct Pair {
    certificate: CertificateDer<'static>,
}

/// A new certificate for `localhost`, in the files that the configuration names.
fn certify(folder: &std::path::Path) -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    Pair { certificate: made.cert.der().clone() }
}

fn start(folder: &std::path::Path) -> Process {
    let mut command = server_command(folder);
    command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN);
    command.env("FOUNDRY_SERVER__TLS__CERTIFICATE", "cert.pem").env("FOUNDRY_SERVER__TLS__KEY", "key.pem");
    Process::start(&mut command)
}

/// A connection that trusts this certificate alone and offers these protocols.
fn connect(
    address: SocketAddr,
    pair: &Pair,
    protocols: &[&str],
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut stream = StreamOwned::new(client, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The whole answer to a request, as bytes: head, body.
fn ask(address: SocketAddr, pair: &Pair, head: &str, body: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = connect(address, pair, &["http/1.1"])?;
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let body = answer.split_off(end + 4);
    Ok((String::from_utf8(answer).unwrap(), body))
}

#[test]
fn everything_works_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let pair = certify(folder.path());
    let mut server = start(folder.path());
    let address = server.address();
    let bytes = Random::new(1).bytes(3 << 20);
    let (head, body) = ask(address, &pair, "POST /api/v1/artifacts/p/1", &bytes).unwrap();
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains(&sha256(&bytes)));
    let (head, body) = ask(address, &pair, "GET /api/v1/artifacts/p/1", b"").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && body == bytes, "{head}");

    // The challenge is for the same scheme.
    let mut stranger = connect(address, &pair, &[]).unwrap();
    stranger.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("realm=\"https://localhost/auth/token\""), "{answer}");

    // HTTP/2 is chosen by whoever can.
    let modern = connect(address, &pair, &["h2", "http/1.1"]).unwrap();
    assert_eq!(modern.conn.alpn_protocol(), Some(&b"h2"[..]));
    let old = connect(address, &pair, &["http/1.1"]).unwrap();
    assert_eq!(old.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn plain_http_on_an_encrypted_port_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let pair = certify(folder.path());
    let mut server = start(folder.path());
    let address = server.address();
    let mut plain = Connection::open(address);
    plain.send_head("GET", "/healthz", &[]).unwrap();
    assert!(plain.answer().map_or(true, |answer| answer.status == 400));
    // A certificate that is not trusted ends the handshake, not the server.
    let other = tempfile::tempdir().unwrap();
    assert!(connect(address, &certify(other.path()), &[]).is_err());
    ask(address, &pair, "GET /healthz", b"").unwrap();
}

#[test]
fn a_renewed_certificate_is_taken_up_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let old = certify(folder.path());
    let mut server = start(folder.path());
    let address = server.address();
    ask(address, &old, "GET /healthz", b"").unwrap();

    // Half a renewal leaves things as they are.
    std::fs::write(folder.path().join("key.pem"), "nonsense").unwrap();
    server.signal(Signal::HUP);
    eventually("the log says so", || server.stderr().contains("stay as they are").then_some(()));
    ask(address, &old, "GET /healthz", b"").unwrap();

    let new = certify(folder.path());
    server.signal(Signal::HUP);
    eventually("the new certificate is shown", || ask(address, &new, "GET /healthz", b"").ok());
    assert!(ask(address, &old, "GET /healthz", b"").is_err());
}

#[test]
fn a_key_that_does_not_fit_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    certify(folder.path());
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    let ended = start(folder.path()).wait();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!folder.path().join("data").exists());
}
