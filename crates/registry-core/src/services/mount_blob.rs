//! Making a blob of one repository visible in another without sending it.

use super::{Services, UploadError};
use crate::digest::Digest;
use crate::ports::metadata::blob_index::MountBlob;
use crate::registry::Repository;

/// What became of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The blob is there, for at least half the grace.
    Yes,
    /// The source does not have it: the client has to upload it.
    No,
}

impl Services {
    /// Mounts `digest` from `from`, which the caller may read, into `to`.
    ///
    /// # Errors
    /// [`UploadError::NameTaken`]; [`UploadError::Store`].
    pub async fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        digest: &Digest,
    ) -> Result<Mounted, UploadError> {
        let now = self.now();
        match self.ports.metadata.mount_blob(from, to, digest, now + self.settings.grace, now).await? {
            MountBlob::Mounted(_) => Ok(Mounted::Yes),
            MountBlob::Unknown => Ok(Mounted::No),
            MountBlob::NameTaken => Err(UploadError::NameTaken),
        }
    }
}
