//! Answers, and short ways to make the usual ones.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, StatusCode};
use serde::Serialize;

use crate::body::ResponseBody;

/// An answer.
pub type Response = http::Response<ResponseBody>;

/// An answer with a status and nothing else.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// An answer whose body is `bytes`.
pub fn bytes(status: StatusCode, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(ResponseBody::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// An answer in plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    bytes(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let document = serde_json::to_vec(value).expect("documents have text keys and no failing serializer");
    bytes(status, HeaderValue::from_static("application/json"), document)
}

/// The answer to a HEAD whose GET would carry `content_length` bytes; nothing is opened or read for it.
pub fn head(status: StatusCode, content_length: u64) -> Response {
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(content_length));
    response
}

/// Sets headers by chaining.
pub trait ResponseExt: Sized {
    /// Sets `name`, replacing what was there.
    #[must_use]
    fn with(self, name: HeaderName, value: HeaderValue) -> Self;

    /// Sets `name` to `text`; characters that no header may carry (controls, and what is not ASCII) become `?`, so
    /// that no value taken from a request can split or break an answer.
    #[must_use]
    fn with_text(self, name: HeaderName, text: &str) -> Self;
}

impl ResponseExt for Response {
    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers_mut().insert(name, value);
        self
    }

    fn with_text(self, name: HeaderName, text: &str) -> Self {
        self.with(name, header_text(text))
    }
}

/// `text` as a header's value; characters that no header may carry become `?`.
pub fn header_text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let safe: String = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        HeaderValue::from_str(&safe).expect("printable ASCII is a valid header value")
    })
}
