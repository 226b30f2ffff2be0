//! Upload sessions. The row is the truth; the staged bytes follow it.

use async_trait::async_trait;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::{KeyCandidates, ObjectKey};
use crate::time::Timestamp;
use crate::upload::{Checkpoint, Epoch, UploadId, UploadSession, UploadTarget};

/// An upload to be made.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Its identity, fresh.
    pub id: UploadId,
    /// What it will become.
    pub target: UploadTarget,
    /// The empty beginning, with the hashes that are to run.
    pub start: Checkpoint,
    /// Whether the request that makes it also writes: then its epoch is 1, else 0.
    pub writing: bool,
}

/// What became of an upload to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the one that nearly every call returns")]
pub enum CreateUpload {
    /// It is open.
    Created(UploadSession),
    /// The repository's first segment is a registry's name (see `RegistryStore::create_registry`).
    NameTaken,
}

/// Where a body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStart {
    /// At the offset that the client was last told: the request has no Content-Range.
    AtTold,
    /// At this offset, which must be the durable one.
    At(u64),
}

/// What became of the wish to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginWrite {
    /// The epoch was raised, and `durable` is where to begin (it went back to `told` where the body begins there).
    Started(UploadSession),
    /// The body does not begin at the durable offset, which `told` now says too; the epoch is unchanged.
    OutOfOrder(UploadSession),
    /// The session is finalising, done or ended, and unchanged.
    NotOpen(UploadSession),
    /// There is no such session.
    Unknown,
}

/// A step of a writer: from the offset that it found or last recorded to a new one.
#[derive(Clone, Debug)]
pub struct CheckpointStep {
    /// The session.
    pub id: UploadId,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The offset recorded before; with the epoch this is what is compared.
    pub from: u64,
    /// What is durable now.
    pub to: Checkpoint,
    /// Whether the client is about to be told.
    pub tell: bool,
}

/// The wish to make an open session's bytes a blob.
#[derive(Clone, Debug)]
pub struct SealUpload {
    /// The session, the writer's epoch, the offset recorded before, and what is durable now. `to.offset` is the
    /// blob's size.
    pub step: CheckpointStep,
    /// The digest, already compared with the bytes.
    pub digest: Digest,
    /// The keys that the object may get.
    pub candidates: KeyCandidates,
    /// Until when an uncommitted reference protects the blob.
    pub lease_until: Timestamp,
}

/// What became of the wish to finalise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealOutcome {
    /// The session is `finalising` and the key is reserved: put the object there, then commit.
    Publish(ObjectKey),
    /// The bytes are stored already under this digest: the session was committed at once (or refused, as
    /// [`CommitOutcome`] says), and what is staged can be discarded.
    AlreadyStored(CommitOutcome),
    /// Another request has changed the session since.
    Superseded,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The blob is visible, and the session done: now, or by an earlier call for the same digest.
    Committed,
    /// The version to be published exists. The session is ended, a reserved object is doomed.
    VersionExists,
    /// The session is gone or ended, or was committed with another digest.
    Superseded,
}

/// Upload sessions.
#[async_trait]
pub trait UploadStore: Send + Sync {
    /// Makes a session, and for a repository also the repository's row and its first segment's.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn create_upload(&self, new: NewUpload, now: Timestamp) -> Result<CreateUpload, StoreError>;

    /// The session, in whatever state.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_upload(&self, id: UploadId) -> Result<Option<UploadSession>, StoreError>;

    /// Raises the epoch for a writer, if the session is open and the body begins where it may.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn begin_write(&self, id: UploadId, start: WriteStart, now: Timestamp) -> Result<BeginWrite, StoreError>;

    /// Records what is durable, if the session is open, its epoch is the writer's and its offset is `from`; false,
    /// and nothing recorded, when not.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn checkpoint_upload(&self, step: CheckpointStep, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes that the client is told the durable offset: `told` becomes `durable` of an open session. The session as
    /// it is then, or `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn tell_upload(&self, id: UploadId, now: Timestamp) -> Result<Option<UploadSession>, StoreError>;

    /// Records the last checkpoint and moves an open session to `finalising`, with a key reserved in the ledger: the
    /// first candidate that has no row. Where a blob of this digest exists, commits at once instead. Sent again by the
    /// same writer with the same digest, it answers the same and changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn seal_upload(&self, seal: SealUpload, now: Timestamp) -> Result<SealOutcome, StoreError>;

    /// Commits a `finalising` session whose object is at its key: the object `live`, the blob's row, the membership
    /// with a lease until `lease_until` as a mount makes it (or the package, version and file), the session `done`. Where a blob of this
    /// digest has come meanwhile, that one is kept and this object doomed.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn commit_upload(
        &self,
        id: UploadId,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError>;

    /// Moves an open or finalising session to `ended` and dooms a reserved object; `touched_at` stays. With `idle_before`, only when it
    /// was last touched before that, and a `done` one too. Returns the session as it was before; `None` when it is
    /// not there, or not to be ended. A session already ended is returned as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn end_upload(
        &self,
        id: UploadId,
        idle_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<UploadSession>, StoreError>;

    /// Removes the row of an ended session; any other is left.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn remove_upload(&self, id: UploadId) -> Result<(), StoreError>;

    /// At most `limit` sessions that were last touched before `idle_before`, and ended ones whenever, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn idle_uploads(&self, idle_before: Timestamp, limit: usize) -> Result<Vec<UploadId>, StoreError>;
}
