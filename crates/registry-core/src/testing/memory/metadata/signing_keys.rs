//! The keys that sign registry tokens.

use async_trait::async_trait;

use super::MemoryMetadata;
use crate::error::StoreError;
use crate::ports::metadata::SigningKeyStore;
use crate::time::Timestamp;
use crate::token::SigningKey;

#[async_trait]
impl SigningKeyStore for MemoryMetadata {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        Ok(self.state().signing_keys.clone())
    }

    async fn rotate_signing_keys(
        &self,
        new: SigningKey,
        newest_before: Timestamp,
        drop_before: Timestamp,
    ) -> Result<Vec<SigningKey>, StoreError> {
        let mut state = self.state();
        let keys = &mut state.signing_keys;
        if !keys.iter().any(|key| key.created_at >= newest_before || key.id == new.id) {
            keys.push(new);
            keys.sort_by(|one, other| other.created_at.cmp(&one.created_at).then(one.id.cmp(&other.id)));
        }
        let newest = keys.first().map(|key| key.id.clone());
        keys.retain(|key| key.created_at >= drop_before || Some(&key.id) == newest.as_ref());
        Ok(keys.clone())
    }
}
