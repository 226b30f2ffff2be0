//! The same over TLS.

use std::sync::Arc;
use std::time::Duration;

use rcgen::CertifiedKey;
use registry_core::testing::entropy::SeededEntropy;
use registry_http::tls::{TlsError, server_config};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::Client;
use crate::server::{FileBlob, TestServer, short};

struct Identity {
    certificate: String,
    key: String,
    trust: RootCertStore,
}

fn identity() -> Identity {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let mut trust = RootCertStore::empty();
    trust.add(cert.der().clone()).unwrap();
    Identity { certificate: cert.pem(), key: signing_key.serialize_pem(), trust }
}

async fn start(identity: &Identity, limits: registry_http::limits::Limits) -> TestServer {
    let config = server_config(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap();
    TestServer::with_tls(Some(config), |server| server.limits = limits).await
}

async fn connect(server: &TestServer, identity: &Identity, protocols: &[&str]) -> TlsStream<TcpStream> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(identity.trust.clone()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

#[tokio::test]
async fn requests_and_files_are_served() {
    let identity = identity();
    let server = start(&identity, short(|_| {})).await;
    let content = SeededEntropy::new(4).bytes(5_000_003);
    server.application.serve_blob(FileBlob::new(&content, true));
    let mut client = Client::over(connect(&server, &identity, &["http/1.1"]).await);
    assert!(client.get("/who").await.text().starts_with("https://localhost 127.0.0.1 "));
    assert!(client.get("/blob?from=2").await.body == content[2..]);
    assert_eq!(client.get("/hello").await.text(), "hello");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends_all_before_it_reads() {
    let identity = identity();
    let server = start(&identity, short(|_| {})).await;
    let mut client = Client::over(connect(&server, &identity, &["http/1.1"]).await);
    client.send("PUT /refuse HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n").await;
    for _ in 0..20 {
        client.send(vec![b'x'; 1_000_000]).await;
    }
    assert_eq!(client.answer().await.text(), "no");
}

#[tokio::test]
async fn http2_is_chosen_by_alpn() {
    let identity = identity();
    let server = start(&identity, short(|_| {})).await;
    let stream = connect(&server, &identity, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/hello").body(String::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_handshake_may_not_take_long() {
    let identity = identity();
    let limits = short(|limits| limits.tls_handshake_timeout = Duration::from_millis(100));
    let server = start(&identity, limits).await;
    let mut client = Client::connect(server.address).await;
    client.send([0x16, 3, 1]).await;
    assert!(client.is_closed().await);
    assert!(server.server.metrics.encode().contains("reason=\"tls_handshake_timeout\"} 1"));
}

#[tokio::test]
async fn what_is_no_tls_does_no_harm() {
    let identity = identity();
    let server = start(&identity, short(|_| {})).await;
    let mut plain = Client::connect(server.address).await;
    plain.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let _ = plain.rest().await;
    let mut client = Client::over(connect(&server, &identity, &[]).await);
    assert_eq!(client.get("/hello").await.text(), "hello");
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let (one, other) = (identity(), identity());
    let load = |certificate: &str, key: &str| server_config(certificate.as_bytes(), key.as_bytes());
    assert!(matches!(load(&one.certificate, &other.key), Err(TlsError::Mismatch(_))));
    assert!(matches!(load(&one.key, &one.key), Err(TlsError::NoCertificate)));
    assert!(matches!(load(&one.certificate, &one.certificate), Err(TlsError::Key(_))));
    assert!(matches!(
        load("-----BEGIN CERTIFICATE-----\nx", &one.key),
        Err(TlsError::Certificates(_) | TlsError::NoCertificate)
    ));
    assert!(load(&one.certificate, &one.key).is_ok());
}
