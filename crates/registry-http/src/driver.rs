//! One connection from its first byte to its last.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Clock, Expiry};
use crate::backlog::StreamExecutor;
use crate::connection::{ConnectionIo, Transport};
use crate::exchange::ConnectionService;
use crate::limits::Limits;
use crate::origin::Ends;
use crate::sendfile::Files;
use crate::serve::Server;

/// What an HTTP/2 client says first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client is told that does not finish what it began to ask.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How often a resting HTTP/2 client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long it may take to answer, and how long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// How much of a body is read at once, in bytes, over HTTP/1: each connection keeps a buffer of that length while a
/// body comes, and every piece that is not written yet holds on to another. Three times as much (hyper's default) is no
/// faster, and 16 uploads at once then take 12 MB more as long as the disk keeps up.
const READ_BYTES: usize = 128 * 1024;

/// How much of what nobody wants is read at once, in bytes.
const SCRAP_BYTES: usize = 64 * 1024;

/// How a connection is told to stop.
pub(crate) struct Stop {
    /// After the requests in flight.
    pub(crate) shutdown: CancellationToken,
    /// Now.
    pub(crate) abort: CancellationToken,
}

/// Serves one connection to its end.
pub(crate) async fn drive(server: Arc<Server>, socket: TcpStream, acceptor: Option<TlsAcceptor>, stop: Stop) {
    server.metrics.connection_opened();
    let abort = stop.abort.clone();
    tokio::select! {
        biased;
        () = abort.cancelled() => {}
        outcome = converse(&server, socket, acceptor, &stop) => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
    server.metrics.connection_closed();
}

async fn converse(
    server: &Arc<Server>,
    socket: TcpStream,
    acceptor: Option<TlsAcceptor>,
    stop: &Stop,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let ends = Ends { peer: socket.peer_addr()?, local: socket.local_addr()?, tls: acceptor.is_some() };
    let mut transport = match acceptor {
        None => Transport::Plain(socket),
        Some(acceptor) => match timeout(server.limits.tls_handshake_timeout, acceptor.accept(socket)).await {
            Ok(stream) => Transport::Tls(Box::new(stream?)),
            Err(_) => {
                server.metrics.connection_refused("tls_handshake_timeout");
                return Ok(());
            }
        },
    };
    let mut prefix = BytesMut::new();
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(server.limits.header_timeout, sniff(&mut transport, &mut prefix)) => sniffed,
        () = stop.shutdown.cancelled() => return Ok(()),
    };
    let Ok(http2) = sniffed else {
        server.metrics.connection_refused("header_timeout");
        if !prefix.is_empty() {
            transport.write_all(REQUEST_TIMEOUT).await?;
        }
        return close(&mut transport, &server.limits, !prefix.is_empty()).await;
    };
    let connection = Connection { server, ends, stop, transport, prefix: prefix.freeze() };
    if http2? { connection.http2().await } else { connection.http1().await }
}

/// Reads until it is known which HTTP this is: whether it is HTTP/2.
async fn sniff(transport: &mut Transport, prefix: &mut BytesMut) -> io::Result<bool> {
    if let Transport::Tls(stream) = transport
        && stream.get_ref().1.alpn_protocol() == Some(b"h2")
    {
        return Ok(true);
    }
    while HTTP2_PREFACE.starts_with(prefix) {
        if prefix.len() == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        if transport.read_buf(prefix).await? == 0 {
            return Ok(false);
        }
    }
    Ok(prefix.starts_with(HTTP2_PREFACE))
}

/// A connection whose HTTP is known.
struct Connection<'a> {
    server: &'a Arc<Server>,
    ends: Ends,
    stop: &'a Stop,
    transport: Transport,
    prefix: Bytes,
}

impl Connection<'_> {
    async fn http1(self) -> io::Result<()> {
        let Self { server, ends, stop, transport, prefix } = self;
        let limits = &server.limits;
        let activity = Arc::new(Activity::new(false));
        if !prefix.is_empty() {
            activity.received();
        }
        let files = Arc::<Files>::default();
        let io = ConnectionIo::new(transport, prefix, &activity, &files, limits.write_idle_timeout);
        let service = ConnectionService {
            server: Arc::clone(server),
            activity: Arc::clone(&activity),
            ends,
            files: (!ends.tls).then_some(files),
        };
        let mut connection = http1::Builder::new()
            // The driver's own clock tells a slow head (408) from a connection at rest (closed).
            .header_read_timeout(None)
            .max_headers(limits.max_headers)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size(READ_BYTES.max(limits.max_header_bytes))
            .serve_connection(TokioIo::new(io), service);
        let mut clock = Clock::new(&activity, limits);
        let mut shutdown = pin!(stop.shutdown.cancelled());
        let mut stopping = false;
        let ended = poll_fn(|cx| {
            if !stopping && shutdown.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            clock.poll(cx).map(Err)
        })
        .await;
        let mut transport = connection.into_parts().io.into_inner().into_transport();
        let listen = match ended {
            Ok(Ok(())) => activity.has_open_input(),
            Ok(Err(error)) if error.is_parse() => {
                server.metrics.connection_refused("malformed_request");
                // It has no id, and nothing of it is shown: the error says what is wrong in words of its own.
                tracing::info!(%error, peer = %ends.peer, "what came is no HTTP request");
                true
            }
            // The client went away, or an answer broke off: closing says so.
            Ok(Err(error)) => return Err(io::Error::other(error)),
            Err(Expiry::Head) => {
                server.metrics.connection_refused("header_timeout");
                timeout(FAREWELL, transport.write_all(REQUEST_TIMEOUT)).await??;
                true
            }
            Err(Expiry::Idle) => false,
        };
        close(&mut transport, limits, listen).await
    }

    async fn http2(self) -> io::Result<()> {
        let Self { server, ends, stop, transport, prefix } = self;
        let limits = &server.limits;
        let activity = Arc::new(Activity::new(true));
        let io = ConnectionIo::new(transport, prefix, &activity, &Arc::default(), limits.write_idle_timeout);
        let service =
            ConnectionService { server: Arc::clone(server), activity: Arc::clone(&activity), ends, files: None };
        let executor = StreamExecutor { patience: limits.write_idle_timeout };
        let mut connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_max_streams)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(FAREWELL)
            .serve_connection(TokioIo::new(io), service);
        let mut clock = Clock::new(&activity, limits);
        let mut shutdown = pin!(stop.shutdown.cancelled());
        let mut stopping = false;
        let mut farewell: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if !stopping && shutdown.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if farewell.is_none() && clock.poll(cx).is_ready() {
                stopping = true;
                // Streams that are still being read may end; a client that takes nothing is left.
                farewell = Some(Box::pin(tokio::time::sleep(limits.write_idle_timeout)));
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(outcome.map_err(io::Error::other));
            }
            match &mut farewell {
                Some(farewell) => farewell.as_mut().poll(cx).map(Ok),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Ends a connection from this side.
///
/// A client that is still sending when its answer is ready would lose the answer: closing a socket with unread bytes
/// resets it, and a reset discards what the client has not read yet. So the sending side is closed, and what still
/// comes is read and dropped until the client closes too, within bounds (nginx calls it lingering close).
async fn close(transport: &mut Transport, limits: &Limits, listen: bool) -> io::Result<()> {
    timeout(FAREWELL, transport.shutdown()).await??;
    let socket = transport.socket_mut();
    let mut scrap = vec![0; 1];
    if !listen && !matches!(socket.try_read(&mut scrap), Ok(1..)) {
        return Ok(());
    }
    scrap.resize(SCRAP_BYTES, 0);
    let drained =
        async { while matches!(timeout(limits.linger_idle_timeout, socket.read(&mut scrap)).await, Ok(Ok(1..))) {} };
    // Whatever ends it first, there is nothing more to do for the client.
    let _ = timeout(limits.linger_timeout, drained).await;
    Ok(())
}
