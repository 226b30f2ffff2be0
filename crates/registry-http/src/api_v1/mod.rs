//! `/api/v1`: generic artifacts, collection of garbage, access tokens.

mod artifacts;
pub mod error;
mod gc;
mod packages;
mod tokens;

use std::str::FromStr;
use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;
use registry_core::names::{InvalidName, RegistryName};
use registry_core::permission::{Action, Principal};
use registry_core::registry::{Format, Registry};
use registry_core::services::Services;
use registry_core::time::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::Authenticator;
use crate::request::Request;
use crate::response::Response;
use error::ApiError;

/// How many entries a page has when the client does not say, and at most.
const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// The `/api/v1` API.
pub struct ApiV1 {
    services: Arc<Services>,
    authenticator: Arc<Authenticator>,
}

impl ApiV1 {
    /// Over the use cases.
    pub fn new(services: Arc<Services>, authenticator: Arc<Authenticator>) -> Self {
        Self { services, authenticator }
    }

    /// Answers a request below `/api/v1`; `rest` is the path after it.
    pub async fn handle(&self, rest: &str, request: Request) -> Response {
        let id = request.id().clone();
        match self.dispatch(rest, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(&id),
        }
    }

    async fn dispatch(&self, rest: &str, mut request: Request) -> Result<Response, ApiError> {
        let method = request.method().clone();
        let segments: Vec<&str> = rest.strip_prefix('/').unwrap_or(rest).split('/').collect();
        match (segments.as_slice(), &method) {
            (["artifacts", package, version], _) => {
                request.set_route("/api/v1/artifacts/{package}/{version}");
                match method {
                    Method::POST => self.publish(&mut request, package, version).await,
                    Method::GET | Method::HEAD => self.download(&request, package, version).await,
                    Method::DELETE => self.delete(&request, package, version).await,
                    _ => Err(ApiError::method_not_allowed("POST, GET, HEAD, DELETE")),
                }
            }
            (["packages"], &Method::GET) => {
                request.set_route("/api/v1/packages");
                self.packages(&request).await
            }
            (["packages", package], &Method::GET) => {
                request.set_route("/api/v1/packages/{package}");
                self.versions(&request, package).await
            }
            (["gc"], &Method::POST) => {
                request.set_route("/api/v1/gc");
                self.collect(&request).await
            }
            (["tokens"], &Method::GET) => {
                request.set_route("/api/v1/tokens");
                self.list_tokens(&request).await
            }
            (["tokens"], &Method::POST) => {
                request.set_route("/api/v1/tokens");
                self.create_token(&mut request).await
            }
            (["tokens", id], &Method::DELETE) => {
                request.set_route("/api/v1/tokens/{id}");
                self.revoke_token(&request, id).await
            }
            (["packages"] | ["packages", _], _) => Err(ApiError::method_not_allowed("GET")),
            (["gc"], _) => Err(ApiError::method_not_allowed("POST")),
            (["tokens"], _) => Err(ApiError::method_not_allowed("GET, POST")),
            (["tokens", _], _) => Err(ApiError::method_not_allowed("DELETE")),
            _ => Err(ApiError::not_found("there is no such endpoint")),
        }
    }

    async fn principal(&self, request: &Request) -> Result<Arc<Principal>, ApiError> {
        let principal = self.authenticator.principal(request, false).await;
        let authenticated = principal.map_err(|failure| ApiError::authentication(&failure, request.id()))?;
        Ok(authenticated.principal)
    }

    async fn administrator(&self, request: &Request) -> Result<Arc<Principal>, ApiError> {
        let principal = self.principal(request).await?;
        if principal.is_administrator() { Ok(principal) } else { Err(refuse(&principal)) }
    }

    /// The generic registry, for one who may do `action` on `name` in it.
    async fn permitted(&self, request: &Request, action: Action, name: &str) -> Result<Arc<Registry>, ApiError> {
        let principal = self.principal(request).await?;
        let registry = self.registry(request).await?;
        if principal.may(action, &registry.name, name) { Ok(registry) } else { Err(refuse(&principal)) }
    }

    async fn registry(&self, request: &Request) -> Result<Arc<Registry>, ApiError> {
        let found = self.services.find_registry(&RegistryName::default_generic(), Format::Generic).await;
        let found = found.map_err(|error| ApiError::internal(&error, request.id()))?;
        found.ok_or_else(|| ApiError::not_found("this server has no generic registry"))
    }
}

fn refuse(principal: &Principal) -> ApiError {
    if principal.anonymous { ApiError::unauthorized("authentication required") } else { ApiError::forbidden() }
}

/// A name from a path segment: what is percent-encoded is decoded once and then has to be a name, so that no encoded
/// slash, dot or NUL gets further.
fn read_segment<N: FromStr<Err = InvalidName>>(segment: &str) -> Result<N, ApiError> {
    let decoded = percent_decode_str(segment).decode_utf8();
    let decoded = decoded.map_err(|_| ApiError::bad_request("invalid_name", "a name in the path is not UTF-8"))?;
    Ok(decoded.parse::<N>()?)
}

fn read_limit(request: &Request) -> Result<usize, ApiError> {
    match request.query_value("limit").as_deref() {
        None | Some("") => Ok(DEFAULT_PAGE),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(text.parse().unwrap_or(LARGEST_PAGE).clamp(1, LARGEST_PAGE))
        }
        Some(_) => Err(ApiError::bad_request("invalid_limit", "limit must be a whole number")),
    }
}

/// RFC 3339, UTC, with microseconds.
fn rfc3339(time: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.as_micros()) * 1000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
