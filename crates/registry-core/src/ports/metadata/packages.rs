//! Packages and their versions. Publishing is `UploadStore::commit_upload`.

use async_trait::async_trait;

use super::NameRange;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::package::{Artifact, PackageSummary};
use crate::ports::blob_store::ObjectKey;
use crate::precondition::Precondition;
use crate::registry::RegistryId;
use crate::time::Timestamp;

/// Packages.
#[async_trait]
pub trait PackageStore: Send + Sync {
    /// A version and where its bytes are: one query.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<Option<(Artifact, ObjectKey)>, StoreError>;

    /// Deletes a version, and the package with its last version; the blob becomes garbage if that was its last
    /// reference. False when it is not there, or the precondition does not hold for its digest: then nothing changes.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// The next at most `limit` packages by name. With `search`, only those whose name contains it, whatever the case
    /// of ASCII letters; this too is a walk over an index (of the pieces of names), not over all packages.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn packages(
        &self,
        registry: RegistryId,
        range: &NameRange,
        search: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PackageSummary>, StoreError>;

    /// The next at most `limit` versions after `after` (which need not exist) in the order of versions; `None` when
    /// there is no such package.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn versions(
        &self,
        registry: RegistryId,
        package: &PackageName,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Option<Vec<Artifact>>, StoreError>;
}
