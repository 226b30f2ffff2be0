//! What the server needs to do its work.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::services::Services;
use registry_http::health::{Check, Readiness, Scope};
use tokio_util::sync::CancellationToken;

/// How long each store may take for its check: less than all of them together may, so that the answer says which of them
/// is silent.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// The two stores, and that the process goes on.
pub struct Stores {
    services: Arc<Services>,
    leaving: CancellationToken,
}

impl Stores {
    /// The stores of `services`; once `leaving` is cancelled the process is not ready any more.
    pub fn new(services: Arc<Services>, leaving: CancellationToken) -> Self {
        Self { services, leaving }
    }
}

#[async_trait]
impl Readiness for Stores {
    async fn checks(&self, scope: Scope) -> Vec<Check> {
        if self.leaving.is_cancelled() {
            return vec![Check { name: "process", outcome: Err("it was told to stop".to_owned()) }];
        }
        if scope == Scope::Process {
            return vec![Check { name: "process", outcome: Ok(()) }];
        }
        let ports = self.services.ports();
        let (metadata, blobs) = tokio::join!(within(ports.metadata.ping()), within(ports.blobs.probe()));
        vec![check("metadata", metadata), check("blobs", blobs)]
    }
}

async fn within(check: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    tokio::time::timeout(CHECK_TIMEOUT, check)
        .await
        .unwrap_or_else(|elapsed| Err(StoreError::new(StoreErrorKind::Unavailable, "wait for an answer", elapsed)))
}

/// Strangers see the kind of a failure, the log its cause.
fn check(name: &'static str, answer: Result<(), StoreError>) -> Check {
    let outcome = answer.map_err(|error| {
        tracing::warn!(check = name, error = error.chain(), "not ready");
        match error.kind {
            StoreErrorKind::Unavailable => "it does not answer",
            StoreErrorKind::Full => "it is full",
            StoreErrorKind::Corrupt => "it is damaged",
            StoreErrorKind::Other => "it failed",
        }
        .to_owned()
    });
    Check { name, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_silent_does_not_answer() {
        let silent = within(std::future::pending()).await;
        assert_eq!(check("blobs", silent).outcome, Err("it does not answer".to_owned()));
        assert!(within(async { Ok(()) }).await.is_ok());
    }

    #[test]
    fn a_failed_check_says_what_kind_and_no_more() {
        assert_eq!(check("metadata", Ok(())), Check { name: "metadata", outcome: Ok(()) });
        let full = StoreError::new(StoreErrorKind::Full, "write /srv/secret/path", "No space left on device");
        assert_eq!(check("blobs", Err(full)).outcome, Err("it is full".to_owned()));
    }
}
