//! A request with everything that a handler may want to know about where it came from.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, Method, Version, request::Parts};

use crate::origin::Origin;
use crate::request_body::RequestBody;
use crate::request_id::RequestId;

/// A request on its way to a handler.
#[derive(Debug)]
pub struct Request {
    parts: Parts,
    body: RequestBody,
    context: RequestContext,
}

/// Where a request came from and what it is called.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's name in answers and logs.
    pub id: RequestId,
    /// The other end of the connection: the client, or the proxy before it.
    pub peer: SocketAddr,
    /// The client: the peer, or whom a trusted proxy says it speaks for.
    pub client: IpAddr,
    /// The scheme and host under which the client sees this server.
    pub origin: Origin,
    /// What the handlers tell the access log and the metrics.
    pub notes: Arc<Notes>,
}

/// What becomes known about a request while it is handled, for the access log and the metrics. It survives whatever
/// becomes of the handler: refusals, panics, a client that goes away.
#[derive(Debug, Default)]
pub struct Notes {
    route: OnceLock<&'static str>,
    principal: OnceLock<Arc<str>>,
}

impl Notes {
    /// The route's template, once the router knows it.
    pub fn route(&self) -> Option<&'static str> {
        self.route.get().copied()
    }

    /// The principal's name, once credentials were accepted.
    pub fn principal(&self) -> Option<&str> {
        self.principal.get().map(|name| &**name)
    }
}

impl Request {
    /// A request from its parts.
    pub fn new(request: http::Request<RequestBody>, context: RequestContext) -> Self {
        let (parts, body) = request.into_parts();
        Self { parts, body, context }
    }

    /// A request that did not come over a connection, from 127.0.0.1 to `http://localhost`: for tests of handlers.
    pub fn local(request: http::Request<RequestBody>) -> Self {
        let peer = SocketAddr::from(([127, 0, 0, 1], 0));
        let context = RequestContext {
            id: RequestId::parse("local").expect("it is in the grammar"),
            peer,
            client: peer.ip(),
            origin: Origin::new("http", "localhost"),
            notes: Arc::default(),
        };
        Self::new(request, context)
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The HTTP version that the client speaks.
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// The path as it was sent: percent-encoding is not undone, nothing is normalised.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The query as it was sent, without the `?`.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// The query's names and values, decoded, in order.
    pub fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query().unwrap_or_default().as_bytes())
    }

    /// The first value of `name` in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_pairs().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The first value of the header `name`, where it is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The request's id.
    pub fn id(&self) -> &RequestId {
        &self.context.id
    }

    /// The other end of the connection.
    pub fn peer(&self) -> SocketAddr {
        self.context.peer
    }

    /// The client's address: the peer's, or what a trusted proxy says. Throttles count by it.
    pub fn client(&self) -> IpAddr {
        self.context.client
    }

    /// The scheme and host under which the client sees this server.
    pub fn origin(&self) -> &Origin {
        &self.context.origin
    }

    /// Tells the access log and the metrics which route this is: a template such as `/v2/<name>/blobs/<digest>`,
    /// never a path, so that there are few of them. The first call counts.
    pub fn set_route(&self, template: &'static str) {
        let _ = self.context.notes.route.set(template);
    }

    /// Tells the access log who asks. The first call counts.
    pub fn set_principal(&self, name: impl Into<Arc<str>>) {
        let _ = self.context.notes.principal.set(name.into());
    }

    /// The body, to be read.
    pub fn body(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// The body's announced length in bytes, if any.
    pub fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// Takes the request apart.
    pub fn into_parts(self) -> (Parts, RequestBody, RequestContext) {
        (self.parts, self.body, self.context)
    }
}
