//! Stored access tokens.

use async_trait::async_trait;

use crate::error::StoreError;
use crate::token::{TokenId, TokenRecord};

/// Tokens; never their secrets.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Stores a new token. Its identifier is fresh.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn insert_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// The token, expired or not.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError>;

    /// The next at most `limit` tokens after `after`, by identifier.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn tokens(&self, after: Option<&TokenId>, limit: usize) -> Result<Vec<TokenRecord>, StoreError>;

    /// Removes a token; false when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError>;
}
