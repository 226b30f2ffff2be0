//! Comparing the ledger and the store, both ways, while serving.

use futures_util::StreamExt;

use super::Services;
use crate::digest::{Digest, DigestOf};
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};

const PAGE: usize = 500;
const JOB: &str = "check";

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read every object and hash it again.
    pub deep: bool,
    /// Delete orphans; take blobs that cannot be served out of every repository, so that they can be pushed again.
    pub repair: bool,
    /// Begin at the beginning, wherever an interrupted check stands.
    pub restart: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckFinding {
    /// A live blob's object is not there.
    Missing {
        /// The blob.
        digest: Digest,
        /// Where it should be.
        key: ObjectKey,
    },
    /// A live blob's object has another size.
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Where it is.
        key: ObjectKey,
        /// The size it should have, in bytes.
        expected: u64,
        /// The size it has.
        actual: u64,
    },
    /// A live blob's bytes have another digest (deep only).
    WrongContent {
        /// The blob.
        digest: Digest,
        /// Where it is.
        key: ObjectKey,
        /// The digest that the bytes have.
        actual: Digest,
    },
    /// An object has no row in the ledger.
    Orphaned {
        /// Where it is.
        key: ObjectKey,
        /// Its bytes.
        size: u64,
    },
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Live objects looked at.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<CheckFinding>,
    /// How many findings were repaired.
    pub repaired: u64,
}

impl Services {
    /// Compares ledger and store. It runs while others read, write and collect: what it finds it looks at twice.
    /// Where it stands is recorded, so that after an interruption the next check goes on from there; `found` is told
    /// of each finding at once.
    ///
    /// # Errors
    /// [`StoreError`] when a store failed.
    pub async fn check_storage(
        &self,
        options: CheckOptions,
        mut found: impl FnMut(&CheckFinding) + Send,
    ) -> Result<CheckReport, StoreError> {
        let metadata = &self.ports.metadata;
        let mut report = CheckReport::default();
        let cursor = if options.restart { None } else { metadata.job_cursor(JOB).await? };
        let (ledger_from, store_from) = match cursor.as_deref().and_then(|cursor| cursor.split_once(':')) {
            Some(("ledger", key)) => (Some(Some(ObjectKey(key.to_owned()))), None),
            Some(("store", key)) => (None, Some(ObjectKey(key.to_owned()))),
            _ => (Some(None), None),
        };

        if let Some(mut after) = ledger_from {
            loop {
                let page = metadata.ledger_page(after.as_ref(), PAGE).await?;
                for entry in &page {
                    self.check_entry(entry, options, &mut report, &mut found).await?;
                }
                let Some(last) = page.last() else { break };
                metadata.set_job_cursor(JOB, Some(&format!("ledger:{}", last.key))).await?;
                after = Some(last.key.clone());
            }
        }
        let mut after = store_from;
        loop {
            let page = self.ports.blobs.list_objects(after.as_ref(), PAGE).await?;
            for (key, size) in &page {
                self.check_object(key, *size, options, &mut report, &mut found).await?;
            }
            let Some((last, _)) = page.last() else { break };
            metadata.set_job_cursor(JOB, Some(&format!("store:{last}"))).await?;
            after = Some(last.clone());
        }
        metadata.set_job_cursor(JOB, None).await?;
        Ok(report)
    }

    async fn check_entry(
        &self,
        entry: &LedgerEntry,
        options: CheckOptions,
        report: &mut CheckReport,
        found: &mut (impl FnMut(&CheckFinding) + Send),
    ) -> Result<(), StoreError> {
        let (ObjectState::Live, Some((digest, size))) = (entry.state, &entry.blob) else { return Ok(()) };
        report.objects += 1;
        report.bytes += size;
        let key = &entry.key;
        let finding = match self.ports.blobs.size_of(key).await? {
            None => CheckFinding::Missing { digest: digest.clone(), key: key.clone() },
            Some(actual) if actual != *size => {
                CheckFinding::WrongSize { digest: digest.clone(), key: key.clone(), expected: *size, actual }
            }
            Some(_) if options.deep => match self.hash_object(key, digest, *size).await? {
                Some(actual) if actual != *digest => {
                    CheckFinding::WrongContent { digest: digest.clone(), key: key.clone(), actual }
                }
                _ => return Ok(()),
            },
            Some(_) => return Ok(()),
        };
        // Collected while we looked?
        if self.ports.metadata.ledger_entry(key).await?.as_ref() != Some(entry) {
            return Ok(());
        }
        found(&finding);
        report.findings.push(finding);
        if options.repair && self.ports.metadata.forget_blob(digest, self.now()).await? == ForgetBlob::Forgotten {
            self.delete_doomed(key).await?;
            report.repaired += 1;
        }
        Ok(())
    }

    async fn hash_object(&self, key: &ObjectKey, digest: &Digest, size: u64) -> Result<Option<Digest>, StoreError> {
        let Some(reader) = self.ports.blobs.open(key).await? else { return Ok(None) };
        let mut running = DigestOf::new(digest.algorithm());
        let mut bytes = reader.stream(0..size);
        while let Some(piece) = bytes.next().await {
            running.update(&piece?);
        }
        Ok(Some(running.finish()))
    }

    async fn check_object(
        &self,
        key: &ObjectKey,
        size: u64,
        options: CheckOptions,
        report: &mut CheckReport,
        found: &mut (impl FnMut(&CheckFinding) + Send),
    ) -> Result<(), StoreError> {
        // While its upload has a row, that stands for all that the upload made. It goes after the last of it that the
        // ledger does not have, so it has to be asked for before the ledger is.
        if let Some(id) = self.ports.blobs.upload_of(key)
            && self.ports.metadata.find_upload(id).await?.is_some()
        {
            return Ok(());
        }
        // A row is there before an object can be, and until it is gone: an object that is there after we saw no row
        // has none.
        if self.ports.metadata.ledger_entry(key).await?.is_some() || self.ports.blobs.size_of(key).await?.is_none() {
            return Ok(());
        }
        if self.ports.metadata.ledger_entry(key).await?.is_some() {
            return Ok(());
        }
        let finding = CheckFinding::Orphaned { key: key.clone(), size };
        found(&finding);
        report.findings.push(finding);
        if options.repair && self.ports.metadata.doom_orphan(key, self.now()).await? {
            self.delete_doomed(key).await?;
            report.repaired += 1;
        }
        Ok(())
    }
}
