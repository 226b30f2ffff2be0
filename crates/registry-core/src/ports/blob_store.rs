//! The bytes of blobs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::upload::{StagingState, UploadId};

/// Where an object is in the store; the ledger has a row for each that exists or may come to exist.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(pub String);

impl ObjectKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys that an object of one digest may get: the plain one, or, while that has a row in the ledger, the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCandidates(String);

impl KeyCandidates {
    /// Candidates that begin with `plain`.
    pub fn new(plain: impl Into<String>) -> Self {
        Self(plain.into())
    }

    /// The candidate number `n`: the plain key for 0, then `<plain>-<n>`.
    pub fn nth(&self, n: u32) -> ObjectKey {
        ObjectKey(if n == 0 { self.0.clone() } else { format!("{}-{n}", self.0) })
    }
}

/// Why bytes cannot be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another writer holds the staged bytes and did not let go in time.
    #[error("another writer holds the upload")]
    Busy,
    /// Fewer bytes are stored than the checkpoint says: the upload is lost.
    #[error("the staged bytes are gone")]
    Lost,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a staged upload became an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The object is there, durable, with the size asked for; this call or an earlier one put it there.
    Yes,
    /// Neither staged bytes nor the object are there, or their size differs: the upload is lost.
    Lost,
    /// A writer that was overtaken still holds the staged bytes; the same call may succeed later.
    Busy,
}

/// Keeps the bytes of uploads and blobs.
///
/// # Contract
/// - Bytes are *staged* under an upload and become an *object* under a key; an object never changes.
/// - Whoever calls [`publish`](Self::publish) has a `reserved` ledger row for the key; whoever calls
///   [`delete`](Self::delete) holds a [`DeletionClaim`] and has then seen the row `doomed`.
/// - What is staged lies under names that only its upload has, so the session's row stands for all of it: it is there
///   before the first byte, and is removed after the last. A store may stage in objects, one of which may become the
///   blob where it lies; that one then has a row of its own in the ledger.
/// - What was recorded stays usable: staged bytes that `durable` or `told` of a session's row refers to go only when
///   neither does so any more, or the session takes no more bytes.
/// - Every method may be called on any replica at any time, and again after a crash.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// The keys that an object with this digest may get, made of what `staging` says of the upload `id`.
    fn key_candidates(&self, id: UploadId, digest: &Digest, staging: &StagingState) -> KeyCandidates;

    /// How many bytes an upload can have at most, where the store bounds it.
    fn max_upload_bytes(&self) -> Option<u64> {
        None
    }

    /// Begins to append to the upload's bytes at exactly `offset`; whatever is stored beyond is cut off first.
    ///
    /// One writer at a time: a second one waits a few seconds for the first to let go. A store that cannot exclude
    /// writers keeps what they write apart instead, so that the row alone decides whose bytes count.
    ///
    /// # Errors
    /// [`AppendError`].
    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError>;

    /// The staged bytes `[0, size)`, for the one case in which they are hashed again.
    ///
    /// # Errors
    /// [`AppendError::Lost`] when there are fewer; [`AppendError::Store`].
    async fn read_staged(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, AppendError>;

    /// Makes the staged bytes `[0, size)`, which a checkpoint has made durable, the object `key`, durably.
    ///
    /// Idempotent: after a crash at any point, and when two do it at once, the outcome is the same. It may say
    /// [`Published::Yes`] of bytes that were discarded a moment ago: their session has ended then, and the commit
    /// that follows is refused.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed; nothing is known then, and the call may be made again.
    async fn publish(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
        key: &ObjectKey,
    ) -> Result<Published, StoreError>;

    /// Removes what is staged and is no object; nothing staged is no error.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn discard(&self, id: UploadId, staging: &StagingState) -> Result<(), StoreError>;

    /// Every object that the upload `id` has made, staged ones and the blob alike, in a store that stages in objects.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn upload_objects(&self, id: UploadId) -> Result<Vec<ObjectKey>, StoreError> {
        let _ = id;
        Ok(Vec::new())
    }

    /// The objects that are of no more use once `staging` is all that the session's row refers to; where it was
    /// published as `object`, all that it names but that. Asks nobody, so it may miss some.
    fn superseded_objects(&self, id: UploadId, staging: &StagingState, object: Option<&ObjectKey>) -> Vec<ObjectKey> {
        let _ = (id, staging, object);
        Vec::new()
    }

    /// Removes an object that is of no more use to its upload, and has no row in the ledger; absent is no error.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn remove_staged_object(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let _ = key;
        Ok(())
    }

    /// The upload that made the object `key`, where the key says so: while that has a row, `key` may be without one.
    fn upload_of(&self, key: &ObjectKey) -> Option<UploadId> {
        let _ = key;
        None
    }

    /// Opens the object `key`, or `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError>;

    /// A URL from which anyone can GET the object `key` for as long as `valid_for`; `None` where the store has no such.
    /// It is a credential: it belongs into an answer, and into nothing that is logged.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be made.
    async fn signed_url(&self, key: &ObjectKey, valid_for: Duration) -> Result<Option<String>, StoreError> {
        let _ = (key, valid_for);
        Ok(None)
    }

    /// The size in bytes of the object `key`, or `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError>;

    /// The right to delete `key`; `None` while another has it. While the claim lives, no other claim for the key is
    /// given, on any replica, except where keys are never used twice.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError>;

    /// Deletes the object `key`, durably; absent is no error.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError>;

    /// The next at most `limit` objects after `after` in the order of keys, with their sizes in bytes; in a store that
    /// stages in objects, those too.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError>;

    /// The uploads that have something staged that is no object; as many as there are sessions, not blobs. It need not
    /// be complete: what a session's row leads to is found without it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError>;

    /// Whether bytes can be written now.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    async fn probe(&self) -> Result<(), StoreError>;
}

/// Appends bytes to an upload. Dropping it lets go; bytes after the last checkpoint may or may not be stored.
#[async_trait]
pub trait StagingWriter: Send {
    /// Takes the next bytes; they may still be in memory (a bounded amount) when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; the writer is of no more use then. [`Corrupt`](crate::error::StoreErrorKind::Corrupt) says that
    /// bytes of an earlier checkpoint are gone: the upload is lost.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes all bytes taken so far durable, and says what the store must remember to go on from here.
    ///
    /// # Errors
    /// [`StoreError`]; the writer is of no more use then.
    async fn checkpoint(&mut self) -> Result<StagingState, StoreError>;

    /// To be polled while there is nothing to write: gives up what other writers wait for, so that a client that sends
    /// nothing holds nobody up. Never ends, and may be dropped at any time.
    async fn rest(&mut self) {
        std::future::pending().await
    }
}

/// The right to delete one object.
pub trait DeletionClaim: Send + Sync {
    /// The object.
    fn key(&self) -> &ObjectKey;
}

/// An open object.
pub trait BlobReader: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// The bytes `[range.start, range.end)`, which must lie inside the object, in order, in pieces of bounded size.
    /// An object that ends early ends the stream with an error, never silently.
    fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>>;

    /// The object as a local, immutable file, where it is one: a faster way to send it.
    fn file(&self) -> Option<Arc<std::fs::File>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_candidate_is_the_plain_key_and_no_two_are_the_same() {
        let candidates = KeyCandidates::new("ab/cd");
        let keys = [0, 1, 2, 10].map(|n| candidates.nth(n).to_string());
        assert_eq!(keys, ["ab/cd", "ab/cd-1", "ab/cd-2", "ab/cd-10"]);
    }
}
