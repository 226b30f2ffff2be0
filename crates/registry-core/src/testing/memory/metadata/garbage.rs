//! Finding what nobody refers to.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::MemoryMetadata;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::metadata::GarbageStore;
use crate::ports::metadata::garbage::{CollectedBlob, GarbagePreview, ReviewBatch};
use crate::time::Timestamp;

#[async_trait]
impl GarbageStore for MemoryMetadata {
    async fn review_memberships(&self, due: Timestamp, limit: usize) -> Result<ReviewBatch, StoreError> {
        let mut state = self.state();
        let mut memberships = Vec::new();
        for (repository, content) in &state.repositories {
            for (digest, leased_until) in &content.memberships {
                if let Some(leased_until) = leased_until.filter(|leased_until| *leased_until <= due) {
                    memberships.push((leased_until, repository.clone(), digest.clone()));
                }
            }
        }
        memberships.sort();
        memberships.truncate(limit);
        let mut batch = ReviewBatch::default();
        for (_, repository, digest) in memberships {
            batch.reviewed += 1;
            let content = state.repositories.get_mut(&repository).expect("it was there a moment ago");
            if content.names(&digest) {
                content.memberships.insert(digest, None);
            } else {
                content.memberships.remove(&digest);
                state.candidates.insert(digest);
                batch.dropped += 1;
            }
        }
        Ok(batch)
    }

    async fn garbage_candidates(&self, limit: usize) -> Result<Vec<Digest>, StoreError> {
        Ok(self.state().candidates.iter().take(limit).cloned().collect())
    }

    async fn collect_blob(&self, digest: &Digest, now: Timestamp) -> Result<Option<CollectedBlob>, StoreError> {
        let mut state = self.state();
        state.candidates.remove(digest);
        let is_member = state.repositories.values().any(|content| content.memberships.contains_key(digest));
        if is_member || state.is_published(digest) {
            return Ok(None);
        }
        let Some(blob) = state.blobs.remove(digest) else { return Ok(None) };
        state.doom(&blob.key, now);
        Ok(Some(CollectedBlob { key: blob.key, size: blob.size }))
    }

    async fn preview_garbage(&self, due: Timestamp) -> Result<GarbagePreview, StoreError> {
        let state = self.state();
        let is_due = |leased_until: &Option<Timestamp>| leased_until.is_some_and(|leased_until| leased_until <= due);
        let mut digests: BTreeSet<&Digest> = state.candidates.iter().collect();
        let mut kept = BTreeSet::new();
        for content in state.repositories.values() {
            for (digest, leased_until) in &content.memberships {
                if is_due(leased_until) {
                    digests.insert(digest);
                }
                if !is_due(leased_until) || content.names(digest) {
                    kept.insert(digest);
                }
            }
        }
        let mut preview = GarbagePreview::default();
        for digest in digests {
            if let Some(blob) = state.blobs.get(digest)
                && !kept.contains(digest)
                && !state.is_published(digest)
            {
                preview.blobs += 1;
                preview.bytes += blob.size;
            }
        }
        Ok(preview)
    }
}
