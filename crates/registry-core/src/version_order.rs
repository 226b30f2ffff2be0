//! The order of versions: as versions, not as text.
//!
//! Semantic Versioning 2.0.0 (section 11) decides where both are semantic versions; other versions are compared the
//! same way, piece by piece, so that `1.9` comes before `1.10`, `1.0-rc1` before `1.0`, and `v2` beside `2`.

use crate::names::Version;

/// A byte string whose memory order is the order of versions, so that an index can keep it.
///
/// Numbers compare as numbers whatever their length, letters as text, a pre-release (`-…` or `~…`) comes before its
/// release, build metadata (`+…`) only breaks ties, and two different versions never have the same key.
pub fn sort_key(version: &Version) -> Vec<u8> {
    let text = version.as_str();
    let text = match text.as_bytes() {
        [b'v' | b'V', digit, ..] if digit.is_ascii_digit() => &text[1..],
        _ => text,
    };
    let (text, build) = text.split_once('+').unwrap_or((text, ""));
    let pre_release_at = text.find(['-', '~']).unwrap_or(text.len());
    let (release, pre_release) = text.split_at(pre_release_at);

    let mut key = Vec::with_capacity(text.len() + 16);
    push_identifiers(&mut key, release, true);
    // The end of the release: a pre-release sorts below no pre-release.
    key.push(if pre_release.is_empty() { RELEASE } else { PRE_RELEASE });
    push_identifiers(&mut key, pre_release.get(1..).unwrap_or(""), false);
    key.push(END);
    key.extend_from_slice(build.as_bytes());
    key.push(END);
    // Two spellings of one version ("v1" and "1", "1.0" and "1.00") differ at least here.
    key.extend_from_slice(version.as_str().as_bytes());
    key
}

// What follows an identifier decides between `1` and `1.0`; the order of these bytes is the order of the cases.
const END: u8 = 0;
const PRE_RELEASE: u8 = 1;
const RELEASE: u8 = 2;
const NUMBER: u8 = 3;
const TEXT: u8 = 4;

fn push_identifiers(key: &mut Vec<u8>, text: &str, trim_zeros: bool) {
    if text.is_empty() {
        return;
    }
    let mut end_without_zeros = key.len();
    for piece in pieces(text) {
        if piece.as_bytes()[0].is_ascii_digit() {
            let digits = piece.trim_start_matches('0');
            key.push(NUMBER);
            // The count of digits first: a longer number is a larger one. At most 128 digits fit in a version.
            key.push(u8::try_from(digits.len()).expect("a version has at most 128 characters"));
            key.extend_from_slice(digits.as_bytes());
            if !digits.is_empty() {
                end_without_zeros = key.len();
            }
        } else {
            key.push(TEXT);
            key.extend_from_slice(piece.as_bytes());
            key.push(END);
            end_without_zeros = key.len();
        }
    }
    if trim_zeros {
        // 1, 1.0 and 1.0.0 are the same release; which came first is decided by the text at the end of the key.
        key.truncate(end_without_zeros);
    }
}

/// The runs of digits and of other characters between `.`, `_`, `-` and `~`.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(['.', '_', '-', '~']).flat_map(|part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            let digit = rest.as_bytes().first()?.is_ascii_digit();
            let end = rest.bytes().position(|byte| byte.is_ascii_digit() != digit).unwrap_or(rest.len());
            let (piece, tail) = rest.split_at(end);
            rest = tail;
            Some(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Vec<u8> {
        sort_key(&text.parse().unwrap())
    }

    #[test]
    fn versions_sort_as_versions() {
        let sorted = [
            "0.0.1",
            "0.9",
            "0.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+build",
            "1.0.1",
            "v1.2",
            "1.9.9",
            "1.10.0",
            "2",
            "10",
            "2024-01-01",
            "99999999999999999999",
            "100000000000000000000",
            "nightly",
            "stable",
            "vanilla",
        ];
        for pair in sorted.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn spellings_of_one_version_are_neighbours_and_differ() {
        for (one, other) in [("1.0", "1"), ("v1.0.0", "1.0.0"), ("01", "1"), ("1.0.0", "1.0")] {
            assert_ne!(key(one), key(other), "{one} {other}");
            for (lower, higher) in [("0.9", one), ("0.9", other), (one, "1.0.1"), (other, "1.0.1")] {
                assert!(key(lower) < key(higher), "{lower} < {higher}");
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_decide(a in 0u64..1_000_000, b in 0u64..1_000_000, c in 0u64..1_000_000, d in 0u64..1_000_000) {
            let (left, right) = (key(&format!("{a}.{b}.1")), key(&format!("{c}.{d}.1")));
            prop_assert_eq!(left.cmp(&right), (a, b).cmp(&(c, d)));
        }

        #[test]
        fn different_versions_have_different_keys(a in "[a-zA-Z0-9][a-zA-Z0-9._+~-]{0,12}", b in "[a-zA-Z0-9][a-zA-Z0-9._+~-]{0,12}") {
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
