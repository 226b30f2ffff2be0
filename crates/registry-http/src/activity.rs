//! What a connection is doing, so that it can be closed when it does nothing for too long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::limits::Limits;

/// No moment.
const NEVER: u64 = u64::MAX;

/// Shared by a connection's socket, its driver and its exchanges. All of it is advice for timers and for closing, so
/// relaxed atomics suffice.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    /// HTTP/2: what comes while nothing is in flight need not be the beginning of a request.
    multiplexed: bool,
    in_flight: AtomicUsize,
    /// Microseconds after `opened`.
    idle_since: AtomicU64,
    /// Microseconds after `opened`, or [`NEVER`].
    head_since: AtomicU64,
    had_request: AtomicBool,
    /// Whether bytes wait until the client takes some.
    output_waits: AtomicBool,
    /// Whether bytes came that belong to no request that was received to its end.
    input_open: AtomicBool,
}

/// Why a connection's time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing was asked for too long.
    Idle,
    /// A request's head took too long.
    Head,
}

impl Activity {
    pub(crate) fn new(multiplexed: bool) -> Self {
        Self {
            opened: Instant::now(),
            multiplexed,
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NEVER),
            had_request: AtomicBool::new(false),
            output_waits: AtomicBool::new(false),
            input_open: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(NEVER - 1)
    }

    /// Bytes came from the client.
    pub(crate) fn received(&self) {
        self.input_open.store(true, Ordering::Relaxed);
        let resting = self.in_flight.load(Ordering::Relaxed) == 0 && !self.has_open_head();
        if resting && !self.multiplexed {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes wait until the client takes some, or do no longer. hyper may hold the end of an answer long after its
    /// exchange is over.
    pub(crate) fn output_waits(&self, waits: bool) {
        if self.output_waits.swap(waits, Ordering::Relaxed) && !waits {
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request's head is complete. The connection is busy until the last clone of what it returns is dropped.
    pub(crate) fn request_began(self: &Arc<Self>) -> Busy {
        self.had_request.store(true, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether the client may still be sending something that nobody will read.
    pub(crate) fn has_open_input(&self) -> bool {
        self.input_open.load(Ordering::Relaxed)
    }

    /// Whether the client has begun to ask something, and not finished.
    pub(crate) fn has_open_head(&self) -> bool {
        self.head_since.load(Ordering::Relaxed) != NEVER
    }

    /// When the connection's time is up, if nothing happens before; `None` while a request is in flight or an
    /// answer not yet taken: that has its own limit.
    pub(crate) fn expiry(&self, limits: &Limits) -> Option<(Instant, Expiry)> {
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.output_waits.load(Ordering::Relaxed) {
            return None;
        }
        let at = |since: u64, patience: Duration| self.opened + Duration::from_micros(since) + patience;
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since != NEVER {
            return Some((at(head_since, limits.header_timeout), Expiry::Head));
        }
        let had_request = self.had_request.load(Ordering::Relaxed);
        let patience = if had_request { limits.idle_timeout } else { limits.header_timeout };
        Some((at(self.idle_since.load(Ordering::Relaxed), patience), Expiry::Idle))
    }
}

/// Something is being done for the connection: its time does not run.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    /// A request's body is complete.
    pub(crate) fn input_complete(&self) {
        self.0.input_open.store(false, Ordering::Relaxed);
    }
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells when a connection's time is up.
pub(crate) struct Clock<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    timer: Pin<Box<Sleep>>,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(activity: &'a Activity, limits: &'a Limits) -> Self {
        Self { activity, limits, timer: Box::pin(tokio::time::sleep(limits.header_timeout)) }
    }

    /// Ready when the time is up. The timer is moved only when it is due or late, not with each request.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Expiry> {
        loop {
            let expiry = self.activity.expiry(self.limits);
            if let Some((at, _)) = expiry
                && at < self.timer.deadline()
            {
                self.timer.as_mut().reset(at);
            }
            ready!(self.timer.as_mut().poll(cx));
            match expiry {
                Some((at, expiry)) if at <= Instant::now() => return Poll::Ready(expiry),
                Some((at, _)) => self.timer.as_mut().reset(at),
                // While requests are in flight it is looked at again from time to time.
                None => self.timer.as_mut().reset(Instant::now() + self.limits.header_timeout),
            }
        }
    }
}
