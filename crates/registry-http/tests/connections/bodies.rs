//! Bodies of requests: framing, limits, early answers, clients that go away or do not go on.

use std::time::Duration;

use registry_core::services::BodyError;
use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::server::{TestServer, short};

const HOST: &str = "host: localhost\r\n";

#[tokio::test]
async fn chunked_bodies_arrive_whole() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let head = format!("POST /echo HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n");
    client.send(format!("{head}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\ntrailer: 1\r\n\r\n")).await;
    assert_eq!(client.answer().await.text(), "abcde");
    assert_eq!(client.get("/hello").await.text(), "hello");
}

/// However fast they come: what is read at once is kept by each connection until it is written.
#[tokio::test]
async fn bodies_come_in_pieces_that_cost_little_memory() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("PUT /pieces HTTP/1.1\r\n{HOST}content-length: {LENGTH}\r\n\r\n")).await;
    let some = vec![7; LENGTH / 64];
    client.send(&some).await;
    server.application.gate.add_permits(1);
    for _ in 1..64 {
        client.send(&some).await;
    }
    let longest: usize = client.answer().await.text().parse().unwrap();
    assert!((16 * 1024..=256 * 1024).contains(&longest), "{longest}");
}

#[tokio::test]
async fn broken_framing_is_malformed() {
    let server = TestServer::start().await;
    for broken in ["x\r\nabc\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("POST /consume HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n{broken}")).await;
        assert_eq!(server.application.next_consumed().await, Err(BodyError::Malformed), "{broken:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_disconnected() {
    let server = TestServer::start().await;
    for sent in [
        "content-length: 10\r\n\r\n",
        "content-length: 10\r\n\r\n123456789",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("PUT /consume HTTP/1.1\r\n{HOST}{sent}")).await;
        drop(client);
        assert_eq!(server.application.next_consumed().await, Err(BodyError::Disconnected), "{sent:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_little_now_and_then_runs_out_of_time() {
    let server = TestServer::with_limits(short(|limits| limits.body_idle_timeout = Duration::from_millis(200))).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("PUT /consume HTTP/1.1\r\n{HOST}content-length: 1000000\r\n\r\n")).await;
    let (reader, mut writer) = client.stream.into_split();
    let drip = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    assert_eq!(server.application.next_consumed().await, Err(BodyError::TimedOut));
    drop(reader);
    drip.abort();
}

#[tokio::test]
async fn time_in_which_nobody_reads_is_not_the_clients() {
    let server = TestServer::with_limits(short(|limits| limits.body_idle_timeout = Duration::from_millis(300))).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("POST /gate HTTP/1.1\r\n{HOST}content-length: 3\r\n\r\n")).await;
    server.application.entered.acquire().await.unwrap().forget();
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.application.gate.add_permits(1);
    client.send("abc").await;
    assert_eq!(client.answer().await.text(), "through");
    assert_eq!(client.get("/hello").await.text(), "hello", "the unread body was drained");
}

#[tokio::test]
async fn a_document_over_its_limit_is_too_large() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("POST /limited HTTP/1.1\r\n{HOST}content-length: 10\r\n\r\n0123456789")).await;
    assert_eq!(client.answer().await.text(), "0123456789");
    client.send(format!("POST /limited HTTP/1.1\r\n{HOST}content-length: 11\r\n\r\n0123456789x")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "TooLarge"));
    let chunked = "transfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n";
    client.send(format!("POST /limited HTTP/1.1\r\n{HOST}{chunked}")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "TooLarge"));
    assert_eq!(client.get("/hello").await.text(), "hello", "little was left unread, so the connection goes on");
}

#[tokio::test]
async fn continue_is_said_when_the_body_is_wanted() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("POST /echo HTTP/1.1\r\n{HOST}content-length: 3\r\nexpect: 100-continue\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 100);
    client.send("abc").await;
    assert_eq!(client.answer().await.text(), "abc");
}

#[tokio::test]
async fn a_refusal_comes_instead_of_continue() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("POST /refuse HTTP/1.1\r\n{HOST}content-length: 3\r\nexpect: 100-continue\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn after_an_early_answer_a_small_rest_is_drained() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for length in [1, 100_000, 256 * 1024] {
        client.send(format!("PUT /refuse HTTP/1.1\r\n{HOST}content-length: {length}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (401, None), "{length}");
        client.send(vec![b'x'; length]).await;
    }
    assert_eq!(client.get("/hello").await.text(), "hello");
}

/// Who is not told `Connection: close` sends the next request on the same connection.
#[tokio::test]
async fn an_early_answer_to_a_body_of_unknown_length_says_whether_the_connection_goes_on() {
    let server = TestServer::start().await;
    let chunked = |path: &str| format!("PUT {path} HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n");
    for path in ["/refuse", "/refuse-late"] {
        let mut client = Client::connect(server.address).await;
        client.send(chunked(path) + "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.header("connection"), answer.text()), (None, "no"), "{path}: all of it was there");
        assert_eq!(client.get("/hello").await.text(), "hello");

        client.send(chunked(path) + "3\r\nabc\r\n").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.header("connection"), answer.text()),
            (Some("close"), "no"),
            "{path}: its end does not come"
        );

        let mut client = Client::connect(server.address).await;
        client.send(chunked(path)).await;
        for _ in 0..64 {
            client.send(format!("10000\r\n{}\r\n", "x".repeat(0x1_0000))).await;
        }
        client.send("0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.header("connection"), answer.text()),
            (Some("close"), "no"),
            "{path}: nobody reads all that"
        );
        assert_eq!(client.rest().await.unwrap(), b"", "closed, not reset");
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends_all_before_it_reads() {
    let server = TestServer::start().await;
    for path in ["/refuse", "/refuse-late"] {
        let mut client = Client::connect(server.address).await;
        let length = 50_000_000;
        client.send(format!("PUT {path} HTTP/1.1\r\n{HOST}content-length: {length}\r\n\r\n")).await;
        for _ in 0..50 {
            client.send(vec![b'x'; 1_000_000]).await;
        }
        let answer = client.answer().await;
        assert!(matches!(answer.status, 401 | 409));
        assert_eq!((answer.header("connection"), answer.text()), (Some("close"), "no"));
        assert_eq!(client.rest().await.unwrap(), b"", "closed, not reset");
    }
}

#[tokio::test]
async fn listening_to_an_answered_client_has_an_end() {
    let server = TestServer::with_limits(short(|limits| {
        limits.linger_timeout = Duration::from_millis(300);
        limits.linger_idle_timeout = Duration::from_millis(100);
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("PUT /refuse HTTP/1.1\r\n{HOST}content-length: 1000000000\r\n\r\n")).await;
    assert_eq!(client.answer().await.status, 401);
    crate::answers::until(|| server.server.metrics.encode().contains("foundry_http_connections 0\n")).await;
}

#[tokio::test]
async fn contradicting_lengths_are_refused() {
    let server = TestServer::start().await;
    for headers in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: -1\r\n",
        "content-length: x\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
    ] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("POST /echo HTTP/1.1\r\n{HOST}{headers}\r\nabcd")).await;
        assert_eq!(client.answer().await.status, 400, "{headers:?}");
        assert!(client.is_closed().await);
    }
}
