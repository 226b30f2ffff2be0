//! Finding what nobody refers to, without stopping anybody.

use async_trait::async_trait;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::time::Timestamp;

/// What one batch of reviews did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReviewBatch {
    /// How many due memberships were looked at; fewer than asked for means that no more are due.
    pub reviewed: u64,
    /// How many of them were dropped, because no manifest of their repository names the blob.
    pub dropped: u64,
}

/// A blob whose row was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedBlob {
    /// Its object, doomed now.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
}

/// What a collection would do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbagePreview {
    /// How many blobs it would delete.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Garbage. A digest that loses a membership or a file becomes a *candidate* in the same transaction.
#[async_trait]
pub trait GarbageStore: Send + Sync {
    /// Reviews at most `limit` memberships whose lease ended at or before `due`: one that a manifest of its
    /// repository names loses its lease, another is dropped and its digest becomes a candidate. A row that a manifest
    /// PUT holds locked is passed over.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn review_memberships(&self, due: Timestamp, limit: usize) -> Result<ReviewBatch, StoreError>;

    /// At most `limit` candidates.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn garbage_candidates(&self, limit: usize) -> Result<Vec<Digest>, StoreError>;

    /// Ends a candidacy: deletes the blob's row and dooms its object, in one transaction, unless a membership or a
    /// file refers to it (a foreign key says so even if one comes at the same time): then `None`.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn collect_blob(&self, digest: &Digest, now: Timestamp) -> Result<Option<CollectedBlob>, StoreError>;

    /// What a collection (reviews of all that is due, then every candidate) with the same `due` would delete. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn preview_garbage(&self, due: Timestamp) -> Result<GarbagePreview, StoreError>;
}
