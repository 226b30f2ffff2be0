//! An HTTP/1 client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing on the loopback interface takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client<S = TcpStream> {
    pub stream: S,
    received: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// `GET path` as HTTP/1.1, and its answer.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        self.answer().await
    }

    /// The next answer to a request that was no HEAD.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.received.len() < length {
            assert!(self.more().await > 0, "the body ends after {} of {length} bytes", self.received.len());
        }
        answer.body = self.received.drain(..length).collect();
        answer
    }

    /// The next answer's head.
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await > 0, "the connection ends in a head: {:?}", self.received);
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        Answer { status, headers, body: Vec::new() }
    }

    /// Everything until the server closes; `Err` when it resets instead.
    pub async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        while self.try_more().await? > 0 {}
        Ok(std::mem::take(&mut self.received))
    }

    /// What came so far and belongs to no answer yet.
    pub fn rest_so_far(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Whether the server closes without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.received.is_empty() && matches!(self.try_more().await, Ok(0))
    }

    async fn more(&mut self) -> usize {
        self.try_more().await.unwrap()
    }

    async fn try_more(&mut self) -> std::io::Result<usize> {
        tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received))
            .await
            .expect("the server sends or closes")
    }
}
