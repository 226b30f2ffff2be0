//! Uploading a blob with one request.

use super::receive::Expected;
use super::{Body, Services, UploadError};
use crate::digest::{Algorithm, Digest};
use crate::upload::{UploadSession, UploadTarget};

impl Services {
    /// Receives the whole blob and commits it. Whatever goes wrong, nothing of it stays: the client never learnt the
    /// session's name and cannot resume it.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn upload_blob(
        &self,
        target: UploadTarget,
        digest: Digest,
        length: Option<u64>,
        body: Body<'_>,
    ) -> Result<(), UploadError> {
        let sha512 = digest.algorithm() == Algorithm::Sha512;
        let limit = self.max_upload_bytes(self.settings.max_blob_bytes);
        self.check_length(length, limit)?;
        let session = self.create_session(target, sha512, true).await?;
        let outcome = self.receive_whole(&session, Some(digest), limit, body).await;
        self.abandon_unless_done(&session, outcome).await.map(|_| ())
    }

    /// The smaller one of what an administrator permits and what the store can keep.
    pub(super) fn max_upload_bytes(&self, permitted: Option<u64>) -> Option<u64> {
        permitted.into_iter().chain(self.ports.blobs.max_upload_bytes()).min()
    }

    pub(super) fn check_length(&self, length: Option<u64>, limit: Option<u64>) -> Result<(), UploadError> {
        match (length, limit) {
            (Some(length), Some(limit)) if length > limit => Err(UploadError::TooLarge),
            _ => Ok(()),
        }
    }

    /// Receives all bytes of a session that was made by the same request, and commits them under `digest`; those of a
    /// version, and where there is no `digest`, under their SHA-256. The digest and size in bytes.
    pub(super) async fn receive_whole(
        &self,
        session: &UploadSession,
        digest: Option<Digest>,
        limit: Option<u64>,
        body: Body<'_>,
    ) -> Result<(Digest, u64), UploadError> {
        let received = self.receive(session, None, body, Expected { length: None, limit }).await?;
        let size = received.step.to.offset;
        if let Some(digest) = &digest
            && !self.has_digest(&received.step, &received.hashes, digest).await?
        {
            return Err(UploadError::DigestMismatch);
        }
        let digest = digest.filter(|_| !matches!(session.target, UploadTarget::Version { .. }));
        let digest = digest.unwrap_or_else(|| received.hashes.digest(Algorithm::Sha256).expect("sha256 always runs"));
        self.seal_and_commit(received.step, digest.clone()).await?;
        Ok((digest, size))
    }

    /// Ends the session of a failed one-request upload at once. When that fails too, the reaper does it.
    pub(super) async fn abandon_unless_done<T>(
        &self,
        session: &UploadSession,
        outcome: Result<T, UploadError>,
    ) -> Result<T, UploadError> {
        self.activity.upload_ended(outcome.is_ok());
        if outcome.is_err()
            && let Err(error) = self.abandon(session.id).await
        {
            tracing::warn!(upload = %session.id, error = error.chain(), "a failed upload was left to the reaper");
        }
        outcome
    }
}
