//! What one client may hold, and for how long.

use std::time::Duration;

use crate::client::Client;
use crate::server::{FileBlob, TestServer, short};

const HOST: &str = "host: localhost\r\n";

#[tokio::test]
async fn a_slow_head_is_408() {
    let server = TestServer::with_limits(short(|limits| limits.header_timeout = Duration::from_millis(100))).await;
    for beginning in ["G", "PRI * HT", "GET /hello HTTP/1.1\r\n", "GET /hello HTTP/1.1\r\nhost: localhost\r\nx-slow: "]
    {
        let mut client = Client::connect(server.address).await;
        client.send(beginning).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{beginning:?}");
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_second_head_may_not_be_slow_either() {
    let server = TestServer::with_limits(short(|limits| limits.header_timeout = Duration::from_millis(100))).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.get("/hello").await.status, 200);
    client.send("GET /he").await;
    assert_eq!(client.answer().await.status, 408);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = TestServer::with_limits(short(|limits| {
        limits.header_timeout = Duration::from_millis(100);
        limits.idle_timeout = Duration::from_millis(50);
    }))
    .await;
    let mut silent = Client::connect(server.address).await;
    assert!(silent.is_closed().await);
    let mut resting = Client::connect(server.address).await;
    assert_eq!(resting.get("/hello").await.status, 200);
    assert!(resting.is_closed().await);
}

#[tokio::test]
async fn a_request_in_flight_may_take_longer_than_a_head_or_a_rest() {
    let server = TestServer::with_limits(short(|limits| {
        limits.header_timeout = Duration::from_millis(50);
        limits.idle_timeout = Duration::from_millis(50);
    }))
    .await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n")).await;
    server.application.entered.acquire().await.unwrap().forget();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.application.gate.add_permits(1);
    assert_eq!(client.answer().await.text(), "through");
    assert!(client.is_closed().await, "then it rests too long");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431_and_the_next_connection_works() {
    let server = TestServer::start().await;
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let long = |length: usize| format!("x: {}\r\n", "y".repeat(length));
    for headers in [many(101), many(10_000), many(100_000), long(66_000), long(10_000_000)] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("GET /hello HTTP/1.1\r\n{HOST}{headers}\r\n")).await;
        assert_eq!(client.answer().await.status, 431, "{} bytes of headers", headers.len());
        assert_eq!(client.rest().await.unwrap(), b"", "closed, not reset");
        assert_eq!(Client::connect(server.address).await.get("/hello").await.status, 200);
    }
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /hello HTTP/1.1\r\n{HOST}{}x: {}\r\n\r\n", many(98), "y".repeat(60_000))).await;
    assert_eq!(client.answer().await.status, 200, "what is within the limits passes");
}

#[tokio::test]
async fn what_is_no_request_is_400() {
    let server = TestServer::start().await;
    for nonsense in [
        "\0\0\0\0\r\n\r\n",
        "GET /hello\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhost: localhost\r\nbad name: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7f\x03\x03",
    ] {
        let mut client = Client::connect(server.address).await;
        client.send(nonsense).await;
        assert_eq!(client.answer().await.status, 400, "{nonsense:?}");
        assert!(client.is_closed().await);
    }
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "x".repeat(66_000))).await;
    assert!(matches!(client.answer().await.status, 414 | 431));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = TestServer::with_limits(short(|limits| limits.max_connections = 1)).await;
    let mut first = Client::connect(server.address).await;
    assert_eq!(first.get("/hello").await.status, 200);
    let mut second = Client::connect(server.address).await;
    second.send(format!("GET /hello HTTP/1.1\r\n{HOST}\r\n")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.stream.readable()).await;
    assert!(early.is_err(), "the second waits in the backlog");
    drop(first);
    assert_eq!(second.answer().await.text(), "hello");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    for sendfile in [true, false] {
        let limits = short(|limits| limits.write_idle_timeout = Duration::from_millis(100));
        let server = TestServer::with_limits(limits).await;
        server.application.serve_blob(FileBlob::new(&vec![7; 64 << 20], sendfile));
        let mut client = Client::connect(server.address).await;
        client.send(format!("GET /blob HTTP/1.1\r\n{HOST}\r\n")).await;
        crate::answers::until(|| {
            let metrics = server.server.metrics.encode();
            metrics.contains("foundry_http_connections_accepted_total 1\n")
                && metrics.contains("foundry_http_connections 0\n")
        })
        .await;
        let received = client.rest().await.unwrap_or_default();
        assert!(received.len() < 64 << 20, "the rest never came");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_yet_taken_is_no_rest() {
    let limits = short(|limits| {
        limits.idle_timeout = Duration::from_millis(100);
        limits.header_timeout = Duration::from_millis(100);
        limits.write_idle_timeout = Duration::from_secs(1);
    });
    let server = TestServer::with_limits(limits).await;
    let taken = || {
        let metrics = server.server.metrics.encode();
        let line = metrics.lines().find_map(|line| line.strip_prefix("foundry_http_response_body_bytes_total "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let over = || server.server.metrics.encode().contains("foundry_http_requests_in_flight 0\n");
    // How much the sockets and hyper hold of an answer that nobody reads.
    server.application.serve_blob(FileBlob::new(&vec![7; 64 << 20], false));
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /blob HTTP/1.1\r\n{HOST}\r\n")).await;
    crate::answers::until(|| taken() > 0).await;
    // A little less than that: the exchange is over as soon as hyper has the end, and the end stays with hyper.
    let size = taken() - 150_000;
    server.application.serve_blob(FileBlob::new(&vec![7; size], false));
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /blob HTTP/1.1\r\n{HOST}\r\n")).await;
    client.stream.readable().await.unwrap();
    let mut piece = [0; 16_384];
    let mut received = 0;
    while !over() {
        tokio::task::yield_now().await;
        if received < size / 10 {
            received += client.stream.try_read(&mut piece).unwrap_or(0);
        }
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    received += client.rest().await.unwrap().len();
    let head = received - size;
    assert!((100..400).contains(&head), "{received} bytes came of {size} and a head");
}

#[tokio::test]
async fn nonsense_harms_nobody() {
    use registry_core::testing::entropy::SeededEntropy;
    let server = TestServer::start().await;
    let random = SeededEntropy::new(17);
    let pieces: [&[u8]; 10] = [
        b"GET ",
        b"/hello",
        b" HTTP/1.1\r\n",
        b"host: a\r\n",
        b"\r\n",
        b"content-length: 5\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"transfer-encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"\0\0\x04\x08\0\0\0\0\0",
    ];
    for _ in 0..300 {
        let mut client = Client::connect(server.address).await;
        let mut nonsense = Vec::new();
        for _ in 0..random.below(12) {
            match random.below(pieces.len() + 2) {
                n if n < pieces.len() => nonsense.extend_from_slice(pieces[n]),
                _ => nonsense.extend(random.bytes(random.below(40))),
            }
        }
        // The server may have closed before it saw everything.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &nonsense).await;
    }
    assert_eq!(Client::connect(server.address).await.get("/hello").await.status, 200);
    crate::answers::until(|| server.server.metrics.encode().contains("foundry_http_requests_in_flight 0\n")).await;
}
