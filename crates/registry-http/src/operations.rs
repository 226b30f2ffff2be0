//! The pages for those who run the server: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};

use crate::api_v1::error::ApiError;
use crate::application::Application;
use crate::auth::Authenticator;
use crate::health::{self, Readiness};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::request_id::RequestId;
use crate::response::{self, Response, ResponseExt};

/// Who may read `/metrics`. It holds numbers, and no name of anything that is stored.
pub enum MetricsAccess {
    /// Nobody: there is no such page.
    Off,
    /// Everybody who reaches it.
    Open,
    /// The holder of any valid access token, whatever that permits: a scraper's need permit nothing.
    Token(Arc<Authenticator>),
}

/// Answers the operators' pages, and hands everything else to another application.
pub struct Operations {
    inner: Arc<dyn Application>,
    readiness: Arc<dyn Readiness>,
    metrics: Arc<Metrics>,
    access: MetricsAccess,
}

impl Operations {
    /// The pages in front of `inner`. `metrics` are those of the [`Server`](crate::serve::Server).
    pub fn new(
        inner: Arc<dyn Application>,
        readiness: Arc<dyn Readiness>,
        metrics: Arc<Metrics>,
        access: MetricsAccess,
    ) -> Self {
        Self { inner, readiness, metrics, access }
    }

    /// Whether the metrics are for who asks.
    async fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let MetricsAccess::Token(authenticator) = &self.access else { return Ok(()) };
        // A registry token is no proof: strangers are given one too.
        let authenticated = authenticator.principal(request, false).await;
        let authenticated = authenticated.map_err(|failure| ApiError::authentication(&failure, request.id()))?;
        if authenticated.principal.anonymous {
            return Err(ApiError::unauthorized("authentication required"));
        }
        Ok(())
    }

    async fn metrics(&self, request: &Request) -> Response {
        match self.admit(request).await {
            Ok(()) => self.metrics.page(),
            Err(refusal) => refusal.into_response(request.id()),
        }
    }
}

#[async_trait]
impl Application for Operations {
    async fn handle(&self, request: Request) -> Response {
        let page = match request.path() {
            "/healthz" => "/healthz",
            "/readyz" => "/readyz",
            "/metrics" if !matches!(self.access, MetricsAccess::Off) => "/metrics",
            _ => return self.inner.handle(request).await,
        };
        request.set_route(page);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response::empty(StatusCode::METHOD_NOT_ALLOWED).with(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        match page {
            "/healthz" => health::liveness(),
            "/readyz" => health::readiness(&self.readiness, &request).await,
            _ => self.metrics(&request).await,
        }
    }

    fn names_no_host(&self, path: &str, id: &RequestId) -> Response {
        self.inner.names_no_host(path, id)
    }
}
