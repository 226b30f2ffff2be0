//! The metadata store: one port for each aggregate.
//!
//! # Contract, for all of them
//! - Each method that writes is one *intention*: it commits atomically and durably before it returns, or leaves no
//!   trace. It may be sent twice; what then happens is documented with it.
//! - The caller passes the time (`now`), which is the clock port's. Methods never read a clock.
//! - Reads see every write that was acknowledged before they began, on whichever replica.
//! - Lists are pages over an index in the byte order of the key; the cost is that of the page.
//! - Dropping a method's future does not tear an intention: it happens whole or not at all.

pub mod blob_index;
pub mod garbage;
pub mod jobs;
pub mod ledger;
pub mod manifests;
pub mod packages;
pub mod registries;
pub mod signing_keys;
pub mod tokens;
pub mod uploads;

pub use blob_index::BlobIndex;
pub use garbage::GarbageStore;
pub use jobs::JobStore;
pub use ledger::ObjectLedger;
pub use manifests::ManifestStore;
pub use packages::PackageStore;
pub use registries::RegistryStore;
pub use signing_keys::SigningKeyStore;
pub use tokens::TokenStore;
pub use uploads::UploadStore;

/// Everything the domain keeps besides bytes.
pub trait Metadata:
    BlobIndex
    + GarbageStore
    + JobStore
    + ManifestStore
    + ObjectLedger
    + PackageStore
    + RegistryStore
    + SigningKeyStore
    + TokenStore
    + UploadStore
{
}

impl<T> Metadata for T where
    T: BlobIndex
        + GarbageStore
        + JobStore
        + ManifestStore
        + ObjectLedger
        + PackageStore
        + RegistryStore
        + SigningKeyStore
        + TokenStore
        + UploadStore
{
}

/// The names `[start, end)` of a list, after `after`: how a permission or a prefix narrows a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRange {
    /// The first permitted name, inclusive.
    pub start: String,
    /// The first name that is no longer permitted; `None` is no bound.
    pub end: Option<String>,
    /// Only names greater than this one; it need not exist.
    pub after: Option<String>,
}
