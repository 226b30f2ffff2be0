//! Which API a path belongs to.

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use matchit::Router as PathRouter;
use registry_core::services::Services;

use crate::api_v1::ApiV1;
use crate::api_v1::error::ApiError;
use crate::application::Application;
use crate::auth::{Authenticator, token_endpoint};
use crate::request::Request;
use crate::request_id::RequestId;
use crate::response::{Response, json};
use crate::v2::V2;
use crate::v2::error::{ErrorCode, OciError};

#[derive(Clone, Copy)]
enum Api {
    V2,
    ApiV1,
    Token,
}

/// The whole server: every API under its path.
pub struct Router {
    paths: PathRouter<Api>,
    services: Arc<Services>,
    authenticator: Arc<Authenticator>,
    v2: V2,
    api_v1: ApiV1,
}

impl Router {
    /// Over the use cases.
    pub fn new(services: Arc<Services>) -> Self {
        let authenticator = Arc::new(Authenticator::new(Arc::clone(&services)));
        let mut paths = PathRouter::new();
        for (path, api) in [
            ("/v2", Api::V2),
            ("/v2/", Api::V2),
            ("/v2/{*rest}", Api::V2),
            ("/api/v1/{*rest}", Api::ApiV1),
            ("/auth/token", Api::Token),
        ] {
            paths.insert(path, api).expect("the paths do not collide");
        }
        Self {
            paths,
            v2: V2::new(Arc::clone(&services), Arc::clone(&authenticator)),
            api_v1: ApiV1::new(Arc::clone(&services), Arc::clone(&authenticator)),
            services,
            authenticator,
        }
    }

    /// Who asks, for jobs that keep its keys fresh.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }
}

#[async_trait]
impl Application for Router {
    async fn handle(&self, request: Request) -> Response {
        let path = request.path().to_owned();
        match self.paths.at(&path).map(|found| *found.value) {
            Ok(Api::V2) => self.v2.handle(path.strip_prefix("/v2").unwrap_or_default(), request).await,
            Ok(Api::ApiV1) => self.api_v1.handle(path.strip_prefix("/api/v1").unwrap_or_default(), request).await,
            Ok(Api::Token) => token_endpoint::handle(&self.services, &self.authenticator, request).await,
            Err(_) => {
                request.set_route("unknown");
                let document = serde_json::json!({ "error": "there is no such endpoint", "code": "not_found" });
                json(StatusCode::NOT_FOUND, &document)
            }
        }
    }

    fn names_no_host(&self, path: &str, id: &RequestId) -> Response {
        let message = "a request names exactly one valid host";
        match self.paths.at(path).map(|found| *found.value) {
            Ok(Api::V2 | Api::Token) => OciError::bad_request(ErrorCode::Unsupported, message).into(),
            Ok(Api::ApiV1) | Err(_) => ApiError::bad_request("invalid_host", message).into_response(id),
        }
    }
}
