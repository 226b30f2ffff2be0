//! Refusals of `/api/v1` and their status codes. The document is `{"error", "code", "request_id"}`.

use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::names::InvalidName;
use registry_core::services::{BodyError, TokenRefusal, UploadError};
use serde_json::json;

use crate::auth::AuthFailure;
use crate::request_id::RequestId;
use crate::response::{Response, ResponseExt, json as json_response};

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A refusal with a status, a code for programs and a text for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    /// 400.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 405 where only `methods` are answered (RFC 9110, 15.5.6).
    pub fn method_not_allowed(methods: &'static str) -> Self {
        let message = "the method is not allowed here";
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        refusal.header = Some((ALLOW, HeaderValue::from_static(methods)));
        refusal
    }

    /// 403.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "the credentials do not permit this")
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        refusal.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        refusal
    }

    /// An unexpected failure: logged here, once, with its cause; the client sees only the request's id.
    pub fn internal(error: &StoreError, request: &RequestId) -> Self {
        tracing::error!(request_id = %request, kind = ?error.kind, error = error.chain(), "request failed");
        match error.kind {
            StoreErrorKind::Unavailable => {
                let message = "the registry's store is not available";
                let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
                refusal.header = Some((RETRY_AFTER, HeaderValue::from(1)));
                refusal
            }
            StoreErrorKind::Full => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", "the registry has no space left")
            }
            StoreErrorKind::Corrupt | StoreErrorKind::Other => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the registry failed")
            }
        }
    }

    /// The credentials were not accepted.
    pub fn authentication(failure: &AuthFailure, request: &RequestId) -> Self {
        match failure {
            AuthFailure::Invalid => Self::unauthorized(failure.to_string()),
            AuthFailure::Throttled(after) => {
                let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", failure.to_string());
                refusal.header = Some((RETRY_AFTER, HeaderValue::from(after.as_secs() + 1)));
                refusal
            }
            AuthFailure::Store(error) => Self::internal(error, request),
        }
    }

    /// Why an upload was refused.
    pub fn upload(error: &UploadError, request: &RequestId) -> Self {
        let message = error.to_string();
        match error {
            UploadError::VersionExists => Self::new(StatusCode::CONFLICT, "version_exists", message),
            UploadError::DigestMismatch => Self::bad_request("digest_mismatch", message),
            UploadError::SizeMismatch => Self::bad_request("size_mismatch", message),
            UploadError::TooLarge | UploadError::Body(BodyError::TooLarge) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            UploadError::Body(BodyError::TimedOut) => Self::new(StatusCode::REQUEST_TIMEOUT, "body_timed_out", message),
            UploadError::Body(_) => Self::bad_request("body_incomplete", message),
            UploadError::NameTaken => Self::new(StatusCode::CONFLICT, "name_taken", message),
            // A session of one request that ended under it: a concurrent administrator's doing. Sending again helps.
            UploadError::Unknown | UploadError::OutOfOrder(_) | UploadError::Superseded | UploadError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "interrupted", "the upload was interrupted; send it again")
            }
            UploadError::Store(error) => Self::internal(error, request),
        }
    }

    /// Why a token was not made.
    pub fn token(error: &TokenRefusal, request: &RequestId) -> Self {
        match error {
            TokenRefusal::Name | TokenRefusal::Scopes => Self::bad_request("invalid_token", error.to_string()),
            TokenRefusal::Store(error) => Self::internal(error, request),
        }
    }

    pub(crate) fn into_response(self, request: &RequestId) -> Response {
        let document = json!({ "error": self.message, "code": self.code, "request_id": request.to_string() });
        let response = json_response(self.status, &document);
        match self.header {
            Some((name, value)) => response.with(name, value),
            None => response,
        }
    }
}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        Self::bad_request("invalid_name", error.to_string())
    }
}
