//! Requests and answers on HTTP/1 connections.

use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::server::TestServer;

const HOST: &str = "host: localhost\r\n";

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for _ in 0..3 {
        let answer = client.get("/hello").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(answer.header("content-length"), Some("5"));
        assert!(answer.header("date").is_some());
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let post = |text: &str| format!("POST /echo HTTP/1.1\r\n{HOST}content-length: {}\r\n\r\n{text}", text.len());
    let get = format!("GET /hello HTTP/1.1\r\n{HOST}\r\n");
    client.send(format!("{}{get}{}{}", post("one"), post("three"), post(""))).await;
    for expected in ["one", "hello", "three", ""] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, expected));
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("HEAD /hello HTTP/1.1\r\n{HOST}\r\n")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    // Had a body come, it would be taken for the next answer's head.
    assert_eq!(client.get("/hello").await.text(), "hello");
}

#[tokio::test]
async fn an_http_1_0_client_is_answered_and_left() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send("GET /hello HTTP/1.0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /hello HTTP/1.1\r\n{HOST}connection: close\r\n\r\n")).await;
    assert_eq!(client.answer().await.text(), "hello");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_made() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut ask = async |id: &str| {
        client.send(format!("GET /who HTTP/1.1\r\n{HOST}x-request-id: {id}\r\n\r\n")).await;
        let answer = client.answer().await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert!(answer.text().ends_with(&format!(" {id}")), "the handler sees the same id: {}", answer.text());
        id
    };
    assert_eq!(ask("build-7.step_3").await, "build-7.step_3");
    assert_eq!(ask(&"x".repeat(128)).await, "x".repeat(128));
    let mut made = Vec::new();
    for refused in ["", "a b", "a/b", "<script>", "a\tb", &"x".repeat(129)] {
        let id = ask(refused).await;
        assert_eq!(id.len(), 24, "{refused:?} became {id:?}");
        made.push(id);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 6, "each is made anew");
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_request_id_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for method in ["GET", "POST"] {
        client.send(format!("{method} /panic HTTP/1.1\r\n{HOST}x-request-id: it-panics\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("x-request-id")), (500, Some("it-panics")));
        assert!(answer.text().contains("it-panics") && !answer.text().contains("as the test asked"));
    }
    assert_eq!(client.get("/hello").await.text(), "hello");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
    let server = TestServer::start().await;
    for case in ["short", "failing", "long"] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("GET /broken?case={case} HTTP/1.1\r\n{HOST}\r\n")).await;
        // hyper may not even have sent the head of an answer that fails at once.
        let received = String::from_utf8(client.rest().await.unwrap_or_default()).unwrap();
        assert!(received.is_empty() || received.ends_with("\r\n\r\n") || received.ends_with("\r\n\r\n12345"));
    }
}

#[tokio::test]
async fn a_write_runs_to_its_end_without_its_client() {
    let server = TestServer::start().await;
    let application = &server.application;
    let mut client = Client::connect(server.address).await;
    client.send(format!("PUT /gate HTTP/1.1\r\n{HOST}content-length: 0\r\n\r\n")).await;
    application.entered.acquire().await.unwrap().forget();
    drop(client);
    // The connection's end has been seen once the count of open ones is back at zero.
    until(|| server.server.metrics.encode().contains("foundry_http_connections 0\n")).await;
    application.gate.add_permits(1);
    application.finish.notified().await;
    assert_eq!(application.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_read_ends_with_its_client() {
    let server = TestServer::start().await;
    let application = &server.application;
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n")).await;
    application.entered.acquire().await.unwrap().forget();
    client.stream.shutdown().await.unwrap();
    drop(client);
    until(|| server.server.metrics.encode().contains("foundry_http_requests_in_flight 0\n")).await;
    application.gate.add_permits(1);
    assert_eq!(application.finished.load(Ordering::SeqCst), 0, "nobody was left to go through the gate");
    assert_eq!(application.gate.available_permits(), 1);
}

/// Waits until something that will be true is.
pub async fn until(mut is_true: impl FnMut() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("it becomes true");
}
