//! Refusals of `/v2` and their status codes (OCI distribution-spec, *Error codes*).

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::services::{BodyError, ManifestRefusal, UploadError};
use serde_json::{Value, json};

use crate::auth::AuthFailure;
use crate::request_id::RequestId;
use crate::response::{Response, ResponseExt, json as json_response};

/// One of the specification's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
}

impl ErrorCode {
    /// The code as it is sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlobUnknown => "BLOB_UNKNOWN",
            ErrorCode::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            ErrorCode::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            ErrorCode::DigestInvalid => "DIGEST_INVALID",
            ErrorCode::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            ErrorCode::ManifestInvalid => "MANIFEST_INVALID",
            ErrorCode::ManifestUnknown => "MANIFEST_UNKNOWN",
            ErrorCode::NameInvalid => "NAME_INVALID",
            ErrorCode::NameUnknown => "NAME_UNKNOWN",
            ErrorCode::SizeInvalid => "SIZE_INVALID",
            ErrorCode::Unauthorized => "UNAUTHORIZED",
            ErrorCode::Denied => "DENIED",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::TooManyRequests => "TOOMANYREQUESTS",
        }
    }
}

/// What a stranger is told. Clients show it, but leave it out when it is just the specification's own words.
pub(crate) const LOG_IN: &str =
    "authentication required: log in with any user name and an access token as the password";

/// A refusal: a status and a document `{"errors": […]}`.
#[derive(Debug)]
pub struct OciError {
    status: StatusCode,
    errors: Vec<(ErrorCode, String, Value)>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
}

impl OciError {
    /// A refusal with one error.
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, errors: vec![(code, message.into(), Value::Null)], headers: Vec::new() }
    }

    /// The same with `detail` on its errors.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        for error in &mut self.errors {
            error.2 = detail.clone();
        }
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 400 with a text for the client.
    pub fn bad_request(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub fn not_found(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 405 where only `methods` are answered (RFC 9110, 15.5.6).
    pub fn method_not_allowed(methods: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "the method is not allowed here")
            .header(ALLOW, HeaderValue::from_static(methods))
    }

    /// 412: what there is differs from what the request expects. The specification has no code of its own for it.
    pub fn precondition_failed() -> Self {
        let message = "what is there is not as the request expects";
        Self::new(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied, message)
    }

    /// An unexpected failure: logged here, once, with its cause; the client sees only the request's id.
    pub fn internal(error: &StoreError, request: &RequestId) -> Self {
        tracing::error!(request_id = %request, kind = ?error.kind, error = error.chain(), "request failed");
        let (status, code, message) = match error.kind {
            StoreErrorKind::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::TooManyRequests, "the registry's store is not available")
            }
            StoreErrorKind::Full => {
                (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Denied, "the registry has no space left")
            }
            StoreErrorKind::Corrupt | StoreErrorKind::Other => {
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unsupported, "the registry failed")
            }
        };
        let refusal = Self::new(status, code, format!("{message} (request {request})"));
        match error.kind {
            StoreErrorKind::Unavailable => refusal.header(RETRY_AFTER, HeaderValue::from(1)),
            _ => refusal,
        }
    }

    /// The credentials were not accepted.
    pub fn authentication(failure: AuthFailure, challenge: &str, request: &RequestId) -> Self {
        match failure {
            AuthFailure::Invalid => Self::unauthorized("the credentials are not valid", challenge),
            AuthFailure::Throttled(after) => Self::throttled(AuthFailure::Throttled(after).to_string(), after),
            AuthFailure::Store(error) => Self::internal(&error, request),
        }
    }

    /// 401 with a challenge.
    pub fn unauthorized(message: &str, challenge: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
            .header(WWW_AUTHENTICATE, crate::response::header_text(challenge))
    }

    fn throttled(message: String, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message)
            .header(RETRY_AFTER, HeaderValue::from(after.as_secs() + 1))
    }

    /// Why an upload's request was refused; `request` names it where the reason is for the log.
    pub fn upload(error: &UploadError, request: &RequestId) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Unknown => Self::not_found(ErrorCode::BlobUploadUnknown, message),
            UploadError::OutOfOrder(_) | UploadError::Superseded | UploadError::Busy => {
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message)
            }
            UploadError::DigestMismatch => Self::bad_request(ErrorCode::DigestInvalid, message),
            UploadError::SizeMismatch => Self::bad_request(ErrorCode::SizeInvalid, message),
            UploadError::TooLarge | UploadError::Body(BodyError::TooLarge) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message)
            }
            UploadError::Body(BodyError::TimedOut) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, message)
            }
            UploadError::Body(_) => Self::bad_request(ErrorCode::BlobUploadInvalid, message),
            UploadError::NameTaken => Self::new(StatusCode::CONFLICT, ErrorCode::NameInvalid, message),
            UploadError::VersionExists => Self::new(StatusCode::CONFLICT, ErrorCode::Denied, message),
            UploadError::Store(error) => Self::internal(error, request),
        }
    }

    /// Why a manifest was refused.
    pub fn manifest(error: &ManifestRefusal, request: &RequestId) -> Self {
        match error {
            ManifestRefusal::Invalid(invalid) => Self::bad_request(ErrorCode::ManifestInvalid, invalid.to_string()),
            ManifestRefusal::DigestMismatch => Self::bad_request(ErrorCode::DigestInvalid, error.to_string()),
            ManifestRefusal::Missing(missing) => {
                let errors = missing.iter().map(|digest| {
                    let message = format!("the repository does not hold {digest}, which the manifest names");
                    (ErrorCode::ManifestBlobUnknown, message, json!({ "digest": digest.as_str() }))
                });
                Self { status: StatusCode::NOT_FOUND, errors: errors.take(100).collect(), headers: Vec::new() }
            }
            ManifestRefusal::NameTaken => Self::new(StatusCode::CONFLICT, ErrorCode::NameInvalid, error.to_string()),
            ManifestRefusal::PreconditionFailed => Self::precondition_failed(),
            ManifestRefusal::Store(error) => Self::internal(error, request),
        }
    }
}

impl From<OciError> for Response {
    fn from(error: OciError) -> Response {
        let errors: Vec<Value> = error
            .errors
            .iter()
            .map(|(code, message, detail)| json!({ "code": code.as_str(), "message": message, "detail": detail }))
            .collect();
        let mut response = json_response(error.status, &json!({ "errors": errors }));
        for (name, value) in error.headers {
            response = response.with(name, value);
        }
        response
    }
}
