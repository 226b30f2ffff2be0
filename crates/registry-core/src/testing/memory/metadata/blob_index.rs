//! Which blobs are visible in which repository.

use std::time::Duration;

use async_trait::async_trait;

use super::{MemoryMetadata, lease};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::metadata::BlobIndex;
use crate::ports::metadata::blob_index::{DeleteBlob, MountBlob, StoredBlob};
use crate::registry::Repository;
use crate::time::Timestamp;

#[async_trait]
impl BlobIndex for MemoryMetadata {
    async fn find_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        Ok(self.state().visible(repository, digest))
    }

    async fn find_blob_for_push(
        &self,
        repository: &Repository,
        digest: &Digest,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Option<StoredBlob>, StoreError> {
        let mut state = self.state();
        let membership = state.repositories.get_mut(repository).and_then(|found| found.memberships.get_mut(digest));
        if let Some(Some(leased_until)) = membership
            && *leased_until < now + grace / 2
        {
            *leased_until = now + grace;
        }
        Ok(state.visible(repository, digest))
    }

    async fn repositories_with_blob(&self, digest: &Digest, limit: usize) -> Result<Vec<Repository>, StoreError> {
        let state = self.state();
        let having = state.repositories.iter().filter(|(_, content)| content.memberships.contains_key(digest));
        Ok(having.map(|(repository, _)| repository.clone()).take(limit).collect())
    }

    async fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        _now: Timestamp,
    ) -> Result<MountBlob, StoreError> {
        let mut state = self.state();
        let Some(blob) = state.visible(from, digest) else { return Ok(MountBlob::Unknown) };
        if !state.may_hold(to)? {
            return Ok(MountBlob::NameTaken);
        }
        lease(state.repository(to)?, digest, lease_until);
        Ok(MountBlob::Mounted(blob))
    }

    async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        _now: Timestamp,
    ) -> Result<DeleteBlob, StoreError> {
        let mut state = self.state();
        let Some(content) = state.repositories.get_mut(repository) else { return Ok(DeleteBlob::Unknown) };
        if !content.memberships.contains_key(digest) {
            return Ok(DeleteBlob::Unknown);
        }
        if content.names(digest) {
            return Ok(DeleteBlob::Referenced);
        }
        content.memberships.remove(digest);
        state.candidates.insert(digest.clone());
        Ok(DeleteBlob::Deleted)
    }
}
