//! Collecting garbage, online, on any replica.

use std::time::Duration;

use super::Services;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::ledger::ObjectState;
use crate::ports::steps;
use crate::upload::UploadId;

/// How much is done in one transaction or one look; small, so that nobody waits for it.
const BATCH: usize = 100;

/// A collection.
#[derive(Clone, Copy, Debug, Default)]
pub struct CollectGarbage {
    /// Keep unreferenced blobs for this long instead of the configured grace. Shorter ones are for administrators who
    /// accept that a push in flight may have to send a layer again.
    pub grace: Option<Duration>,
    /// Only report.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// Whether it only reports.
    pub dry_run: bool,
    /// Blobs whose last reference is gone.
    pub blobs_deleted: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Memberships of blobs in repositories that were looked at because their lease had ended.
    pub memberships_reviewed: u64,
    /// How many of them were dropped.
    pub memberships_dropped: u64,
    /// Idle uploads that were ended, and finished ones that were forgotten.
    pub uploads_ended: u64,
    /// Objects deleted from the store, what a crashed worker left included.
    pub objects_deleted: u64,
}

impl Services {
    /// Collects what nobody refers to. Any number may run at once; each unit of work is one transaction, and what one
    /// that died began, the next one finishes.
    ///
    /// # Errors
    /// [`StoreError`] when a store failed; what was done stays done.
    pub async fn collect_garbage(&self, request: CollectGarbage) -> Result<GarbageReport, StoreError> {
        let mut report = GarbageReport { dry_run: request.dry_run, ..GarbageReport::default() };
        // A lease was set to last the configured grace; with a shorter one it ends that much earlier.
        let shortened = self.settings.grace.saturating_sub(request.grace.unwrap_or(self.settings.grace));
        let lengthened = request.grace.unwrap_or(self.settings.grace).saturating_sub(self.settings.grace);
        let due = self.now() + shortened - lengthened;
        if request.dry_run {
            let preview = self.ports.metadata.preview_garbage(due).await?;
            report.blobs_deleted = preview.blobs;
            report.bytes_freed = preview.bytes;
            return Ok(report);
        }
        let running = self.activity.collection();
        let began = self.now();
        let ended = self.collect(due, &mut report).await;
        drop(running);
        self.activity.collected(&report, ended.is_ok(), began, self.now());
        ended.map(|()| report)
    }

    async fn collect(&self, due: crate::time::Timestamp, report: &mut GarbageReport) -> Result<(), StoreError> {
        self.end_idle_uploads(report).await?;
        self.review(due, report).await?;
        self.collect_candidates(report).await?;
        self.delete_all_doomed(report).await?;
        self.discard_orphaned_staging().await
    }

    async fn end_idle_uploads(&self, report: &mut GarbageReport) -> Result<(), StoreError> {
        let idle_before = self.now() - self.settings.upload_idle;
        loop {
            let idle = self.ports.metadata.idle_uploads(idle_before, BATCH).await?;
            for id in &idle {
                let Some(session) = self.ports.metadata.end_upload(*id, Some(idle_before), self.now()).await? else {
                    continue;
                };
                self.ports.steps.reached(steps::UPLOAD_ENDED);
                self.discard_staged(*id, &session.durable.staging).await?;
                self.ports.steps.reached(steps::UPLOAD_DISCARDED);
                self.ports.metadata.remove_upload(*id).await?;
                report.uploads_ended += 1;
            }
            if idle.len() < BATCH {
                return Ok(());
            }
        }
    }

    async fn review(&self, due: crate::time::Timestamp, report: &mut GarbageReport) -> Result<(), StoreError> {
        loop {
            let batch = self.ports.metadata.review_memberships(due, BATCH).await?;
            report.memberships_reviewed += batch.reviewed;
            report.memberships_dropped += batch.dropped;
            self.ports.steps.reached(steps::GC_REVIEWED);
            if batch.reviewed < BATCH as u64 {
                return Ok(());
            }
        }
    }

    async fn collect_candidates(&self, report: &mut GarbageReport) -> Result<(), StoreError> {
        loop {
            let candidates = self.ports.metadata.garbage_candidates(BATCH).await?;
            for digest in &candidates {
                let Some(blob) = self.ports.metadata.collect_blob(digest, self.now()).await? else { continue };
                report.blobs_deleted += 1;
                report.bytes_freed += blob.size;
                self.ports.steps.reached(steps::GC_DOOMED);
                if self.delete_doomed(&blob.key).await? {
                    report.objects_deleted += 1;
                }
            }
            if candidates.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Once around from a place of its own, so that workers who begin at once are not at the same objects: what one has
    /// deleted, the others pass over.
    async fn delete_all_doomed(&self, report: &mut GarbageReport) -> Result<(), StoreError> {
        // Keys begin with a random identity, or with the name of an algorithm, which comes after all of these.
        let place = ObjectKey(format!("{:032x}", u128::from_be_bytes(self.random())));
        self.delete_doomed_between(Some(&place), None, report).await?;
        self.delete_doomed_between(None, Some(&place), report).await
    }

    async fn delete_doomed_between(
        &self,
        after: Option<&ObjectKey>,
        last: Option<&ObjectKey>,
        report: &mut GarbageReport,
    ) -> Result<(), StoreError> {
        let mut after = after.cloned();
        loop {
            let doomed = self.ports.metadata.doomed_objects(after.as_ref(), BATCH).await?;
            for key in &doomed {
                if last.is_some_and(|last| key > last) {
                    return Ok(());
                }
                if self.delete_doomed(key).await? {
                    report.objects_deleted += 1;
                }
            }
            if doomed.len() < BATCH {
                return Ok(());
            }
            after = doomed.last().cloned();
        }
    }

    /// Deletes a doomed object and then its ledger row. False when another worker is at it or has done it, or it is
    /// doomed no more.
    ///
    /// The order is what makes it safe: only the holder of the claim deletes, and only after it has seen, while it
    /// holds the claim, that the key is still doomed. The row goes last, so the key is not given out again before.
    pub(super) async fn delete_doomed(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let Some(claim) = self.ports.blobs.claim_deletion(key).await? else { return Ok(false) };
        let entry = self.ports.metadata.ledger_entry(key).await?;
        if entry.is_none_or(|entry| entry.state != ObjectState::Doomed) {
            return Ok(false);
        }
        self.ports.blobs.delete(claim.as_ref(), key).await?;
        self.ports.steps.reached(steps::GC_OBJECT_DELETED);
        let is_ours = self.ports.metadata.clear_doomed(key).await?;
        self.ports.steps.reached(steps::GC_LEDGER_CLEARED);
        Ok(is_ours)
    }

    /// Removes staged bytes that no session will ever use. A session's row is there before its bytes can be, and an
    /// identity is never used twice: so bytes without an unfinished session are left over from a crash.
    async fn discard_orphaned_staging(&self) -> Result<(), StoreError> {
        for id in self.ports.blobs.list_staged().await? {
            if !self.staging_is_needed(id).await? {
                self.discard_staged(id, &Default::default()).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn staging_is_needed(&self, id: UploadId) -> Result<bool, StoreError> {
        use crate::upload::UploadState::{Finalising, Open};
        let session = self.ports.metadata.find_upload(id).await?;
        Ok(session.is_some_and(|session| matches!(session.state, Open | Finalising { .. })))
    }
}
