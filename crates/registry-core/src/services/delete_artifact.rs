//! Deleting a version of a generic package.

use super::Services;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::registry::RegistryId;

impl Services {
    /// Deletes a version; false when it is not there. Its bytes go at the next collection.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn delete_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<bool, StoreError> {
        self.ports.metadata.delete_artifact(registry, package, version, self.now()).await
    }
}
