//! The ledger of the object store.

use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryMetadata, Object, State};
use crate::error::StoreError;
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::ObjectLedger;
use crate::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};
use crate::time::Timestamp;

impl State {
    fn entries<'a>(&'a self, after: Option<&ObjectKey>) -> impl Iterator<Item = LedgerEntry> + 'a {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        self.objects.range((after, Bound::Unbounded)).map(|(key, object)| self.entry(key, *object))
    }

    fn entry(&self, key: &ObjectKey, Object { state, since }: Object) -> LedgerEntry {
        let blob = self.blobs.iter().find(|(_, blob)| blob.key == *key);
        let blob = blob.map(|(digest, blob)| (digest.clone(), blob.size));
        LedgerEntry { key: key.clone(), state, since, blob }
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

    async fn clear_doomed(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let mut state = self.state();
        let is_doomed = state.objects.get(key).is_some_and(|object| object.state == ObjectState::Doomed);
        Ok(is_doomed && state.objects.remove(key).is_some())
    }

    async fn doom_orphan(&self, key: &ObjectKey, now: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Ok(false);
        }
        state.objects.insert(key.clone(), Object { state: ObjectState::Doomed, since: now });
        Ok(true)
    }

    async fn forget_blob(&self, seen: &LedgerEntry, now: Timestamp) -> Result<ForgetBlob, StoreError> {
        let Some((digest, _)) = &seen.blob else { return Ok(ForgetBlob::Unknown) };
        let mut state = self.state();
        if state.is_published(digest) {
            return Ok(ForgetBlob::InUse);
        }
        let is_the_same =
            state.objects.get(&seen.key).map(|object| state.entry(&seen.key, *object)).as_ref() == Some(seen);
        let blob = if is_the_same { state.blobs.remove(digest) } else { None };
        let Some(blob) = blob else { return Ok(ForgetBlob::Unknown) };
        for content in state.repositories.values_mut() {
            content.memberships.remove(digest);
        }
        state.candidates.remove(digest);
        state.doom(&blob.key, now);
        Ok(ForgetBlob::Forgotten)
    }
}
