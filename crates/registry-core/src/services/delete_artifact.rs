//! Deleting a version of a generic package.

use super::Services;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::precondition::Precondition;
use crate::registry::RegistryId;

/// What became of the wish to delete something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// It is not there.
    Unknown,
    /// It is there, and not as the client expects: it stays.
    PreconditionFailed,
}

impl Services {
    /// Deletes a version. Its bytes go at the next collection.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn delete_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
        precondition: &Precondition,
    ) -> Result<Deletion, StoreError> {
        let metadata = &self.ports.metadata;
        if metadata.delete_artifact(registry, package, version, precondition, self.now()).await? {
            return Ok(Deletion::Deleted);
        }
        // Nothing was deleted; this only tells the client why.
        let refused = !precondition.is_none() && metadata.find_artifact(registry, package, version).await?.is_some();
        Ok(if refused { Deletion::PreconditionFailed } else { Deletion::Unknown })
    }
}
