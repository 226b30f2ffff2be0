//! One event for each request, when it is over.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::Version;
use registry_core::token::{TOKEN_PREFIX, TokenSecret};

use crate::metrics::Finished;

/// The target of the events, so that a filter can tell them from others (`access=off`).
pub const TARGET: &str = "access";

/// How much of a path is shown, in bytes.
const LONGEST_PATH_BYTES: usize = 2048;

/// What is known when a request is over. The query is not in it: it may carry secrets.
pub(crate) struct Entry<'a> {
    pub(crate) finished: &'a Finished<'a>,
    /// See [`shown_path`].
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

/// A path as the event shows it: without secrets, and no longer than anything that has a meaning here, for it is kept
/// until the request is over.
pub(crate) fn shown_path(path: &str) -> Box<str> {
    let path = without_secret(path);
    if path.len() <= LONGEST_PATH_BYTES {
        return path.into();
    }
    format!("{}…", &path[..path.floor_char_boundary(LONGEST_PATH_BYTES)]).into()
}

/// A path without the secrets of tokens that somebody put into it.
fn without_secret(path: &str) -> Cow<'_, str> {
    if !path.contains(TOKEN_PREFIX) {
        return Cow::Borrowed(path);
    }
    let shown = path.split('/').map(|segment| match TokenSecret::presented(segment).id() {
        Some(_) => TOKEN_PREFIX,
        None => segment,
    });
    Cow::Owned(shown.collect::<Vec<_>>().join("/"))
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_path_is_not_shown() {
        let token = format!("fdy_{}_{}", "0".repeat(16), "1".repeat(64));
        assert_eq!(without_secret(&format!("/api/v1/tokens/{token}")), "/api/v1/tokens/fdy_");
        assert_eq!(without_secret(&format!("/{token}/{token}/x")), "/fdy_/fdy_/x");
        for path in ["/v2/fdy_tools/app/manifests/1", "/api/v1/tokens/0123456789abcdef", "/"] {
            assert_eq!(without_secret(path), path);
        }
    }
}
