//! `/v2`: the OCI distribution API (specification 1.1), Docker's media types and token authentication.

mod blobs;
mod catalog;
pub mod error;
mod manifests;
mod paging;
mod referrers;
mod route;
mod tags;
mod uploads;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use registry_core::digest::Digest;
use registry_core::names::RepositoryName;
use registry_core::permission::{Action, Principal};
use registry_core::services::{ResolvedRepository, Services};

use crate::auth::registry_token::Access;
use crate::auth::token_endpoint::repository_scope;
use crate::auth::{Authenticated, Authenticator};
use crate::request::Request;
use crate::response::{Response, ResponseExt, bytes};
use error::{ErrorCode, LOG_IN, OciError};
use route::Route;

/// `Docker-Content-Digest`
pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// What a token is asked for to list repositories.
const CATALOG_SCOPE: &str = "registry:catalog:*";
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The `/v2` API.
pub struct V2 {
    services: Arc<Services>,
    authenticator: Arc<Authenticator>,
}

/// What an endpoint has before it begins: who asks, and for which repository.
struct Scoped {
    principal: Arc<Principal>,
    /// What a registry token was asked for; `None` for other credentials.
    asked: Option<Vec<Access>>,
    resolved: ResolvedRepository,
    /// The name as the client wrote it, for answers.
    name: RepositoryName,
}

impl V2 {
    /// Over the use cases.
    pub fn new(services: Arc<Services>, authenticator: Arc<Authenticator>) -> Self {
        Self { services, authenticator }
    }

    /// Answers a request below `/v2`; `rest` is the path after it.
    pub async fn handle(&self, rest: &str, request: Request) -> Response {
        let response = match self.dispatch(rest, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into(),
        };
        response.with(API_VERSION, HeaderValue::from_static("registry/2.0"))
    }

    async fn dispatch(&self, rest: &str, mut request: Request) -> Result<Response, OciError> {
        let method = request.method().clone();
        let unknown = || OciError::not_found(ErrorCode::Unsupported, "there is no such endpoint");
        let route = Route::read(rest).ok_or_else(unknown)?;
        let methods = route.methods();
        let not_allowed = || OciError::method_not_allowed(methods);
        let head_or_get = method == Method::GET || method == Method::HEAD;
        match route {
            Route::Base if head_or_get => {
                request.set_route("/v2/");
                self.base(&request).await
            }
            Route::Catalog if method == Method::GET => {
                request.set_route("/v2/_catalog");
                self.catalog(&request).await
            }
            Route::AllTags if method == Method::GET => {
                request.set_route("/v2/tags/list");
                self.all_tags(&request).await
            }
            Route::Tags(name) if method == Method::GET => {
                request.set_route("/v2/<name>/tags/list");
                let scoped = self.scope(&request, name, Action::Pull).await?;
                self.tags(&request, &scoped).await
            }
            Route::Manifest(name, reference) => {
                request.set_route("/v2/<name>/manifests/<reference>");
                match method {
                    Method::GET | Method::HEAD => {
                        let scoped = self.scope(&request, name, Action::Pull).await?;
                        self.read_manifest(&request, &scoped, &reference).await
                    }
                    Method::PUT => {
                        let scoped = self.scope(&request, name, Action::Push).await?;
                        self.put_manifest(&mut request, &scoped, &reference).await
                    }
                    Method::DELETE => {
                        let scoped = self.scope(&request, name, Action::Delete).await?;
                        self.delete_manifest(&request, &scoped, &reference).await
                    }
                    _ => Err(not_allowed()),
                }
            }
            Route::Blob(name, digest) => {
                request.set_route("/v2/<name>/blobs/<digest>");
                match method {
                    Method::GET | Method::HEAD => {
                        let scoped = self.scope(&request, name, Action::Pull).await?;
                        self.read_blob(&request, &scoped, &digest).await
                    }
                    Method::DELETE => {
                        let scoped = self.scope(&request, name, Action::Delete).await?;
                        self.delete_blob(&request, &scoped, &digest).await
                    }
                    _ => Err(not_allowed()),
                }
            }
            Route::Uploads(name) if method == Method::POST => {
                request.set_route("/v2/<name>/blobs/uploads/");
                let scoped = self.scope(&request, name, Action::Push).await?;
                self.start_upload(&mut request, &scoped).await
            }
            Route::Upload(name, id) => {
                request.set_route("/v2/<name>/blobs/uploads/<id>");
                let scoped = self.scope(&request, name, Action::Push).await?;
                match method {
                    Method::GET | Method::HEAD => self.upload_status(&request, &scoped, id).await,
                    Method::PATCH => self.write_upload(&mut request, &scoped, id).await,
                    Method::PUT => self.finish_upload(&mut request, &scoped, id).await,
                    Method::DELETE => self.cancel_upload(&request, &scoped, id).await,
                    _ => Err(not_allowed()),
                }
            }
            Route::Referrers(name, digest) if method == Method::GET => {
                request.set_route("/v2/<name>/referrers/<digest>");
                let scoped = self.scope(&request, name, Action::Pull).await?;
                self.referrers(&request, &scoped, &digest).await
            }
            _ => Err(not_allowed()),
        }
    }

    /// `/v2/` itself always challenges a stranger: docker logs in and fetches tokens only if it does.
    async fn base(&self, request: &Request) -> Result<Response, OciError> {
        let challenge = self.challenge(request, None, None);
        let principal = self.principal(request, &challenge).await?;
        let bearer = request.headers().contains_key(http::header::AUTHORIZATION);
        if principal.anonymous && !bearer {
            return Err(OciError::unauthorized(LOG_IN, &challenge));
        }
        Ok(bytes(StatusCode::OK, HeaderValue::from_static("application/json"), "{}"))
    }

    async fn principal(&self, request: &Request, challenge: &str) -> Result<Arc<Principal>, OciError> {
        Ok(self.authenticated(request, challenge).await?.principal)
    }

    async fn authenticated(&self, request: &Request, challenge: &str) -> Result<Authenticated, OciError> {
        let authenticated = self.authenticator.principal(request, true).await;
        authenticated.map_err(|failure| OciError::authentication(failure, challenge, request.id()))
    }

    /// Who asks for a list over repositories, with what may be seen in it.
    async fn lister(&self, request: &Request) -> Result<Arc<Principal>, OciError> {
        let challenge = self.challenge(request, Some(CATALOG_SCOPE), None);
        let Authenticated { principal, lister, asked } = self.authenticated(request, &challenge).await?;
        let unasked =
            |asked: &[Access]| !asked.iter().any(|access| access.kind == "registry" && access.name == "catalog");
        if asked.as_deref().is_some_and(unasked) {
            let challenge = self.challenge(request, Some(CATALOG_SCOPE), Some("insufficient_scope"));
            return Err(OciError::unauthorized("the token was not asked for lists", &challenge));
        }
        if asked.is_none() && principal.scopes.is_empty() {
            return Err(OciError::unauthorized(LOG_IN, &challenge));
        }
        Ok(lister)
    }

    /// The challenge of RFC 6750 and the Docker token specification: where to get a token, and for what.
    fn challenge(&self, request: &Request, scope: Option<&str>, error: Option<&str>) -> String {
        let origin = request.origin();
        let mut challenge =
            format!("Bearer realm=\"{}\",service=\"{}\"", origin.url("/auth/token"), origin.authority());
        if let Some(scope) = scope {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        if let Some(error) = error {
            challenge.push_str(&format!(",error=\"{error}\""));
        }
        challenge
    }

    /// Reads the repository's name, finds out who asks, and whether they may.
    async fn scope(&self, request: &Request, name: &str, action: Action) -> Result<Scoped, OciError> {
        let invalid = |message: String| OciError::bad_request(ErrorCode::NameInvalid, message);
        let name: RepositoryName =
            name.parse().map_err(|error: registry_core::names::InvalidName| invalid(error.to_string()))?;
        let actions = match action {
            Action::Push => "pull,push",
            other => other.as_str(),
        };
        let scope = repository_scope(&name, actions);
        let challenge = self.challenge(request, Some(&scope), None);
        let Authenticated { principal, asked, .. } = self.authenticated(request, &challenge).await?;
        let resolved = self.services.resolve_repository(&name).await;
        let resolved = resolved
            .map_err(|error| OciError::internal(&error, request.id()))?
            .ok_or_else(|| invalid("the name after the registry's is not a repository's".to_owned()))?;
        if !principal.may(action, &resolved.registry.name, resolved.repository.name.as_str()) {
            let (message, error) = if principal.anonymous {
                (LOG_IN, None)
            } else {
                ("the credentials do not permit this", Some("insufficient_scope"))
            };
            let challenge = self.challenge(request, Some(&scope), error);
            return Err(OciError::unauthorized(message, &challenge));
        }
        Ok(Scoped { principal, asked, resolved, name })
    }
}

fn read_digest(text: &str) -> Result<Digest, OciError> {
    text.parse().map_err(|error: registry_core::digest::InvalidDigest| {
        OciError::bad_request(ErrorCode::DigestInvalid, error.to_string())
    })
}
