//! One event for each request, when it is over.

use std::net::SocketAddr;

use http::Version;

use crate::metrics::Finished;

/// The target of the events, so that a filter can tell them from others (`access=off`).
pub const TARGET: &str = "access";

/// What is known when a request is over. The query is not in it: it may carry secrets.
pub(crate) struct Entry<'a> {
    pub(crate) finished: &'a Finished<'a>,
    pub(crate) path: &'a str,
    pub(crate) version: Version,
    pub(crate) peer: SocketAddr,
    pub(crate) user: Option<&'a str>,
    pub(crate) request_id: &'a str,
    /// Whether the answer was handed to the connection whole.
    pub(crate) whole: bool,
}

/// Writes the event. Without a parent: it carries the request's id itself.
pub(crate) fn write(entry: &Entry<'_>) {
    let Finished { route, method, status, bytes_in, bytes_out, duration } = *entry.finished;
    tracing::info!(
        target: TARGET,
        parent: None,
        request_id = entry.request_id,
        method = method.as_str(),
        path = entry.path,
        route,
        status,
        bytes_in,
        bytes_out,
        duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        peer = %entry.peer,
        user = entry.user,
        version = version_text(entry.version),
        whole = entry.whole,
    );
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "?",
    }
}
