//! The ledger of the object store.

use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryMetadata, State};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::ObjectLedger;
use crate::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};
use crate::time::Timestamp;

impl State {
    fn entries<'a>(&'a self, after: Option<&ObjectKey>) -> impl Iterator<Item = LedgerEntry> + 'a {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        self.objects.range((after, Bound::Unbounded)).map(|(key, state)| self.entry(key, *state))
    }

    fn entry(&self, key: &ObjectKey, state: ObjectState) -> LedgerEntry {
        let blob = self.blobs.iter().find(|(_, blob)| blob.key == *key);
        LedgerEntry { key: key.clone(), state, blob: blob.map(|(digest, blob)| (digest.clone(), blob.size)) }
    }
}

#[async_trait]
impl ObjectLedger for MemoryMetadata {
    async fn ledger_entry(&self, key: &ObjectKey) -> Result<Option<LedgerEntry>, StoreError> {
        let state = self.state();
        Ok(state.objects.get(key).map(|object| state.entry(key, *object)))
    }

    async fn ledger_page(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(self.state().entries(after).take(limit).collect())
    }

    async fn doomed_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectKey>, StoreError> {
        let state = self.state();
        let doomed = state.entries(after).filter(|entry| entry.state == ObjectState::Doomed);
        Ok(doomed.map(|entry| entry.key).take(limit).collect())
    }

    async fn clear_doomed(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.objects.get(key) == Some(&ObjectState::Doomed) {
            state.objects.remove(key);
        }
        Ok(())
    }

    async fn doom_orphan(&self, key: &ObjectKey, _now: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Ok(false);
        }
        state.objects.insert(key.clone(), ObjectState::Doomed);
        Ok(true)
    }

    async fn forget_blob(&self, digest: &Digest, _now: Timestamp) -> Result<ForgetBlob, StoreError> {
        let mut state = self.state();
        if state.is_published(digest) {
            return Ok(ForgetBlob::InUse);
        }
        let Some(blob) = state.blobs.remove(digest) else { return Ok(ForgetBlob::Unknown) };
        for content in state.repositories.values_mut() {
            content.memberships.remove(digest);
        }
        state.candidates.remove(digest);
        state.doom(&blob.key);
        Ok(ForgetBlob::Forgotten)
    }
}
