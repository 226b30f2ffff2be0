//! A server on a free port of 127.0.0.1 with an application whose paths do what the tests need.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::StatusCode;
use registry_core::error::StoreError;
use registry_core::ports::blob_store::BlobReader;
use registry_core::services::BodyError;
use registry_core::testing::entropy::SeededEntropy;
use registry_http::limits::Limits;
use registry_http::request_id::RequestId;
use registry_http::serve::{Drained, Server, serve};
use registry_http::{Application, Request, Response, ResponseBody, response};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

/// A server that stops when it is dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub application: Arc<TestApplication>,
    pub server: Arc<Server>,
    pub shutdown: CancellationToken,
    task: JoinHandle<Drained>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::with(|server| server.limits = limits).await
    }

    pub async fn with(configure: impl FnOnce(&mut Server)) -> Self {
        Self::with_tls(None, configure).await
    }

    pub async fn with_tls(tls: Option<Arc<ServerConfig>>, configure: impl FnOnce(&mut Server)) -> Self {
        let application = Arc::<TestApplication>::default();
        let mut server = Server::new(application.clone(), Arc::new(SeededEntropy::new(7)));
        configure(&mut server);
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, tls, server.clone(), shutdown.clone()));
        Self { address, application, server, shutdown, task }
    }

    /// Waits for the end of a server that was told to stop.
    pub async fn stopped(&mut self) -> Drained {
        tokio::time::timeout(Duration::from_secs(20), &mut self.task).await.expect("the server stops").unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Limits that a test can wait for.
pub fn short(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// See [`handle`](TestApplication::handle) for its paths.
pub struct TestApplication {
    /// `/gate` tells that it was entered.
    pub entered: Semaphore,
    /// `/gate` waits for a permit.
    pub gate: Semaphore,
    /// How many `/gate` requests ran to their end.
    pub finished: AtomicUsize,
    /// Told after each of these.
    pub finish: Notify,
    /// What `/consume` saw.
    pub consumed: Mutex<Vec<Result<u64, BodyError>>>,
    /// Told when `/consume` is done.
    pub consume: Semaphore,
    /// What `/blob` serves.
    pub blob: Mutex<Option<Arc<dyn BlobReader>>>,
}

impl Default for TestApplication {
    fn default() -> Self {
        Self {
            entered: Semaphore::new(0),
            gate: Semaphore::new(0),
            finished: AtomicUsize::new(0),
            finish: Notify::new(),
            consumed: Mutex::default(),
            consume: Semaphore::new(0),
            blob: Mutex::default(),
        }
    }
}

impl TestApplication {
    pub fn serve_blob(&self, reader: impl BlobReader + 'static) {
        *self.blob.lock().unwrap() = Some(Arc::new(reader));
    }

    /// What the next `/consume` that ends saw.
    pub async fn next_consumed(&self) -> Result<u64, BodyError> {
        let done = tokio::time::timeout(Duration::from_secs(20), self.consume.acquire()).await;
        done.expect("/consume ends").unwrap().forget();
        self.consumed.lock().unwrap().remove(0)
    }

    async fn consume(&self, request: &mut Request) -> Result<u64, BodyError> {
        while let Some(piece) = request.body().next().await {
            piece?;
        }
        Ok(request.body().received())
    }
}

#[async_trait]
impl Application for TestApplication {
    async fn handle(&self, mut request: Request) -> Response {
        match request.path().to_owned().as_str() {
            "/hello" => {
                request.set_route("/hello");
                request.set_principal("alice");
                response::text(StatusCode::OK, "hello")
            }
            // The body as it came.
            "/echo" => match request.body().read_to_limit(1 << 20).await {
                Ok(bytes) => Response::new(ResponseBody::full(bytes)),
                Err(error) => response::text(StatusCode::BAD_REQUEST, format!("{error:?}")),
            },
            // Reads the body, and remembers how that went.
            "/consume" => {
                let outcome = self.consume(&mut request).await;
                self.consumed.lock().unwrap().push(outcome);
                self.consume.add_permits(1);
                response::text(StatusCode::OK, format!("{outcome:?}"))
            }
            // Reads the body once it fills the socket's buffers; the length of its longest piece.
            "/pieces" => {
                self.gate.acquire().await.unwrap().forget();
                let mut longest = 0;
                while let Some(piece) = request.body().next().await {
                    longest = longest.max(piece.map_or(0, |piece| piece.len()));
                }
                response::text(StatusCode::OK, longest.to_string())
            }
            // Answers without a look at the body.
            "/refuse" => response::text(StatusCode::UNAUTHORIZED, "no"),
            // Reads a little of the body first.
            "/refuse-late" => {
                let _ = request.body().next().await;
                response::text(StatusCode::CONFLICT, "no")
            }
            "/limited" => match request.body().read_to_limit(10).await {
                Ok(bytes) => Response::new(ResponseBody::full(bytes)),
                Err(error) => response::text(StatusCode::PAYLOAD_TOO_LARGE, format!("{error:?}")),
            },
            // Waits until the test lets it go on.
            "/gate" => {
                self.entered.add_permits(1);
                self.gate.acquire().await.unwrap().forget();
                self.finished.fetch_add(1, Ordering::SeqCst);
                self.finish.notify_one();
                response::text(StatusCode::OK, "through")
            }
            "/panic" => panic!("as the test asked"),
            "/who" => {
                let text = format!("{} {} {}", request.origin(), request.client(), request.id());
                response::text(StatusCode::OK, text)
            }
            "/log" => {
                tracing::info!(what = "inside", "a handler's own event");
                response::empty(StatusCode::NO_CONTENT)
            }
            // `?from=&to=` of the blob; all of it without.
            "/blob" => {
                let reader = self.blob.lock().unwrap().clone().expect("the test gave a blob");
                let number = |name: &str| request.query_value(name).map(|text| text.parse::<u64>().unwrap());
                let range = number("from").unwrap_or(0)..number("to").unwrap_or(reader.size());
                Response::new(ResponseBody::blob(reader, range))
            }
            // As many bytes as `?bytes=` says, in one piece.
            "/piece" => {
                let bytes = request.query_value("bytes").expect("the test says how many").parse().unwrap();
                Response::new(ResponseBody::full(vec![7; bytes]))
            }
            // Bodies that end early, fail, or are too long: `?case=`.
            "/broken" => {
                let piece = || Ok(Bytes::from_static(b"12345"));
                let pieces: Vec<Result<Bytes, StoreError>> = match request.query_value("case").as_deref() {
                    Some("short") => vec![piece()],
                    Some("failing") => vec![piece(), Err(StoreError::corrupt("as the test asked"))],
                    _ => vec![piece(), Ok(Bytes::from_static(b"678901"))],
                };
                Response::new(ResponseBody::stream(stream::iter(pieces).boxed(), 10))
            }
            _ => response::empty(StatusCode::NOT_FOUND),
        }
    }

    fn names_no_host(&self, path: &str, id: &RequestId) -> Response {
        response::text(StatusCode::BAD_REQUEST, format!("{path} {id}"))
    }
}

/// A blob in a file. The plain way reads it in pieces; `sendfile` says whether the fast one is offered.
pub struct FileBlob {
    file: Arc<File>,
    size: u64,
    sendfile: bool,
}

impl FileBlob {
    pub fn new(bytes: &[u8], sendfile: bool) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Self { file: Arc::new(file), size: bytes.len() as u64, sendfile }
    }

    /// One whose end is missing, which the store's contract excludes, but a disk may not.
    pub fn cut(bytes: &[u8], length: u64) -> Self {
        let blob = Self::new(bytes, true);
        blob.file.set_len(length).unwrap();
        blob
    }

    /// Writes the file to disk and forgets what is in memory of it.
    pub fn chill(&self) {
        self.file.sync_all().unwrap();
        rustix::fs::fadvise(&*self.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

impl BlobReader for FileBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        const PIECE: u64 = 100_000;
        let starts: Vec<u64> = range.clone().step_by(100_000).collect();
        stream::iter(starts)
            .map(move |start| {
                let mut piece = vec![0; usize::try_from(PIECE.min(range.end - start)).unwrap()];
                self.file.read_exact_at(&mut piece, start).map_err(|_| StoreError::corrupt("read"))?;
                Ok(Bytes::from(piece))
            })
            .boxed()
    }

    fn file(&self) -> Option<Arc<File>> {
        self.sendfile.then(|| self.file.clone())
    }
}
