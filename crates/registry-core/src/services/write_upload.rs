//! Appending to an upload.

use super::receive::{Expected, first_bytes};
use super::{Body, Services, UploadError};
use crate::ports::metadata::uploads::{BeginWrite, WriteStart};
use crate::ports::steps;
use crate::upload::{UploadId, UploadSession, UploadState, UploadTarget};

/// The `Content-Range` of a piece: its first and last byte's offsets, both inclusive (distribution-spec, *Pushing a
/// blob in chunks*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The offset of its first byte.
    pub first: u64,
    /// The offset of its last byte; not less than `first`.
    pub last: u64,
}

impl ContentRange {
    /// How many bytes it covers.
    pub fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// A piece of an upload.
pub struct WriteUpload {
    /// The session.
    pub id: UploadId,
    /// Where the piece says that it belongs.
    pub range: Option<ContentRange>,
    /// How many bytes the request announces.
    pub length: Option<u64>,
}

impl Services {
    /// Appends a piece and returns the session with the offset that is durable then, which the client is told.
    ///
    /// Without a range the piece begins at the offset that the client was last told. A piece without bytes changes
    /// nothing. When the body is cut, what came is kept.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn write_upload(
        &self,
        request: WriteUpload,
        is_target: impl Fn(&UploadTarget) -> bool,
        body: Body<'_>,
    ) -> Result<UploadSession, UploadError> {
        let found = self.ports.metadata.find_upload(request.id).await?.filter(|session| is_target(&session.target));
        let session = found.filter(|session| session.state == UploadState::Open).ok_or(UploadError::Unknown)?;
        let expected = self.expected_bytes(&session, request.range, request.length)?;
        let Some(first) = first_bytes(body).await? else {
            return self.write_nothing(&session, request.range).await;
        };
        let mut session = self.begin_write(request.id, request.range).await?;
        let received = self.receive(&session, Some(first), body, expected).await?;
        let mut step = received.step;
        step.tell = true;
        session.durable = step.to.clone();
        session.told = step.to.clone();
        if !self.ports.metadata.checkpoint_upload(step, self.now()).await? {
            return Err(UploadError::Superseded);
        }
        self.ports.steps.reached(steps::UPLOAD_CHECKPOINTED);
        // The row says nothing older any more: what was durable and what was told are this one checkpoint.
        self.remove_superseded(session.id, &session.durable.staging, None).await;
        Ok(session)
    }

    /// Raises the epoch for a body at `range`, or at the offset last told.
    pub(super) async fn begin_write(
        &self,
        id: UploadId,
        range: Option<ContentRange>,
    ) -> Result<UploadSession, UploadError> {
        let start = range.map_or(WriteStart::AtTold, |range| WriteStart::At(range.first));
        match self.ports.metadata.begin_write(id, start, self.now()).await? {
            BeginWrite::Started(session) => Ok(session),
            BeginWrite::OutOfOrder(session) => Err(UploadError::OutOfOrder(Box::new(session))),
            BeginWrite::NotOpen(_) | BeginWrite::Unknown => Err(UploadError::Unknown),
        }
    }

    /// What a body may bring, given its range and its announced length.
    pub(super) fn expected_bytes(
        &self,
        session: &UploadSession,
        range: Option<ContentRange>,
        length: Option<u64>,
    ) -> Result<Expected, UploadError> {
        let limit = self.max_upload_bytes(match &session.target {
            UploadTarget::Repository { .. } => self.settings.max_blob_bytes,
            UploadTarget::Version { .. } => self.settings.max_artifact_bytes,
            UploadTarget::Unreferenced => None,
        });
        if let (Some(range), Some(length)) = (range, length)
            && length != 0
            && range.length() != length
        {
            return Err(UploadError::SizeMismatch);
        }
        let begin = range.map_or(session.told.offset, |range| range.first);
        let end = begin.saturating_add(range.map(ContentRange::length).or(length).unwrap_or(0));
        if limit.is_some_and(|limit| end > limit) {
            return Err(UploadError::TooLarge);
        }
        Ok(Expected { length: range.map(ContentRange::length), limit })
    }

    async fn write_nothing(
        &self,
        session: &UploadSession,
        range: Option<ContentRange>,
    ) -> Result<UploadSession, UploadError> {
        let told = match self.ports.metadata.tell_upload(session.id, self.now()).await? {
            Some(told) if told.state == UploadState::Open => told,
            _ => return Err(UploadError::Unknown),
        };
        match range {
            Some(range) if range.first != told.durable.offset => Err(UploadError::OutOfOrder(Box::new(told))),
            _ => Ok(told),
        }
    }
}
