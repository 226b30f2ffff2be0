//! How much of the server one client may hold, and for how long.

use std::time::Duration;

/// What a client that is waited for sends of a body, or takes of an HTTP/2 answer, within each timeout at the least (or
/// all there is), so that a stranger who moves one byte a minute holds nothing for long.
pub(crate) const LEAST_PROGRESS_BYTES: u64 = 1024;

/// The bounds on connections and requests. The defaults suit a server that faces strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's backlog until one ends.
    pub max_connections: usize,
    /// Header fields of a request; more is 431.
    pub max_headers: usize,
    /// Bytes of a request's head; more is 431.
    pub max_header_bytes: usize,
    /// From the first byte of a head to its last, and from the opening of a connection to the first byte; then 408.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests. Longer than what load balancers keep theirs for (60 s as a
    /// rule), so that it is they who close, and no request meets a connection that is just being closed.
    pub idle_timeout: Duration,
    /// For the whole TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// How long a body may bring next to nothing while somebody waits for it.
    pub body_idle_timeout: Duration,
    /// How long a client may take none of its answer, or less than 1 KiB of what waits on an HTTP/2 stream: then the
    /// connection ends, or the stream.
    pub write_idle_timeout: Duration,
    /// How long stopping waits for requests in flight.
    pub drain_timeout: Duration,
    /// Streams at once of an HTTP/2 connection.
    pub http2_max_streams: u32,
    /// How long a connection that was answered before it had sent everything is still listened to in all, so that
    /// the answer is not lost in a reset.
    pub linger_timeout: Duration,
    /// How long such a connection may be silent.
    pub linger_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_headers: 100,
            max_header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            tls_handshake_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_mins(5),
            write_idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            http2_max_streams: 128,
            linger_timeout: Duration::from_secs(30),
            linger_idle_timeout: Duration::from_secs(5),
        }
    }
}
