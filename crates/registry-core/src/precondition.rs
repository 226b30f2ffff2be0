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
        self.holds(Some(current)) && self.date_holds(at)
    }

    /// Whether what has come `at` that time is old enough.
    pub fn date_holds(&self, at: Timestamp) -> bool {
        let since = self.unmodified_since.filter(|_| self.if_match.is_none());
        since.is_none_or(|since| at.as_seconds() <= since)
    }

    /// Whether the write may happen where `current` is what there is, which has no date.
    pub fn holds(&self, current: Option<&Digest>) -> bool {
        self.if_match.as_ref().is_none_or(|expected| expected.is_met_by(current))
            && self.if_none_match.as_ref().is_none_or(|expected| !expected.is_met_by(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_holds_where_each_half_of_it_does() {
        let [first, second, third] = [b"1", b"2", b"3"].map(|text| Digest::sha256(text));
        let none: Option<&Expected> = None;
        let (anything, nothing) = (&Expected::Anything, &Expected::OneOf(vec![]));
        let (one, two) = (&Expected::OneOf(vec![first.clone()]), &Expected::OneOf(vec![first.clone(), second.clone()]));
        // Whether it holds where nothing is, and where the first, the second and the third digest is.
        for (if_match, if_none_match, expected) in [
            (none, none, [true, true, true, true]),
            (Some(anything), none, [false, true, true, true]),
            (Some(nothing), none, [false, false, false, false]),
            (Some(one), none, [false, true, false, false]),
            (Some(two), none, [false, true, true, false]),
            (none, Some(anything), [true, false, false, false]),
            (none, Some(nothing), [true, true, true, true]),
            (none, Some(one), [true, false, true, true]),
            (none, Some(two), [true, false, false, true]),
            (Some(two), Some(one), [false, false, true, false]),
            (Some(anything), Some(anything), [false, false, false, false]),
        ] {
            let (if_match, if_none_match) = (if_match.cloned(), if_none_match.cloned());
            let precondition = Precondition { if_match, if_none_match, unmodified_since: None };
            let holds = [None, Some(&first), Some(&second), Some(&third)].map(|current| precondition.holds(current));
            assert_eq!(holds, expected, "{precondition:?}");
            let is_none = precondition.if_match.is_none() && precondition.if_none_match.is_none();
            assert_eq!(precondition.is_none(), is_none, "{precondition:?}");
        }
    }

    #[test]
    fn a_date_decides_to_the_second_where_no_entity_tag_does() {
        let (one, other) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let none = Precondition { unmodified_since: Some(10), ..Precondition::NONE };
        let expecting = |digest: &Digest| Some(Expected::OneOf(vec![digest.clone()]));
        let matching = Precondition { if_match: expecting(&one), ..none.clone() };
        let not_matching = Precondition { if_none_match: expecting(&other), ..none.clone() };
        for (precondition, digest, expected) in [
            (&Precondition::NONE, &one, [true, true, true]),
            (&none, &one, [true, true, false]),
            (&matching, &one, [true, true, true]),
            (&matching, &other, [false, false, false]),
            (&not_matching, &one, [true, true, false]),
            (&not_matching, &other, [false, false, false]),
        ] {
            let holds = [9_999_999, 10_999_999, 11_000_000]
                .map(|micros| precondition.holds_for_dated(digest, Timestamp::from_micros(micros)));
            assert_eq!(holds, expected, "{precondition:?}");
        }
        assert!(!none.is_none());
    }
}
