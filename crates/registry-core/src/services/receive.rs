//! Receiving a body into an open upload.

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::{Either, select};

use super::{BodyError, Services, UploadError};
use crate::digest::Hashes;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::blob_store::{AppendError, StagingWriter};
use crate::ports::metadata::uploads::CheckpointStep;
use crate::ports::steps;
use crate::upload::{Checkpoint, Epoch, UploadId, UploadSession, UploadState};

/// The body of a request that carries bytes.
pub type Body<'a> = &'a mut (dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin);

/// The first bytes of a body, or `None` when it has none.
pub(super) async fn first_bytes(body: Body<'_>) -> Result<Option<Bytes>, BodyError> {
    loop {
        match body.next().await {
            None => return Ok(None),
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            Some(Err(error)) => return Err(error),
        }
    }
}

/// Reads a body that is no longer needed, so that the client comes to read the answer.
pub(super) async fn drain(body: Body<'_>) {
    while let Some(Ok(_)) = body.next().await {}
}

/// Bytes that are durable and hashed, but not yet recorded in the session's row.
pub(super) struct Received {
    /// The step to record; `tell` is false.
    pub(super) step: CheckpointStep,
    /// The running hashes over all bytes of the upload.
    pub(super) hashes: Hashes,
}

/// How much a body may bring.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected {
    /// Exactly this many bytes.
    pub(super) length: Option<u64>,
    /// The upload has at most this many bytes then.
    pub(super) limit: Option<u64>,
}

impl Services {
    /// Receives `first` and the rest of `body` at the session's durable offset. The caller has raised the epoch.
    ///
    /// Whatever ends the body early, the bytes that came before it are made durable and recorded, so that the client
    /// can resume; a body of the wrong length or beyond the limit is not recorded at all.
    pub(super) async fn receive(
        &self,
        session: &UploadSession,
        first: Option<Bytes>,
        body: Body<'_>,
        expected: Expected,
    ) -> Result<Received, UploadError> {
        let mut entered = self.writers.enter(session.id, session.epoch);
        self.ports.steps.reached(steps::UPLOAD_EPOCH_RAISED);
        let mut writer =
            match self.ports.blobs.append(session.id, session.durable.offset, &session.durable.staging).await {
                Ok(writer) => writer,
                Err(AppendError::Busy) => return Err(UploadError::Busy),
                Err(AppendError::Lost) => return Err(self.staged_bytes_are_lost(session.id, session.epoch).await?),
                Err(AppendError::Store(error)) => return Err(error.into()),
            };
        // Whoever has raised the epoch since may have had the staged bytes first, and have let go of them: what it wrote
        // stays. Whoever raises it from now on waits for this writer, and cuts off what it leaves.
        if !self.is_current(session.id, session.epoch).await? {
            return Err(UploadError::Superseded);
        }

        let mut hashes = session.durable.restore_hashes()?;
        let mut recorded = session.durable.offset;
        let mut offset = recorded;
        let end = expected.length.map(|length| session.durable.offset.saturating_add(length));
        let mut next = first.map(Ok);
        let cut = loop {
            let piece = match next.take() {
                Some(piece) => piece,
                None => {
                    // Ends when a newer writer waits for the staged bytes; resting does not end.
                    let overtaken = std::pin::pin!(entered.overtaken());
                    match select(body.next(), select(overtaken, writer.rest())).await {
                        Either::Left((Some(piece), _)) => piece,
                        Either::Left((None, _)) => break None,
                        // Let go without another write.
                        Either::Right(_) => return Err(UploadError::Superseded),
                    }
                }
            };
            let bytes = match piece {
                Ok(bytes) => bytes,
                Err(error) => break Some(error),
            };
            offset += bytes.len() as u64;
            if expected.limit.is_some_and(|limit| offset > limit) {
                return Err(UploadError::TooLarge);
            }
            if end.is_some_and(|end| offset > end) {
                return Err(UploadError::SizeMismatch);
            }
            hashes.update(&bytes);
            if let Err(error) = writer.write(bytes).await {
                return Err(self.writer_failed(session, error).await);
            }
            if offset - recorded >= self.settings.checkpoint_bytes {
                let step = self.durable_step(session, recorded, offset, &hashes, writer.as_mut()).await?;
                if !self.ports.metadata.checkpoint_upload(step, self.now()).await? {
                    return Err(UploadError::Superseded);
                }
                self.ports.steps.reached(steps::UPLOAD_CHECKPOINTED);
                recorded = offset;
            }
        };

        if cut.is_none() && end.is_some_and(|end| offset != end) {
            return Err(UploadError::SizeMismatch);
        }
        let step = self.durable_step(session, recorded, offset, &hashes, writer.as_mut()).await?;
        // Whoever finalises next needs the staged bytes for itself.
        drop(writer);
        drop(entered);
        if let Some(error) = cut {
            self.ports.metadata.checkpoint_upload(step, self.now()).await?;
            return Err(error.into());
        }
        Ok(Received { step, hashes })
    }

    /// Whether the session is open and nobody has raised its epoch since.
    async fn is_current(&self, id: UploadId, epoch: Epoch) -> Result<bool, StoreError> {
        let found = self.ports.metadata.find_upload(id).await?;
        Ok(found.is_some_and(|now| now.state == UploadState::Open && now.epoch == epoch))
    }

    /// What it means that the staged bytes of a session with that epoch are not there: the end of the session, unless it
    /// has gone on without them.
    pub(super) async fn staged_bytes_are_lost(&self, id: UploadId, epoch: Epoch) -> Result<UploadError, StoreError> {
        if !self.is_current(id, epoch).await? {
            return Ok(UploadError::Superseded);
        }
        self.abandon(id).await?;
        Ok(UploadError::Unknown)
    }

    /// Why a writer failed: one that was overtaken, or whose upload has ended, may find gone what it works on.
    async fn writer_failed(&self, session: &UploadSession, error: StoreError) -> UploadError {
        match self.is_current(session.id, session.epoch).await {
            Ok(false) => UploadError::Superseded,
            Ok(true) if error.kind == StoreErrorKind::Corrupt => {
                tracing::warn!(upload = %session.id, error = error.chain(), "an upload is lost");
                self.abandon(session.id).await.map_or_else(UploadError::Store, |_| UploadError::Unknown)
            }
            _ => error.into(),
        }
    }

    async fn durable_step(
        &self,
        session: &UploadSession,
        from: u64,
        offset: u64,
        hashes: &Hashes,
        writer: &mut dyn StagingWriter,
    ) -> Result<CheckpointStep, UploadError> {
        let staging = match writer.checkpoint().await {
            Ok(staging) => staging,
            Err(error) => return Err(self.writer_failed(session, error).await),
        };
        self.ports.steps.reached(steps::UPLOAD_BYTES_DURABLE);
        let to = Checkpoint { offset, hashes: hashes.save(), staging };
        Ok(CheckpointStep { id: session.id, epoch: session.epoch, from, to, tell: false })
    }
}
