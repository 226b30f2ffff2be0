//! HTTP/2, with prior knowledge.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use registry_core::services::BodyError;
use registry_core::testing::entropy::SeededEntropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{FileBlob, TestServer, short};

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

async fn connect(server: &TestServer) -> SendRequest<Body> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}")).body(full("")).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = TestServer::start().await;
    let mut client = connect(&server).await;
    let slow = client.send_request(get("/gate"));
    let slow = tokio::spawn(slow);
    server.application.entered.acquire().await.unwrap().forget();
    let answer = client.send_request(get("/hello")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-length"], "5");
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    server.application.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "through");
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let server = TestServer::start().await;
    let content = SeededEntropy::new(2).bytes(3_000_001);
    server.application.serve_blob(FileBlob::new(&content, true));
    let mut client = connect(&server).await;
    let answer = client.send_request(get("/blob?from=1")).await.unwrap();
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == content[1..]);
    let post = Request::post("http://localhost/echo").body(full(content[..1_000_000].to_vec())).unwrap();
    let answer = client.send_request(post).await.unwrap();
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == content[..1_000_000]);
    let head = Request::head("http://localhost/blob").body(full("")).unwrap();
    let answer = client.send_request(head).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "3000001");
}

#[tokio::test]
async fn an_early_answer_reaches_the_client_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let mut client = connect(&server).await;
    let endless = futures_util::stream::repeat_with(|| Ok(http_body::Frame::data(Bytes::from_static(&[0; 16_384]))));
    let put = Request::put("http://localhost/refuse").body(BodyExt::boxed(StreamBody::new(endless))).unwrap();
    let answer = client.send_request(put).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no");
    assert_eq!(client.send_request(get("/hello")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_is_reset_is_disconnected() {
    let server = TestServer::start().await;
    for announced in [None, Some("1000")] {
        let mut client = connect(&server).await;
        let piece = futures_util::stream::once(async { Ok(http_body::Frame::data(Bytes::from_static(b"abc"))) });
        let broken = piece.chain(futures_util::stream::once(async { Err(std::io::Error::other("no more")) }));
        let mut put = Request::put("http://localhost/consume");
        if let Some(length) = announced {
            put = put.header("content-length", length);
        }
        let put = put.body(BodyExt::boxed(StreamBody::new(broken))).unwrap();
        assert!(client.send_request(put).await.is_err());
        assert_eq!(server.application.next_consumed().await, Err(BodyError::Disconnected), "{announced:?}");
    }
}

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// The payload of a request's HEADERS; HPACK: indexed `:scheme: http` (6), then literals `:path` (4), `:authority` (1).
fn head(method: u8, path: &str) -> Vec<u8> {
    let mut headers = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    headers.extend_from_slice(path.as_bytes());
    headers.extend_from_slice(&[0x01, 9]);
    headers.extend_from_slice(b"localhost");
    headers
}

/// HPACK: indexed `:method: GET` and `:method: POST`.
const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// A connection that has asked `POST path` on stream 1 and sent `abc` of its body, without an end.
async fn unfinished_post(server: &TestServer, path: &str) -> TcpStream {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, 4, 1, &head(POST, path)));
    bytes.extend(frame(DATA, 0, 1, b"abc"));
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    socket
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// The next frame: kind, flags, stream, payload.
async fn next_frame(socket: &mut TcpStream) -> (u8, u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut head));
    read.await.expect("the server sends a frame").expect("the connection goes on");
    let [_, high, low, kind, flags, .., stream] = head;
    let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
    socket.read_exact(&mut payload).await.unwrap();
    (kind, flags, stream, payload)
}

/// hyper hands a reset with NO_ERROR on as the regular end of the body.
#[tokio::test]
async fn a_stream_that_is_reset_without_an_error_is_disconnected_too() {
    let server = TestServer::start().await;
    let mut socket = unfinished_post(&server, "/consume").await;
    socket.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 0])).await.unwrap();
    assert_eq!(server.application.next_consumed().await, Err(BodyError::Disconnected));
}

/// There are clients that drop the answer when the stream is reset right after it, even with NO_ERROR.
#[tokio::test]
async fn an_early_answer_is_not_followed_by_a_reset() {
    let server = TestServer::start().await;
    let mut socket = unfinished_post(&server, "/refuse").await;
    let mut kinds = Vec::new();
    loop {
        let (kind, flags, stream, payload) = next_frame(&mut socket).await;
        match (kind, flags & 1) {
            // The end of the answer: whatever follows at once comes before the answer to this.
            (DATA, 1) => socket.write_all(&frame(PING, 0, 0, b"8 octets")).await.unwrap(),
            (PING, 1) if payload == b"8 octets" => break,
            _ => {}
        }
        kinds.extend((stream == 1).then_some(kind));
    }
    assert_eq!(kinds, [HEADERS, DATA]);
    // Nor is the client stopped from sending the rest.
    socket.write_all(&frame(DATA, 1, 1, b"def")).await.unwrap();
}

/// Its flow-control windows close it, so there is nothing that the socket could wait for.
#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let limits = short(|limits| limits.write_idle_timeout = Duration::from_secs(1));
    let server = TestServer::with_limits(limits).await;
    server.application.serve_blob(FileBlob::new(&vec![7; 3_000_000], true));
    for window in [0, 1, 60_000] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let initial_window_size = [&[0, 4][..], &u32::to_be_bytes(window)].concat();
        bytes.extend(frame(SETTINGS, 0, 0, &initial_window_size));
        bytes.extend(frame(HEADERS, 5, 1, &head(GET, "/blob")));
        bytes.extend(frame(HEADERS, 5, 3, &head(GET, "/piece?bytes=3000000")));
        bytes.extend(frame(HEADERS, 5, 5, &head(GET, "/piece?bytes=70000")));
        socket.write_all(&bytes).await.unwrap();
        let mut reset = Vec::new();
        while reset.len() < 3 {
            let (kind, flags, stream, payload) = next_frame(&mut socket).await;
            if kind == RST_STREAM {
                assert_eq!(payload, [0, 0, 0, 8], "CANCEL");
                reset.push(stream);
            }
            assert!((kind, flags & 1) != (DATA, 1), "{window}: stream {stream} is not whole");
        }
        reset.sort_unstable();
        assert_eq!(reset, [1, 3, 5], "{window}");
        let in_flight = || server.server.metrics.encode().contains("foundry_http_requests_in_flight 0\n");
        crate::answers::until(in_flight).await;

        let mut bytes = frame(HEADERS, 5, 7, &head(GET, "/hello"));
        bytes.extend(frame(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 5]));
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 5]));
        socket.write_all(&bytes).await.unwrap();
        let mut text = Vec::new();
        loop {
            let (kind, flags, stream, payload) = next_frame(&mut socket).await;
            if (kind, stream) == (DATA, 7) {
                text.extend(payload);
                if flags & 1 == 1 {
                    break;
                }
            }
        }
        assert_eq!(text, b"hello", "{window}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_resets_the_stream() {
    let server = TestServer::start().await;
    let mut client = connect(&server).await;
    for case in ["short", "failing", "long"] {
        // The reset may come before the head of an answer that fails at once.
        if let Ok(answer) = client.send_request(get(&format!("/broken?case={case}"))).await {
            assert!(answer.into_body().collect().await.is_err(), "{case}");
        }
    }
    assert_eq!(client.send_request(get("/hello")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_connection_at_rest_is_closed() {
    let server = TestServer::with_limits(short(|limits| limits.idle_timeout = Duration::from_millis(50))).await;
    let mut client = connect(&server).await;
    assert_eq!(client.send_request(get("/hello")).await.unwrap().status(), StatusCode::OK);
    tokio::time::timeout(Duration::from_secs(20), async {
        while !client.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server says goodbye");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = TestServer::start().await;
    let mut client = connect(&server).await;
    let mut request = get("/hello");
    request.headers_mut().insert("x-giant", "y".repeat(100_000).parse().unwrap());
    match client.send_request(request).await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_user() || error.is_closed() || !error.is_timeout(), "{error}"),
    }
    assert_eq!(connect(&server).await.send_request(get("/hello")).await.unwrap().status(), StatusCode::OK);
}
