//! What must be true of what a write replaces or removes (RFC 9110, sections 13.1.1, 13.1.2 and 13.1.4).

use crate::digest::Digest;
use crate::time::Timestamp;

/// Preconditions of a write. Whether they hold is decided in the transaction that writes: of two clients that expect the
/// same state, one wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// One of these must be there (`If-Match`).
    pub if_match: Option<Expected>,
    /// None of these may be there (`If-None-Match`).
    pub if_none_match: Option<Expected>,
    /// It may not have come later than in this second since the Unix epoch (`If-Unmodified-Since`). Without meaning beside
    /// `if_match`, and for what has no date.
    pub unmodified_since: Option<i64>,
}

/// What a precondition names: entity tags are digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is (`*`).
    Anything,
    /// One of these.
    OneOf(Vec<Digest>),
}

impl Expected {
    /// Whether `current` is what is named.
    pub fn is_met_by(&self, current: Option<&Digest>) -> bool {
        match self {
            Expected::Anything => current.is_some(),
            Expected::OneOf(digests) => current.is_some_and(|current| digests.contains(current)),
        }
    }
}

impl Precondition {
    /// No precondition.
    pub const NONE: Self = Self { if_match: None, if_none_match: None, unmodified_since: None };

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether the write may happen where `current` is what there is, and has come `at` that time.
    pub fn holds_for_dated(&self, current: &Digest, at: Timestamp) -> bool {
        let since = self.unmodified_since.filter(|_| self.if_match.is_none());
        self.holds(Some(current)) && since.is_none_or(|since| at.as_seconds() <= since)
    }

    /// Whether the write may happen where `current` is what there is, which has no date.
    pub fn holds(&self, current: Option<&Digest>) -> bool {
        self.if_match.as_ref().is_none_or(|expected| expected.is_met_by(current))
            && self.if_none_match.as_ref().is_none_or(|expected| !expected.is_met_by(current))
    }
}
