//! `n`, `last` and `Link` (distribution-spec, *Listing tags*; RFC 8288).

use http::header::LINK;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{ErrorCode, OciError};
use crate::request::Request;
use crate::response::{Response, ResponseExt};

/// How many entries a page has when the client does not say.
const DEFAULT_PAGE: usize = 1_000;
/// How many it has at most; more follow by `Link`.
const LARGEST_PAGE: usize = 10_000;

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'/').remove(b':');

/// Which page a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most this many entries.
    pub limit: usize,
    /// Only entries after this one, which need not exist.
    pub last: Option<String>,
}

impl Page {
    /// Reads `n` and `last`.
    ///
    /// # Errors
    /// 400 when `n` is not a number.
    pub fn read(request: &Request) -> Result<Self, OciError> {
        let limit = match request.query_value("n").as_deref() {
            None | Some("") => DEFAULT_PAGE,
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE)
            }
            Some(_) => return Err(OciError::bad_request(ErrorCode::Unsupported, "n must be a whole number")),
        };
        let last = request.query_value("last").filter(|last| !last.is_empty()).map(|last| last.into_owned());
        Ok(Self { limit, last })
    }
}

/// The answer with a link to the page after `last`; `more` are query parameters to be kept.
pub fn with_next_page(response: Response, path: &str, limit: usize, last: &str, more: &[(&str, &str)]) -> Response {
    let mut target = format!("{path}?n={limit}&last={}", utf8_percent_encode(last, QUERY));
    for (name, value) in more {
        target.push_str(&format!("&{name}={}", utf8_percent_encode(value, QUERY)));
    }
    response.with_text(LINK, &format!("<{target}>; rel=\"next\""))
}
