//! What Prometheus is told.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::response::{self, Response};

/// The prefix of every metric's name.
const PREFIX: &str = "foundry";

/// Upper bounds of the durations' buckets, in seconds: from an answer out of memory to a large transfer.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];

/// The metrics of a process: those of HTTP, which are kept here, and whatever others [register](Self::register).
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    bytes_in: Counter,
    bytes_out: Counter,
    connections: Gauge,
    accepted: Counter,
    refused: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// A request that is over.
pub(crate) struct Finished<'a> {
    pub(crate) route: Option<&'static str>,
    pub(crate) method: &'a Method,
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
}

impl Metrics {
    /// The metrics of HTTP, all zero.
    pub fn new() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            in_flight: Gauge::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            refused: Family::default(),
        };
        metrics.register(|registry| {
            registry.register("http_requests", "Requests that are over", metrics.requests.clone());
            registry.register(
                "http_request_duration_seconds",
                "From a request's head to the last byte of its answer",
                metrics.durations.clone(),
            );
            registry.register("http_requests_in_flight", "Requests being handled", metrics.in_flight.clone());
            registry.register("http_request_body_bytes", "Bytes of bodies received", metrics.bytes_in.clone());
            registry.register("http_response_body_bytes", "Bytes of bodies sent", metrics.bytes_out.clone());
            registry.register("http_connections", "Open connections", metrics.connections.clone());
            registry.register("http_connections_accepted", "Connections accepted", metrics.accepted.clone());
            registry.register(
                "http_connections_refused",
                "Connections ended because of what they sent, or did not send",
                metrics.refused.clone(),
            );
        });
        metrics
    }

    /// Adds metrics: `add` is called once, with the registry. Counters and gauges are handles; keep a clone.
    ///
    /// Names are given without the prefix `foundry_` and, for counters, without the suffix `_total`.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in the text format of OpenMetrics 1.0, which Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes all that is written");
        text
    }

    /// The answer to `GET /metrics`.
    pub fn page(&self) -> Response {
        let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response::bytes(StatusCode::OK, content_type, self.encode())
    }

    pub(crate) fn connection_opened(&self) {
        self.accepted.inc();
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    pub(crate) fn exchange_began(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn exchange_ended(&self, finished: &Finished<'_>) {
        self.in_flight.dec();
        self.bytes_in.inc_by(finished.bytes_in);
        self.bytes_out.inc_by(finished.bytes_out);
        let route = finished.route.unwrap_or("unmatched");
        let method = known_method(finished.method);
        let labels = RequestLabels { route, method, status: status_class(finished.status) };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { route, method }).observe(finished.duration.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The method as a label: anyone may invent methods, so there is one label for all that are invented.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
