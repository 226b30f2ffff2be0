//! Deleting tags and manifests.

use super::Services;
use crate::error::StoreError;
use crate::names::Reference;
use crate::registry::Repository;

impl Services {
    /// Deletes a tag and nothing else, or a manifest with every tag that points at it; false when it is not there.
    /// The blobs that a manifest named are kept for a full grace.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> Result<bool, StoreError> {
        let now = self.now();
        match reference {
            Reference::Tag(tag) => self.ports.metadata.delete_tag(repository, tag).await,
            Reference::Digest(digest) => {
                self.ports.metadata.delete_manifest(repository, digest, now + self.settings.grace, now).await
            }
        }
    }
}
