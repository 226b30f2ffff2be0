//! `/api/v1/packages`

use http::StatusCode;
use registry_core::names::{PackageName, Version};
use registry_core::permission::Action;
use registry_core::services::PackageQuery;
use serde_json::{Value, json};

use super::artifacts::artifact_document;
use super::error::ApiError;
use super::{ApiV1, read_limit, read_segment, refuse, rfc3339};
use crate::request::Request;
use crate::response::{Response, json as json_response};

/// The longest text to search for, in bytes: no name is longer.
const SEARCH_LIMIT: usize = 128;

impl ApiV1 {
    pub(super) async fn packages(&self, request: &Request) -> Result<Response, ApiError> {
        let principal = self.principal(request).await?;
        if principal.anonymous && principal.scopes.is_empty() {
            return Err(refuse(&principal));
        }
        let registry = self.registry(request).await?;
        let search = request.query_value("search").map(|search| search.into_owned());
        if search.as_ref().is_some_and(|search| search.len() > SEARCH_LIMIT) {
            let message = format!("search has at most {SEARCH_LIMIT} characters");
            return Err(ApiError::bad_request("invalid_search", message));
        }
        let after = request.query_value("after").map(|after| after.into_owned());
        let query = PackageQuery { search, after, limit: read_limit(request)? };
        let listed = self.services.list_packages(&registry, &principal, &query).await;
        let (packages, more) = listed.map_err(|error| ApiError::internal(&error, request.id()))?;
        let next = packages.last().filter(|_| more).map(|last| last.package.to_string());
        let packages: Vec<Value> = packages
            .iter()
            .map(|package| {
                json!({
                    "package": package.package,
                    "version_count": package.version_count,
                    "latest_version": package.latest_version,
                    "updated_at": rfc3339(package.updated_at),
                })
            })
            .collect();
        Ok(page(json!({ "packages": packages }), next))
    }

    pub(super) async fn versions(&self, request: &Request, package: &str) -> Result<Response, ApiError> {
        let package: PackageName = read_segment(package)?;
        let registry = self.permitted(request, Action::Pull, package.as_str()).await?;
        let after: Option<Version> = request.query_value("after").map(|after| after.parse()).transpose()?;
        let limit = read_limit(request)?;
        let listed = self.services.list_versions(registry.id, &package, after.as_ref(), limit).await;
        let listed = listed.map_err(|error| ApiError::internal(&error, request.id()))?;
        let (versions, more) = listed.ok_or_else(|| ApiError::not_found(format!("there is no package {package}")))?;
        let next = versions.last().filter(|_| more).map(|last| last.version.to_string());
        let versions: Vec<Value> = versions.iter().map(artifact_document).collect();
        Ok(page(json!({ "package": package, "versions": versions }), next))
    }
}

/// A page; `next` is the `after` of the page that follows.
fn page(mut document: Value, next: Option<String>) -> Response {
    if let Some(next) = next {
        document["next"] = next.into();
    }
    json_response(StatusCode::OK, &document)
}
