//! How a transfer tells its watcher where it is.
use std::sync::Arc;

/// What a transfer is doing. Each may begin more than once: after a lost connection some of them start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading a local file for its digest, before it is sent.
    Hashing,
    /// Sending bytes.
    Sending,
    /// Reading what an earlier pull left, before asking for the rest.
    Checking,
    /// Receiving bytes.
    Receiving,
}

/// A watcher of one transfer. The calls come from the tasks that move the bytes: they must return quickly.
pub trait Progress: Send + Sync {
    /// A phase begins, with `done` of `total` bytes behind it already; `total` is `None` while nobody knows it.
    fn begin(&self, phase: Phase, total: Option<u64>, done: u64);

    /// `bytes` more are done in the current phase.
    fn advance(&self, bytes: u64);
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Phase, _: Option<u64>, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// The watcher that ignores everything.
#[must_use]
pub fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}
