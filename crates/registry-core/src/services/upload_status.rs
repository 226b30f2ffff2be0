//! How far an upload has come.

use super::{Services, UploadError};
use crate::upload::{UploadId, UploadSession, UploadState, UploadTarget};

impl Services {
    /// The open session, whose durable offset the client is told now.
    ///
    /// # Errors
    /// [`UploadError::Unknown`] when it is not open or of another target; [`UploadError::Store`].
    pub async fn upload_status(
        &self,
        id: UploadId,
        is_target: impl Fn(&UploadTarget) -> bool,
    ) -> Result<UploadSession, UploadError> {
        let found = self.ports.metadata.find_upload(id).await?.filter(|session| is_target(&session.target));
        let session = found.ok_or(UploadError::Unknown)?;
        if session.state != UploadState::Open {
            return Err(UploadError::Unknown);
        }
        if session.told == session.durable {
            return Ok(session);
        }
        self.ports.metadata.tell_upload(id, self.now()).await?.ok_or(UploadError::Unknown)
    }
}
