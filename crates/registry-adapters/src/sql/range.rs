//! Bounds of a page, as statements take them.

use registry_core::ports::metadata::NameRange;

use super::statement::Statement;

/// Greater than every name, byte by byte.
const BEYOND_ALL: &str = "\u{10FFFF}";

/// The bounds of a list of names. A statement compares with one lower and one upper bound, so that both become the
/// bounds of an index range; whether a bound itself belongs to the range is a condition on at most one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    lower: String,
    lower_included: bool,
    upper: String,
    upper_included: bool,
}

impl Bounds {
    /// The names in `range`.
    pub(super) fn of(range: &NameRange) -> Self {
        let start = lower(&range.start, true);
        let (lower, lower_included) = match range.after.as_deref().map(|after| lower(after, false)) {
            Some(after) if after.0 >= start.0 => after,
            _ => start,
        };
        let (upper, upper_included) = upper(range.end.as_deref());
        Self { lower, lower_included, upper, upper_included }
    }

    /// Whether `name` lies inside.
    pub(super) fn contain(&self, name: &str) -> bool {
        let below = self.upper.as_str() > name || self.upper_included && self.upper == name;
        let above = self.lower.as_str() < name || self.lower_included && self.lower == name;
        above && below
    }

    /// Adds four arguments: the lower bound and whether it is included, then the upper one.
    pub(super) fn bind_to(&self, statement: Statement) -> Statement {
        statement.bind(&self.lower).bind(self.lower_included).bind(&self.upper).bind(self.upper_included)
    }
}

// No name holds a NUL, and Postgres takes no text with one. What begins with the text before it and goes on is greater
// than that text and smaller than every name beyond it.

fn lower(text: &str, included: bool) -> (String, bool) {
    match text.split_once('\0') {
        Some((before, _)) => (before.to_owned(), false),
        None => (text.to_owned(), included),
    }
}

fn upper(text: Option<&str>) -> (String, bool) {
    match text.map(|text| (text, text.split_once('\0'))) {
        None => (BEYOND_ALL.to_owned(), false),
        Some((_, Some((before, _)))) => (before.to_owned(), true),
        Some((text, None)) => (text.to_owned(), false),
    }
}

/// `after` of a page over names that has no other bound.
pub(super) fn after(text: Option<&str>) -> String {
    lower(text.unwrap_or(""), false).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(start: &str, end: Option<&str>, after: Option<&str>) -> Bounds {
        Bounds::of(&NameRange { start: start.into(), end: end.map(Into::into), after: after.map(Into::into) })
    }

    #[test]
    fn bounds_say_which_names_are_inside() {
        for (range, inside, outside) in [
            (bounds("", None, None), vec!["0", "a", "zz/z"], vec![]),
            (bounds("b", Some("d"), None), vec!["b", "b/x", "c", "czz"], vec!["a", "azz", "d", "d/x"]),
            (bounds("b", Some("b\0"), None), vec!["b"], vec!["a", "b-", "b/x", "c"]),
            (bounds("b", Some("d"), Some("c")), vec!["c-", "c/x"], vec!["b", "c", "d"]),
            (bounds("b", Some("d"), Some("b")), vec!["b-", "c"], vec!["a", "b", "d"]),
            (bounds("b", Some("d"), Some("a")), vec!["b", "c"], vec!["a", "d"]),
            (bounds("", None, Some("b\0x")), vec!["b-", "c"], vec!["a", "b"]),
            (bounds("b\0", None, None), vec!["b-", "c"], vec!["b"]),
        ] {
            for name in inside {
                assert!(range.contain(name), "{name} {range:?}");
            }
            for name in outside {
                assert!(!range.contain(name), "{name} {range:?}");
            }
        }
    }
}
