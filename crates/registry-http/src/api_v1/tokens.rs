//! `/api/v1/tokens`: access tokens, for administrators.

use std::time::Duration;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use registry_core::permission::Scope;
use registry_core::services::NewToken;
use registry_core::token::{TokenId, TokenRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{ApiV1, read_limit, rfc3339};
use crate::request::Request;
use crate::response::{Response, ResponseExt, empty, json as json_response};

const BODY_LIMIT: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTokenDocument {
    name: String,
    scopes: Vec<String>,
    expires_in_seconds: Option<u64>,
}

fn token_document(token: &TokenRecord) -> Value {
    json!({
        "id": token.id.0,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": rfc3339(token.created_at),
        "expires_at": token.expires_at.map(rfc3339),
    })
}

impl ApiV1 {
    pub(super) async fn create_token(&self, request: &mut Request) -> Result<Response, ApiError> {
        self.administrator(request).await?;
        let body = request.body().read_to_limit(BODY_LIMIT).await;
        let body = body.map_err(|error| ApiError::bad_request("invalid_body", error.to_string()))?;
        let wanted: NewTokenDocument = serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request("invalid_body", format!("the body is no token: {error}")))?;
        let scopes = wanted.scopes.iter().map(|scope| scope.parse::<Scope>()).collect::<Result<Vec<_>, _>>();
        let scopes = scopes.map_err(|error| ApiError::bad_request("invalid_scope", error.to_string()))?;
        let lifetime = wanted.expires_in_seconds.map(Duration::from_secs);
        let created = self.services.create_token(NewToken { name: wanted.name, scopes, lifetime }).await;
        let (record, secret) = created.map_err(|error| ApiError::token(&error, request.id()))?;
        let mut document = token_document(&record);
        document["token"] = secret.reveal().into();
        let response = json_response(StatusCode::CREATED, &document);
        Ok(response.with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
    }

    pub(super) async fn list_tokens(&self, request: &Request) -> Result<Response, ApiError> {
        self.administrator(request).await?;
        let after = request.query_value("after").map(|after| TokenId(after.into_owned()));
        let listed = self.services.list_tokens(after.as_ref(), read_limit(request)?).await;
        let (tokens, more) = listed.map_err(|error| ApiError::internal(&error, request.id()))?;
        let mut document = json!({ "tokens": tokens.iter().map(token_document).collect::<Vec<_>>() });
        if let Some(last) = tokens.last().filter(|_| more) {
            document["next"] = last.id.0.as_str().into();
        }
        Ok(json_response(StatusCode::OK, &document))
    }

    pub(super) async fn revoke_token(&self, request: &Request, id: &str) -> Result<Response, ApiError> {
        self.administrator(request).await?;
        let revoked = self.services.revoke_token(&TokenId(id.to_owned())).await;
        if revoked.map_err(|error| ApiError::internal(&error, request.id()))? {
            Ok(empty(StatusCode::NO_CONTENT))
        } else {
            Err(ApiError::not_found("there is no such token"))
        }
    }
}
