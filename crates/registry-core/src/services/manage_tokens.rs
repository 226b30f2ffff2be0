//! Making, listing and revoking access tokens.

use std::time::Duration;

use super::Services;
use crate::error::StoreError;
use crate::permission::Scope;
use crate::token::{TokenId, TokenRecord, TokenSecret};

/// The longest name of a token, in characters.
pub const TOKEN_NAME_LIMIT: usize = 100;
const SCOPE_LIMIT: usize = 100;

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What a person calls it; not a secret.
    pub name: String,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// How long it lives; `None` is for ever.
    pub lifetime: Option<Duration>,
}

/// A token was not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// The name is empty, too long, or has control characters.
    #[error("a token's name has 1 to {TOKEN_NAME_LIMIT} characters, none of them a control character")]
    Name,
    /// It would permit nothing, or has too many scopes.
    #[error("a token has 1 to {SCOPE_LIMIT} scopes")]
    Scopes,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Makes a token. The secret is returned once and stored only as a hash.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub async fn create_token(&self, new: NewToken) -> Result<(TokenRecord, TokenSecret), TokenRefusal> {
        let length = new.name.chars().count();
        if length == 0 || length > TOKEN_NAME_LIMIT || new.name.chars().any(char::is_control) {
            return Err(TokenRefusal::Name);
        }
        if new.scopes.is_empty() || new.scopes.len() > SCOPE_LIMIT {
            return Err(TokenRefusal::Scopes);
        }
        let secret = TokenSecret::from_random(&self.random());
        let now = self.now();
        let record = TokenRecord {
            id: secret.id().expect("a token made here has an id"),
            name: new.name,
            hash: secret.hash(),
            scopes: new.scopes,
            created_at: now,
            expires_at: new.lifetime.map(|lifetime| now + lifetime),
        };
        self.ports.metadata.insert_token(record.clone()).await?;
        Ok((record, secret))
    }

    /// The next at most `limit` tokens after `after`, and whether more follow.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_tokens(
        &self,
        after: Option<&TokenId>,
        limit: usize,
    ) -> Result<(Vec<TokenRecord>, bool), StoreError> {
        let mut page = self.ports.metadata.tokens(after, limit.saturating_add(1)).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        Ok((page, more))
    }

    /// Revokes a token; false when there is none. On this replica at once, on others within five seconds; registry
    /// tokens that it was exchanged for live to their end.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn revoke_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        let revoked = self.ports.metadata.delete_token(id).await?;
        self.proven.doubt_all();
        Ok(revoked)
    }
}
