//! One request and its answer: from the head that a connection brought to the last byte that it took.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use hyper::body::Incoming;
use registry_core::error::StoreError;
use tracing::{Instrument, Span};

use crate::access_log;
use crate::activity::{Activity, Busy};
use crate::body::ResponseBody;
use crate::drain::UnknownRest;
use crate::limits::Limits;
use crate::metrics::Finished;
use crate::origin::Ends;
use crate::request::{Notes, Request, RequestContext};
use crate::request_body::RequestBody;
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::response::{self, Response};
use crate::sendfile::{Files, Tally};
use crate::serve::Server;
use crate::wire_body::WireBody;

/// What the access log says of a request whose client went away before there was an answer (nginx's number for it).
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request and its answer. It ends, and is logged and counted, when nothing works on it any more.
#[derive(Debug)]
pub(crate) struct Exchange {
    server: Arc<Server>,
    busy: Busy,
    method: Method,
    /// As the access log shows it.
    path: Box<str>,
    version: Version,
    ends: Ends,
    expects_continue: bool,
    id: RequestId,
    notes: Arc<Notes>,
    span: Span,
    started: Instant,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    bytes_promised: AtomicU64,
    not_taken: AtomicBool,
    input_abandoned: AtomicBool,
    unknown_rest: UnknownRest,
}

impl Exchange {
    fn begin(server: &Arc<Server>, activity: &Arc<Activity>, ends: Ends, parts: &Parts) -> Arc<Self> {
        server.metrics.exchange_began();
        let id = RequestId::of(&parts.headers, &*server.entropy);
        // At the highest level, so that the span is there for every event that is.
        let span = tracing::error_span!("request", request_id = id.as_str());
        Arc::new(Self {
            server: Arc::clone(server),
            busy: activity.request_began(),
            method: parts.method.clone(),
            path: access_log::shown_path(parts.uri.path()),
            version: parts.version,
            ends,
            expects_continue: parts.headers.contains_key(EXPECT),
            id,
            notes: Arc::default(),
            span,
            started: Instant::now(),
            status: AtomicU16::new(CLIENT_CLOSED_REQUEST),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            bytes_promised: AtomicU64::new(0),
            not_taken: AtomicBool::new(false),
            input_abandoned: AtomicBool::new(false),
            unknown_rest: UnknownRest::new(),
        })
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    pub(crate) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Bytes of the request's body came.
    pub(crate) fn count_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What keeps the connection from being taken for idle.
    pub(crate) fn busy(&self) -> &Busy {
        &self.busy
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.server.limits
    }

    /// The rest of the request's body will not be read.
    pub(crate) fn input_abandoned(&self) {
        self.input_abandoned.store(true, Ordering::Relaxed);
    }

    /// The same of one whose rest is of unknown length: on HTTP/1 it is kept until the answer is made, if that is not
    /// too late. What comes back is the caller's.
    pub(crate) fn leave_unknown_rest(&self, rest: Incoming) -> Option<Incoming> {
        if self.is_http2() { Some(rest) } else { self.unknown_rest.keep(rest) }
    }

    /// The answer's body failed after its head was sent; all that is left is to break it off visibly.
    pub(crate) fn answer_broke_off(&self, error: &StoreError) {
        tracing::error!(parent: &self.span, error = error.chain(), "an answer broke off");
    }

    /// The client took too little of the answer's body for too long.
    pub(crate) fn answer_not_taken(&self) {
        self.not_taken.store(true, Ordering::Relaxed);
    }

    /// The handler's answer, whatever becomes of the handler.
    async fn answer(self: Arc<Self>, parts: Parts, incoming: Incoming) -> Response {
        let response = match self.request(parts, incoming) {
            Some(request) => {
                let handled = AssertUnwindSafe(self.server.application.handle(request)).catch_unwind();
                handled.await.unwrap_or_else(|panic| self.panicked(&*panic))
            }
            None => self.server.application.names_no_host(&self.path, &self.id),
        };
        self.status.store(response.status().as_u16(), Ordering::Relaxed);
        response
    }

    fn request(self: &Arc<Self>, parts: Parts, incoming: Incoming) -> Option<Request> {
        let body = RequestBody::incoming(incoming, Arc::clone(self), self.server.limits.body_idle_timeout);
        let policy = &self.server.origin;
        let origin = policy.origin(self.ends, parts.version, &parts.uri, &parts.headers)?;
        let context = RequestContext {
            id: self.id.clone(),
            peer: self.ends.peer,
            client: policy.client(self.ends.peer.ip(), &parts.headers),
            origin,
            notes: Arc::clone(&self.notes),
        };
        Some(Request::new(http::Request::from_parts(parts, body), context))
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Response {
        let message = panic.downcast_ref::<&str>().copied();
        let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
        tracing::error!(parent: &self.span, panic = message, "a handler panicked");
        response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal error; request id {}\n", self.id))
    }

    /// Puts on an answer what every answer has.
    fn dress(self: &Arc<Self>, mut response: Response, files: Option<&Arc<Files>>) -> http::Response<WireBody> {
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, self.id.header_value());
        if !self.is_http2() && self.input_abandoned.load(Ordering::Relaxed) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.method == Method::HEAD {
            let length = response.body().remaining();
            if length > 0 && !response.headers().contains_key(CONTENT_LENGTH) {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = ResponseBody::empty();
        }
        self.bytes_promised.store(response.body().remaining(), Ordering::Relaxed);
        response.map(|body| WireBody::new(body, Arc::clone(self), files))
    }
}

impl Tally for Exchange {
    fn count_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let bytes_out = *self.bytes_out.get_mut();
        let status = *self.status.get_mut();
        let finished = Finished {
            route: self.notes.route(),
            method: &self.method,
            status,
            bytes_in: *self.bytes_in.get_mut(),
            bytes_out,
            duration: self.started.elapsed(),
        };
        self.server.metrics.exchange_ended(&finished);
        if self.server.access_log {
            access_log::write(&access_log::Entry {
                finished: &finished,
                path: &self.path,
                version: self.version,
                peer: self.ends.peer,
                user: self.notes.principal(),
                request_id: self.id.as_str(),
                whole: status != CLIENT_CLOSED_REQUEST
                    && bytes_out == *self.bytes_promised.get_mut()
                    && !*self.not_taken.get_mut(),
            });
        }
    }
}

/// Turns the requests of one connection into answers.
pub(crate) struct ConnectionService {
    pub(crate) server: Arc<Server>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) ends: Ends,
    /// Where files can be sent from, on connections that can.
    pub(crate) files: Option<Arc<Files>>,
}

impl hyper::service::Service<http::Request<Incoming>> for ConnectionService {
    type Response = http::Response<WireBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let (parts, incoming) = request.into_parts();
        let exchange = Exchange::begin(&self.server, &self.activity, self.ends, &parts);
        let files = self.files.clone();
        Box::pin(async move {
            let span = exchange.span.clone();
            let answer = Arc::clone(&exchange).answer(parts, incoming).instrument(span);
            let response = if matches!(exchange.method, Method::GET | Method::HEAD) {
                answer.await
            } else {
                // A task of its own: the connection may drop this future at any await, and must not drop that one.
                exchange.server.tasks.spawn(answer).await.unwrap_or_else(|error| {
                    // Panics are caught inside; only a runtime that is shutting down cancels a task.
                    tracing::warn!(%error, "a handler was cancelled");
                    response::empty(StatusCode::SERVICE_UNAVAILABLE)
                })
            };
            if !exchange.unknown_rest.settle(&exchange.busy).await {
                exchange.input_abandoned();
            }
            Ok(exchange.dress(response, files.as_ref()))
        })
    }
}
