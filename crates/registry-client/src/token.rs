//! The secret that a request carries.
use std::fmt;

use reqwest::header::HeaderValue;

use crate::{Error, Result};

/// A bearer token. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token of visible ASCII characters; white space around it, such as the newline of a file, is cut off.
    ///
    /// # Errors
    /// [`Error::InvalidToken`] if nothing is left, or if it holds a character that no header may carry.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::InvalidToken);
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the one who stores it or hands it on.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn authorization(&self) -> HeaderValue {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", self.0)).expect("visible ASCII is a valid header value");
        value.set_sensitive(true);
        value
    }

    /// `text` without this token in it, should a server have echoed it.
    pub(crate) fn redact(&self, text: String) -> String {
        if text.contains(&self.0) { text.replace(&self.0, "[token]") } else { text }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([hidden])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_visible_ascii_and_never_shown() {
        let token = Token::new("s3cret\n").expect("a trailing newline is cut off");
        assert_eq!(token.reveal(), "s3cret");
        assert!(!format!("{token:?} {:?}", token.authorization()).contains("s3cret"));
        assert_eq!(token.redact("bad token s3cret".into()), "bad token [token]");
        for text in ["", " \n", "two words", "line\nbreak", "ünicode"] {
            assert!(matches!(Token::new(text), Err(Error::InvalidToken)), "{text:?}");
        }
    }
}
