//! Making a blob of one repository visible in another without sending it.

use super::{Services, UploadError};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::permission::{Action, Principal};
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

/// How many holders of a blob are looked at for one that the caller may read.
const SOURCES_LIMIT: usize = 50;

impl Services {
    /// A repository that has the blob and that the principal may read; `None` when none is found soon.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn find_mount_source(
        &self,
        principal: &Principal,
        digest: &Digest,
    ) -> Result<Option<Repository>, StoreError> {
        let registries = self.known_registries().await?;
        let holders = self.ports.metadata.repositories_with_blob(digest, SOURCES_LIMIT).await?;
        Ok(holders.into_iter().find(|holder| {
            let registry = registries.iter().find(|registry| registry.id == holder.registry);
            registry.is_some_and(|registry| principal.may(Action::Pull, &registry.name, holder.name.as_str()))
        }))
    }

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
