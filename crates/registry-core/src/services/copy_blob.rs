//! Taking over a blob of another installation.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::{BodyError, Services, UploadError};
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::ports::blob_store::BlobReader;
use crate::upload::{UploadId, UploadTarget};

/// A blob was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum CopyBlobError {
    /// It does not have the size or the digest that it should have.
    #[error("its bytes do not have its digest")]
    WrongContent,
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It cannot be read.
    #[error("it cannot be read: {}", .0.chain())]
    Unreadable(StoreError),
    /// It was not stored here.
    #[error(transparent)]
    Upload(UploadError),
}

impl Services {
    /// Stores the bytes of a blob that another installation has, and hashes them on the way. Nothing refers to it here
    /// yet, and no collection takes it away: it has never lost a reference. One that is stored already is left as it is.
    ///
    /// # Errors
    /// [`CopyBlobError`]; nothing is stored then.
    pub async fn copy_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: Arc<dyn BlobReader>,
    ) -> Result<(), CopyBlobError> {
        if source.size() != size {
            return Err(CopyBlobError::WrongContent);
        }
        // What an administrator permits is for clients; what is there already is there.
        let limit = self.max_upload_bytes(None);
        self.check_length(Some(size), limit).map_err(CopyBlobError::Upload)?;
        let sha512 = digest.algorithm() == Algorithm::Sha512;
        let session =
            self.create_session(UploadTarget::Unreferenced, sha512, true).await.map_err(CopyBlobError::Upload)?;
        let mut unreadable = None;
        let mut body = source.stream(0..size).map(|piece| {
            piece.map_err(|error| {
                unreadable = Some(error);
                BodyError::Disconnected
            })
        });
        let outcome = self.receive_whole(&session, Some(digest.clone()), limit, &mut body).await;
        let outcome = self.abandon_unless_done(&session, outcome).await;
        drop(body);
        match (outcome, unreadable) {
            (Err(_), Some(error)) => return Err(CopyBlobError::Unreadable(error)),
            (Err(UploadError::DigestMismatch), None) => return Err(CopyBlobError::WrongContent),
            (Err(error), None) => return Err(CopyBlobError::Upload(error)),
            (Ok(_), _) => {}
        }
        self.forget_copy(session.id, digest).await.map_err(|error| CopyBlobError::Upload(error.into()))
    }

    /// Removes the session of a finished copy at once: no client will ask what became of it, and there may be millions.
    async fn forget_copy(&self, id: UploadId, digest: &Digest) -> Result<(), StoreError> {
        let Some(session) = self.ports.metadata.find_upload(id).await? else { return Ok(()) };
        let staging = &session.durable.staging;
        let object = self.ports.blobs.key_candidates(id, digest, staging).nth(0);
        // The row stands for all that the upload has staged, so it goes after the last of that.
        for key in self.ports.blobs.superseded_objects(id, staging, Some(&object)) {
            if let Err(error) = self.ports.blobs.remove_staged_object(&key).await {
                tracing::warn!(upload = %id, error = error.chain(), "staged bytes were not removed; the reaper will");
                return Ok(());
            }
        }
        let now = self.now();
        self.ports.metadata.end_upload(id, Some(now + Duration::from_secs(1)), now).await?;
        self.ports.metadata.remove_upload(id).await
    }
}
