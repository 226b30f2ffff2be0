//! The keys that sign registry tokens.

use std::time::Duration;

use super::Services;
use crate::digest::hex;
use crate::error::StoreError;
use crate::token::SigningKey;

/// After how long a new key signs.
const ROTATE_AFTER: Duration = Duration::from_hours(7 * 24);

impl Services {
    /// The keys, newest first and at least one: made on the first start, replaced every week. An old one stays for as
    /// long as a token that it signed may live, so that any replica checks any token.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn rotate_signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let now = self.now();
        let new = SigningKey { id: hex(&self.random::<8>()), secret: self.random::<32>().to_vec(), created_at: now };
        let newest_before = now - ROTATE_AFTER;
        let drop_before = newest_before - ROTATE_AFTER - self.settings.registry_token_lifetime;
        self.ports.metadata.rotate_signing_keys(new, newest_before, drop_before).await
    }

    /// The keys that there are, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        self.ports.metadata.signing_keys().await
    }
}
