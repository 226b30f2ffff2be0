//! The blobs: those that the target has not, several at a time.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;

use registry_adapters::blob::filesystem::FilesystemBlobStore;
use registry_adapters::sql::{SqlMetadata, TransferMark};
use registry_core::digest::Digest;
use registry_core::ports::blob_store::BlobStore as _;
use registry_core::ports::metadata::ObjectLedger as _;
use registry_core::ports::metadata::blob_index::StoredBlob;
use registry_core::services::{CopyBlobError, Services};
use tokio::task::JoinSet;

use super::{CommandError, StoreResult};
use crate::compose::Composition;

/// How many blobs are on their way at once; the parts of large ones share `storage.s3.upload_memory`.
const AT_ONCE: usize = 8;
/// How many blobs are listed at once.
const PAGE: usize = 1000;
/// With so many that could not be copied, it is time to see why.
const ENOUGH_PROBLEMS: usize = 1000;

/// Blobs that are being copied.
type UnderWay = JoinSet<(StoredBlob, Result<(), CopyBlobError>)>;

/// What copying came to.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// How many blobs the source has.
    pub(super) blobs: u64,
    /// How many of them were copied now.
    pub(super) copied: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What could not be copied: it is gone, or damaged.
    pub(super) problems: Vec<Problem>,
    /// How many blobs the target has and the source has not.
    pub(super) surplus: u64,
}

/// A blob that could not be copied.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) blob: StoredBlob,
    pub(super) what: String,
}

/// Blobs in the order of their digests.
struct Blobs<'a> {
    metadata: &'a SqlMetadata,
    after: Option<Digest>,
    page: VecDeque<StoredBlob>,
    ended: bool,
}

impl<'a> Blobs<'a> {
    fn new(metadata: &'a SqlMetadata) -> Self {
        Self { metadata, after: None, page: VecDeque::new(), ended: false }
    }

    async fn peek(&mut self) -> StoreResult<Option<&StoredBlob>> {
        if self.page.is_empty() && !self.ended {
            self.page = self.metadata.blob_page(self.after.as_ref(), PAGE).await?.into();
            self.ended = self.page.len() < PAGE;
            self.after = self.page.back().map(|blob| blob.digest.clone());
        }
        Ok(self.page.front())
    }
}

/// Copies what the target has not, and makes garbage of what the source has not.
pub(super) struct CopyBlobs<'a> {
    pub(super) snapshot: &'a SqlMetadata,
    pub(super) source: Arc<FilesystemBlobStore>,
    pub(super) target: &'a Composition,
}

impl CopyBlobs<'_> {
    pub(super) async fn run(&self, mark: &TransferMark) -> Result<Copied, CommandError> {
        let (mut source, mut target) = (Blobs::new(self.snapshot), Blobs::new(&self.target.metadata));
        let (mut copied, mut surplus) = (Copied::default(), Vec::new());
        let mut under_way = UnderWay::new();
        loop {
            let order = match (source.peek().await?, target.peek().await?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(source), Some(target)) => source.digest.cmp(&target.digest),
            };
            if order != Ordering::Less {
                let found = target.page.pop_front();
                if order == Ordering::Greater {
                    surplus.extend(found.map(|blob| blob.digest));
                    if surplus.len() == PAGE {
                        copied.surplus += PAGE as u64;
                        self.target.metadata.transfer_garbage(&std::mem::take(&mut surplus), mark).await?;
                    }
                    continue;
                }
            }
            let Some(blob) = source.page.pop_front() else { break };
            copied.blobs += 1;
            if copied.blobs.is_multiple_of(PAGE as u64) {
                self.tell(&copied, mark)?;
            }
            if order == Ordering::Equal {
                continue;
            }
            while under_way.len() >= AT_ONCE {
                take(&mut under_way, &mut copied).await?;
            }
            if copied.problems.len() >= ENOUGH_PROBLEMS {
                break;
            }
            self.begin(&mut under_way, blob);
        }
        while !under_way.is_empty() {
            take(&mut under_way, &mut copied).await?;
        }
        copied.surplus += surplus.len() as u64;
        self.target.metadata.transfer_garbage(&surplus, mark).await?;
        Ok(copied)
    }

    /// Copies the blobs of `problems`, which an earlier snapshot has led to, once more. A problem that stays is damage: the
    /// blob is known still, and still cannot be copied. One that is not known any more was collected; one that can be
    /// copied was collected, and pushed again, before it was looked at.
    pub(super) async fn again(&self, problems: Vec<Problem>) -> Result<Copied, CommandError> {
        let (mut under_way, mut copied) = (UnderWay::new(), Copied::default());
        for Problem { blob, .. } in problems {
            let entry = self.snapshot.ledger_entry(&blob.key).await?;
            if entry.and_then(|entry| entry.blob).is_some_and(|(digest, _)| digest == blob.digest) {
                self.begin(&mut under_way, blob);
                take(&mut under_way, &mut copied).await?;
            }
        }
        Ok(copied)
    }

    /// Begins to copy a blob.
    fn begin(&self, under_way: &mut UnderWay, blob: StoredBlob) {
        let (services, store) = (Arc::clone(&self.target.services), Arc::clone(&self.source));
        under_way.spawn(async move {
            let outcome = copy(&services, &store, &blob).await;
            (blob, outcome)
        });
    }

    /// A sign of life: standard output is the report's.
    fn tell(&self, copied: &Copied, mark: &TransferMark) -> Result<(), CommandError> {
        let Copied { blobs, copied, bytes, .. } = copied;
        let run = &mark.run[..8];
        writeln!(std::io::stderr(), "Run {run}: {blobs} blobs looked at, {copied} of {bytes} bytes copied.")?;
        Ok(())
    }
}

/// Waits for one of those that are under way.
async fn take(under_way: &mut UnderWay, copied: &mut Copied) -> Result<(), CommandError> {
    let Some(joined) = under_way.join_next().await else { return Ok(()) };
    let (blob, outcome) = joined.map_err(|error| std::io::Error::other(error.to_string()))?;
    match outcome {
        Ok(()) => {
            copied.copied += 1;
            copied.bytes += blob.size;
        }
        // The target's failure: it would be the same of the next.
        Err(CopyBlobError::Upload(error)) => {
            return Err(super::MigrateError::Blob { digest: blob.digest, source: error }.into());
        }
        Err(error) => copied.problems.push(Problem { blob, what: error.to_string() }),
    }
    Ok(())
}

async fn copy(services: &Services, source: &FilesystemBlobStore, blob: &StoredBlob) -> Result<(), CopyBlobError> {
    match source.open(&blob.key).await.map_err(CopyBlobError::Unreadable)? {
        Some(reader) => services.copy_blob(&blob.digest, blob.size, reader).await,
        None => Err(CopyBlobError::Missing),
    }
}
