//! What is logged about requests.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;
use tracing_subscriber::fmt::MakeWriter;

use crate::client::Client;
use crate::server::{FileBlob, TestServer};

/// Keeps the lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    /// The first event for which `wanted` holds; it may still have to come.
    async fn event(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let found = async {
            loop {
                let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
                let mut events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
                if let Some(event) = events.find(&wanted) {
                    return event;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("it is logged")
    }
}

/// Everything runs on the thread of the test, so its default subscriber sees it all.
fn capture() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn each_request_is_one_event() {
    let (lines, _guard) = capture();
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    client.send("GET /hello?token=secret HTTP/1.1\r\nhost: a\r\nx-request-id: r-1\r\n\r\n").await;
    client.answer().await;
    let event = lines.event(|event| event["target"] == "access").await;
    let fields = &event["fields"];
    assert_eq!(fields["request_id"], "r-1");
    assert_eq!(fields["method"], "GET");
    assert_eq!(fields["path"], "/hello");
    assert_eq!(fields["route"], "/hello");
    assert_eq!(fields["user"], "alice");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["bytes_in"], 0);
    assert_eq!(fields["bytes_out"], 5);
    assert_eq!(fields["version"], "1.1");
    assert_eq!(fields["whole"], true);
    assert!(fields["duration_us"].is_u64());
    assert!(fields["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn every_line_of_a_request_has_its_id() {
    let (lines, _guard) = capture();
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    for (method, id) in [("GET", "r-2"), ("POST", "r-3")] {
        client.send(format!("{method} /log HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\n\r\n")).await;
        client.answer().await;
        let event = lines.event(|event| event["fields"]["what"] == "inside" && event["span"]["request_id"] == id).await;
        assert_eq!(event["span"]["name"], "request");
    }
    client.send("GET /panic HTTP/1.1\r\nhost: a\r\nx-request-id: r-4\r\n\r\n").await;
    client.answer().await;
    let event = lines.event(|event| event["fields"]["panic"] == "as the test asked").await;
    assert_eq!((event["level"].as_str(), event["span"]["request_id"].as_str()), (Some("ERROR"), Some("r-4")));
    client.send("GET /broken?case=failing HTTP/1.1\r\nhost: a\r\nx-request-id: r-5\r\n\r\n").await;
    let event = lines.event(|event| event["fields"]["error"] == "as the test asked").await;
    assert_eq!(event["span"]["request_id"], "r-5");
}

#[tokio::test]
async fn what_a_client_did_not_take_is_not_called_whole() {
    let (lines, _guard) = capture();
    let server = TestServer::start().await;
    server.application.serve_blob(FileBlob::new(&vec![1; 64 << 20], true));
    let mut client = Client::connect(server.address).await;
    client.send("GET /blob HTTP/1.1\r\nhost: a\r\nx-request-id: r-6\r\n\r\n").await;
    client.head().await;
    drop(client);
    let event = lines.event(|event| event["fields"]["request_id"] == "r-6").await;
    assert_eq!((event["fields"]["whole"].as_bool(), event["fields"]["status"].as_u64()), (Some(false), Some(200)));
    assert!(event["fields"]["bytes_out"].as_u64().unwrap() < 64 << 20);
    // A client that leaves before there is an answer.
    let mut client = Client::connect(server.address).await;
    client.send("GET /gate HTTP/1.1\r\nhost: a\r\nx-request-id: r-7\r\n\r\n").await;
    server.application.entered.acquire().await.unwrap().forget();
    drop(client);
    let event = lines.event(|event| event["fields"]["request_id"] == "r-7").await;
    assert_eq!((event["fields"]["whole"].as_bool(), event["fields"]["status"].as_u64()), (Some(false), Some(499)));
}

#[tokio::test]
async fn the_access_log_can_be_turned_off() {
    let (lines, _guard) = capture();
    let server = TestServer::with(|server| server.access_log = false).await;
    let mut client = Client::connect(server.address).await;
    client.get("/hello").await;
    client.get("/log").await;
    lines.event(|event| event["fields"]["what"] == "inside").await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("\"access\""), "{text}");
}

#[tokio::test]
async fn what_is_no_request_is_an_event_that_says_who_sent_it_and_shows_nothing_of_it() {
    let (lines, _guard) = capture();
    let server = TestServer::start().await;
    let many: String = (0..101).map(|number| format!("x-{number}: s3cret\r\n")).collect();
    for (head, status) in
        [("host: a\r\ns3cret\r\n", 400), ("host: a\r\ncontent-length: -1\r\nx: s3cret\r\n", 400), (&many, 431)]
    {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let address = stream.local_addr().unwrap().to_string();
        let mut client = Client::over(stream);
        client.send(format!("GET /hello HTTP/1.1\r\n{head}\r\n")).await;
        assert_eq!(client.answer().await.status, status);
        let event = lines.event(|event| event["fields"]["peer"] == *address).await;
        assert_eq!(event["level"], "INFO", "{event}");
        assert_eq!(event["fields"]["message"], "what came is no HTTP request", "{event}");
        assert!(!event["fields"]["error"].as_str().unwrap().is_empty(), "{event}");
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
}
