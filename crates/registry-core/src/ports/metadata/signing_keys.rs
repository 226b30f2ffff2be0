//! The keys that sign registry tokens, shared by all replicas.

use async_trait::async_trait;

use crate::error::StoreError;
use crate::time::Timestamp;
use crate::token::SigningKey;

/// Signing keys.
#[async_trait]
pub trait SigningKeyStore: Send + Sync {
    /// Every key that may still have signed a valid token, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError>;

    /// Inserts `new` if no key was made at or after `newest_before`, and removes keys made before `drop_before`, but
    /// never the newest. Replicas may do this at once: one of them inserts. Returns what there is then, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn rotate_signing_keys(
        &self,
        new: SigningKey,
        newest_before: Timestamp,
        drop_before: Timestamp,
    ) -> Result<Vec<SigningKey>, StoreError>;
}
