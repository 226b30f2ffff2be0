//! The name of one request, in its answer and in every log line that it causes.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use registry_core::ports::entropy::Entropy;

/// The header that carries a request id in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over, in characters.
const MAX_LENGTH: usize = 128;

/// A request's id: 1 to 128 of `[A-Za-z0-9._-]`, so that it can stand in a header, a log line and a shell command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id that the client (or a proxy before it) chose, if it is sane; else a new random one.
    pub fn of(headers: &HeaderMap, entropy: &dyn Entropy) -> Self {
        headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .and_then(Self::parse)
            .unwrap_or_else(|| Self::random(entropy))
    }

    /// `text` as an id, or `None` when it is not in the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let sane = (1..=MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        sane.then(|| Self(text.into()))
    }

    /// A new id: 96 random bits as 24 hexadecimal digits.
    pub fn random(entropy: &dyn Entropy) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut random = [0_u8; 12];
        entropy.fill(&mut random);
        let mut text = String::with_capacity(24);
        for byte in random {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header's value.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an id's characters may all stand in a header")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
