//! Registry tokens: short-lived JSON Web Tokens for `/v2` (Docker token authentication specification).
//!
//! Signed with HMAC-SHA-256 by a key that all replicas share through the metadata store, so that any of them checks
//! what any other issued. What a token permits is written in it in our own terms, with canonical names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::permission::{Principal, Scope};
use registry_core::services::Services;
use registry_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How often, at most, an unknown key makes this replica look for new ones.
const RELOAD_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// One entry of the `access` claim, as the specification has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name as the client wrote it.
    pub name: String,
    /// What was granted.
    pub actions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    iat: i64,
    exp: i64,
    #[serde(default)]
    anonymous: bool,
    access: Vec<Access>,
    scopes: Vec<Scope>,
    /// What `registry:catalog:*` lets them see in lists, and no more than that.
    #[serde(default)]
    listing: Vec<Scope>,
}

#[derive(Default)]
struct Keys {
    verify: HashMap<String, DecodingKey>,
    sign: Option<(String, EncodingKey)>,
    loaded_at: Option<Timestamp>,
}

/// What a token is issued with.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// What was asked for, with what of it was granted.
    pub access: Vec<Access>,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// What it lets its holder see in lists over repositories. That permits to read none of it.
    pub listing: Vec<Scope>,
}

/// What a valid token says.
#[derive(Debug)]
pub struct Verified {
    /// Whom it was given to, with what it permits.
    pub principal: Principal,
    /// What was asked for with it.
    pub access: Vec<Access>,
    /// What it lets its holder see in lists.
    pub listing: Vec<Scope>,
}

/// Issues and verifies registry tokens.
pub struct RegistryTokens {
    services: Arc<Services>,
    keys: Mutex<Arc<Keys>>,
}

/// A token and when it ends.
pub struct Issued {
    /// The compact form.
    pub token: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// How long it lives.
    pub lifetime: Duration,
}

/// Whether `text` looks like a JSON Web Token: three parts, the first a JSON object.
pub fn has_shape(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl RegistryTokens {
    /// Over the use cases; keys are loaded when they are first needed.
    pub fn new(services: Arc<Services>) -> Self {
        Self { services, keys: Mutex::default() }
    }

    /// Issues a token.
    ///
    /// # Errors
    /// [`StoreError`] when there is no key to be had.
    pub async fn issue(
        &self,
        principal: &Principal,
        Grant { access, scopes, listing }: Grant,
    ) -> Result<Issued, StoreError> {
        let now = self.services.ports().clock.now();
        let mut keys = self.loaded();
        if keys.sign.is_none() {
            keys = self.reload(now).await?;
        }
        let (id, key) = keys.sign.as_ref().ok_or_else(|| StoreError::corrupt("there is no signing key"))?;
        let lifetime = self.services.settings().registry_token_lifetime;
        let claims = Claims {
            sub: principal.name.clone(),
            iat: now.as_seconds(),
            exp: (now + lifetime).as_seconds(),
            anonymous: principal.anonymous,
            access,
            scopes,
            listing,
        };
        let header = Header { kid: Some(id.clone()), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &claims, key)
            .map_err(|error| StoreError::new(StoreErrorKind::Other, "sign a registry token", error))?;
        Ok(Issued { token, issued_at: now, lifetime })
    }

    /// What a token says; `None` when it is not valid (any more).
    ///
    /// # Errors
    /// [`StoreError`] when the keys cannot be had.
    pub async fn verify(&self, token: &str) -> Result<Option<Verified>, StoreError> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        let Some(id) = header.kid else { return Ok(None) };
        let now = self.services.ports().clock.now();
        let mut keys = self.loaded();
        if !keys.verify.contains_key(&id)
            && keys.loaded_at.is_none_or(|loaded_at| now.since(loaded_at) >= RELOAD_AT_MOST_EVERY)
        {
            keys = self.reload(now).await?;
        }
        let Some(key) = keys.verify.get(&id) else { return Ok(None) };
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is that of our clock port, not of this machine.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let Ok(data) = decode::<Claims>(token, key, &validation) else { return Ok(None) };
        if data.claims.exp <= now.as_seconds() {
            return Ok(None);
        }
        let Claims { sub: name, anonymous, scopes, access, listing, .. } = data.claims;
        Ok(Some(Verified { principal: Principal { name, anonymous, scopes }, access, listing }))
    }

    fn loaded(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn reload(&self, now: Timestamp) -> Result<Arc<Keys>, StoreError> {
        // Makes the first key where there is none, and a new one when the newest is old.
        let stored = self.services.rotate_signing_keys().await?;
        let sign = stored.first().map(|key| (key.id.clone(), EncodingKey::from_secret(&key.secret)));
        let verify = stored.iter().map(|key| (key.id.clone(), DecodingKey::from_secret(&key.secret))).collect();
        let keys = Arc::new(Keys { verify, sign, loaded_at: Some(now) });
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        Ok(keys)
    }

    /// Takes up keys that were rotated; for the job that does it from time to time.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn refresh_keys(&self) -> Result<(), StoreError> {
        self.reload(self.services.ports().clock.now()).await.map(|_| ())
    }
}
