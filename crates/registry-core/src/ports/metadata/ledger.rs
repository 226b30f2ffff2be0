//! The ledger of the object store: a row stands before an object can exist, and until it is gone.

use async_trait::async_trait;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::time::Timestamp;

/// What the ledger says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// An object may come to exist.
    Reserved,
    /// A blob's bytes are there.
    Live,
    /// The object, if there, is to be deleted.
    Doomed,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The key.
    pub key: ObjectKey,
    /// What may be there.
    pub state: ObjectState,
    /// When it came to that state. A key may be given out again once its object is gone: with the state, this tells one
    /// life of it from the next.
    pub since: Timestamp,
    /// The blob's digest and size in bytes, where it is live.
    pub blob: Option<(Digest, u64)>,
}

/// What became of the wish to forget a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetBlob {
    /// It is in no repository any more, its row is gone and its object doomed: it can be pushed again.
    Forgotten,
    /// A package's file refers to it: nothing was changed.
    InUse,
    /// There is no such blob, or its row is not the one that was seen: nothing was changed.
    Unknown,
}

/// The ledger.
#[async_trait]
pub trait ObjectLedger: Send + Sync {
    /// The row of a key.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn ledger_entry(&self, key: &ObjectKey) -> Result<Option<LedgerEntry>, StoreError>;

    /// The next at most `limit` rows after `after`, by key.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn ledger_page(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<LedgerEntry>, StoreError>;

    /// The next at most `limit` doomed keys after `after`, by key.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn doomed_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectKey>, StoreError>;

    /// Removes the row of a doomed key whose object is gone; false when there is none, and a row in another state is left.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn clear_doomed(&self, key: &ObjectKey) -> Result<bool, StoreError>;

    /// Writes a doomed row for an object that has none, so that it is deleted as any other; false when it has one.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn doom_orphan(&self, key: &ObjectKey, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes the blob of a live row, whose object is missing or damaged, out of every repository. Manifests that name it
    /// stay. A row that is not as it was `seen` is another life of the key, of which nobody has said anything: then
    /// nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn forget_blob(&self, seen: &LedgerEntry, now: Timestamp) -> Result<ForgetBlob, StoreError>;
}
