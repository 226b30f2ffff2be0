//! `/api/v1/tokens`: making, listing and revoking tokens.
use std::time::Duration;

use futures_util::Stream;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Page, Result, Token};

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What people call it.
    pub name: String,
    /// What it may do, each as `registry:name:actions`: a registry or `*`, a name or `prefix/*` or `*`, and `pull`,
    /// `push`, `delete` and `admin` separated by commas. `generic:mypkg:pull,push` is one; `*:*:admin` is everything.
    pub scopes: Vec<String>,
    /// After how long it ends, to the second; never if `None`.
    pub expires_in: Option<Duration>,
}

/// A token as the server knows it: without the secret, of which it keeps only a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// The id by which it is revoked.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made, as RFC 3339.
    pub created_at: Option<String>,
    /// When it ends, as RFC 3339; never if `None`.
    pub expires_at: Option<String>,
}

/// A token that was just made: the only time the secret is seen.
#[derive(Debug, Clone)]
pub struct CreatedToken {
    /// What the server keeps.
    pub info: TokenInfo,
    /// The secret.
    pub token: Token,
}

#[derive(Serialize)]
struct NewTokenDocument<'a> {
    name: &'a str,
    scopes: &'a [String],
    expires_in_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct CreatedDocument {
    #[serde(flatten)]
    info: TokenInfo,
    token: String,
}

#[derive(Deserialize)]
struct TokensDocument {
    tokens: Vec<TokenInfo>,
    next: Option<String>,
}

/// The id of a token: what stands in the middle of `fdy_<id>_<secret>`, and any other text as it is.
#[must_use]
pub fn token_id(token: &str) -> &str {
    token.strip_prefix("fdy_").and_then(|rest| rest.split_once('_')).map_or(token, |(id, _)| id)
}

impl Client {
    /// Makes a token. It is not retried: a lost answer loses the secret, and the token without it is to be revoked.
    ///
    /// # Errors
    /// A refusal of kind [`Invalid`](crate::RefusalKind::Invalid) for a scope that breaks the grammar; else see
    /// [`crate::Error`].
    pub async fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        let document = NewTokenDocument {
            name: &new.name,
            scopes: &new.scopes,
            expires_in_seconds: new.expires_in.map(|duration| duration.as_secs()),
        };
        let request = self.request(Method::POST, self.inner.server.api(&["tokens"])?).json(&document);
        let response = self.send(request, self.inner.timeouts.idle).await?;
        let created: CreatedDocument = self.read_json(response).await?;
        Ok(CreatedToken { info: created.info, token: Token::new(&created.token)? })
    }

    /// One page of the tokens.
    ///
    /// # Errors
    /// As every read: see [`crate::Error`].
    pub async fn tokens_page(&self, after: Option<&str>) -> Result<Page<TokenInfo>> {
        let mut url = self.inner.server.api(&["tokens"])?;
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let document: TokensDocument = self.get_json(url).await?;
        Ok(Page { items: document.tokens, next: document.next })
    }

    /// Every token, read page by page as the stream is read.
    pub fn tokens(&self) -> impl Stream<Item = Result<TokenInfo>> {
        self.all_pages(|client, after| async move { client.tokens_page(after.as_deref()).await })
    }

    /// Revokes the token with this id, or of which this is the whole: that is what one has who finds a token where it does
    /// not belong. Only the id is sent. It is not retried.
    ///
    /// # Errors
    /// A refusal of kind [`NotFound`](crate::RefusalKind::NotFound) if there is no such token; else see
    /// [`crate::Error`].
    pub async fn revoke_token(&self, id: &str) -> Result<()> {
        let request = self.request(Method::DELETE, self.inner.server.api(&["tokens", token_id(id)])?);
        self.send(request, self.inner.timeouts.idle).await.map(drop)
    }
}
