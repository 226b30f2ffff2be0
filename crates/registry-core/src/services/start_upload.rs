//! Starting an upload session.

use super::{Services, UploadError};
use crate::ports::metadata::uploads::{CreateUpload, NewUpload};
use crate::ports::steps;
use crate::upload::{Checkpoint, UploadId, UploadSession, UploadTarget};

impl Services {
    /// Starts a session; with `sha512` it also computes that digest as the bytes come.
    ///
    /// # Errors
    /// [`UploadError::NameTaken`]; [`UploadError::Store`].
    pub async fn start_upload(&self, target: UploadTarget, sha512: bool) -> Result<UploadSession, UploadError> {
        self.create_session(target, sha512, false).await
    }

    pub(super) async fn create_session(
        &self,
        target: UploadTarget,
        sha512: bool,
        writing: bool,
    ) -> Result<UploadSession, UploadError> {
        let id = UploadId::from_random(self.random());
        let new = NewUpload { id, target, start: Checkpoint::start(sha512), writing };
        let session = match self.ports.metadata.create_upload(new, self.now()).await? {
            CreateUpload::Created(session) => session,
            CreateUpload::NameTaken => return Err(UploadError::NameTaken),
        };
        self.ports.steps.reached(steps::UPLOAD_CREATED);
        self.activity.upload_begun();
        Ok(session)
    }
}
