//! Who sends a request: credentials in its header, and the registry tokens that `/auth/token` gives.

pub mod credentials;
pub mod registry_token;
pub mod token_endpoint;

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use registry_core::error::StoreError;
use registry_core::permission::Principal;
use registry_core::services::{BadCredential, Credential, Services};
use registry_core::token::TokenSecret;

use crate::request::Request;
use credentials::{Presented, read_authorization};
use registry_token::{Access, RegistryTokens, Verified};

/// A request's credentials were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthFailure {
    /// They are unknown, expired, revoked or unreadable.
    #[error("the credentials are not valid")]
    Invalid,
    /// Too many wrong ones came from that address.
    #[error("too many failed attempts to authenticate; try again in {} s", .0.as_secs() + 1)]
    Throttled(Duration),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BadCredential> for AuthFailure {
    fn from(error: BadCredential) -> Self {
        match error {
            BadCredential::Invalid => AuthFailure::Invalid,
            BadCredential::Throttled(throttled) => AuthFailure::Throttled(throttled.retry_after),
            BadCredential::Store(error) => AuthFailure::Store(error),
        }
    }
}

/// Who sends a request.
pub struct Authenticated {
    /// Who it is, and what they may do.
    pub principal: Arc<Principal>,
    /// Who it is for lists over repositories: the scopes say what may be seen in them.
    pub lister: Arc<Principal>,
    /// What the registry token was asked for, granted or not; `None` for other credentials.
    pub asked: Option<Vec<Access>>,
}

/// Finds out who sends a request.
pub struct Authenticator {
    services: Arc<Services>,
    tokens: RegistryTokens,
}

impl Authenticator {
    /// Over the use cases.
    pub fn new(services: Arc<Services>) -> Self {
        Self { tokens: RegistryTokens::new(Arc::clone(&services)), services }
    }

    /// The registry tokens.
    pub fn registry_tokens(&self) -> &RegistryTokens {
        &self.tokens
    }

    /// Who sends `request`: the holder of its token, as Bearer or as the password of Basic, or a stranger when it has
    /// none. `registry_tokens`: whether a token from `/auth/token` counts here.
    ///
    /// # Errors
    /// [`AuthFailure`]: wrong credentials never make a stranger.
    pub async fn principal(&self, request: &Request, registry_tokens: bool) -> Result<Authenticated, AuthFailure> {
        let (mut asked, mut lister) = (None, None);
        let principal = match self.presented(request)? {
            Presented::Nothing => self.services.authenticate(&Credential::None, request.client()).await?,
            Presented::Bearer(text) if registry_tokens && registry_token::has_shape(&text) => {
                match self.tokens.verify(&text).await? {
                    Some(Verified { principal, access, listing }) => {
                        asked = Some(access);
                        lister = Some(Arc::new(Principal { scopes: listing, ..principal.clone() }));
                        Arc::new(principal)
                    }
                    // Too old is what happens to every registry token: it is no attack, the client asks for another.
                    None => return Err(AuthFailure::Invalid),
                }
            }
            Presented::Bearer(text) | Presented::Basic { password: text } => self.token_holder(text, request).await?,
        };
        request.set_principal(principal.name.as_str());
        let lister = lister.unwrap_or_else(|| Arc::clone(&principal));
        Ok(Authenticated { principal, lister, asked })
    }

    /// The holder of an access token.
    ///
    /// # Errors
    /// [`AuthFailure`].
    pub async fn token_holder(&self, token: String, request: &Request) -> Result<Arc<Principal>, AuthFailure> {
        let credential = Credential::Token(TokenSecret::presented(token));
        Ok(self.services.authenticate(&credential, request.client()).await?)
    }

    fn presented(&self, request: &Request) -> Result<Presented, AuthFailure> {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let presented = match (values.next(), values.next()) {
            (None, _) => return Ok(Presented::Nothing),
            (Some(value), None) => value.to_str().ok().and_then(read_authorization),
            (Some(_), Some(_)) => None,
        };
        presented.ok_or_else(|| self.services.refuse_attempt(request.client()).into())
    }
}
