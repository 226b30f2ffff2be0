//! `/v2/<name>/tags/list`, and `/v2/tags/list` over all repositories.

use http::StatusCode;
use serde_json::{Value, json};

use super::error::{ErrorCode, OciError};
use super::paging::{Page, with_next_page};
use super::{Scoped, V2};
use crate::request::Request;
use crate::response::{Response, json as json_response};

impl V2 {
    pub(super) async fn tags(&self, request: &Request, scoped: &Scoped) -> Result<Response, OciError> {
        let page = Page::read(request)?;
        let listed = self.services.list_tags(&scoped.resolved.repository, page.last.as_deref(), page.limit).await;
        let listed = listed.map_err(|error| OciError::internal(&error, request.id()))?;
        let (tags, more) = listed.ok_or_else(|| {
            OciError::not_found(ErrorCode::NameUnknown, format!("there is no repository {}", scoped.name))
        })?;
        let response = json_response(StatusCode::OK, &json!({ "name": scoped.name, "tags": tags }));
        Ok(match tags.last() {
            Some(last) if more => with_next_page(response, request.path(), page.limit, last.as_str(), &[]),
            _ => response,
        })
    }

    /// The tags of every repository of every `oci` registry that the caller may read, by repository and tag. `last` is `<repository>:<tag>`.
    pub(super) async fn all_tags(&self, request: &Request) -> Result<Response, OciError> {
        let lister = self.lister(request).await?;
        let page = Page::read(request)?;
        // A name without a tag stands before all tags of that name.
        let after = page.last.as_deref().map(|last| last.rsplit_once(':').unwrap_or((last, "")));
        let listed = self.services.list_all_tags(&lister, after, page.limit).await;
        let (entries, more) = listed.map_err(|error| OciError::internal(&error, request.id()))?;
        let tags: Vec<Value> = entries
            .iter()
            .map(|entry| json!({ "repository": entry.repository, "tag": entry.tag, "digest": entry.digest }))
            .collect();
        let response = json_response(StatusCode::OK, &json!({ "tags": tags }));
        Ok(match entries.last() {
            Some(last) if more => {
                let last = format!("{}:{}", last.repository, last.tag);
                with_next_page(response, request.path(), page.limit, &last, &[])
            }
            _ => response,
        })
    }
}
