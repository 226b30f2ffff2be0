//! Why a request's body ended before its end.

/// A body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client went away, or sent less than it announced.
    #[error("the connection was cut before the end of the body")]
    Disconnected,
    /// The client sent nothing for too long.
    #[error("the body did not come in time")]
    TimedOut,
    /// The body is longer than is permitted.
    #[error("the body is too large")]
    TooLarge,
    /// The body's framing is broken.
    #[error("the body is malformed")]
    Malformed,
}
