//! Accepts connections until it is told to stop, and then lets the requests in flight end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use registry_core::ports::entropy::Entropy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::Application;
use crate::driver;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::origin::OriginPolicy;

/// The first pause after the system refused a connection (out of file descriptors or memory), doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What all connections of a server share.
pub struct Server {
    /// Who answers.
    pub application: Arc<dyn Application>,
    /// The bounds.
    pub limits: Limits,
    /// How the public origin and the client's address are found.
    pub origin: OriginPolicy,
    /// For request ids.
    pub entropy: Arc<dyn Entropy>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether each request is logged when it is over.
    pub access_log: bool,
    /// The connections, and the handlers that outlive theirs.
    pub(crate) tasks: TaskTracker,
}

impl Server {
    /// A server with default limits, an origin from the Host header alone, metrics of its own, and an access log.
    pub fn new(application: Arc<dyn Application>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            application,
            limits: Limits::default(),
            origin: OriginPolicy::default(),
            entropy,
            metrics: Arc::default(),
            access_log: true,
            tasks: TaskTracker::new(),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many connections and handlers were still busy at the deadline and were given up; 0 is a clean stop.
    pub abandoned: usize,
}

/// Serves `listener`, encrypted when there is a `tls` configuration (see [`tls`](crate::tls)), until `shutdown`.
///
/// HTTP/1.1 and HTTP/2 (by ALPN, or with prior knowledge) on the same port. After `shutdown` no connection is
/// accepted any more, those that rest are closed, requests in flight are answered with `Connection: close` or GOAWAY,
/// and it returns when the last is done or `limits.drain_timeout` is over.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    server: Arc<Server>,
    shutdown: CancellationToken,
) -> Drained {
    let acceptor = tls.map(TlsAcceptor::from);
    let permits = Arc::new(Semaphore::new(server.limits.max_connections));
    let abort = CancellationToken::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, accept(&listener).await)
        };
        let (permit, socket) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        // Tokens of their own: waiting for a shared one would have every connection take one lock on each poll.
        let stop = driver::Stop { shutdown: shutdown.child_token(), abort: abort.child_token() };
        let connection = driver::drive(Arc::clone(&server), socket, acceptor.clone(), stop);
        server.tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    server.tasks.close();
    if tokio::time::timeout(server.limits.drain_timeout, server.tasks.wait()).await.is_ok() {
        return Drained { abandoned: 0 };
    }
    let abandoned = server.tasks.len();
    abort.cancel();
    Drained { abandoned }
}

/// The next connection. The system's refusals pass; meanwhile the server does not spin.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return socket,
            // The client was gone before it was accepted.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "the system accepts no connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
