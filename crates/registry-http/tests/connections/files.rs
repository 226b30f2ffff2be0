//! Blobs, byte for byte, by whichever way they are sent.

use std::sync::Arc;

use registry_core::testing::entropy::SeededEntropy;
use tokio::io::AsyncReadExt;

use crate::answers::until;
use crate::client::Client;
use crate::server::{FileBlob, TestServer};

/// Not a multiple of anything.
const SIZE: usize = 9_000_001;

fn content() -> Vec<u8> {
    SeededEntropy::new(11).bytes(SIZE)
}

#[tokio::test]
async fn ranges_arrive_byte_for_byte_on_one_connection() {
    let content = content();
    for sendfile in [true, false] {
        let server = TestServer::start().await;
        server.application.serve_blob(FileBlob::new(&content, sendfile));
        let mut client = Client::connect(server.address).await;
        let random = SeededEntropy::new(5);
        let mut ranges =
            vec![(0, SIZE), (0, 0), (0, 1), (SIZE - 1, SIZE), (SIZE, SIZE), (4095, 4097), (4096, 8_192 + 65_536)];
        ranges.extend((0..30).map(|_| {
            let (one, other) = (random.below(SIZE), random.below(SIZE));
            (one.min(other), one.max(other))
        }));
        for (from, to) in ranges {
            let answer = client.get(&format!("/blob?from={from}&to={to}")).await;
            assert_eq!(answer.header("content-length"), Some(&*(to - from).to_string()));
            assert!(answer.body == content[from..to], "{from}..{to}, sendfile: {sendfile}");
        }
    }
}

#[tokio::test]
async fn pipelined_blobs_and_small_answers_keep_their_order() {
    let content = content();
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&content, true));
    let mut client = Client::connect(server.address).await;
    let ranges = [(1, 3_000_000), (5_000_000, SIZE), (100, 200_000), (0, 10), (70_000, 140_000)];
    let get = |path: String| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    for (from, to) in ranges {
        client.send(get(format!("/blob?from={from}&to={to}"))).await;
        client.send(get("/hello".into())).await;
    }
    for (from, to) in ranges {
        assert!(client.answer().await.body == content[from..to], "{from}..{to}");
        assert_eq!(client.answer().await.text(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_do_not_mix() {
    let content = Arc::new(content());
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&content, true));
    let clients: Vec<_> = (0..16)
        .map(|seed| {
            let (content, address) = (content.clone(), server.address);
            tokio::spawn(async move {
                let random = SeededEntropy::new(seed);
                let mut client = Client::connect(address).await;
                for _ in 0..8 {
                    let from = random.below(SIZE);
                    let to = from + random.below(SIZE - from);
                    let answer = client.get(&format!("/blob?from={from}&to={to}")).await;
                    assert!(answer.body == content[from..to], "{from}..{to}");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_gets_the_same_bytes() {
    let content = content();
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&content, true));
    let mut client = Client::connect(server.address).await;
    client.send("GET /blob HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.header("content-length"), Some(&*SIZE.to_string()));
    // What came with the head, then a few bytes at a time with turns for the server between.
    let mut body = client.rest_so_far();
    let mut piece = [0; 10_007];
    while body.len() < SIZE {
        let read = client.stream.read(&mut piece).await.unwrap();
        assert!(read > 0);
        body.extend_from_slice(&piece[..read]);
        tokio::task::yield_now().await;
    }
    assert!(body == content);
}

#[tokio::test]
async fn a_file_that_is_not_in_memory_is_read_first() {
    let content = content();
    let server = TestServer::start().await;
    let blob = FileBlob::new(&content, true);
    blob.chill();
    server.application.serve_blob(blob);
    let mut client = Client::connect(server.address).await;
    assert!(client.get("/blob").await.body == content);
    assert!(client.get("/blob?from=12345&to=8000000").await.body == content[12_345..8_000_000]);
}

#[tokio::test]
async fn a_file_that_lost_its_end_breaks_the_answer_off() {
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::cut(&content(), 1_000_000));
    let mut client = Client::connect(server.address).await;
    client.send("GET /blob HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.head().await.header("content-length"), Some(&*SIZE.to_string()));
    assert!(client.rest().await.unwrap_or_default().len() <= 1_000_000);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_ends_the_exchange() {
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&vec![1; 64 << 20], true));
    let mut client = Client::connect(server.address).await;
    client.send("GET /blob HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    client.head().await;
    assert!(
        server.server.metrics.encode().contains("foundry_http_requests_in_flight 1\n"),
        "it lasts until it is sent"
    );
    drop(client);
    until(|| server.server.metrics.encode().contains("foundry_http_requests_in_flight 0\n")).await;
}

#[tokio::test]
async fn head_of_a_blob_has_its_length() {
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&content(), true));
    let mut client = Client::connect(server.address).await;
    client.send("HEAD /blob?from=1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.head().await.header("content-length"), Some(&*(SIZE - 1).to_string()));
    assert_eq!(client.get("/hello").await.text(), "hello");
}
