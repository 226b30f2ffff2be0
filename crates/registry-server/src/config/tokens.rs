//! `auth.tokens`: access tokens from the configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use registry_core::permission::Scope;
use registry_core::services::ConfiguredToken;
use registry_core::time::Timestamp;
use registry_core::token::{TokenHash, TokenSecret};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::MASK;
use super::values::{Moment, Secret};

/// The fields that a token written as an object may have.
pub const FIELDS: [&str; 6] = ["name", "token", "token_file", "hash", "scopes", "expires"];

/// One entry of `auth.tokens`.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEntry {
    /// A text alone: the token of an administrator.
    Administrator(Secret),
    /// An object.
    Described(TokenObject),
}

/// A token with a name, scopes and an end.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenObject {
    /// What logs call it.
    pub name: Option<String>,
    /// The token.
    pub token: Option<Secret>,
    /// A file that holds nothing else.
    pub token_file: Option<PathBuf>,
    /// Its SHA-256 in hexadecimal, perhaps after `sha256:`.
    pub hash: Option<Secret>,
    /// What it permits, each `registry:pattern:actions`; everything when absent.
    pub scopes: Option<Vec<Scope>>,
    /// When it ends; never when absent.
    pub expires: Option<Moment>,
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = TokenEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token as text (in quotes, if it looks like a number), or an object")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TokenEntry, E> {
        Ok(TokenEntry::Administrator(Secret(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TokenEntry, A::Error> {
        TokenObject::deserialize(MapAccessDeserializer::new(map)).map(TokenEntry::Described)
    }
}

impl<'de> Deserialize<'de> for TokenEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// A token, ready to compare.
#[derive(Clone, Debug)]
pub struct ResolvedToken {
    /// The token.
    pub token: ConfiguredToken,
    /// Whether it is so short that somebody could guess it.
    pub guessable: bool,
}

/// Why an entry of `auth.tokens` is of no use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToken {
    /// The text is empty, or has characters that no HTTP header can carry.
    #[error("a token is one or more visible ASCII characters")]
    Characters,
    /// Somebody pasted what `registry-server config` prints in the place of a secret.
    #[error("`{MASK}` stands for a hidden value; write the token itself, or its hash")]
    Masked,
    /// None or several of the three are there.
    #[error("an object has exactly one of `token`, `token_file` and `hash`")]
    Sources,
    /// The hash is not one.
    #[error("`hash` is the SHA-256 of the token: 64 hexadecimal digits, perhaps after `sha256:`")]
    Hash,
    /// The file cannot be read.
    #[error("`token_file` {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Below this many characters a token counts as guessable.
const GUESSABLE_BELOW: usize = 16;

impl TokenEntry {
    /// The token, with its file read; `index` names it where it has no name.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn resolve(&self, index: usize) -> Result<ResolvedToken, InvalidToken> {
        let unnamed = || format!("auth.tokens[{index}]");
        let object = match self {
            TokenEntry::Administrator(secret) => {
                let (hash, guessable) = hash_of(&secret.0)?;
                let scopes = vec![Scope::everything()];
                let token = ConfiguredToken { name: unnamed(), hash, scopes, expires_at: None };
                return Ok(ResolvedToken { token, guessable });
            }
            TokenEntry::Described(object) => object,
        };
        let (hash, guessable) = match (&object.token, &object.token_file, &object.hash) {
            (Some(secret), None, None) => hash_of(&secret.0)?,
            (None, Some(path), None) => hash_of(&read(path)?)?,
            (None, None, Some(hash)) => (parse_hash(&hash.0).ok_or(InvalidToken::Hash)?, false),
            _ => return Err(InvalidToken::Sources),
        };
        let token = ConfiguredToken {
            name: object.name.clone().unwrap_or_else(unnamed),
            hash,
            scopes: object.scopes.clone().unwrap_or_else(|| vec![Scope::everything()]),
            expires_at: object.expires.map(timestamp),
        };
        Ok(ResolvedToken { token, guessable })
    }
}

fn read(path: &Path) -> Result<String, InvalidToken> {
    let text = std::fs::read_to_string(path).map_err(|source| InvalidToken::File { path: path.to_owned(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn hash_of(secret: &str) -> Result<(TokenHash, bool), InvalidToken> {
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidToken::Characters);
    }
    if secret == MASK {
        return Err(InvalidToken::Masked);
    }
    Ok((TokenSecret::presented(secret).hash(), secret.len() < GUESSABLE_BELOW))
}

fn parse_hash(text: &str) -> Option<TokenHash> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(TokenHash(hash))
}

/// Times before the epoch become the epoch: such a token ended long ago either way.
fn timestamp(moment: Moment) -> Timestamp {
    let since = moment.0.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(0) + since
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Result<Vec<TokenEntry>, String> {
        serde_norway::from_str(text).map_err(|error| error.to_string())
    }

    fn resolve(text: &str) -> Result<ConfiguredToken, InvalidToken> {
        entries(text).unwrap()[0].resolve(0).map(|resolved| resolved.token)
    }

    fn guessable(text: &str) -> bool {
        entries(text).unwrap()[0].resolve(0).unwrap().guessable
    }

    const LONG: &str = "correct-horse-battery-staple";

    #[test]
    fn a_text_is_the_token_of_an_administrator() {
        let token = resolve(&format!("[{LONG}]")).unwrap();
        assert_eq!(token.name, "auth.tokens[0]");
        assert!(token.hash.matches(&TokenSecret::presented(LONG).hash()));
        assert_eq!(token.scopes, [Scope::everything()]);
        assert!(token.expires_at.is_none());
        assert!(guessable("[admin]") && guessable("[{token: admin}]"));
        assert!(!guessable(&format!("[{LONG}]")));
    }

    #[test]
    fn an_object_says_more() {
        let token = resolve(&format!(
            "[{{name: ci, token: {LONG}, scopes: ['oci:team/*:pull,push', 'generic:*:pull'], expires: 1970-01-02}}]"
        ))
        .unwrap();
        assert_eq!(token.name, "ci");
        assert_eq!(token.scopes[0].to_string(), "oci:team/*:pull,push");
        assert_eq!(token.scopes.len(), 2);
        assert_eq!(token.expires_at, Some(Timestamp::from_micros(86_400_000_000)));
    }

    #[test]
    fn a_hash_stands_for_the_token() {
        // printf secret | sha256sum
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        for text in [hash.to_owned(), format!("sha256:{hash}"), hash.to_uppercase()] {
            let token = resolve(&format!("[{{hash: '{text}'}}]")).unwrap();
            assert!(token.hash.matches(&TokenSecret::presented("secret").hash()), "{text}");
        }
        for text in ["", "sha256:", &hash[1..], &format!("{hash}00"), &hash.replace('2', "g"), &hash.replace("2b", "é")]
        {
            assert!(matches!(resolve(&format!("[{{hash: '{text}'}}]")), Err(InvalidToken::Hash)), "{text}");
        }
    }

    #[test]
    fn a_file_may_hold_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, format!("{LONG}\n")).unwrap();
        let token = resolve(&format!("[{{token_file: {}}}]", file.display())).unwrap();
        assert!(token.hash.matches(&TokenSecret::presented(LONG).hash()));
        let missing = resolve(&format!("[{{token_file: {}/none}}]", folder.path().display())).unwrap_err();
        assert!(missing.to_string().contains("/none: No such file"), "{missing}");
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for (text, expected) in [
            ("['']", "visible ASCII"),
            ("['a b']", "visible ASCII"),
            ("[tökén]", "visible ASCII"),
            (&format!("['{MASK}']"), "hidden value"),
            ("[{name: x}]", "exactly one"),
            ("[{token: a, hash: b}]", "exactly one"),
        ] {
            assert!(resolve(text).unwrap_err().to_string().contains(expected), "{text}");
        }
        assert!(entries("[12345]").unwrap_err().contains("in quotes"));
        assert!(entries("[{token: a, scopes: ['oci:x']}]").unwrap_err().contains("registry:name:actions"));
        assert!(entries("[{token: a, expires: soon}]").unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn no_token_shows_in_debug() {
        let entries = entries("[topsecret, {token: topsecret, hash: topsecret}]").unwrap();
        assert!(!format!("{entries:?}").contains("topsecret"));
    }
}
