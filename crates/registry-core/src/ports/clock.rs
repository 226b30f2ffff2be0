//! Time.

use crate::time::Timestamp;

/// Tells the time that all replicas share.
///
/// # Contract
/// `now` is the metadata store's time: where the store is another machine, the adapter carries the measured offset.
/// It never blocks. Within one process it does not run backwards by more than a re-measurement corrects.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}
