//! The bodies of requests.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http_body::Body as _;
use hyper::body::Incoming;
use registry_core::services::BodyError;
use tokio::time::{Instant, Sleep};

use crate::drain::Drain;
use crate::exchange::Exchange;
use crate::limits::LEAST_PROGRESS_BYTES;

/// The body of a request, read once, in order, with back-pressure: what is not read is not received.
///
/// # Guarantees
/// - It ends (`None`) only when all that the client announced has come; everything else is a [`BodyError`].
/// - After an error or the end it stays ended.
/// - Only time spent waiting for the client counts against the client.
/// - The first read is what answers `Expect: 100-continue`.
pub struct RequestBody {
    source: Source,
    content_length: Option<u64>,
    received: u64,
    limit: u64,
    failed: bool,
    patience: Patience,
}

enum Source {
    Incoming { incoming: Incoming, exchange: Arc<Exchange> },
    Pieces(VecDeque<Result<Bytes, BodyError>>),
    Ended,
}

impl RequestBody {
    /// No bytes.
    pub fn empty() -> Self {
        Self::new(Source::Ended, Some(0), Duration::MAX)
    }

    /// These bytes: a request that did not come over a connection.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::new(Source::Pieces([Ok(bytes)].into()), Some(length), Duration::MAX)
    }

    /// These pieces in this order, with no length announced; an error ends the body.
    pub fn from_pieces(pieces: impl IntoIterator<Item = Result<Bytes, BodyError>>) -> Self {
        Self::new(Source::Pieces(pieces.into_iter().collect()), None, Duration::MAX)
    }

    /// The body that arrives on a connection; it gives up when the client sends next to nothing for `idle_timeout`.
    pub(crate) fn incoming(incoming: Incoming, exchange: Arc<Exchange>, idle_timeout: Duration) -> Self {
        let content_length = incoming.size_hint().exact();
        let source = if incoming.is_end_stream() {
            exchange.busy().input_complete();
            Source::Ended
        } else {
            Source::Incoming { incoming, exchange }
        };
        Self::new(source, content_length, idle_timeout)
    }

    fn new(source: Source, content_length: Option<u64>, idle_timeout: Duration) -> Self {
        let patience = Patience::new(idle_timeout);
        Self { source, content_length, received: 0, limit: u64::MAX, failed: false, patience }
    }

    /// The length that the client announced, in bytes; `None` for a chunked body or one that HTTP/2 does not bound.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// How many bytes have been received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the end was reached, or there never were any bytes.
    pub fn is_ended(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    /// From now on a body longer than `bytes` in all is [`BodyError::TooLarge`], at the first read where the announced
    /// length says so, else at the byte that is too many.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// The next piece, or `None` at the end. Safe to drop while it waits: no byte is lost.
    ///
    /// # Errors
    /// [`BodyError`]; there is nothing more to read then.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The whole body, for documents; one longer than `max` bytes is refused before its bytes are kept.
    ///
    /// # Errors
    /// [`BodyError`], [`BodyError::TooLarge`] for a longer one.
    pub async fn read_to_limit(&mut self, max: usize) -> Result<Bytes, BodyError> {
        self.set_limit(self.received.saturating_add(max as u64));
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else { return Ok(first) };
        let mut all = BytesMut::with_capacity(first.len() + second.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.next().await.transpose()? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Reads and drops what is left, at most `max` bytes; whether the end was reached. A client that was answered
    /// before it had sent everything can then go on using its connection.
    pub async fn drain(&mut self, max: u64) -> bool {
        self.set_limit(self.received.saturating_add(max));
        loop {
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    }

    fn take(&mut self, bytes: Bytes) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.received += bytes.len() as u64;
        if let Source::Incoming { exchange, .. } = &self.source {
            exchange.count_in(bytes.len() as u64);
        }
        if self.received > self.limit { self.fail(BodyError::TooLarge) } else { Poll::Ready(Some(Ok(bytes))) }
    }

    fn end(&mut self) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Source::Incoming { exchange, .. } = &self.source {
            exchange.busy().input_complete();
        }
        self.source = Source::Ended;
        Poll::Ready(None)
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.failed = true;
        // What is too large is still on its way; dropping the body decides what becomes of it.
        if error != BodyError::TooLarge
            && let Source::Incoming { exchange, .. } = std::mem::replace(&mut self.source, Source::Ended)
        {
            exchange.input_abandoned();
        }
        Poll::Ready(Some(Err(error)))
    }
}

/// Polls a connection's body, skipping what is no data.
pub(crate) fn poll_data(incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
    loop {
        match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            // Trailers are skipped: no API here gives them a meaning.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes))),
                _ => {}
            },
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        if this.content_length.is_some_and(|length| length > this.limit) && !this.is_ended() {
            return this.fail(BodyError::TooLarge);
        }
        match &mut this.source {
            Source::Ended => Poll::Ready(None),
            Source::Pieces(pieces) => loop {
                match pieces.pop_front() {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => return this.take(bytes),
                    Some(Err(error)) => return this.fail(error),
                    None => return this.end(),
                }
            },
            Source::Incoming { incoming, exchange } => match poll_data(incoming, cx) {
                Poll::Pending => {
                    ready!(this.patience.poll_exhausted(cx));
                    this.fail(BodyError::TimedOut)
                }
                Poll::Ready(Some(Ok(bytes))) => {
                    this.patience.progress(bytes.len() as u64);
                    this.take(bytes)
                }
                Poll::Ready(Some(Err(error))) => this.fail(classify(&error)),
                Poll::Ready(None) => {
                    // A client that resets an HTTP/2 stream with NO_ERROR ends it without an error, wherever it was:
                    // only END_STREAM and the announced length tell a whole body from a part of one.
                    let whole = (!exchange.is_http2() || incoming.is_end_stream())
                        && this.content_length.is_none_or(|length| length == this.received);
                    if whole { this.end() } else { this.fail(BodyError::Disconnected) }
                }
            },
        }
    }
}

impl Drop for RequestBody {
    /// A body that was not read to its end: if little is left, it is read in the background, so that the connection
    /// can be used again; else the connection ends after the answer. Where HTTP/1 does not say how much is left, the
    /// exchange finds out before it answers.
    fn drop(&mut self) {
        let Source::Incoming { incoming, exchange } = std::mem::replace(&mut self.source, Source::Ended) else {
            return;
        };
        if self.content_length == Some(self.received) {
            exchange.busy().input_complete();
            return;
        }
        // A client that waits for "100 Continue" has sent nothing, and must not be asked to now.
        if !exchange.is_http2() && self.received == 0 && exchange.expects_continue() {
            return exchange.input_abandoned();
        }
        let left = self.content_length.map(|length| length - self.received);
        let rest = if left.is_none() { exchange.leave_unknown_rest(incoming) } else { Some(incoming) };
        let Some(rest) = rest else { return };
        let drain = Drain::after_answer(&exchange);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if drain.permits(left.unwrap_or(0)) => {
                runtime.spawn(drain.run(rest, exchange.busy().clone()));
            }
            _ => exchange.input_abandoned(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("content_length", &self.content_length)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// What a connection's error means for a body.
fn classify(error: &hyper::Error) -> BodyError {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => BodyError::Malformed,
                _ => BodyError::Disconnected,
            };
        }
        cause = current.source();
    }
    if error.is_parse() { BodyError::Malformed } else { BodyError::Disconnected }
}

/// How long a client may still keep a reader waiting. The clock runs only while the reader waits.
struct Patience {
    idle_timeout: Duration,
    left: Duration,
    progress: u64,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, left: idle_timeout, progress: 0, waiting_since: None, timer: None }
    }

    /// `bytes` came: the clock stops, and begins anew once enough have come.
    fn progress(&mut self, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        self.progress += bytes;
        if self.progress >= LEAST_PROGRESS_BYTES {
            self.progress = 0;
            self.left = self.idle_timeout;
        }
    }

    /// The reader waits: ready when it has waited too long.
    fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            let Some(deadline) = now.checked_add(self.left) else { return Poll::Pending };
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
