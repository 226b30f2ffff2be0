//! A plain HTTP/1.1 client over one connection, which can stop at any byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a byte before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The parts of a `multipart/byteranges` body, which is read strictly: the `Content-Type`, `Content-Range` and bytes
    /// of each.
    #[track_caller]
    pub fn parts(&self) -> Vec<(String, String, Vec<u8>)> {
        let content_type = self.header("content-type").expect("it has a type");
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("it has several parts");
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter needs no line end before it.
        let mut rest = [b"\r\n", self.body.as_slice()].concat();
        let mut parts = Vec::new();
        loop {
            let after = rest.strip_prefix(delimiter.as_slice()).expect("a delimiter");
            if after == b"--\r\n" {
                return parts;
            }
            let (head, bytes) = split_once(after.strip_prefix(b"\r\n").expect("a line end"), b"\r\n\r\n");
            let head = String::from_utf8(head.to_vec()).expect("headers are text");
            let headers: Vec<&str> = head.split("\r\n").collect();
            let [content_type, content_range] = headers[..] else { panic!("{head}") };
            let (content, _) = split_once(bytes, &delimiter);
            parts.push((
                content_type.strip_prefix("Content-Type: ").expect("a type").to_owned(),
                content_range.strip_prefix("Content-Range: ").expect("a range").to_owned(),
                content.to_vec(),
            ));
            rest = bytes[content.len()..].to_vec();
        }
    }

    /// The code of the first error of an OCI refusal.
    pub fn oci_code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// This answer, if it has that status; otherwise the test fails with what came.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {:.500}", self.headers, self.text());
        self
    }
}

/// What is before and after the first `separator`.
#[track_caller]
fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    let found = bytes.windows(separator.len()).position(|window| window == separator);
    let at = found.unwrap_or_else(|| panic!("no {:?}", String::from_utf8_lossy(separator)));
    (&bytes[..at], &bytes[at + separator.len()..])
}

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the server accepts connections")
    }

    /// Connects, if the server is there.
    ///
    /// # Errors
    /// As the socket says.
    pub fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends the head of a request; `headers` are whole lines without line ends.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send_head(&mut self, method: &str, target: &str, headers: &[String]) -> std::io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Closes both directions at once; unread bytes make it a reset.
    pub fn cut(self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Reads one answer to a request whose method was not HEAD.
    ///
    /// # Errors
    /// As the socket says, or when what comes is no answer.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        self.answer_to("GET")
    }

    /// Reads one answer to a request with that method.
    ///
    /// # Errors
    /// As the socket says, or when what comes is no answer.
    pub fn answer_to(&mut self, method: &str) -> std::io::Result<Answer> {
        loop {
            let (status, headers) = self.read_head()?;
            if status == 100 {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new() };
            let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
            if method == "HEAD" || matches!(status, 204 | 304) {
                return Ok(answer);
            }
            if let Some(length) = length {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                answer.body = body;
            } else if answer.header("transfer-encoding") == Some("chunked") {
                answer.body = self.read_chunks()?;
            } else {
                self.stream.read_to_end(&mut answer.body)?;
            }
            return Ok(answer);
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read_head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(invalid)?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn read_chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
