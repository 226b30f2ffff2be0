//! Why an upload's request was refused.

use super::BodyError;
use crate::digest::DamagedHashState;
use crate::error::StoreError;
use crate::upload::UploadSession;

/// An upload's request was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no such session here (any more).
    #[error("there is no such upload")]
    Unknown,
    /// The body does not begin at the durable offset; the session says which that is, and the client is told.
    #[error("the body does not begin at the upload's offset")]
    OutOfOrder(Box<UploadSession>),
    /// A newer writer took over; the session as it was when this one noticed, if it is still there.
    #[error("a newer request writes this upload")]
    Superseded,
    /// A writer that was overtaken has not let go yet.
    #[error("another request still holds this upload")]
    Busy,
    /// The bytes do not have the digest; nothing was stored, the session stays open.
    #[error("the bytes do not have the digest given")]
    DigestMismatch,
    /// The body is not as long as its range says; nothing of it was recorded.
    #[error("the body's length is not that of its range")]
    SizeMismatch,
    /// The blob would be longer than is permitted.
    #[error("the upload is larger than is permitted here")]
    TooLarge,
    /// The body did not come to its end; what came is kept where the session can be resumed.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The repository's name collides with a registry's.
    #[error("the name is that of a registry")]
    NameTaken,
    /// The version is published already, and was left as it is.
    #[error("the version exists")]
    VersionExists,
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DamagedHashState> for UploadError {
    fn from(error: DamagedHashState) -> Self {
        UploadError::Store(StoreError::corrupt(error.to_string()))
    }
}
