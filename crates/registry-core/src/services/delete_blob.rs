//! Taking a blob out of a repository.

use super::Services;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::metadata::blob_index::DeleteBlob;
use crate::registry::Repository;

impl Services {
    /// Takes the blob out of the repository, unless one of its manifests names it. Its bytes go at the next
    /// collection, if nobody else has it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<DeleteBlob, StoreError> {
        self.ports.metadata.delete_blob(repository, digest, self.now()).await
    }
}
