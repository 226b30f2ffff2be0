//! Whether the process lives, and whether it can do its work.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use crate::request::Request;
use crate::response::{self, Response, ResponseExt};

/// How long the checks may take together; a probe that waits longer has given up.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Knows what the server needs to do its work, and whether it is there.
///
/// # Contract
/// Cheap enough to be asked every few seconds. What a check says is shown to anyone who asks: no secret, no path.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Every check of that scope, with what came of it.
    async fn checks(&self, scope: Scope) -> Vec<Check>;
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the server needs.
    Everything,
    /// The process alone: whether it was told to stop. Stores are not asked, and answer for nothing.
    Process,
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
///
/// `?exclude=stores` leaves the stores out, for a balancer that would take all replicas out at once while a store is away.
/// As in Kubernetes' pages of this name; but an exclusion that means nothing is 400, or it would be found out too late.
pub async fn readiness(readiness: &Arc<dyn Readiness>, request: &Request) -> Response {
    let scope = match scope(request) {
        Ok(scope) => scope,
        Err(unknown) => {
            let text = format!("there is no `{unknown}` to exclude: `stores` can be\n");
            return uncached(response::text(StatusCode::BAD_REQUEST, text));
        }
    };
    let checks = tokio::time::timeout(CHECKS_TIMEOUT, readiness.checks(scope)).await.unwrap_or_else(|_| {
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

/// What the query of a request for `/readyz` leaves to be asked, or the exclusion that means nothing.
fn scope(request: &Request) -> Result<Scope, String> {
    let mut scope = Scope::Everything;
    for (_, excluded) in request.query_pairs().filter(|(name, _)| name == "exclude") {
        match &*excluded {
            "stores" => scope = Scope::Process,
            unknown => return Err(unknown.to_owned()),
        }
    }
    Ok(scope)
}

fn uncached(response: Response) -> Response {
    response.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
