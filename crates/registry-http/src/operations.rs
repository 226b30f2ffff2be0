//! The pages for those who run the server: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};

use crate::application::Application;
use crate::health::{self, Readiness};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::response::{self, Response, ResponseExt};

/// Answers the operators' pages, and hands everything else to another application.
pub struct Operations {
    inner: Arc<dyn Application>,
    readiness: Arc<dyn Readiness>,
    metrics: Arc<Metrics>,
}

impl Operations {
    /// The pages in front of `inner`. `metrics` are those of the [`Server`](crate::serve::Server).
    pub fn new(inner: Arc<dyn Application>, readiness: Arc<dyn Readiness>, metrics: Arc<Metrics>) -> Self {
        Self { inner, readiness, metrics }
    }
}

#[async_trait]
impl Application for Operations {
    async fn handle(&self, request: Request) -> Response {
        let page = match request.path() {
            "/healthz" => "/healthz",
            "/readyz" => "/readyz",
            "/metrics" => "/metrics",
            _ => return self.inner.handle(request).await,
        };
        request.set_route(page);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response::empty(StatusCode::METHOD_NOT_ALLOWED).with(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        match page {
            "/healthz" => health::liveness(),
            "/readyz" => health::readiness(&self.readiness).await,
            _ => self.metrics.page(),
        }
    }
}
