//! Conditional and range requests over something immutable (RFC 9110, sections 13 and 14).

use std::ops::Range;
use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use registry_core::digest::Digest;
use registry_core::ports::blob_store::BlobReader;
use registry_core::precondition::{Expected, Precondition};
use registry_core::time::Timestamp;

use crate::body::ResponseBody;
use crate::byteranges;
use crate::ranges::Ranges;
use crate::response::{Response, ResponseExt, empty};

/// Something immutable that is read by GET and HEAD.
pub struct Representation<'a> {
    /// The digest of its bytes.
    pub digest: &'a Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Its media type.
    pub content_type: &'a str,
}

/// What a request may have of a [`Representation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// Several parts of it: none empty, none beyond the end, and no two that overlap or touch.
    Parts(Vec<Range<u64>>),
    /// Nothing: the client has it.
    NotModified,
    /// Nothing: it is not what the client wants.
    PreconditionFailed,
    /// Nothing: it has no such bytes.
    NotSatisfiable,
}

impl Selected {
    /// Whether the client gets bytes of it.
    pub fn has_content(&self) -> bool {
        matches!(self, Selected::Whole | Selected::Part(_) | Selected::Parts(_))
    }
}

/// A header's date, in seconds since the Unix epoch; one that cannot be read is none (section 13.1.3).
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Whether the client has the current representation by date; only where it sent no entity tag.
fn unmodified_since(headers: &HeaderMap, last_modified: Timestamp) -> bool {
    !headers.contains_key(IF_NONE_MATCH)
        && date(headers, &IF_MODIFIED_SINCE).is_some_and(|since| last_modified.as_seconds() <= since)
}

/// `If-Match`, `If-None-Match` and `If-Unmodified-Since` of a request (sections 13.1.1, 13.1.2 and 13.1.4). A tag that
/// is none of ours can match nothing; a weak one matches only where weak comparison is asked for.
pub fn precondition(headers: &HeaderMap) -> Precondition {
    let expected = |name: &HeaderName| {
        let mut digests = Vec::new();
        let mut present = false;
        for value in headers.get_all(name) {
            present = true;
            for tag in elements(value.as_bytes()) {
                if tag == b"*" {
                    return Some(Expected::Anything);
                }
                let tag = tag.strip_prefix(b"W/").filter(|_| *name == IF_NONE_MATCH).unwrap_or(tag);
                let digest = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
                let digest = digest.and_then(|digest| std::str::from_utf8(digest).ok());
                digests.extend(digest.and_then(|digest| digest.parse().ok()));
            }
        }
        present.then_some(Expected::OneOf(digests))
    };
    Precondition {
        if_match: expected(&IF_MATCH),
        if_none_match: expected(&IF_NONE_MATCH),
        unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
    }
}

/// What stands between the commas of a list. Those inside of an entity tag, which may hold any visible character and
/// bytes beyond ASCII (section 8.8.3), are its own.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let separates = move |byte: &u8| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    };
    list.split(separates).map(<[u8]>::trim_ascii)
}

impl Representation<'_> {
    /// Its strong entity tag, with its quotes.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.digest)
    }

    /// Evaluates the preconditions and the range of a GET or HEAD of what has come at a known time (section 13.2.2).
    pub fn select_dated(&self, method: &Method, headers: &HeaderMap, last_modified: Timestamp) -> Selected {
        let precondition = precondition(headers);
        if !precondition.date_holds(last_modified) {
            return Selected::PreconditionFailed;
        }
        match self.select_where(&precondition, method, headers) {
            Selected::PreconditionFailed => Selected::PreconditionFailed,
            _ if unmodified_since(headers, last_modified) => Selected::NotModified,
            selected => selected,
        }
    }

    /// Evaluates the preconditions and the range of a GET or HEAD.
    pub fn select(&self, method: &Method, headers: &HeaderMap) -> Selected {
        self.select_where(&precondition(headers), method, headers)
    }

    fn select_where(&self, precondition: &Precondition, method: &Method, headers: &HeaderMap) -> Selected {
        if precondition.if_match.as_ref().is_some_and(|expected| !expected.is_met_by(Some(self.digest))) {
            return Selected::PreconditionFailed;
        }
        if precondition.if_none_match.as_ref().is_some_and(|expected| expected.is_met_by(Some(self.digest))) {
            return Selected::NotModified;
        }
        let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
        let Some(range) = range.filter(|_| method == Method::GET) else { return Selected::Whole };
        // If-Range with another tag, or with a date, which we do not compare: the client gets all of it.
        if headers.get(IF_RANGE).is_some_and(|value| value.as_bytes() != self.etag().as_bytes()) {
            return Selected::Whole;
        }
        match Ranges::parse(range, self.size) {
            Ranges::Ignored => Selected::Whole,
            Ranges::NotSatisfiable => Selected::NotSatisfiable,
            Ranges::Satisfiable(mut parts) if parts.len() == 1 => Selected::Part(parts.remove(0)),
            Ranges::Satisfiable(parts) => Selected::Parts(parts),
        }
    }

    /// The answer with what was selected of it, read from `reader`; without one, the head of that answer.
    pub fn answer(&self, selected: &Selected, reader: Option<&Arc<dyn BlobReader>>) -> Response {
        let status = match selected {
            Selected::Whole => StatusCode::OK,
            Selected::Part(_) | Selected::Parts(_) => StatusCode::PARTIAL_CONTENT,
            Selected::NotModified => StatusCode::NOT_MODIFIED,
            Selected::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Selected::NotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        };
        let response =
            empty(status).with_text(ETAG, &self.etag()).with(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let size = self.size;
        let (response, body) = match selected {
            Selected::Whole => (
                response.with_text(CONTENT_TYPE, self.content_type),
                reader.map(|reader| ResponseBody::blob(Arc::clone(reader), 0..size)),
            ),
            Selected::Part(part) => (
                response
                    .with_text(CONTENT_TYPE, self.content_type)
                    .with_text(CONTENT_RANGE, &format!("bytes {}-{}/{size}", part.start, part.end - 1)),
                reader.map(|reader| ResponseBody::blob(Arc::clone(reader), part.clone())),
            ),
            Selected::Parts(parts) => (
                response.with(CONTENT_TYPE, byteranges::content_type(self.digest)),
                reader.map(|reader| byteranges::body(reader, self.digest, self.content_type, parts)),
            ),
            Selected::NotSatisfiable => {
                return response.with_text(CONTENT_RANGE, &format!("bytes */{size}"));
            }
            Selected::NotModified | Selected::PreconditionFailed => return response,
        };
        match body {
            Some(body) => response.map(|_| body),
            // Ranges are for GET alone, so that this is the head of the whole.
            None => response.with(CONTENT_LENGTH, HeaderValue::from(size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a request with these headers may have of something whose entity tag is written `"e"` in them.
    fn select(method: &Method, header: &[(http::HeaderName, &str)], size: u64) -> Selected {
        let digest = Digest::sha256(b"e");
        let something = Representation { digest: &digest, size, content_type: "text/plain" };
        let value = |text: &str| text.replace("\"e\"", &something.etag()).parse().unwrap();
        something.select(method, &header.iter().map(|(name, text)| (name.clone(), value(text))).collect())
    }

    fn selected(header: &[(http::HeaderName, &str)], size: u64) -> Selected {
        select(&Method::GET, header, size)
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
        assert_eq!(selected(&[(RANGE, "bytes=1-2,4-4")], 10), Selected::Parts(vec![1..3, 4..5]));
        assert_eq!(selected(&[(RANGE, "bytes=1-2,4-4"), (IF_RANGE, "\"x\"")], 10), Selected::Whole);
        assert_eq!(selected(&[(RANGE, "bytes=1-2,2-4")], 10), Selected::Part(1..5));
        assert_eq!(selected(&[(RANGE, "bytes=10-,11-")], 10), Selected::NotSatisfiable);
        assert_eq!(selected(&[(RANGE, "bytes=1-2,x")], 10), Selected::Whole);
        assert_eq!(select(&Method::HEAD, &[(RANGE, "bytes=1-2")], 10), Selected::Whole);
    }

    #[test]
    fn dates() {
        let headers: HeaderMap =
            [(IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:01:40 GMT".parse().unwrap())].into_iter().collect();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000 + 999_999);
        assert!(unmodified_since(&headers, at(100)));
        assert!(!unmodified_since(&headers, at(101)));
        assert!(!unmodified_since(&HeaderMap::new(), at(0)));
    }

    /// An entity tag as it is sent, and the digest that it names if it is one of ours.
    fn entity_tag() -> impl Strategy<Value = (Vec<u8>, Option<Digest>)> {
        // Any visible character but the quote, commas among them, and what lies beyond ASCII.
        let character = prop_oneof![Just(b','), Just(b'*'), Just(b'!'), 0x23..=0x7eu8, 0x80..=0xffu8];
        let other = prop::collection::vec(character, 0..8).prop_map(|opaque| (opaque, None));
        let ours = any::<u8>().prop_map(|seed| {
            let digest = Digest::sha256(&[seed]);
            (digest.to_string().into_bytes(), Some(digest))
        });
        prop_oneof![other, ours].prop_map(|(opaque, digest)| ([b"\"", &opaque[..], b"\""].concat(), digest))
    }

    proptest! {
        /// Whatever other tags stand beside ours: strong ones count for both, weak ones where weak comparison is asked for.
        #[test]
        fn a_list_names_the_digests_that_are_in_it(
            tags in prop::collection::vec((entity_tag(), any::<bool>(), any::<bool>(), "[ \t]{0,2},[ \t]{0,2}"), 1..6),
        ) {
            let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
            for ((tag, _), weak, begins_line, separator) in &tags {
                if *begins_line {
                    lines.push(Vec::new());
                }
                let line = lines.last_mut().unwrap();
                if !line.is_empty() {
                    line.extend_from_slice(separator.as_bytes());
                }
                line.extend_from_slice(if *weak { b"W/" } else { b"" });
                line.extend_from_slice(tag);
            }
            let headers = |name: HeaderName| -> HeaderMap {
                lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line).unwrap())).collect()
            };
            let named = |weak_too: bool| {
                let counting = tags.iter().filter(|(_, weak, ..)| weak_too || !weak);
                Some(Expected::OneOf(counting.filter_map(|((_, digest), ..)| digest.clone()).collect()))
            };
            let if_match = Precondition { if_match: named(false), ..Precondition::NONE };
            prop_assert_eq!(precondition(&headers(IF_MATCH)), if_match);
            let if_none_match = Precondition { if_none_match: named(true), ..Precondition::NONE };
            prop_assert_eq!(precondition(&headers(IF_NONE_MATCH)), if_none_match);
        }

        /// As `Last-Modified` writes it, in whole seconds.
        #[test]
        fn any_date_is_met_until_it_has_passed(seconds in 0..253_402_300_799i64, micros in 0..1_000_000i64) {
            let since = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.unsigned_abs());
            let value: HeaderValue = httpdate::fmt_http_date(since).parse().unwrap();
            let headers: HeaderMap = [(IF_MODIFIED_SINCE, value.clone()), (IF_UNMODIFIED_SINCE, value)].into_iter().collect();
            let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000 + micros);
            prop_assert!(unmodified_since(&headers, at(seconds)));
            prop_assert!(!unmodified_since(&headers, at(seconds + 1)));
            prop_assert_eq!(precondition(&headers).unmodified_since, Some(seconds));
        }

        #[test]
        fn other_text_is_no_date(text in "[A-Za-z0-9,: -]{0,32}|[ -~]{0,32}") {
            let headers: HeaderMap = [(IF_MODIFIED_SINCE, text.parse().unwrap())].into_iter().collect();
            let read = httpdate::parse_http_date(&text);
            prop_assume!(read.is_err());
            prop_assert!(!unmodified_since(&headers, Timestamp::from_micros(0)));
        }
    }
}
