//! Whether the store is the one that the metadata is about: to be asked before anything in it is repaired.

use std::sync::Arc;

use super::Services;
use super::check_storage::{LiveObject, look_for_row};
use super::in_order::InOrder;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::blob_store::{BlobStore, ObjectKey};
use crate::ports::metadata::Metadata;

/// How many rows, and how many objects, are looked at. Keys are digests or random, so the first of them are any of them.
const SAMPLE: usize = 100;

/// So few that are missing, or unknown, tell nothing of a store: it may hold no more than these.
const FEW: u64 = 2;

/// How well metadata and store agree, as far as a sample of both can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLikeness {
    /// Live objects that were looked for.
    pub wanted: u64,
    /// How many of them are not in the store.
    pub missing: u64,
    /// Objects that were found in the store.
    pub stored: u64,
    /// How many of them have no row.
    pub unknown: u64,
}

impl StoreLikeness {
    /// Whether the store is likely to be the one that the metadata is about. A store that lost some of its objects is; one
    /// that lacks more than half of them, or is more than half of somebody else's, is rather another one: a folder that
    /// is not mounted, a bucket or a database whose name was mistyped.
    pub fn is_likely(&self) -> bool {
        let is_little = |part: u64, whole: u64| part <= FEW || part * 2 <= whole;
        is_little(self.missing, self.wanted) && is_little(self.unknown, self.stored)
    }
}

impl Services {
    /// Looks for some objects of the ledger in the store, and for the rows of some objects of the store, `at_once` at a
    /// time. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the metadata failed, or the store cannot be reached.
    pub async fn recognise_store(&self, at_once: usize) -> Result<StoreLikeness, StoreError> {
        let (metadata, blobs) = (&self.ports.metadata, &self.ports.blobs);
        let mut likeness = StoreLikeness::default();
        let mut looks = InOrder::new(self.some_live_objects().await?, at_once, |object: LiveObject| {
            is_missing(Arc::clone(metadata), Arc::clone(blobs), object)
        });
        while let Some(missing) = looks.next().await {
            likeness.wanted += 1;
            likeness.missing += u64::from(missing?);
        }
        let stored = blobs.list_objects(None, SAMPLE).await?;
        let mut looks = InOrder::new(stored, at_once, |object: (ObjectKey, u64)| {
            is_unknown(Arc::clone(metadata), Arc::clone(blobs), object)
        });
        while let Some(unknown) = looks.next().await {
            likeness.stored += 1;
            likeness.unknown += u64::from(unknown?);
        }
        Ok(likeness)
    }

    async fn some_live_objects(&self) -> Result<Vec<LiveObject>, StoreError> {
        let (mut live, mut after) = (Vec::new(), None);
        while live.len() < SAMPLE {
            let page = self.ports.metadata.ledger_page(after.as_ref(), SAMPLE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            live.extend(page.into_iter().filter_map(LiveObject::of));
        }
        live.truncate(SAMPLE);
        Ok(live)
    }
}

async fn is_missing(
    metadata: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    object: LiveObject,
) -> Result<bool, StoreError> {
    let is_there = match blobs.size_of(&object.row.key).await {
        // Something is there.
        Err(error) if error.kind != StoreErrorKind::Unavailable => true,
        size => size?.is_some(),
    };
    // It may have been collected meanwhile.
    Ok(!is_there && metadata.ledger_entry(&object.row.key).await?.as_ref() == Some(&object.row))
}

async fn is_unknown(
    metadata: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    object: (ObjectKey, u64),
) -> Result<bool, StoreError> {
    Ok(match look_for_row(metadata, Arc::clone(&blobs), object).await? {
        // Or was it deleted, and its row after it?
        Some((key, _)) => blobs.size_of(&key).await?.is_some(),
        None => false,
    })
}
