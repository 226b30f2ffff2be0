//! Whether the process lives, and whether it can do its work.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use crate::response::{self, Response, ResponseExt};

/// How long the checks may take together; a probe that waits longer has given up.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Knows what the server needs to do its work, and whether it is there.
///
/// # Contract
/// Cheap enough to be asked every few seconds. What a check says is shown to anyone who asks: no secret, no path.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Every check, with what came of it.
    async fn checks(&self) -> Vec<Check>;
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, such as `database`.
    pub name: &'static str,
    /// Why it cannot be used, if it cannot.
    pub outcome: Result<(), String>,
}

#[derive(Serialize)]
struct ReadinessDocument {
    ready: bool,
    checks: Vec<CheckDocument>,
}

#[derive(Serialize)]
struct CheckDocument {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The answer to `GET /healthz`: the process answers, and says nothing about what it depends on, so that nobody
/// restarts it because of a database that is away.
pub fn liveness() -> Response {
    uncached(response::text(StatusCode::OK, "ok\n"))
}

/// The answer to `GET /readyz`: 200 when every check passes, else 503, with every check's outcome as JSON.
pub async fn readiness(readiness: &Arc<dyn Readiness>) -> Response {
    let checks = tokio::time::timeout(CHECKS_TIMEOUT, readiness.checks()).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", CHECKS_TIMEOUT.as_secs());
        vec![Check { name: "checks", outcome: Err(reason) }]
    });
    let checks: Vec<_> = checks
        .into_iter()
        .map(|check| CheckDocument { name: check.name, ok: check.outcome.is_ok(), reason: check.outcome.err() })
        .collect();
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    uncached(response::json(status, &ReadinessDocument { ready, checks }))
}

fn uncached(response: Response) -> Response {
    response.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
