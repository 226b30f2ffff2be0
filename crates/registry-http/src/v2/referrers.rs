//! `/v2/<name>/referrers/<digest>` (distribution-spec, *Listing referrers*)

use http::{HeaderName, HeaderValue, StatusCode};
use registry_core::manifest::OCI_INDEX;
use registry_core::ports::metadata::manifests::Referrer;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::OciError;
use super::paging::{Page, with_next_page};
use super::{Scoped, V2, read_digest};
use crate::request::Request;
use crate::response::{Response, ResponseExt, bytes};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    artifact_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

impl<'a> From<&'a Referrer> for Descriptor<'a> {
    fn from(referrer: &'a Referrer) -> Self {
        Self {
            media_type: &referrer.manifest.media_type,
            digest: referrer.manifest.digest.as_str(),
            size: referrer.manifest.size,
            artifact_type: &referrer.artifact_type,
            // Empty where there are none; otherwise the JSON object that was made when the manifest was stored.
            annotations: serde_json::from_str(&referrer.annotations).ok(),
        }
    }
}

impl V2 {
    pub(super) async fn referrers(
        &self,
        request: &Request,
        scoped: &Scoped,
        digest: &str,
    ) -> Result<Response, OciError> {
        let subject = read_digest(digest)?;
        let page = Page::read(request)?;
        let artifact_type = request.query_value("artifactType").filter(|value| !value.is_empty());
        let artifact_type = artifact_type.as_deref();
        let repository = &scoped.resolved.repository;
        let listed =
            self.services.list_referrers(repository, &subject, artifact_type, page.last.as_deref(), page.limit).await;
        let (referrers, more) = listed.map_err(|error| OciError::internal(&error, request.id()))?;
        let manifests = referrers.iter().map(Descriptor::from).collect();
        let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests };
        let document = serde_json::to_vec(&index).expect("an index has text keys only");
        let mut response = bytes(StatusCode::OK, HeaderValue::from_static(OCI_INDEX), document);
        if artifact_type.is_some() {
            response = response.with(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        Ok(match referrers.last() {
            Some(last) if more => {
                let kept: Vec<_> = artifact_type.map(|value| ("artifactType", value)).into_iter().collect();
                with_next_page(response, request.path(), page.limit, last.manifest.digest.as_str(), &kept)
            }
            _ => response,
        })
    }
}
