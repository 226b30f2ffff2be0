//! Reading a blob of a repository.

use std::sync::Arc;
use std::time::Duration;

use super::Services;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::BlobReader;
use crate::ports::metadata::blob_index::StoredBlob;
use crate::registry::Repository;

/// How long a URL of a blob is valid: long enough to begin, however slowly the client's requests take their turns.
const URL_VALID_FOR: Duration = Duration::from_mins(10);

/// Where a blob's bytes are to be had.
pub enum BlobSource {
    /// Here.
    Here(Arc<dyn BlobReader>),
    /// At this URL, for a few minutes. It is a credential.
    Elsewhere(String),
}

impl Services {
    /// Whether the repository has the blob, and its size. For one who may push the answer holds for at least half the
    /// grace. One query, and no request to the blob store.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn describe_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        for_push: bool,
    ) -> Result<Option<StoredBlob>, StoreError> {
        if for_push {
            self.ports.metadata.find_blob_for_push(repository, digest, self.settings.grace, self.now()).await
        } else {
            self.ports.metadata.find_blob(repository, digest).await
        }
    }

    /// Opens the blob, or says where else it is where the registry wants that (`redirect`) and the store can; `None` when
    /// the repository does not have it.
    ///
    /// # Errors
    /// [`StoreError`] when a store failed, or an acknowledged blob's bytes are missing or of another size.
    pub async fn read_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        redirect: bool,
    ) -> Result<Option<BlobSource>, StoreError> {
        let Some(blob) = self.ports.metadata.find_blob(repository, digest).await? else {
            return Ok(None);
        };
        if redirect && let Some(url) = self.ports.blobs.signed_url(&blob.key, URL_VALID_FOR).await? {
            return Ok(Some(BlobSource::Elsewhere(url)));
        }
        match self.open_object(&blob.key, blob.size).await? {
            Some(reader) => Ok(Some(BlobSource::Here(reader))),
            // Between the query and the opening the blob may have been deleted and collected: then it is gone.
            None => match self.ports.metadata.find_blob(repository, digest).await? {
                None => Ok(None),
                Some(_) => Err(StoreError::corrupt(format!("the object {} of a live blob is missing", blob.key))),
            },
        }
    }

    pub(super) async fn open_object(
        &self,
        key: &crate::ports::blob_store::ObjectKey,
        size: u64,
    ) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        match self.ports.blobs.open(key).await? {
            Some(reader) if reader.size() == size => Ok(Some(reader)),
            Some(reader) => {
                Err(StoreError::corrupt(format!("the object {key} has {} bytes and must have {size}", reader.size())))
            }
            None => Ok(None),
        }
    }
}
