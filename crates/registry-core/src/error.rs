//! The one failure type of the ports.

use std::error::Error;

/// What kind of failure it was, so that a caller can decide what to tell the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store cannot be reached or is overloaded; the same call may succeed later.
    Unavailable,
    /// The store has no room for more bytes; nothing was acknowledged.
    Full,
    /// What is stored is not what was promised (a missing object behind a live row, a row that cannot be read).
    Corrupt,
    /// Anything else.
    Other,
}

/// A port failed. The message and its source are for the log, never for a client.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: StoreErrorKind,
    /// What was being done.
    pub context: String,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// A failure of `kind` while doing `context`, caused by `source`.
    pub fn new(
        kind: StoreErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// Stored data is not what was promised.
    pub fn corrupt(context: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Corrupt, context: context.into(), source: None }
    }

    /// The chain of causes on one line, for the log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
