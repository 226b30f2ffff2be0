//! Access tokens: what a person or a machine shows to prove who it is.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::digest::hex;
use crate::permission::Scope;
use crate::time::Timestamp;

/// What stands before every token made here, so that a secret scanner can recognise one.
pub const TOKEN_PREFIX: &str = "fdy_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// How many random bytes [`TokenSecret::from_random`] needs.
pub const TOKEN_RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

/// A token as its holder has it: `fdy_<16 hex digits of id>_<64 hex digits of secret>`. Never printed by `Debug`.
#[derive(Clone)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// A token from fresh random bytes.
    pub fn from_random(bytes: &[u8; TOKEN_RANDOM_BYTES]) -> Self {
        let (id, secret) = bytes.split_at(ID_BYTES);
        Self(format!("{TOKEN_PREFIX}{}_{}", hex(id), hex(secret)))
    }

    /// A secret that somebody presented or configured; any text.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: show it once, to its owner only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The identifier inside a token made here; `None` for any other text.
    pub fn id(&self) -> Option<TokenId> {
        let (id, secret) = self.0.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let shaped = id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES;
        (shaped && hexadecimal(id) && hexadecimal(secret)).then(|| TokenId(id.to_owned()))
    }

    /// What is stored in its place.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// The public identifier of a stored token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub String);

/// The SHA-256 of a token. A token carries 256 random bits, so a slow hash would add nothing.
#[derive(Clone)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A stored token.
#[derive(Clone, Debug)]
pub struct TokenRecord {
    /// Its identifier.
    pub id: TokenId,
    /// What a person calls it.
    pub name: String,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// A key that signs registry tokens (HMAC-SHA-256).
#[derive(Clone)]
pub struct SigningKey {
    /// The `kid` in a token's header.
    pub id: String,
    /// The secret.
    pub secret: Vec<u8>,
    /// When it was made; the newest signs.
    pub created_at: Timestamp,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_an_id_and_a_hash_and_hides_itself() {
        let token = TokenSecret::from_random(&[7; TOKEN_RANDOM_BYTES]);
        assert_eq!(token.reveal().len(), 4 + 16 + 1 + 64);
        assert_eq!(token.id(), Some(TokenId("0707070707070707".into())));
        assert!(token.hash().matches(&TokenSecret::presented(token.reveal()).hash()));
        assert!(!token.hash().matches(&TokenSecret::presented("other").hash()));
        assert!(!format!("{token:?} {:?}", token.hash()).contains("07"));
    }

    #[test]
    fn other_texts_have_no_id() {
        for text in ["", "fdy_", "fdy_00_11", "secret"] {
            assert_eq!(TokenSecret::presented(text).id(), None, "{text}");
        }
        let (id, secret) = ("0".repeat(16), "1".repeat(64));
        let (no_id, no_secret) = ("G".repeat(16), "G".repeat(64));
        for text in [
            format!("fdy_00_{secret}"),
            format!("fdy_{id}_11"),
            format!("fdy_{no_id}_{secret}"),
            format!("fdy_{id}_{no_secret}"),
        ] {
            assert_eq!(TokenSecret::presented(&text).id(), None, "{text}");
        }
    }
}
