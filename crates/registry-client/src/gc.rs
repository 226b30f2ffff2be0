//! `POST /api/v1/gc`: collecting garbage now.
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Client, Result};

/// How to collect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only report what would be deleted.
    pub dry_run: bool,
    /// How long unreferenced bytes are kept after they lost their last reference, to the second; the server's own
    /// setting if `None`. Zero may make a push that is under way send a layer again.
    pub grace: Option<Duration>,
}

/// What a collection did, or in a dry run would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether nothing was really deleted.
    pub dry_run: bool,
    /// Blobs deleted.
    pub blobs_deleted: u64,
    /// The sum of their sizes, in bytes.
    pub bytes_freed: u64,
    /// References whose grace was over and that were looked at.
    #[serde(default)]
    pub references_reviewed: u64,
    /// Idle uploads ended.
    #[serde(default)]
    pub uploads_ended: u64,
    /// Files or objects deleted from the store.
    #[serde(default)]
    pub objects_deleted: u64,
    /// Whatever else the server reports.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Client {
    /// Collects garbage and waits for the end.
    ///
    /// It is not retried: after a broken connection the collection goes on or has ended, and asking again is up to the
    /// caller.
    ///
    /// # Errors
    /// A refusal of kind [`Forbidden`](crate::RefusalKind::Forbidden) for a token that is not an administrator's; else
    /// see [`crate::Error`].
    pub async fn collect_garbage(&self, options: &GcOptions) -> Result<GcReport> {
        let mut url = self.inner.server.api(&["gc"])?;
        if options.dry_run {
            url.query_pairs_mut().append_pair("dry_run", "true");
        }
        if let Some(grace) = options.grace {
            url.query_pairs_mut().append_pair("grace", &format!("{}s", grace.as_secs()));
        }
        let response = self.send(self.request(Method::POST, url), self.inner.timeouts.completion).await?;
        self.read_json(response).await
    }
}
