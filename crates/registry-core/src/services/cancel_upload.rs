//! Giving up an upload.

use super::{Services, UploadError};
use crate::error::StoreError;
use crate::ports::steps;
use crate::upload::{UploadId, UploadState, UploadTarget};

impl Services {
    /// Ends a session and removes what was staged.
    ///
    /// # Errors
    /// [`UploadError::Unknown`] when it is not there, of another target, or finished; [`UploadError::Store`].
    pub async fn cancel_upload(
        &self,
        id: UploadId,
        is_target: impl Fn(&UploadTarget) -> bool,
    ) -> Result<(), UploadError> {
        let found = self.ports.metadata.find_upload(id).await?.filter(|session| is_target(&session.target));
        let session = found.ok_or(UploadError::Unknown)?;
        if matches!(session.state, UploadState::Done { .. } | UploadState::Ended) {
            return Err(UploadError::Unknown);
        }
        self.writers.stop(id);
        if self.abandon(id).await? { Ok(()) } else { Err(UploadError::Unknown) }
    }

    /// Ends a session that is not done, whatever its state, and removes what it left. False when it is not there.
    ///
    /// First the row says `ended`, then the bytes go, then the row: after a crash in between, the reaper goes on.
    pub(super) async fn abandon(&self, id: UploadId) -> Result<bool, StoreError> {
        let Some(session) = self.ports.metadata.end_upload(id, None, self.now()).await? else {
            return Ok(false);
        };
        self.ports.steps.reached(steps::UPLOAD_ENDED);
        self.discard_staged(id, &session.durable.staging).await?;
        self.ports.steps.reached(steps::UPLOAD_DISCARDED);
        self.ports.metadata.remove_upload(id).await?;
        if let UploadState::Finalising { key, .. } = &session.state {
            self.delete_doomed(key).await?;
        }
        Ok(true)
    }
}
