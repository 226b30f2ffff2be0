//! `/v2/_catalog`

use http::StatusCode;
use serde_json::json;

use super::V2;
use super::error::OciError;
use super::paging::{Page, with_next_page};
use crate::request::Request;
use crate::response::{Response, json as json_response};

impl V2 {
    /// The repositories of every `oci` registry that the caller may read; those without a manifest are left out.
    pub(super) async fn catalog(&self, request: &Request) -> Result<Response, OciError> {
        let lister = self.lister(request).await?;
        let page = Page::read(request)?;
        let listed = self.services.list_repositories(&lister, page.last.as_deref(), page.limit).await;
        let (names, more) = listed.map_err(|error| OciError::internal(&error, request.id()))?;
        let response = json_response(StatusCode::OK, &json!({ "repositories": names }));
        Ok(match names.last() {
            Some(last) if more => with_next_page(response, request.path(), page.limit, last, &[]),
            _ => response,
        })
    }
}
