//! Deleting tags and manifests.

use super::Services;
use super::delete_artifact::Deletion;
use crate::error::StoreError;
use crate::names::Reference;
use crate::precondition::Precondition;
use crate::registry::Repository;

impl Services {
    /// Deletes a tag and nothing else, or a manifest with every tag that points at it.
    /// The blobs that a manifest named are kept for a full grace.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        precondition: &Precondition,
    ) -> Result<Deletion, StoreError> {
        let (metadata, now) = (&self.ports.metadata, self.now());
        let deleted = match reference {
            Reference::Tag(tag) => metadata.delete_tag(repository, tag, precondition).await?,
            // What a digest leads to never changes: what does not hold now never will.
            Reference::Digest(digest) if !precondition.holds(Some(digest)) => false,
            Reference::Digest(digest) => {
                metadata.delete_manifest(repository, digest, now + self.settings.grace, now).await?
            }
        };
        if deleted {
            return Ok(Deletion::Deleted);
        }
        // Nothing was deleted; this only tells the client why.
        let refused = !precondition.is_none() && metadata.describe_manifest(repository, reference).await?.is_some();
        Ok(if refused { Deletion::PreconditionFailed } else { Deletion::Unknown })
    }
}
