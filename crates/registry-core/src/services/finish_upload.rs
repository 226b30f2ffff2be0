//! Making an upload's bytes a blob.

use futures_util::StreamExt;

use super::receive::{drain, first_bytes};
use super::{Body, ContentRange, Services, UploadError};
use crate::digest::{Digest, DigestOf, Hashes};
use crate::ports::blob_store::{AppendError, ObjectKey, Published};
use crate::ports::metadata::uploads::{CheckpointStep, CommitOutcome, SealOutcome, SealUpload};
use crate::ports::steps;
use crate::upload::{StagingState, UploadId, UploadSession, UploadState, UploadTarget};

/// The end of an upload.
pub struct FinishUpload {
    /// The session.
    pub id: UploadId,
    /// Where the last piece, if there is one, says that it belongs.
    pub range: Option<ContentRange>,
    /// How many bytes the request announces.
    pub length: Option<u64>,
    /// The digest that the whole must have.
    pub digest: Digest,
}

impl Services {
    /// Appends the last piece, if there is one, and commits the blob. The size of the blob.
    ///
    /// The same request again, after the answer was lost or while another finishes it, has the same outcome.
    ///
    /// # Errors
    /// [`UploadError`]. After [`UploadError::DigestMismatch`] the session is open as before, so that a right last
    /// piece (without a range it begins where the client was last told) or a right digest can follow.
    pub async fn finish_upload(
        &self,
        request: FinishUpload,
        is_target: impl Fn(&UploadTarget) -> bool,
        body: Body<'_>,
    ) -> Result<(), UploadError> {
        let ended = self.finish(request, is_target, body).await;
        self.activity.upload_ended(ended.is_ok());
        ended
    }

    async fn finish(
        &self,
        request: FinishUpload,
        is_target: impl Fn(&UploadTarget) -> bool,
        body: Body<'_>,
    ) -> Result<(), UploadError> {
        let found = self.ports.metadata.find_upload(request.id).await?.filter(|session| is_target(&session.target));
        let session = found.ok_or(UploadError::Unknown)?;
        match &session.state {
            UploadState::Done { digest } if *digest == request.digest => {
                drain(body).await;
                return Ok(());
            }
            UploadState::Finalising { digest, size, key } if *digest == request.digest => {
                drain(body).await;
                return self.publish_and_commit(session.id, *size, &session.durable.staging, key, digest).await;
            }
            UploadState::Open => {}
            UploadState::Finalising { .. } | UploadState::Done { .. } | UploadState::Ended => {
                return Err(UploadError::Unknown);
            }
        }

        let expected = self.expected_bytes(&session, request.range, request.length)?;
        match first_bytes(body).await? {
            Some(first) => {
                let session = self.begin_write(request.id, request.range).await?;
                let received = self.receive(&session, Some(first), body, expected).await?;
                if !self.has_digest(&received.step, &received.hashes, &request.digest).await? {
                    self.ports.metadata.checkpoint_upload(received.step, self.now()).await?;
                    return Err(UploadError::DigestMismatch);
                }
                self.seal_and_commit(received.step, request.digest).await
            }
            None => self.finish_without_body(session, request).await,
        }
    }

    async fn finish_without_body(&self, session: UploadSession, request: FinishUpload) -> Result<(), UploadError> {
        if request.range.is_some_and(|range| range.first != session.durable.offset) {
            let told = self.ports.metadata.tell_upload(session.id, self.now()).await?;
            return Err(told.map_or(UploadError::Unknown, |told| UploadError::OutOfOrder(Box::new(told))));
        }
        let hashes = session.durable.restore_hashes()?;
        let step = CheckpointStep {
            id: session.id,
            epoch: session.epoch,
            from: session.durable.offset,
            to: session.durable.clone(),
            tell: false,
        };
        if session.durable.offset == 0 {
            // Nothing was ever written: the empty blob has to be staged before it can be published.
            if hashes.digest(request.digest.algorithm()).is_some_and(|digest| digest != request.digest) {
                return Err(UploadError::DigestMismatch);
            }
            let session = self.begin_write(request.id, None).await?;
            let nothing = &mut futures_util::stream::empty();
            let received = self.receive(&session, None, nothing, Default::default()).await?;
            if !self.has_digest(&received.step, &received.hashes, &request.digest).await? {
                return Err(UploadError::DigestMismatch);
            }
            return self.seal_and_commit(received.step, request.digest).await;
        }
        if !self.has_digest(&step, &hashes, &request.digest).await? {
            return Err(UploadError::DigestMismatch);
        }
        self.seal_and_commit(step, request.digest).await
    }

    /// Whether the durable bytes have `digest`. An algorithm that was not running reads them once more.
    pub(super) async fn has_digest(
        &self,
        step: &CheckpointStep,
        hashes: &Hashes,
        digest: &Digest,
    ) -> Result<bool, UploadError> {
        if let Some(actual) = hashes.digest(digest.algorithm()) {
            return Ok(actual == *digest);
        }
        let staged = self.ports.blobs.read_staged(step.id, step.to.offset, &step.to.staging).await;
        let mut staged = match staged {
            Ok(staged) => staged,
            Err(AppendError::Store(error)) => return Err(error.into()),
            Err(AppendError::Busy) => return Err(UploadError::Busy),
            Err(AppendError::Lost) => return Err(self.staged_bytes_are_lost(step.id, step.epoch).await?),
        };
        let mut running = DigestOf::new(digest.algorithm());
        while let Some(bytes) = staged.next().await {
            running.update(&bytes?);
        }
        Ok(running.finish() == *digest)
    }

    /// From durable bytes whose digest was compared to a committed blob.
    pub(super) async fn seal_and_commit(&self, step: CheckpointStep, digest: Digest) -> Result<(), UploadError> {
        let now = self.now();
        let (id, size, staging) = (step.id, step.to.offset, step.to.staging.clone());
        let seal = SealUpload {
            step,
            candidates: self.ports.blobs.key_candidates(id, &digest, &staging),
            digest: digest.clone(),
            lease_until: now + self.settings.grace,
        };
        match self.ports.metadata.seal_upload(seal, now).await? {
            SealOutcome::Publish(key) => {
                self.ports.steps.reached(steps::UPLOAD_SEALED);
                self.publish_and_commit(id, size, &staging, &key, &digest).await
            }
            SealOutcome::AlreadyStored(outcome) => {
                self.ports.steps.reached(steps::UPLOAD_COMMITTED);
                self.discard_leftovers(id, &staging).await;
                committed(outcome)
            }
            SealOutcome::Superseded => Err(UploadError::Superseded),
        }
    }

    async fn publish_and_commit(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
        key: &ObjectKey,
        digest: &Digest,
    ) -> Result<(), UploadError> {
        // The session takes no more bytes: a writer that was overtaken need not be waited for.
        self.writers.stop(id);
        match self.ports.blobs.publish(id, size, staging, key).await? {
            Published::Yes => {}
            Published::Busy => return Err(UploadError::Busy),
            Published::Lost => {
                // Another request may have committed it, and a collection may even have removed it since.
                let session = self.ports.metadata.find_upload(id).await?;
                if session.is_some_and(|session| session.state == UploadState::Done { digest: digest.clone() }) {
                    return Ok(());
                }
                self.abandon(id).await?;
                return Err(UploadError::Unknown);
            }
        }
        self.ports.steps.reached(steps::UPLOAD_PUBLISHED);
        let now = self.now();
        let outcome = self.ports.metadata.commit_upload(id, digest, now + self.settings.grace, now).await?;
        self.ports.steps.reached(steps::UPLOAD_COMMITTED);
        match outcome {
            CommitOutcome::VersionExists => {
                self.delete_doomed(key).await?;
            }
            CommitOutcome::Committed => self.remove_superseded(id, staging, Some(key)).await,
            CommitOutcome::Superseded => {}
        }
        committed(outcome)
    }

    /// Removes what is staged of a session that no longer needs it. A failure is left to the reaper.
    async fn discard_leftovers(&self, id: UploadId, staging: &StagingState) {
        if let Err(error) = self.discard_staged(id, staging).await {
            tracing::warn!(upload = %id, error = error.chain(), "staged bytes were not removed; the reaper will");
        }
    }
}

fn committed(outcome: CommitOutcome) -> Result<(), UploadError> {
    match outcome {
        CommitOutcome::Committed => Ok(()),
        CommitOutcome::VersionExists => Err(UploadError::VersionExists),
        CommitOutcome::Superseded => Err(UploadError::Unknown),
    }
}
