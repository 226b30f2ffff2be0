//! Stored access tokens.

use async_trait::async_trait;

use super::MemoryMetadata;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::metadata::TokenStore;
use crate::token::{TokenId, TokenRecord};

#[async_trait]
impl TokenStore for MemoryMetadata {
    async fn insert_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.tokens.contains_key(&token.id) {
            let context = format!("there is a token {:?} already", token.id);
            return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
        }
        state.tokens.insert(token.id.clone(), token);
        Ok(())
    }

    async fn find_token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self.state().tokens.get(id).cloned())
    }

    async fn tokens(&self, after: Option<&TokenId>, limit: usize) -> Result<Vec<TokenRecord>, StoreError> {
        let state = self.state();
        let rest = state.tokens.values().filter(|token| after.is_none_or(|after| token.id > *after));
        Ok(rest.take(limit).cloned().collect())
    }

    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        Ok(self.state().tokens.remove(id).is_some())
    }
}
