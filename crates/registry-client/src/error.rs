//! What can go wrong, told apart as far as a caller would act differently.
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Digest, ServerUrl};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the address of a server.
    #[error("{text} is not a server's address: {reason}")]
    InvalidServer {
        /// The text, without any secret in it.
        text: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The text cannot be a token.
    #[error("the token is empty or holds white space or characters that no header may carry")]
    InvalidToken,

    /// The name of a package, a version or a token that no path can carry.
    #[error("{0:?} cannot name anything: a name is not empty, '.' or '..'")]
    InvalidName(String),

    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),

    /// No connection was made: the server has seen nothing of the request.
    #[error("cannot reach {server}: {cause}")]
    Unreachable {
        /// The server that was tried.
        server: ServerUrl,
        /// What kind of failure it was.
        reason: UnreachableReason,
        /// The innermost cause.
        cause: String,
    },

    /// The connection broke; whether the server did what was asked is not known.
    #[error("the connection to {server} broke: {cause}")]
    Interrupted {
        /// The server that was connected.
        server: ServerUrl,
        /// The innermost cause.
        cause: String,
    },

    /// The server was silent for too long; whether it did what was asked is not known.
    #[error("{server} was silent for {} s", silence.as_secs_f32())]
    TimedOut {
        /// The server that was connected.
        server: ServerUrl,
        /// How long the client waited.
        silence: Duration,
    },

    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] Refusal),

    /// The version to push exists already. What is stored was not touched.
    #[error("{package} {version} exists already{}", same_or_other(*stored, *sent))]
    VersionExists {
        /// The package.
        package: String,
        /// The version.
        version: String,
        /// The digest of the stored bytes, if this token may see it.
        stored: Option<Digest>,
        /// The digest of the bytes that were to be pushed, if it was known before sending.
        sent: Option<Digest>,
    },

    /// The server sends the client elsewhere. Following could hand the token to a stranger.
    #[error("{server} redirects to {location}")]
    Redirected {
        /// The server that was asked.
        server: ServerUrl,
        /// Where it points.
        location: String,
    },

    /// The answer does not follow the API.
    #[error("{server} gave an answer that this client does not understand: {problem}")]
    UnexpectedAnswer {
        /// The server that was asked.
        server: ServerUrl,
        /// What is wrong with the answer.
        problem: String,
    },

    /// The bytes are not those that the digest names.
    #[error("the bytes have the digest {actual} where {expected} was expected")]
    DigestMismatch {
        /// The digest that was announced.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },

    /// While it was being pulled, the artifact was replaced by another one of the same name.
    #[error("the artifact changed from {before} to {now} while it was pulled")]
    Changed {
        /// The digest at the start.
        before: Digest,
        /// The digest now.
        now: Digest,
    },

    /// Another pull is writing to the same file right now.
    #[error("another pull is writing {}", path.display())]
    Busy {
        /// The partial file.
        path: PathBuf,
    },

    /// A local file failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `read`, `write`, ….
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// What was to be pushed could not be read to its end.
    #[error("cannot read what is to be pushed: {0}")]
    Source(#[source] io::Error),
}

fn same_or_other(stored: Option<Digest>, sent: Option<Digest>) -> &'static str {
    match (stored, sent) {
        (Some(stored), Some(sent)) if stored == sent => ", with the same bytes",
        (Some(_), Some(_)) => ", with other bytes",
        _ => "",
    }
}

impl Error {
    /// Whether the same read may succeed shortly: the connection broke, one side was too slow (408 is the other's word
    /// for that), or a gateway or a restart (502, 503, 504) was in the way. A server that cannot be reached at all is
    /// not counted: it is rather a wrong address.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 502..=504),
            _ => false,
        }
    }
}

/// Why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnreachableReason {
    /// Nothing listens there.
    ConnectionRefused,
    /// The host name has no address.
    UnknownHost,
    /// Nobody answered in time.
    TimedOut,
    /// The server's certificate is not trusted, or is not for that host.
    Certificate,
    /// The two sides found no common TLS, or the server does not speak TLS.
    Tls,
    /// Anything else.
    Other,
}

impl UnreachableReason {
    /// The reason, found in the chain of causes.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = next {
            match cause.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidCertificate(_)) => return Self::Certificate,
                Some(_) => return Self::Tls,
                None => {}
            }
            let io = cause.downcast_ref::<io::Error>();
            if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
                return Self::ConnectionRefused;
            }
            // An I/O error hides what it wraps from `source`.
            let wrapped = io.and_then(io::Error::get_ref).map(|wrapped| wrapped as &(dyn StdError + 'static));
            next = wrapped.or_else(|| cause.source());
        }
        match () {
            () if error.is_dns() => Self::UnknownHost,
            () if error.is_timeout() => Self::TimedOut,
            () => Self::Other,
        }
    }
}

/// The innermost cause of `error`, as text: the outer ones only say that a request failed.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What kind of refusal an HTTP status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// 400: a name or a value breaks its grammar.
    Invalid,
    /// 401: no token, or a wrong, expired or revoked one.
    Unauthenticated,
    /// 403: the token may not do this.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 409: it is in the way of what exists.
    Conflict,
    /// 413: more bytes than the server takes.
    TooLarge,
    /// 429: too many requests, or too many failed ones.
    Throttled,
    /// 5xx: the server failed.
    Server,
    /// Any other status.
    Other,
}

/// An error that the server answered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The server's own code for it, such as `version_exists`, if it gave one.
    pub code: Option<String>,
    /// The server's own words, or a sentence in their place.
    pub message: String,
    /// The id under which the server's log tells more.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the next try.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The kind of its status.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self.status {
            400 => RefusalKind::Invalid,
            401 => RefusalKind::Unauthenticated,
            403 => RefusalKind::Forbidden,
            404 => RefusalKind::NotFound,
            409 => RefusalKind::Conflict,
            413 => RefusalKind::TooLarge,
            429 => RefusalKind::Throttled,
            500..=599 => RefusalKind::Server,
            _ => RefusalKind::Other,
        }
    }
}
