//! What the connections hand requests to.

use async_trait::async_trait;

use crate::request::Request;
use crate::request_id::RequestId;
use crate::response::Response;

/// Answers requests: the router, or a decorator of one.
///
/// # Contract
/// - A GET or HEAD is dropped at any await when its client goes away.
/// - Any other method runs to its end, client or no client: a use case is never cut in two by a broken connection,
///   so that what it left behind is what its own states say, not wherever an await happened to be. It learns that
///   the client went away when it reads the body ([`BodyError::Disconnected`](registry_core::services::BodyError)).
/// - A panic becomes a 500 that names the request id.
#[async_trait]
pub trait Application: Send + Sync + 'static {
    /// The answer to `request`. For HEAD the body of the answer is never polled; its length becomes Content-Length.
    async fn handle(&self, request: Request) -> Response;

    /// The answer to a request for `path` that names no valid host, or several (RFC 9112, 3.2: 400). Nothing else of it
    /// is looked at.
    fn names_no_host(&self, path: &str, id: &RequestId) -> Response;
}
