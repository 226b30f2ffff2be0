//! What a `Range` header asks for (RFC 9110, section 14).

use std::ops::Range;

/// With more ranges than this, the header is as if it were not there (section 14.2): each costs the store a request.
const RANGES_LIMIT: usize = 200;

/// What a `Range` header asks for, of something with a certain size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Nothing that this server understands: the header is passed over.
    Ignored,
    /// Bytes that are not there.
    NotSatisfiable,
    /// These bytes: none is empty, none reaches beyond the end, and no two overlap or touch, so that an answer is never
    /// longer than the whole but for its separators. They are in the order in which they were asked for, never none.
    Satisfiable(Vec<Range<u64>>),
}

impl Ranges {
    /// Reads the value of a `Range` header of a request for something with `size` bytes.
    pub fn parse(text: &str, size: u64) -> Self {
        let Some((unit, set)) = text.split_once('=') else { return Ranges::Ignored };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Ranges::Ignored;
        }
        // Empty elements are passed over (section 5.6.1).
        let specifiers: Vec<&str> =
            set.split(',').map(str::trim).filter(|specifier| !specifier.is_empty()).take(RANGES_LIMIT + 1).collect();
        if specifiers.is_empty() || specifiers.len() > RANGES_LIMIT {
            return Ranges::Ignored;
        }
        let mut ranges = Vec::with_capacity(specifiers.len());
        for specifier in specifiers {
            match parse_specifier(specifier, size) {
                None => return Ranges::Ignored,
                // What is not there is left out, as long as something is.
                Some(range) if range.is_empty() => {}
                Some(range) => ranges.push(range),
            }
        }
        if ranges.is_empty() {
            return Ranges::NotSatisfiable;
        }
        Ranges::Satisfiable(coalesced(ranges))
    }
}

/// The bytes that one specifier means, none when it cannot be satisfied; `None` when it is no specifier.
fn parse_specifier(specifier: &str, size: u64) -> Option<Range<u64>> {
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit is simply beyond every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = specifier.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let range = match (first, last) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
    };
    Some(range)
}

/// The same bytes in ranges that do not overlap or touch, each in the place of the first that it came of (section
/// 15.3.7.2): what overlaps would let a short request make a very long answer.
fn coalesced(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted: Vec<(usize, Range<u64>)> = ranges.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, range)| range.start);
    let mut joined: Vec<(usize, Range<u64>)> = Vec::with_capacity(sorted.len());
    for (place, range) in sorted {
        match joined.last_mut() {
            Some((first, last)) if range.start <= last.end => {
                *first = place.min(*first);
                last.end = last.end.max(range.end);
            }
            _ => joined.push((place, range)),
        }
    }
    joined.sort_unstable_by_key(|(place, _)| *place);
    joined.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn several(ranges: &[Range<u64>]) -> Ranges {
        Ranges::Satisfiable(ranges.to_vec())
    }

    #[expect(clippy::single_range_in_vec_init, reason = "one range is what is meant")]
    #[test]
    fn one_range() {
        for (range, expected) in [
            ("bytes=0-0", several(&[0..1])),
            ("bytes=0-99", several(&[0..10])),
            ("bytes=3-5", several(&[3..6])),
            ("bytes=9-", several(&[9..10])),
            ("bytes=-3", several(&[7..10])),
            ("bytes=-99", several(&[0..10])),
            ("Bytes= 3-5", several(&[3..6])),
            ("bytes=3-5,", several(&[3..6])),
            ("bytes=10-", Ranges::NotSatisfiable),
            ("bytes=10-12", Ranges::NotSatisfiable),
            ("bytes=500-0", Ranges::NotSatisfiable),
            ("bytes=5-4", Ranges::NotSatisfiable),
            ("bytes=5-0", Ranges::NotSatisfiable),
            ("bytes=-0", Ranges::NotSatisfiable),
            ("bytes=99999999999999999999-", Ranges::NotSatisfiable),
            ("bytes=0-99999999999999999999", several(&[0..10])),
            ("bytes=x-y", Ranges::Ignored),
            ("bytes=+1-2", Ranges::Ignored),
            ("bytes=1", Ranges::Ignored),
            ("lines=1-2", Ranges::Ignored),
            ("bytes", Ranges::Ignored),
            ("bytes=", Ranges::Ignored),
            ("bytes=,", Ranges::Ignored),
            ("bytes=-", Ranges::Ignored),
            ("bytes=--1", Ranges::Ignored),
        ] {
            assert_eq!(Ranges::parse(range, 10), expected, "{range}");
        }
        assert_eq!(Ranges::parse("bytes=-5", 0), Ranges::NotSatisfiable);
        assert_eq!(Ranges::parse("bytes=0-", 0), Ranges::NotSatisfiable);
    }

    #[expect(clippy::single_range_in_vec_init, reason = "one range is what is meant")]
    #[test]
    fn several_ranges() {
        for (range, expected) in [
            ("bytes=1-2,4-5", several(&[1..3, 4..6])),
            ("bytes=1-2, 4-5 ,,\t7-7", several(&[1..3, 4..6, 7..8])),
            ("bytes=0-0,-1", several(&[0..1, 9..10])),
            ("bytes=-1,0-0", several(&[9..10, 0..1])),
            // What is not there is left out.
            ("bytes=1-2,10-11,5-4,-0,4-", several(&[1..3, 4..10])),
            ("bytes=10-11,20-", Ranges::NotSatisfiable),
            // What overlaps or touches is one, in the place of the first.
            ("bytes=1-2,2-5", several(&[1..6])),
            ("bytes=1-2,3-5", several(&[1..6])),
            ("bytes=3-5,1-2", several(&[1..6])),
            ("bytes=1-8,3-4", several(&[1..9])),
            ("bytes=0-,0-,0-", several(&[0..10])),
            ("bytes=8-8,0-1,1-2,4-5,2-2", several(&[8..9, 0..3, 4..6])),
            // One that is none spoils them all.
            ("bytes=1-2,x", Ranges::Ignored),
            ("bytes=1-2,-", Ranges::Ignored),
            ("bytes=20-,x-", Ranges::Ignored),
        ] {
            assert_eq!(Ranges::parse(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn too_many_ranges_are_passed_over() {
        let ranges = |count: usize| (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
        let Ranges::Satisfiable(parts) = Ranges::parse(&format!("bytes={}", ranges(200)), 1_000) else {
            panic!("so many are answered");
        };
        assert_eq!(parts.len(), 200);
        assert_eq!(Ranges::parse(&format!("bytes={}", ranges(201)), 1_000), Ranges::Ignored);
        // However few they come to.
        assert_eq!(Ranges::parse(&format!("bytes={}", "0-,".repeat(201)), 1_000), Ranges::Ignored);
    }

    fn specifier() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u64..120, 0u64..120).prop_map(|(first, last)| format!("{first}-{last}")),
            (0u64..120).prop_map(|first| format!("{first}-")),
            (0u64..120).prop_map(|suffix| format!("-{suffix}")),
        ]
    }

    proptest! {
        /// Byte for byte what the specifiers say one by one, in parts that are apart from each other.
        #[test]
        fn parts_hold_what_was_asked_for_once(
            specifiers in prop::collection::vec(specifier(), 1..12),
            size in 0u64..100,
        ) {
            let asked = |byte: u64| specifiers.iter().any(|specifier| match specifier.split_once('-').unwrap() {
                ("", suffix) => byte + suffix.parse::<u64>().unwrap() >= size,
                (first, last) => {
                    (first.parse().unwrap()..=last.parse().unwrap_or(u64::MAX)).contains(&byte)
                }
            });
            let parts = match Ranges::parse(&format!("bytes={}", specifiers.join(",")), size) {
                Ranges::Satisfiable(parts) => parts,
                Ranges::NotSatisfiable => Vec::new(),
                Ranges::Ignored => panic!("{specifiers:?}"),
            };
            for byte in 0..size {
                let held = parts.iter().filter(|part| part.contains(&byte)).count();
                prop_assert_eq!(held, usize::from(asked(byte)), "byte {}", byte);
            }
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.start < part.end && part.end <= size);
                prop_assert!(parts[..index].iter().all(|other| part.end < other.start || other.end < part.start));
            }
        }

        #[test]
        fn a_part_is_never_empty_nor_outside(
            text in "bytes=([0-9]{0,21}-[0-9]{0,21},){0,3}[0-9]{0,21}-[0-9]{0,21}",
            size in 0u64..1000,
        ) {
            if let Ranges::Satisfiable(parts) = Ranges::parse(&text, size) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), size: u64) {
            let _ = Ranges::parse(&text, size);
        }
    }
}
