//! A small HTTP proxy before an S3 server: it counts the requests and does to some of them what networks and stores do.
//!
//! It may be the store's endpoint, or the proxy (`HTTP_PROXY`) by which a process finds a host that has no address.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a request to the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// GET of an object, or of a part of it.
    Get,
    /// HEAD of an object.
    Head,
    /// PUT of an object.
    Put,
    /// DELETE of an object.
    Delete,
    /// A multipart upload begins.
    Create,
    /// PUT of a part.
    Part,
    /// A multipart upload is completed.
    Complete,
    /// A multipart upload is aborted.
    Abort,
    /// A list of objects, or of unfinished multipart uploads.
    List,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// The host that it is for.
    pub host: String,
    /// Its path and query.
    pub target: String,
    /// The token of the temporary keys that it is signed with, in a header or in the query.
    pub session_token: Option<String>,
    /// Whether its bytes are to be those of another object.
    pub copies: bool,
    /// Whether it asks for a range.
    pub range: bool,
    /// The length in bytes of its body.
    pub length: u64,
    /// The document that completes a multipart upload; empty for other requests.
    pub document: String,
}

impl Seen {
    /// A parameter of its query, as it stands there.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.target, name)
    }
}

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It reaches the store, and the answer the client.
    Pass,
    /// It does not reach the store; the answer has this status, and an S3 document with this code.
    Answer(u16, &'static str),
    /// It does not reach the store, and its bytes are forgotten; the answer is that of a store that has taken them, with
    /// this ETag.
    Forget(String),
    /// The connection ends after that many bytes of the answer's body.
    Cut(u64),
    /// It reaches the store, and the connection ends without an answer.
    Lose,
}

type Rule = Box<dyn FnMut(&Seen) -> Action + Send>;

/// The proxy. It ends with the test.
pub struct StoreProxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: String,
    seen: Mutex<Vec<Seen>>,
    rule: Mutex<Rule>,
}

impl StoreProxy {
    /// A proxy before the store at `endpoint`, `http://host:port`.
    pub fn start(endpoint: &str) -> Self {
        let upstream = endpoint.strip_prefix("http://").expect("the store speaks plain HTTP").trim_end_matches('/');
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            seen: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Action::Pass)),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = state.serve(&connection);
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, state }
    }

    /// `http://127.0.0.1:<port>`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is done to requests from now on.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Action + Send + 'static) {
        *self.state.rule.lock().expect("no rule panics") = Box::new(rule);
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.state.seen.lock().expect("nobody panics with it"))
    }

    /// The kinds of the requests since the last call, sorted.
    pub fn take_kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.take().into_iter().map(|seen| seen.kind).collect();
        kinds.sort();
        kinds
    }
}

impl State {
    /// One request and its answer; the connection ends with it.
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client);
        let head = read_head(&mut reader)?;
        let Some((method, target)) = request_line(&head) else { return Ok(()) };
        let header = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(':'));
            lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let kind = kind(&method, &target);
        let mut document = String::new();
        if kind == Kind::Complete {
            (&mut reader).take(length).read_to_string(&mut document)?;
        }
        let seen = Seen {
            kind,
            host: header("host").unwrap_or_default(),
            target: target.clone(),
            session_token: header("x-amz-security-token").or_else(|| parameter(&target, "X-Amz-Security-Token")),
            copies: header("x-amz-copy-source").is_some(),
            range: header("range").is_some(),
            length,
            document,
        };
        self.seen.lock().expect("nobody panics with it").push(seen.clone());
        let action = (self.rule.lock().expect("no rule panics"))(&seen);

        let mut body = seen.document.as_bytes().chain((&mut reader).take(length - seen.document.len() as u64));
        if let Action::Forget(etag) = &action {
            io::copy(&mut body, &mut io::sink())?;
            let document = match kind {
                Kind::Complete => format!(
                    "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
                ),
                _ => String::new(),
            };
            return write_answer(client, &format!("200 OK\r\netag: {etag}"), &document);
        }
        if let Action::Answer(status, code) = action {
            io::copy(&mut body, &mut io::sink())?;
            let document =
                format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by a test</Message></Error>");
            let document = if method == "HEAD" { String::new() } else { document };
            return write_answer(client, &format!("{status} by a test\r\ncontent-type: application/xml"), &document);
        }

        let mut store = TcpStream::connect(&self.upstream)?;
        let lines = head.iter().skip(1).filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head: String = lines.map(|line| format!("{line}\r\n")).collect();
        store.write_all(format!("{method} {target} HTTP/1.1\r\n{head}connection: close\r\n\r\n").as_bytes())?;
        io::copy(&mut body, &mut store)?;

        let mut answer = BufReader::new(store);
        let head = read_head(&mut answer)?;
        match action {
            Action::Lose => {
                io::copy(&mut answer, &mut io::sink())?;
                Ok(())
            }
            Action::Cut(length) => {
                write_head(client, &head)?;
                io::copy(&mut answer.take(length), &mut &*client).map(|_| ())
            }
            Action::Pass | Action::Answer(..) | Action::Forget(_) => {
                write_head(client, &head)?;
                io::copy(&mut answer, &mut &*client).map(|_| ())
            }
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line.to_owned());
    }
}

/// An answer of the proxy's own, which begins with `status` and is the last one of its connection.
fn write_answer(mut client: &TcpStream, status: &str, document: &str) -> io::Result<()> {
    let length = document.len();
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{document}");
    client.write_all(answer.as_bytes())
}

fn write_head(mut client: &TcpStream, head: &[String]) -> io::Result<()> {
    let lines: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    client.write_all(format!("{lines}\r\n").as_bytes())
}

/// The method, and the path and query: clients of a proxy send it whole URLs.
fn request_line(head: &[String]) -> Option<(String, String)> {
    let mut words = head.first()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let target = match target.strip_prefix("http://") {
        Some(url) => url.find('/').map_or("/", |path| &url[path..]),
        None => target,
    };
    Some((method.to_owned(), target.to_owned()))
}

/// A parameter of a query, as it stands there.
fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

fn kind(method: &str, target: &str) -> Kind {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match method {
        "GET" if has("list-type") || has("uploads") => Kind::List,
        "GET" => Kind::Get,
        "HEAD" => Kind::Head,
        "PUT" if has("uploadId") => Kind::Part,
        "PUT" => Kind::Put,
        "POST" if has("uploads") => Kind::Create,
        "POST" if has("uploadId") => Kind::Complete,
        "DELETE" if has("uploadId") => Kind::Abort,
        "DELETE" => Kind::Delete,
        _ => panic!("{method} {target} is no request that the server makes"),
    }
}
