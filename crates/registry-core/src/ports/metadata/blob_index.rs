//! Which blobs are visible in which repository.

use std::time::Duration;

use async_trait::async_trait;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::registry::Repository;
use crate::time::Timestamp;

/// A blob that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub key: ObjectKey,
}

/// What became of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountBlob {
    /// The blob is visible in the target, with a full lease.
    Mounted(StoredBlob),
    /// The source does not have it.
    Unknown,
    /// The target's first segment is a registry's name.
    NameTaken,
}

/// What became of the wish to delete a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteBlob {
    /// It is no longer visible in the repository.
    Deleted,
    /// A manifest of the repository names it.
    Referenced,
    /// The repository does not have it.
    Unknown,
}

/// Memberships of blobs in repositories.
///
/// A membership is leased (`leased_until`) until the blob's reference could have come, or reviewed (no lease): then a
/// manifest names it. Losing a reference leases it again, in the same transaction.
#[async_trait]
pub trait BlobIndex: Send + Sync {
    /// The blob, if the repository has it. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<StoredBlob>, StoreError>;

    /// The blob, if the repository has it, and then for at least half of `grace`: a lease with less than half left is
    /// renewed to `now + grace`, and the answer is that of the renewal itself. Otherwise nothing is written.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_blob_for_push(
        &self,
        repository: &Repository,
        digest: &Digest,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Option<StoredBlob>, StoreError>;

    /// At most `limit` repositories that have the blob, in no particular order: for a mount that names no source.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn repositories_with_blob(&self, digest: &Digest, limit: usize) -> Result<Vec<Repository>, StoreError>;

    /// Makes a blob of `from` visible in `to`, leased until `lease_until` (an earlier lease is prolonged, a reviewed
    /// membership stays reviewed).
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<MountBlob, StoreError>;

    /// Takes a blob out of a repository, unless a manifest there names it; it becomes garbage if that was the last.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<DeleteBlob, StoreError>;
}
