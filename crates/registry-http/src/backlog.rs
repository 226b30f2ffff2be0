//! What the client of an HTTP/2 stream has yet to take of its answer, and the end of streams whose client takes nothing.
//!
//! On HTTP/1, bytes that a client does not take wait in front of the socket, and the socket gives up in time. On
//! HTTP/2 the client opens a window for each stream; while it is closed, the bytes wait inside hyper and h2, the
//! socket has nothing to write, and hyper does not even poll the answer's body. So the bytes themselves count: each
//! piece that hyper is given tells the stream's [`Backlog`] when it is written or thrown away, and the task that works
//! on the stream, which hyper leaves to a [`StreamExecutor`], is dropped once nothing has gone for too long. That resets
//! the stream and throws away what waits, and does nothing to the connection's other streams. It does so only while
//! the answer's end is not with h2 yet, so the end is held back until next to nothing waits.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::limits::LEAST_PROGRESS_BYTES;

/// How much may wait when the answer's end is handed over, in bytes. Few enough to be held for as long as the
/// connection lives, and enough for most small documents to leave with their end in one frame.
const LITTLE_BYTES: u64 = 4096;

tokio::task_local! {
    /// That of the stream that the task works on.
    static CURRENT: Backlog;
}

/// What was handed to hyper for one stream and is neither written nor thrown away.
#[derive(Clone, Debug)]
pub(crate) struct Backlog(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    waiting_bytes: u64,
    /// Went since `since`.
    progress_bytes: u64,
    /// Since when too little has gone, where something waits.
    since: Instant,
    /// Who wants to hand over the end.
    end: Option<Waker>,
    /// The client's time was up.
    given_up: bool,
}

impl State {
    fn new(now: Instant) -> Self {
        Self { waiting_bytes: 0, progress_bytes: 0, since: now, end: None, given_up: false }
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        if self.waiting_bytes == 0 {
            (self.progress_bytes, self.since) = (0, now);
        }
        self.waiting_bytes += bytes;
    }

    /// `bytes` went; whoever waits for that.
    fn remove(&mut self, bytes: u64, now: Instant) -> Option<Waker> {
        self.waiting_bytes -= bytes;
        self.progress_bytes += bytes;
        if self.progress_bytes >= LEAST_PROGRESS_BYTES {
            (self.progress_bytes, self.since) = (0, now);
        }
        if self.is_short() { self.end.take() } else { None }
    }

    fn is_short(&self) -> bool {
        self.waiting_bytes <= LITTLE_BYTES
    }

    /// When the client's time is up, if it takes nothing until then; `None` while it has nothing to take: then it is the
    /// store that is waited for.
    fn deadline(&self, patience: Duration) -> Option<Instant> {
        (self.waiting_bytes > 0).then(|| self.since + patience)
    }
}

impl Backlog {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new(Instant::now()))))
    }

    /// That of the stream that this task works on; `None` where there are no streams.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// `bytes` as hyper gets them.
    pub(crate) fn hand_over(&self, bytes: Bytes) -> Outgoing {
        self.state().add(bytes.len() as u64, Instant::now());
        Outgoing { bytes, backlog: Some(self.clone()) }
    }

    /// Whether the answer's end may be handed over.
    pub(crate) fn is_short(&self) -> bool {
        self.state().is_short()
    }

    /// Ready when the answer's end may be handed over.
    pub(crate) fn poll_short(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_short() {
            return Poll::Ready(());
        }
        state.end = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends when the client has taken next to nothing for the whole of `patience`.
    async fn stuck(&self, patience: Duration) {
        let mut look = Instant::now() + patience;
        loop {
            tokio::time::sleep_until(look).await;
            let now = Instant::now();
            // What begins to wait after this look waits for the whole of `patience` at the next.
            let mut state = self.state();
            match state.deadline(patience) {
                Some(deadline) if deadline <= now => {
                    state.given_up = true;
                    return;
                }
                Some(deadline) => look = deadline,
                None => look = now + patience,
            }
        }
    }

    /// Whether the client's time was up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state().given_up
    }

    fn remove(&self, bytes: u64) {
        if bytes > 0 {
            let end = self.state().remove(bytes, Instant::now());
            // Outside the lock.
            if let Some(end) = end {
                end.wake();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of an answer, as hyper gets them.
pub(crate) struct Outgoing {
    bytes: Bytes,
    backlog: Option<Backlog>,
}

impl Outgoing {
    /// Bytes that nobody counts.
    pub(crate) fn uncounted(bytes: Bytes) -> Self {
        Self { bytes, backlog: None }
    }
}

/// Slices of it are those of the bytes: what stands for a file is told by its address.
impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(backlog) = &self.backlog {
            backlog.remove(count as u64);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(backlog) = &self.backlog {
            backlog.remove(self.bytes.len() as u64);
        }
    }
}

/// Runs hyper's tasks for the streams of HTTP/2 connections, each until its client's time is up.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor {
    /// How long a client may take next to nothing of an answer.
    pub(crate) patience: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let (backlog, patience) = (Backlog::new(), self.patience);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = CURRENT.scope(backlog.clone(), stream) => {}
                () = backlog.stuck(patience) => tracing::debug!("a client takes nothing of an answer"),
            }
        });
    }
}
