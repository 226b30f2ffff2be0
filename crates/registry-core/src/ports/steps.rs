//! Named moments of the state machines, so that tests can stop a process at exactly one of them.

/// Is told when a state machine passes a named moment.
///
/// # Contract
/// In production this does nothing and costs nothing. The fail-point build kills the process at the moment it was
/// told to; whatever the moment, nothing acknowledged may be lost.
pub trait Steps: Send + Sync {
    /// The process is now at `step`, one of [`ALL`], [`MULTIPART`] or [`MIGRATION`].
    fn reached(&self, step: &'static str);
}

/// Passes every moment by.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&self, _step: &'static str) {}
}

/// An upload's row exists, nothing of it is stored.
pub const UPLOAD_CREATED: &str = "upload.created";
/// A writer has raised the epoch and not yet touched the staged bytes.
pub const UPLOAD_EPOCH_RAISED: &str = "upload.epoch-raised";
/// Bytes are durable, their offset is not yet recorded.
pub const UPLOAD_BYTES_DURABLE: &str = "upload.bytes-durable";
/// The offset is recorded, the client not yet answered.
pub const UPLOAD_CHECKPOINTED: &str = "upload.checkpointed";
/// `finalising` and the reserved key are recorded, the object is not yet there.
pub const UPLOAD_SEALED: &str = "upload.sealed";
/// The object is at its key, the blob is not yet committed.
pub const UPLOAD_PUBLISHED: &str = "upload.published";
/// The blob is committed, the client not yet answered.
pub const UPLOAD_COMMITTED: &str = "upload.committed";
/// An upload is marked ended, its staged bytes are still there.
pub const UPLOAD_ENDED: &str = "upload.ended";
/// Its staged bytes are gone, its row is still there.
pub const UPLOAD_DISCARDED: &str = "upload.discarded";
/// A batch of due memberships was reviewed.
pub const GC_REVIEWED: &str = "gc.reviewed";
/// A blob's row is gone and its object doomed; the object is still there.
pub const GC_DOOMED: &str = "gc.doomed";
/// A doomed object is gone, its ledger row is still there.
pub const GC_OBJECT_DELETED: &str = "gc.object-deleted";
/// The ledger row of a deleted object is gone.
pub const GC_LEDGER_CLEARED: &str = "gc.ledger-cleared";
/// A manifest is committed, the client not yet answered.
pub const MANIFEST_COMMITTED: &str = "manifest.committed";
/// A migration to other stores is noted in the target, nothing is copied.
pub const MIGRATE_BEGUN: &str = "migrate.begun";
/// Every blob of the source is in the target, rows are not.
pub const MIGRATE_BLOBS_COPIED: &str = "migrate.blobs-copied";
/// A batch of rows is gone from the target, or written to it.
pub const MIGRATE_ROWS_WRITTEN: &str = "migrate.rows-written";
/// Everything was compared; the target is not yet released for serving.
pub const MIGRATE_COMPARED: &str = "migrate.compared";

/// A part is in the bucket, no row names it.
pub const UPLOAD_PART_STORED: &str = "upload.part-stored";
/// All parts are in the bucket, the tail as the last of them; they are not yet an object.
pub const UPLOAD_PARTS_NAMED: &str = "upload.parts-named";

/// The moments that only uploads of several parts to a bucket pass.
pub const MULTIPART: [&str; 2] = [UPLOAD_PART_STORED, UPLOAD_PARTS_NAMED];

/// The moments of a migration to other stores, which no server passes.
pub const MIGRATION: [&str; 4] = [MIGRATE_BEGUN, MIGRATE_BLOBS_COPIED, MIGRATE_ROWS_WRITTEN, MIGRATE_COMPARED];

/// Every moment of a server, in the order of a blob's life.
pub const ALL: [&str; 14] = [
    UPLOAD_CREATED,
    UPLOAD_EPOCH_RAISED,
    UPLOAD_BYTES_DURABLE,
    UPLOAD_CHECKPOINTED,
    UPLOAD_SEALED,
    UPLOAD_PUBLISHED,
    UPLOAD_COMMITTED,
    MANIFEST_COMMITTED,
    UPLOAD_ENDED,
    UPLOAD_DISCARDED,
    GC_REVIEWED,
    GC_DOOMED,
    GC_OBJECT_DELETED,
    GC_LEDGER_CLEARED,
];
