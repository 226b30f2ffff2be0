//! Removing what an upload no longer needs.

use super::Services;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::upload::{StagingState, UploadId};

impl Services {
    /// Removes all that an upload left in the store but its blob. The session takes no more bytes, or its row is gone.
    ///
    /// A key of such an upload that has no row in the ledger now never gets one, because only sealing an open session
    /// makes that: so what has none is of no use to anyone. What has one is the ledger's, whatever its state.
    pub(super) async fn discard_staged(&self, id: UploadId, staging: &StagingState) -> Result<(), StoreError> {
        self.ports.blobs.discard(id, staging).await?;
        for key in self.ports.blobs.upload_objects(id).await? {
            if self.ports.metadata.ledger_entry(&key).await?.is_none() {
                self.ports.blobs.remove_staged_object(&key).await?;
            }
        }
        Ok(())
    }

    /// Removes what `staging` supersedes, which was recorded and is all that the session's row refers to; with
    /// `object`, which is committed, also what else it is made of. A failure is left to the reaper.
    pub(super) async fn remove_superseded(&self, id: UploadId, staging: &StagingState, object: Option<&ObjectKey>) {
        for key in self.ports.blobs.superseded_objects(id, staging, object) {
            if let Err(error) = self.ports.blobs.remove_staged_object(&key).await {
                tracing::warn!(upload = %id, error = error.chain(), "staged bytes were not removed; the reaper will");
            }
        }
    }
}
