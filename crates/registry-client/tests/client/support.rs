//! A loopback server that answers from a script and can do what a good server never does: cut an answer short, fall
//! silent, answer before it has read the request. What a real server answers is proven by the end-to-end tests.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How much of the body is sent before the connection is closed; all if `None`.
    cut: Option<usize>,
    /// Whether the connection stays open, silent, after that.
    hang: bool,
    /// Whether there is any answer at all.
    answer: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, hang: false, answer: true }
    }

    pub fn json(status: u16, document: &str) -> Self {
        Self::new(status, document).header("content-type", "application/json")
    }

    /// An error in the API's shape.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &format!(r#"{{"error":"{message}","code":"{code}","request_id":"req-1"}}"#))
            .header("x-request-id", "req-1")
    }

    /// The connection is closed without an answer.
    pub fn nothing() -> Self {
        Self { answer: false, ..Self::new(500, "") }
    }

    /// The connection stays open without an answer.
    pub fn silence() -> Self {
        Self { hang: true, ..Self::nothing() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The connection is closed after `bytes` of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// The connection falls silent after `bytes` of the body.
    pub fn hang_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self.hang = true;
        self
    }
}

/// The answer of a correct server to a HEAD or GET of an artifact with these bytes.
pub fn download(content: &[u8], request: &Seen) -> Reply {
    let digest = registry_client::Digest::of(content);
    let tag = format!("\"{digest}\"");
    let known = request.header("if-range").is_none_or(|condition| condition == tag);
    let from = request.header("range").filter(|_| known).map(|range| {
        let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        from.expect("an open range").parse::<usize>().expect("a number")
    });
    let reply = match from {
        Some(from) => Reply::new(206, &content[from..])
            .header("content-range", &format!("bytes {from}-{}/{}", content.len() - 1, content.len())),
        None => Reply::new(200, content),
    };
    reply
        .header("etag", &tag)
        .header("content-type", "application/x-test")
        .header("content-disposition", "attachment; filename=\"f.bin\"")
        .header("accept-ranges", "bytes")
        .header("x-checksum-sha256", &digest.hex())
}

/// The artifact document for these bytes.
pub fn artifact(package: &str, version: &str, content: &[u8]) -> String {
    format!(
        concat!(
            r#"{{"package":"{}","version":"{}","digest":"{}","size":{},"content_type":"application/octet-stream","#,
            r#""filename":"f.bin","uploaded_at":"2026-01-02T03:04:05Z"}}"#
        ),
        package,
        version,
        registry_client::Digest::of(content),
        content.len()
    )
}

type Script = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// A running server; it stops when it is dropped.
pub struct Loopback {
    port: u16,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Loopback {
    /// A server that answers its `n`th request, counted from 0, with `script(n, request)`.
    pub async fn start(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(script), None, false).await
    }

    /// The same over TLS.
    pub async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Arc::new(script), Some(acceptor), false).await
    }

    /// A server that answers a POST without having read its body, and closes the connection.
    pub async fn start_impatient(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(script), None, true).await
    }

    async fn listen(script: Arc<Script>, acceptor: Option<TlsAcceptor>, impatient: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let all = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, all, acceptor) = (script.clone(), all.clone(), acceptor.clone());
                tokio::spawn(async move {
                    // A connection that the client breaks off is part of the tests.
                    let _ = match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &*script, &all, impatient).await,
                            Err(error) => Err(error),
                        },
                        None => serve(stream, &*script, &all, impatient).await,
                    };
                });
            }
        });
        Self { port, scheme, seen, task }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// The requests so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for 127.0.0.1, in PEM, and a server that shows it.
pub fn tls() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a key that fits");
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// An address where nothing listens.
pub async fn closed_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://127.0.0.1:{}", listener.local_addr().expect("bound").port())
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &Script,
    all: &Mutex<Vec<Seen>>,
    impatient: bool,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let seen = read_request(&mut stream, impatient).await?;
    let reply = {
        let mut all = all.lock().expect("no panic");
        all.push(seen.clone());
        script(all.len() - 1, &seen)
    };
    if reply.answer {
        write_reply(&mut stream, &seen, &reply).await?;
    }
    if reply.hang {
        // Until the client gives up; it goes on sending what is not read, so there the end of the test is waited for.
        match impatient {
            true => std::future::pending().await,
            false => drop(stream.read_u8().await),
        }
    }
    Ok(())
}

async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), seen: &Seen, reply: &Reply) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    if seen.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())]).await?;
    }
    stream.flush().await?;
    if !reply.hang {
        stream.shutdown().await?;
    }
    Ok(())
}

async fn read_request(stream: &mut (impl AsyncBufReadExt + Unpin), impatient: bool) -> io::Result<Seen> {
    let first = read_line(stream).await?;
    let mut words = first.split(' ');
    let mut seen = Seen {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        seen.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    if impatient && seen.method == "POST" {
        return Ok(seen);
    }
    if seen.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&read_line(stream).await?, 16).map_err(io::Error::other)?;
            read_body(stream, size, &mut seen.body).await?;
            read_line(stream).await?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = seen.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        read_body(stream, length, &mut seen.body).await?;
    }
    Ok(seen)
}

async fn read_body(stream: &mut (impl AsyncReadExt + Unpin), length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let start = body.len();
    body.resize(start + length, 0);
    stream.read_exact(&mut body[start..]).await.map(drop)
}

async fn read_line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
