//! Who asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Services;
use super::throttle::Throttled;
use crate::error::StoreError;
use crate::permission::{Pattern, Principal, Scope};
use crate::time::Timestamp;
use crate::token::{TokenHash, TokenSecret};

/// For how long a proven token is believed without asking the store: a revoked one may work that much longer.
const PROVEN_FOR: Duration = Duration::from_secs(5);
/// For how long after its last use a token that was once proven is asked for in the store whatever others at its
/// address do: who guesses there must not lock out who works there.
const TRUSTED_FOR: Duration = Duration::from_hours(1);
/// How many proven tokens are remembered.
const PROVEN_LIMIT: usize = 10_000;

/// What a request shows.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Nothing.
    None,
    /// An access token, as Bearer or as the password of Basic.
    Token(TokenSecret),
}

/// A credential was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BadCredential {
    /// It is unknown, expired or revoked.
    #[error("the credentials are not valid")]
    Invalid,
    /// Too many wrong ones came from that address.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct ProvenToken {
    principal: Arc<Principal>,
    /// Until when it is believed.
    fresh_until: Timestamp,
    /// Until when it is remembered.
    trusted_until: Timestamp,
}

#[derive(Default)]
pub(super) struct ProvenTokens(Mutex<HashMap<[u8; 32], ProvenToken>>);

/// What is remembered of a token.
enum Memory {
    /// Proven a moment ago.
    Fresh(Arc<Principal>),
    /// Proven once.
    Trusted,
    Unknown,
}

impl ProvenTokens {
    fn find(&self, hash: &TokenHash, now: Timestamp) -> Memory {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match proven.get(&hash.0) {
            Some(token) if now < token.fresh_until => Memory::Fresh(Arc::clone(&token.principal)),
            Some(token) if now < token.trusted_until => Memory::Trusted,
            _ => Memory::Unknown,
        }
    }

    fn remember(&self, hash: &TokenHash, principal: &Arc<Principal>, now: Timestamp, fresh_until: Timestamp) {
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= PROVEN_LIMIT && !proven.contains_key(&hash.0) {
            proven.retain(|_, token| now < token.fresh_until);
            if proven.len() >= PROVEN_LIMIT {
                proven.clear();
            }
        }
        let principal = Arc::clone(principal);
        proven.insert(hash.0, ProvenToken { principal, fresh_until, trusted_until: now + TRUSTED_FOR });
    }

    fn distrust(&self, hash: &TokenHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash.0);
    }

    /// Believes no token any longer without asking the store.
    pub(super) fn doubt_all(&self) {
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for token in proven.values_mut() {
            token.fresh_until = Timestamp::from_micros(0);
        }
    }
}

impl Services {
    /// The principal behind a credential; `peer` is who failed attempts are counted for.
    ///
    /// # Errors
    /// [`BadCredential`]: a wrong credential is never an anonymous principal.
    pub async fn authenticate(&self, credential: &Credential, peer: IpAddr) -> Result<Arc<Principal>, BadCredential> {
        let Credential::Token(secret) = credential else {
            return Ok(Arc::new(self.anonymous().await?));
        };
        let now = self.now();
        let hash = secret.hash();
        match self.proven.find(&hash, now) {
            Memory::Fresh(principal) => return Ok(principal),
            Memory::Trusted => {}
            Memory::Unknown => self.throttle.check(peer, now)?,
        }
        let proof = self.prove(secret, &hash).await?;
        let valid = proof.filter(|(_, expires_at)| expires_at.is_none_or(|expires_at| now < expires_at));
        let Some((mut principal, expires_at)) = valid else {
            self.proven.distrust(&hash);
            self.throttle.failed(peer, now);
            return Err(BadCredential::Invalid);
        };
        // Clients send what was saved for a server with each request: who has a token may do no less than a stranger.
        principal.scopes.extend(self.anonymous().await?.scopes);
        let principal = Arc::new(principal);
        let until = now + PROVEN_FOR;
        let until = expires_at.map_or(until, |expires_at| until.min(expires_at));
        self.proven.remember(&hash, &principal, now, until);
        Ok(principal)
    }

    /// Counts a failed attempt that was found out elsewhere (a registry token that does not verify).
    ///
    /// # Errors
    /// [`BadCredential::Throttled`] when there were too many, else [`BadCredential::Invalid`].
    pub fn refuse_attempt(&self, peer: IpAddr) -> BadCredential {
        let now = self.now();
        if let Err(throttled) = self.throttle.check(peer, now) {
            return throttled.into();
        }
        self.throttle.failed(peer, now);
        BadCredential::Invalid
    }

    async fn prove(
        &self,
        secret: &TokenSecret,
        hash: &TokenHash,
    ) -> Result<Option<(Principal, Option<Timestamp>)>, StoreError> {
        // All are compared, so that the time does not tell which one was near.
        let mut found = None;
        for token in &self.settings.tokens {
            if token.hash.matches(hash) {
                found = Some(token);
            }
        }
        if let Some(token) = found {
            let principal = Principal { name: token.name.clone(), anonymous: false, scopes: token.scopes.clone() };
            return Ok(Some((principal, token.expires_at)));
        }
        let Some(id) = secret.id() else { return Ok(None) };
        let Some(record) = self.ports.metadata.find_token(&id).await? else { return Ok(None) };
        if !record.hash.matches(hash) {
            return Ok(None);
        }
        let principal = Principal { name: record.name, anonymous: false, scopes: record.scopes };
        Ok(Some((principal, record.expires_at)))
    }

    /// Who a stranger is: the server's setting, or that of a registry where it has one.
    async fn anonymous(&self) -> Result<Principal, StoreError> {
        let mut scopes = Vec::new();
        let registries = self.known_registries().await?;
        let own_settings = registries.iter().any(|registry| registry.settings.anonymous.is_some());
        if !own_settings {
            scopes.push(Scope { registry: None, pattern: Pattern::Any, actions: self.settings.anonymous.actions() });
        } else {
            scopes.extend(registries.iter().map(|registry| Scope {
                registry: Some(registry.name.clone()),
                pattern: Pattern::Any,
                actions: registry.settings.anonymous.unwrap_or(self.settings.anonymous).actions(),
            }));
        }
        scopes.retain(|scope| !scope.actions.is_empty());
        Ok(Principal { name: "anonymous".to_owned(), anonymous: true, scopes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_tokens_are_remembered_and_rather_the_fresh_than_the_stale() {
        let proven = ProvenTokens::default();
        let principal = Arc::new(Principal { name: "ci".into(), anonymous: false, scopes: Vec::new() });
        let remember = |number: usize, now: Timestamp| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            proven.remember(&TokenHash(hash), &principal, now, now + PROVEN_FOR);
            proven.0.lock().unwrap().len()
        };
        let start = Timestamp::from_micros(0);
        let later = start + PROVEN_FOR;
        for number in 1..PROVEN_LIMIT {
            assert_eq!(remember(number, start), number);
        }
        assert_eq!(remember(PROVEN_LIMIT, later), PROVEN_LIMIT);
        assert_eq!(remember(1, later), PROVEN_LIMIT, "one that is known takes no room");
        assert_eq!(remember(PROVEN_LIMIT + 1, later), 3, "the stale ones made room");
        for number in 4..=PROVEN_LIMIT {
            assert_eq!(remember(2 * PROVEN_LIMIT + number, later), number);
        }
        assert_eq!(remember(0, later), 1, "where all are fresh, all are asked for again");
    }
}
