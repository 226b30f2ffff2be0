//! What a process has done since it started, for those who watch it. Plain counters: whoever shows them reads them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::GarbageReport;
use crate::time::Timestamp;

/// The counters, updated by the use cases.
#[derive(Debug, Default)]
pub struct Activity {
    uploads_begun: AtomicU64,
    uploads_committed: AtomicU64,
    uploads_refused: AtomicU64,
    collections_running: AtomicI64,
    collections_succeeded: AtomicU64,
    collections_failed: AtomicU64,
    memberships_reviewed: AtomicU64,
    memberships_dropped: AtomicU64,
    blobs_deleted: AtomicU64,
    bytes_freed: AtomicU64,
    objects_deleted: AtomicU64,
    uploads_ended: AtomicU64,
    last_success: AtomicI64,
    last_duration: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivitySnapshot {
    /// Upload sessions begun; an upload in one request has one too.
    pub uploads_begun: u64,
    /// Attempts to finish an upload that succeeded; one that is sent again succeeds again.
    pub uploads_committed: u64,
    /// Attempts to finish an upload that were refused or failed.
    pub uploads_refused: u64,
    /// Collections that are running.
    pub collections_running: i64,
    /// Collections that came to their end. Dry runs are none.
    pub collections_succeeded: u64,
    /// Collections that a failing store ended.
    pub collections_failed: u64,
    /// What all collections did, also those that failed later.
    pub collected: GarbageReport,
    /// When the last one that succeeded ended; `None` before the first.
    pub last_success: Option<Timestamp>,
    /// How long that took.
    pub last_duration: Duration,
}

impl Activity {
    pub(super) fn upload_begun(&self) {
        self.uploads_begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn upload_ended(&self, committed: bool) {
        let counter = if committed { &self.uploads_committed } else { &self.uploads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A collection begins; it is running until what is returned is dropped.
    pub(super) fn collection(&self) -> Running<'_> {
        self.collections_running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// A collection did this, from `began` to `ended`.
    pub(super) fn collected(&self, report: &GarbageReport, succeeded: bool, began: Timestamp, ended: Timestamp) {
        for (counter, more) in [
            (&self.memberships_reviewed, report.memberships_reviewed),
            (&self.memberships_dropped, report.memberships_dropped),
            (&self.blobs_deleted, report.blobs_deleted),
            (&self.bytes_freed, report.bytes_freed),
            (&self.objects_deleted, report.objects_deleted),
            (&self.uploads_ended, report.uploads_ended),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
        if succeeded {
            let micros = u64::try_from(ended.since(began).as_micros()).unwrap_or(u64::MAX);
            self.last_duration.store(micros, Ordering::Relaxed);
            self.last_success.store(ended.as_micros(), Ordering::Relaxed);
            self.collections_succeeded.fetch_add(1, Ordering::Relaxed);
        } else {
            self.collections_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters now.
    pub fn snapshot(&self) -> ActivitySnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last_success = Some(self.last_success.load(Ordering::Relaxed)).filter(|micros| *micros != 0);
        ActivitySnapshot {
            uploads_begun: read(&self.uploads_begun),
            uploads_committed: read(&self.uploads_committed),
            uploads_refused: read(&self.uploads_refused),
            collections_running: self.collections_running.load(Ordering::Relaxed),
            collections_succeeded: read(&self.collections_succeeded),
            collections_failed: read(&self.collections_failed),
            collected: GarbageReport {
                dry_run: false,
                blobs_deleted: read(&self.blobs_deleted),
                bytes_freed: read(&self.bytes_freed),
                memberships_reviewed: read(&self.memberships_reviewed),
                memberships_dropped: read(&self.memberships_dropped),
                uploads_ended: read(&self.uploads_ended),
                objects_deleted: read(&self.objects_deleted),
            },
            last_success: last_success.map(Timestamp::from_micros),
            last_duration: Duration::from_micros(read(&self.last_duration)),
        }
    }
}

/// A collection that is running.
pub(super) struct Running<'a>(&'a Activity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.collections_running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_that_failed_counts_with_what_it_did_and_is_no_success() {
        let activity = Activity::default();
        let (began, did) = (Timestamp::from_micros(5), GarbageReport { uploads_ended: 7, ..GarbageReport::default() });
        activity.collected(&did, false, began, began + Duration::from_secs(1));
        let failed = ActivitySnapshot { collections_failed: 1, collected: did, ..ActivitySnapshot::default() };
        assert_eq!(activity.snapshot(), failed);
    }
}
