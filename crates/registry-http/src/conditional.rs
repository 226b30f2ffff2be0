//! Conditional and range requests over something immutable (RFC 9110, sections 13 and 14).

use std::ops::Range;

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::response::{Response, ResponseExt, empty};

/// What a request may have of something with `size` bytes whose strong entity tag is `etag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// Nothing: the client has it.
    NotModified,
    /// Nothing: it is not what the client wants.
    PreconditionFailed,
    /// Nothing: it has no such bytes.
    NotSatisfiable,
}

/// Evaluates the preconditions and the range of a GET or HEAD. `etag` is with its quotes.
pub fn select(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Selected {
    let lists = |name: &HeaderName| {
        let mut present = false;
        let mut matches = false;
        for value in headers.get_all(name) {
            present = true;
            let value = value.to_str().unwrap_or_default();
            matches |= value.split(',').map(str::trim).any(|tag| {
                tag == "*" || tag == etag || (*name == IF_NONE_MATCH && tag.strip_prefix("W/") == Some(etag))
            });
        }
        present.then_some(matches)
    };
    if lists(&IF_MATCH) == Some(false) {
        return Selected::PreconditionFailed;
    }
    if lists(&IF_NONE_MATCH) == Some(true) {
        return Selected::NotModified;
    }
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let Some(range) = range.filter(|_| method == Method::GET) else { return Selected::Whole };
    // If-Range with another tag, or with a date, which we do not compare: the client gets all of it.
    if headers.get(IF_RANGE).is_some_and(|value| value.as_bytes() != etag.as_bytes()) {
        return Selected::Whole;
    }
    parse_range(range, size)
}

/// Whether the client has the current representation by date; only where it sent no entity tag.
pub fn unmodified_since(headers: &HeaderMap, last_modified_seconds: u64) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        return false;
    }
    let date = headers.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let since = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
    since.is_some_and(|since| last_modified_seconds <= since.as_secs())
}

fn parse_range(text: &str, size: u64) -> Selected {
    let Some(specifier) = text.strip_prefix("bytes=").map(str::trim) else { return Selected::Whole };
    // Several ranges may be answered with the whole (section 14.2); no client of ours asks for them.
    let Some((first, last)) = specifier.split_once('-').filter(|_| !specifier.contains(',')) else {
        return Selected::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit is simply beyond every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Selected::Whole,
            Some(0) => Selected::NotSatisfiable,
            Some(_) if size == 0 => Selected::NotSatisfiable,
            Some(suffix) => Selected::Part(size.saturating_sub(suffix)..size),
        },
        (first, "") => match number(first) {
            None => Selected::Whole,
            Some(first) if first < size => Selected::Part(first..size),
            Some(_) => Selected::NotSatisfiable,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && first < size => {
                Selected::Part(first..last.saturating_add(1).min(size))
            }
            (Some(_), Some(_)) => Selected::NotSatisfiable,
            _ => Selected::Whole,
        },
    }
}

/// The head of the answer for a selection, and the bytes that its body must have (none for HEAD and refusals).
pub fn head_for(selected: &Selected, method: &Method, etag: &str, size: u64) -> (Response, Option<Range<u64>>) {
    let status = match selected {
        Selected::Whole => StatusCode::OK,
        Selected::Part(_) => StatusCode::PARTIAL_CONTENT,
        Selected::NotModified => StatusCode::NOT_MODIFIED,
        Selected::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Selected::NotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
    };
    let response = empty(status).with_text(ETAG, etag).with(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match selected {
        Selected::Whole if method == Method::HEAD => (response.with(CONTENT_LENGTH, HeaderValue::from(size)), None),
        Selected::Whole => (response, Some(0..size)),
        Selected::Part(part) => {
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            (response.with_text(CONTENT_RANGE, &range), Some(part.clone()))
        }
        Selected::NotSatisfiable => (response.with_text(CONTENT_RANGE, &format!("bytes */{size}")), None),
        Selected::NotModified | Selected::PreconditionFailed => (response, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selected(header: &[(http::HeaderName, &str)], size: u64) -> Selected {
        let headers = header.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        select(&Method::GET, &headers, "\"e\"", size)
    }

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-0", Selected::Part(0..1)),
            ("bytes=0-99", Selected::Part(0..10)),
            ("bytes=3-5", Selected::Part(3..6)),
            ("bytes=9-", Selected::Part(9..10)),
            ("bytes=-3", Selected::Part(7..10)),
            ("bytes=-99", Selected::Part(0..10)),
            ("bytes=10-", Selected::NotSatisfiable),
            ("bytes=10-12", Selected::NotSatisfiable),
            ("bytes=500-0", Selected::NotSatisfiable),
            ("bytes=-0", Selected::NotSatisfiable),
            ("bytes=99999999999999999999-", Selected::NotSatisfiable),
            ("bytes=0-99999999999999999999", Selected::Part(0..10)),
            ("bytes=1-2,4-5", Selected::Whole),
            ("bytes=x-y", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("lines=1-2", Selected::Whole),
            ("bytes=", Selected::Whole),
            ("bytes=-", Selected::Whole),
        ] {
            assert_eq!(selected(&[(RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(selected(&[(RANGE, "bytes=-5")], 0), Selected::NotSatisfiable);
        assert_eq!(selected(&[(RANGE, "bytes=0-")], 0), Selected::NotSatisfiable);
    }

    #[test]
    fn preconditions() {
        for (name, value, expected) in [
            (IF_NONE_MATCH, "\"e\"", Selected::NotModified),
            (IF_NONE_MATCH, "\"x\", W/\"e\"", Selected::NotModified),
            (IF_NONE_MATCH, "*", Selected::NotModified),
            (IF_NONE_MATCH, "\"x\"", Selected::Whole),
            (IF_MATCH, "\"x\"", Selected::PreconditionFailed),
            (IF_MATCH, "\"x\", \"e\"", Selected::Whole),
            (IF_MATCH, "W/\"e\"", Selected::PreconditionFailed),
        ] {
            assert_eq!(selected(&[(name.clone(), value)], 10), expected, "{name} {value}");
        }
        assert_eq!(selected(&[(RANGE, "bytes=1-2"), (IF_RANGE, "\"e\"")], 10), Selected::Part(1..3));
        assert_eq!(selected(&[(RANGE, "bytes=1-2"), (IF_RANGE, "\"x\"")], 10), Selected::Whole);
        let headers = [(RANGE, "bytes=1-2".parse().unwrap())].into_iter().collect();
        assert_eq!(select(&Method::HEAD, &headers, "\"e\"", 10), Selected::Whole);
    }

    #[test]
    fn dates() {
        let headers: HeaderMap =
            [(IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:01:40 GMT".parse().unwrap())].into_iter().collect();
        assert!(unmodified_since(&headers, 100));
        assert!(!unmodified_since(&headers, 101));
        assert!(!unmodified_since(&HeaderMap::new(), 0));
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_nor_outside(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in 0u64..1000) {
            if let Selected::Part(part) = parse_range(&text, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), size: u64) {
            let _ = parse_range(&text, size);
        }
    }
}
