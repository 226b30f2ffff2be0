//! Comparing the ledger and the store, both ways, while serving.

use std::sync::Arc;

use futures_util::StreamExt;

use super::Services;
use super::check_place::{CheckPlace, Position};
use super::in_order::InOrder;
use crate::digest::{Digest, DigestOf};
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::blob_store::{BlobStore, ObjectKey};
use crate::ports::metadata::Metadata;
use crate::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};
use crate::time::Timestamp;

const PAGE: usize = 500;
const JOB: &str = "check";

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read every object and hash it again.
    pub deep: bool,
    /// Delete orphans; take blobs that cannot be served out of every repository, so that they can be pushed again.
    pub repair: bool,
    /// Begin at the beginning, wherever an interrupted check stands. One with another `deep` or `repair` is never gone on
    /// with: it has not done what this one is to do.
    pub restart: bool,
    /// How many objects are looked at at once, at least one. Of each, a piece is in memory.
    pub at_once: usize,
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
    /// A live blob's object cannot be read, though the store answers. It is not repaired: it may be there still.
    Unreadable {
        /// The blob.
        digest: Digest,
        /// Where it should be.
        key: ObjectKey,
        /// What the store says, for people.
        why: String,
    },
    /// An object has no row in the ledger.
    Orphaned {
        /// Where it is.
        key: ObjectKey,
        /// Its bytes.
        size: u64,
    },
}

/// What was seen, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSum {
    /// Live objects looked at.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How much was wrong.
    pub findings: u64,
    /// How much of that was repaired.
    pub repaired: u64,
}

/// A check that was interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptedCheck {
    /// When it was begun.
    pub begun_at: Timestamp,
    /// The last object that it was done with.
    pub after: Option<ObjectKey>,
    /// What it had seen then.
    pub sum: CheckSum,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What the check that this one went on with had seen before it was interrupted. All else here came after.
    pub before: CheckSum,
    /// Live objects looked at.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<CheckFinding>,
    /// How many findings were repaired.
    pub repaired: u64,
}

impl CheckReport {
    /// All that was seen, before an interruption too.
    pub fn sum(&self) -> CheckSum {
        let Self { before, objects, bytes, findings, repaired } = self;
        CheckSum {
            objects: before.objects + objects,
            bytes: before.bytes + bytes,
            findings: before.findings + findings.len() as u64,
            repaired: before.repaired + repaired,
        }
    }
}

/// An object without a row, as far as one look can tell.
type MaybeOrphan = (ObjectKey, u64);

impl Services {
    /// The interrupted check that [`check_storage`](Self::check_storage) with these options goes on with.
    ///
    /// # Errors
    /// [`StoreError`] when the metadata failed.
    pub async fn interrupted_check(&self, options: CheckOptions) -> Result<Option<InterruptedCheck>, StoreError> {
        let place = self.interrupted_at(options).await?;
        Ok(place.map(|CheckPlace { begun_at, sum, position, .. }| {
            let (Position::Ledger(after) | Position::Store(after)) = position;
            InterruptedCheck { begun_at, after, sum }
        }))
    }

    async fn interrupted_at(&self, options: CheckOptions) -> Result<Option<CheckPlace>, StoreError> {
        if options.restart {
            return Ok(None);
        }
        let cursor = self.ports.metadata.job_cursor(JOB).await?;
        Ok(cursor.and_then(|cursor| CheckPlace::read(&cursor)).filter(|place| place.is_of(options)))
    }

    async fn stand_at(
        &self,
        place: &mut CheckPlace,
        position: Position,
        report: &CheckReport,
    ) -> Result<(), StoreError> {
        (place.position, place.sum) = (position, report.sum());
        self.ports.metadata.set_job_cursor(JOB, Some(&place.cursor())).await
    }

    /// Compares ledger and store. It runs while others read, write and collect: what it finds it looks at twice.
    /// Where it stands is recorded, so that after an interruption the next check with the same options goes on from
    /// there; `found` is told of each finding as soon as those before it are known, in the order of keys.
    ///
    /// Several objects are looked at at once. What a look finds is taken up one after the other, in the order of keys, and
    /// a page is recorded as done after all of it was: so an interruption passes nothing by, whatever was under way.
    ///
    /// # Errors
    /// [`StoreError`] when the metadata failed, or the store cannot be reached; what was found before was told. A failure
    /// that is one object's is a finding.
    pub async fn check_storage(
        &self,
        options: CheckOptions,
        mut found: impl FnMut(&CheckFinding) + Send,
    ) -> Result<CheckReport, StoreError> {
        let (metadata, blobs) = (&self.ports.metadata, &self.ports.blobs);
        // Where nothing can be read, the store is at fault, not each object.
        blobs.list_objects(None, 1).await?;
        let interrupted = self.interrupted_at(options).await?;
        let mut place = interrupted.unwrap_or_else(|| CheckPlace::start(options, self.now()));
        let mut report = CheckReport { before: place.sum, ..CheckReport::default() };

        if let Position::Ledger(mut after) = place.position.clone() {
            loop {
                let page = metadata.ledger_page(after.as_ref(), PAGE).await?;
                let Some(last) = page.last().map(|entry| entry.key.clone()) else { break };
                let live = page.into_iter().filter_map(LiveObject::of).collect();
                let mut looks = InOrder::new(live, options.at_once, |object: LiveObject| {
                    look(Arc::clone(blobs), object, options.deep)
                });
                while let Some((object, seen)) = looks.next().await {
                    report.objects += 1;
                    report.bytes += object.size;
                    if seen?.is_some() {
                        self.confirm_damage(object, options, &mut report, &mut found).await?;
                    }
                }
                after = Some(last);
                self.stand_at(&mut place, Position::Ledger(after.clone()), &report).await?;
            }
        }
        let mut after = match &place.position {
            Position::Ledger(_) => None,
            Position::Store(after) => after.clone(),
        };
        loop {
            let page = blobs.list_objects(after.as_ref(), PAGE).await?;
            let Some(last) = page.last().map(|(key, _)| key.clone()) else { break };
            let mut looks = InOrder::new(page, options.at_once, |object: MaybeOrphan| {
                look_for_row(Arc::clone(metadata), Arc::clone(blobs), object)
            });
            while let Some(seen) = looks.next().await {
                if let Some(object) = seen? {
                    self.confirm_orphan(object, options, &mut report, &mut found).await?;
                }
            }
            after = Some(last);
            self.stand_at(&mut place, Position::Store(after.clone()), &report).await?;
        }
        metadata.set_job_cursor(JOB, None).await?;
        Ok(report)
    }

    async fn confirm_damage(
        &self,
        object: LiveObject,
        options: CheckOptions,
        report: &mut CheckReport,
        found: &mut (impl FnMut(&CheckFinding) + Send),
    ) -> Result<(), StoreError> {
        // The answer to the first look may have waited for those before it.
        let (LiveObject { row, .. }, seen) = look(Arc::clone(&self.ports.blobs), object, options.deep).await;
        let Some(finding) = seen? else { return Ok(()) };
        // Collected, or even pushed again since the row was read? Then it is not what was looked at.
        if self.ports.metadata.ledger_entry(&row.key).await?.as_ref() != Some(&row) {
            return Ok(());
        }
        found(&finding);
        let may_repair = options.repair && !matches!(finding, CheckFinding::Unreadable { .. });
        report.findings.push(finding);
        if may_repair && self.ports.metadata.forget_blob(&row, self.now()).await? == ForgetBlob::Forgotten {
            self.delete_doomed(&row.key).await?;
            report.repaired += 1;
        }
        Ok(())
    }

    async fn confirm_orphan(
        &self,
        (key, size): MaybeOrphan,
        options: CheckOptions,
        report: &mut CheckReport,
        found: &mut (impl FnMut(&CheckFinding) + Send),
    ) -> Result<(), StoreError> {
        // A row is there before an object can be, and until it is gone: an object that is there after we saw no row
        // has none.
        if self.ports.blobs.size_of(&key).await?.is_none() || self.ports.metadata.ledger_entry(&key).await?.is_some() {
            return Ok(());
        }
        let finding = CheckFinding::Orphaned { key: key.clone(), size };
        found(&finding);
        report.findings.push(finding);
        if options.repair && self.ports.metadata.doom_orphan(&key, self.now()).await? {
            self.delete_doomed(&key).await?;
            report.repaired += 1;
        }
        Ok(())
    }
}

/// An object that a live row names.
pub(super) struct LiveObject {
    pub(super) row: LedgerEntry,
    digest: Digest,
    size: u64,
}

impl LiveObject {
    pub(super) fn of(row: LedgerEntry) -> Option<Self> {
        let (ObjectState::Live, Some((digest, size))) = (row.state, row.blob.clone()) else { return None };
        Some(Self { row, digest, size })
    }
}

/// Looks at an object, and says what seems to be wrong with it. Fails when the store cannot be reached.
async fn look(
    blobs: Arc<dyn BlobStore>,
    object: LiveObject,
    deep: bool,
) -> (LiveObject, Result<Option<CheckFinding>, StoreError>) {
    let seen = match compare(&*blobs, &object, deep).await {
        Err(error) if error.kind != StoreErrorKind::Unavailable => {
            let (digest, key) = (object.digest.clone(), object.row.key.clone());
            Ok(Some(CheckFinding::Unreadable { digest, key, why: error.chain() }))
        }
        seen => seen,
    };
    (object, seen)
}

async fn compare(blobs: &dyn BlobStore, object: &LiveObject, deep: bool) -> Result<Option<CheckFinding>, StoreError> {
    let (digest, key) = (object.digest.clone(), object.row.key.clone());
    let (size, reader) = if deep {
        // Whoever reads it learns its size on the way, with one request.
        let reader = blobs.open(&key).await?;
        (reader.as_ref().map(|reader| reader.size()), reader)
    } else {
        (blobs.size_of(&key).await?, None)
    };
    Ok(match (size, reader) {
        (None, _) => Some(CheckFinding::Missing { digest, key }),
        (Some(actual), _) if actual != object.size => {
            Some(CheckFinding::WrongSize { digest, key, expected: object.size, actual })
        }
        (Some(_), None) => None,
        (Some(size), Some(reader)) => {
            let mut running = DigestOf::new(digest.algorithm());
            let mut bytes = reader.stream(0..size);
            while let Some(piece) = bytes.next().await {
                running.update(&piece?);
                // Pieces that are in memory come one after the other, and others want this thread too.
                tokio::task::yield_now().await;
            }
            let actual = running.finish();
            (actual != digest).then_some(CheckFinding::WrongContent { digest, key, actual })
        }
    })
}

/// Gives back an object that seems to have no row.
pub(super) async fn look_for_row(
    metadata: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    object: MaybeOrphan,
) -> Result<Option<MaybeOrphan>, StoreError> {
    // While its upload has a row, that stands for all that the upload made. It goes after the last of it that the
    // ledger does not have, so it has to be asked for before the ledger is.
    if let Some(id) = blobs.upload_of(&object.0)
        && metadata.find_upload(id).await?.is_some()
    {
        return Ok(None);
    }
    Ok(metadata.ledger_entry(&object.0).await?.is_none().then_some(object))
}
