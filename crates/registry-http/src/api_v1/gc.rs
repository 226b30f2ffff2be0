//! `POST /api/v1/gc`

use http::StatusCode;
use registry_core::services::CollectGarbage;
use serde_json::json;

use super::ApiV1;
use super::error::ApiError;
use crate::request::Request;
use crate::response::{Response, json as json_response};

impl ApiV1 {
    pub(super) async fn collect(&self, request: &Request) -> Result<Response, ApiError> {
        self.administrator(request).await?;
        let dry_run = match request.query_value("dry_run").as_deref() {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(_) => return Err(ApiError::bad_request("invalid_dry_run", "dry_run is true or false")),
        };
        let grace = match request.query_value("grace") {
            None => None,
            Some(text) => Some(humantime::parse_duration(&text).map_err(|error| {
                ApiError::bad_request("invalid_grace", format!("grace is a duration such as 0s or 24h: {error}"))
            })?),
        };
        let collected = self.services.collect_garbage(CollectGarbage { grace, dry_run }).await;
        let report = collected.map_err(|error| ApiError::internal(&error, request.id()))?;
        let document = json!({
            "dry_run": report.dry_run,
            "blobs_deleted": report.blobs_deleted,
            "bytes_freed": report.bytes_freed,
            "references_reviewed": report.memberships_reviewed,
            "references_dropped": report.memberships_dropped,
            "uploads_ended": report.uploads_ended,
            "objects_deleted": report.objects_deleted,
        });
        Ok(json_response(StatusCode::OK, &document))
    }
}
