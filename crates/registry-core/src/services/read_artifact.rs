//! Reading a version of a generic package.

use std::sync::Arc;

use super::Services;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::package::Artifact;
use crate::ports::blob_store::BlobReader;
use crate::registry::RegistryId;

impl Services {
    /// What is known of a version: one query, and no request to the blob store.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn describe_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<Option<Artifact>, StoreError> {
        Ok(self.ports.metadata.find_artifact(registry, package, version).await?.map(|(artifact, _)| artifact))
    }

    /// Opens the file of a version, or `None` when there is no such version.
    ///
    /// # Errors
    /// [`StoreError`] when a store failed, or acknowledged bytes are missing or of another size.
    pub async fn read_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<Option<(Artifact, Arc<dyn BlobReader>)>, StoreError> {
        let metadata = &self.ports.metadata;
        let Some((artifact, key)) = metadata.find_artifact(registry, package, version).await? else {
            return Ok(None);
        };
        match self.open_object(&key, artifact.size).await? {
            Some(reader) => Ok(Some((artifact, reader))),
            // Deleted and collected between the query and the opening.
            None => match metadata.find_artifact(registry, package, version).await? {
                None => Ok(None),
                Some(_) => Err(StoreError::corrupt(format!("the object {key} of a live artifact is missing"))),
            },
        }
    }
}
