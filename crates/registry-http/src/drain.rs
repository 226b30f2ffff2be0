//! What becomes of the rest of a request's body that nobody wants: it is read, within bounds, so that its connection
//! can be used again, or its connection ends.

use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::timeout;

use crate::activity::Busy;
use crate::exchange::Exchange;
use crate::request_body::poll_data;

/// How much is read, in bytes. Beyond this a new connection is cheaper; the driver listens to the old one for a while
/// as it closes.
const LIMIT_BYTES: u64 = 256 * 1024;

/// How long that may take after the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take before the answer: for what is there, or is just coming.
const TIMEOUT_BEFORE_ANSWER: Duration = Duration::from_millis(250);

/// The bounds.
pub(crate) struct Drain {
    bytes: u64,
    total: Duration,
    idle: Duration,
}

impl Drain {
    /// For what is read while the answer is on its way.
    pub(crate) fn after_answer(exchange: &Exchange) -> Self {
        let limits = exchange.limits();
        if exchange.is_http2() {
            // Dropping the body would reset the stream at once. NO_ERROR would say that the answer is good (RFC 9113,
            // 8.1), but there are clients that drop the answer then (curl 7.88). Other streams go on meanwhile.
            Self { bytes: u64::MAX, total: limits.linger_timeout, idle: limits.linger_idle_timeout }
        } else {
            Self { bytes: LIMIT_BYTES, total: TIMEOUT, idle: TIMEOUT }
        }
    }

    /// For what is read before the answer says whether the connection goes on.
    fn before_answer() -> Self {
        Self { bytes: LIMIT_BYTES, total: TIMEOUT_BEFORE_ANSWER, idle: TIMEOUT_BEFORE_ANSWER }
    }

    /// Whether a rest of `bytes` is within the bounds.
    pub(crate) fn permits(&self, bytes: u64) -> bool {
        bytes <= self.bytes
    }

    /// Drains; whether the end was reached. Where the bounds are met first, dropping the body ends the connection or
    /// the stream.
    pub(crate) async fn run(self, mut incoming: Incoming, busy: Busy) -> bool {
        let all = async {
            let mut left = self.bytes;
            loop {
                match timeout(self.idle, poll_fn(|cx| poll_data(&mut incoming, cx))).await {
                    Ok(Some(Ok(bytes))) if bytes.len() as u64 <= left => left -= bytes.len() as u64,
                    Ok(None) => return true,
                    _ => return false,
                }
            }
        };
        let whole = timeout(self.total, all).await.unwrap_or(false);
        if whole {
            busy.input_complete();
        }
        whole
    }
}

/// The rest of an HTTP/1 body of unknown length, from when nobody wants it until the answer is made.
///
/// The answer has to say whether the connection goes on: a client that is not told `Connection: close` sends its next
/// request there, and would lose it. How much is left is known only when all of it has come.
#[derive(Debug)]
pub(crate) struct UnknownRest(Mutex<State>);

#[derive(Debug)]
enum State {
    None,
    Left(Incoming),
    /// The answer is made: it is too late to say anything.
    Answered,
}

impl UnknownRest {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::None))
    }

    /// Keeps `rest` until the answer is made; gives it back when it is.
    pub(crate) fn keep(&self, rest: Incoming) -> Option<Incoming> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Answered) {
            return Some(rest);
        }
        *state = State::Left(rest);
        None
    }

    /// Reads what is there, shortly before the answer is sent; whether nothing is left.
    pub(crate) async fn settle(&self, busy: &Busy) -> bool {
        let state = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Answered);
        match state {
            State::Left(rest) => Drain::before_answer().run(rest, busy.clone()).await,
            State::None | State::Answered => true,
        }
    }
}
