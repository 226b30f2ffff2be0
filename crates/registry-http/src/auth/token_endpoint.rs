//! `/auth/token`: exchanges an access token for a registry token (Docker token authentication specification, and its
//! OAuth 2 variant by POST).

use std::sync::Arc;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use registry_core::names::RepositoryName;
use registry_core::permission::{Action, Actions, Pattern, Principal, Scope};
use registry_core::services::Services;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::registry_token::{Access, Grant};
use super::{AuthFailure, Authenticator};
use crate::request::Request;
use crate::response::{Response, ResponseExt, json as json_response};
use crate::v2::error::{ErrorCode, LOG_IN, OciError};

/// The most scopes in one request.
const SCOPE_LIMIT: usize = 100;
/// The longest form of a POST, in bytes.
const FORM_LIMIT: usize = 64 * 1024;

/// Answers `/auth/token`.
pub async fn handle(services: &Services, authenticator: &Authenticator, mut request: Request) -> Response {
    request.set_route("/auth/token");
    let asked = match *request.method() {
        Method::GET => Ok(Asked::from_query(&request)),
        Method::POST => Asked::from_form(&mut request).await,
        _ => return OciError::method_not_allowed("GET, POST").into(),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(message) => return OciError::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message).into(),
    };
    if asked.scopes.len() > SCOPE_LIMIT {
        let message = format!("at most {SCOPE_LIMIT} scopes");
        return OciError::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message).into();
    }
    match exchange(services, authenticator, &request, asked).await {
        Ok(response) => response,
        Err(AuthFailure::Invalid) => unauthorized("the credentials are not valid", &request),
        Err(error @ AuthFailure::Throttled(after)) => {
            let refusal = OciError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, error.to_string());
            Response::from(refusal).with(RETRY_AFTER, HeaderValue::from(after.as_secs() + 1))
        }
        Err(AuthFailure::Store(error)) => OciError::internal(&error, request.id()).into(),
    }
}

fn unauthorized(message: &str, request: &Request) -> Response {
    let refusal = OciError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
    let challenge = format!("Basic realm=\"{}\"", request.origin().authority());
    Response::from(refusal).with_text(http::header::WWW_AUTHENTICATE, &challenge)
}

/// What a client asks for.
#[derive(Default)]
struct Asked {
    scopes: Vec<String>,
    /// The token of a POST: a password or a refresh token.
    secret: Option<String>,
    /// Whether a POST wants a refresh token too.
    offline: bool,
}

impl Asked {
    fn from_query(request: &Request) -> Self {
        let mut asked = Asked::default();
        for (name, value) in request.query_pairs() {
            if name == "scope" {
                asked.add_scopes(&value);
            }
        }
        asked
    }

    async fn from_form(request: &mut Request) -> Result<Self, String> {
        let form = request.header(CONTENT_TYPE).unwrap_or_default().starts_with("application/x-www-form-urlencoded");
        if !form {
            return Err("the body must be a form".to_owned());
        }
        let body = request.body().read_to_limit(FORM_LIMIT).await.map_err(|error| error.to_string())?;
        let mut asked = Asked::default();
        let (mut grant, mut password, mut refresh) = (None, None, None);
        for (name, value) in form_urlencoded::parse(&body) {
            match name.as_ref() {
                "scope" => asked.add_scopes(&value),
                "grant_type" => grant = Some(value.into_owned()),
                "password" => password = Some(value.into_owned()),
                "refresh_token" => refresh = Some(value.into_owned()),
                "access_type" => asked.offline = value == "offline",
                _ => {}
            }
        }
        asked.secret = match grant.as_deref() {
            Some("password") => Some(password.ok_or("grant_type password needs a password")?),
            Some("refresh_token") => Some(refresh.ok_or("grant_type refresh_token needs a refresh_token")?),
            _ => return Err("grant_type is password or refresh_token".to_owned()),
        };
        Ok(asked)
    }

    /// One parameter may hold several scopes, separated by spaces.
    fn add_scopes(&mut self, value: &str) {
        self.scopes.extend(value.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned));
    }
}

async fn exchange(
    services: &Services,
    authenticator: &Authenticator,
    request: &Request,
    asked: Asked,
) -> Result<Response, AuthFailure> {
    let principal: Arc<Principal> = match &asked.secret {
        Some(secret) => {
            let principal = authenticator.token_holder(secret.clone(), request).await?;
            request.set_principal(principal.name.as_str());
            principal
        }
        None => authenticator.principal(request, false).await?.principal,
    };
    // A stranger who may do nothing anywhere is told so here, where the client shows it best.
    if principal.anonymous && principal.scopes.is_empty() {
        return Ok(unauthorized(LOG_IN, request));
    }
    debug_assert!(!principal.anonymous || request.headers().get(AUTHORIZATION).is_none());

    let mut granted = Grant::default();
    for scope in &asked.scopes {
        grant(services, &principal, scope, &mut granted).await?;
    }
    let issued = authenticator.registry_tokens().issue(&principal, granted).await?;
    let issued_at = OffsetDateTime::from_unix_timestamp(issued.issued_at.as_seconds())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default();
    let mut document = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.lifetime.as_secs(),
        "issued_at": issued_at,
    });
    if let (Some(secret), true) = (asked.secret, asked.offline) {
        // The access token is what a client refreshes with; it has it already.
        document["refresh_token"] = secret.into();
    }
    Ok(json_response(StatusCode::OK, &document).with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

/// Adds what the principal gets of one scope (`type:name:actions`); a scope that cannot be read gets nothing.
async fn grant(
    services: &Services,
    principal: &Principal,
    scope: &str,
    granted: &mut Grant,
) -> Result<(), AuthFailure> {
    let Some((kind, rest)) = scope.split_once(':') else { return Ok(()) };
    let Some((name, actions)) = rest.rsplit_once(':') else { return Ok(()) };
    let asked: Vec<&str> = actions.split(',').collect();
    match kind {
        "repository" | "repository(plugin)" => {
            let Ok(repository) = name.parse::<RepositoryName>() else { return Ok(()) };
            let Some(resolved) = services.resolve_repository(&repository).await? else { return Ok(()) };
            let canonical = resolved.repository.name.as_str();
            let may = |action: Action| {
                (asked.contains(&action.as_str()) || asked.contains(&"*"))
                    && principal.may(action, &resolved.registry.name, canonical)
            };
            let actions: Vec<Action> =
                [Action::Pull, Action::Push, Action::Delete].into_iter().filter(|action| may(*action)).collect();
            granted.access.push(Access {
                kind: "repository".to_owned(),
                name: name.to_owned(),
                actions: actions.iter().map(|action| action.as_str().to_owned()).collect(),
            });
            if !actions.is_empty() {
                granted.scopes.push(Scope {
                    registry: Some(resolved.registry.name.clone()),
                    pattern: Pattern::Exact(canonical.to_owned()),
                    actions: actions.into_iter().collect::<Actions>(),
                });
            }
        }
        "registry" if name == "catalog" => {
            // To list what one may read, a token must say what that is. It permits to see the names, not to read.
            let pull = Actions::NONE.with(Action::Pull);
            let readable = principal.scopes.iter().filter(|scope| scope.actions.allows(Action::Pull));
            granted.listing = readable.map(|scope| Scope { actions: pull, ..scope.clone() }).collect();
            let (kind, name) = (kind.to_owned(), name.to_owned());
            granted.access.push(Access { kind, name, actions: vec!["*".to_owned()] });
        }
        _ => {}
    }
    Ok(())
}

/// The scope that a challenge names for `actions` on `name`, as the client wrote it.
pub fn repository_scope(name: &RepositoryName, actions: &str) -> String {
    format!("repository:{name}:{actions}")
}
