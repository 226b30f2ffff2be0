//! Stopping: what is in flight ends, what rests is closed, and there is a deadline.

use std::time::Duration;

use registry_core::testing::entropy::SeededEntropy;
use registry_http::serve::Drained;

use crate::client::Client;
use crate::server::{FileBlob, TestServer, short};

const HOST: &str = "host: localhost\r\n";

#[tokio::test]
async fn a_request_in_flight_is_answered() {
    let mut server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n")).await;
    server.application.entered.acquire().await.unwrap().forget();
    server.shutdown.cancel();
    server.application.gate.add_permits(1);
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("through", Some("close")));
    assert!(client.is_closed().await);
    assert_eq!(server.stopped().await, Drained { abandoned: 0 });
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_transfer_in_flight_is_finished() {
    let mut server = TestServer::start().await;
    let content = SeededEntropy::new(3).bytes(30_000_000);
    server.application.serve_blob(FileBlob::new(&content, true));
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /blob HTTP/1.1\r\n{HOST}\r\n")).await;
    client.head().await;
    server.shutdown.cancel();
    assert!(client.rest().await.unwrap() == content);
    assert_eq!(server.stopped().await, Drained { abandoned: 0 });
}

#[tokio::test]
async fn connections_at_rest_are_closed_at_once() {
    let mut server = TestServer::start().await;
    let mut fresh = Client::connect(server.address).await;
    let mut resting = Client::connect(server.address).await;
    assert_eq!(resting.get("/hello").await.status, 200);
    crate::answers::until(|| server.server.metrics.encode().contains("foundry_http_connections 2\n")).await;
    server.shutdown.cancel();
    assert!(fresh.is_closed().await && resting.is_closed().await);
    assert_eq!(server.stopped().await, Drained { abandoned: 0 });
}

#[tokio::test]
async fn a_write_without_a_client_is_waited_for() {
    let mut server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("PUT /gate HTTP/1.1\r\n{HOST}content-length: 0\r\n\r\n")).await;
    server.application.entered.acquire().await.unwrap().forget();
    drop(client);
    crate::answers::until(|| server.server.metrics.encode().contains("foundry_http_connections 0\n")).await;
    server.shutdown.cancel();
    tokio::task::yield_now().await;
    server.application.gate.add_permits(1);
    assert_eq!(server.stopped().await, Drained { abandoned: 0 });
    assert_eq!(server.application.finished.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn there_is_a_deadline() {
    let limits = short(|limits| limits.drain_timeout = Duration::from_millis(100));
    let mut server = TestServer::with_limits(limits).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n")).await;
    server.application.entered.acquire().await.unwrap().forget();
    server.shutdown.cancel();
    assert_eq!(server.stopped().await, Drained { abandoned: 1 });
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_http2_stream_in_flight_is_finished() {
    let mut server = TestServer::start().await;
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://localhost/gate").body(String::new()).unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    server.application.entered.acquire().await.unwrap().forget();
    server.shutdown.cancel();
    server.application.gate.add_permits(1);
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes(), "through");
    drop(sender);
    connection.await.unwrap().unwrap();
    assert_eq!(server.stopped().await, Drained { abandoned: 0 });
}
