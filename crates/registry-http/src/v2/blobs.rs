//! `/v2/<name>/blobs/<digest>`

use std::sync::Arc;

use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use registry_core::digest::Digest;
use registry_core::permission::Action;
use registry_core::ports::blob_store::BlobReader;
use registry_core::ports::metadata::blob_index::DeleteBlob;
use registry_core::services::BlobSource;

use super::error::{ErrorCode, OciError};
use super::{DOCKER_CONTENT_DIGEST, Scoped, V2, read_digest};
use crate::conditional::{Representation, precondition};
use crate::request::Request;
use crate::response::{Response, ResponseExt, empty};

impl V2 {
    pub(super) async fn read_blob(
        &self,
        request: &Request,
        scoped: &Scoped,
        digest: &str,
    ) -> Result<Response, OciError> {
        let digest = read_digest(digest)?;
        let unknown = || OciError::not_found(ErrorCode::BlobUnknown, format!("the repository has no blob {digest}"));
        let failed = |error| OciError::internal(&error, request.id());
        let repository = &scoped.resolved.repository;
        if request.method() == Method::HEAD {
            // For one who may push, "exists" must hold until the manifest comes.
            let registry = &scoped.resolved.registry.name;
            let for_push = scoped.principal.may(Action::Push, registry, repository.name.as_str());
            let described = self.services.describe_blob(repository, &digest, for_push).await.map_err(failed)?;
            let blob = described.ok_or_else(unknown)?;
            return Ok(answer(request, &digest, blob.size, None));
        }
        let redirect = scoped.resolved.registry.settings.redirect;
        let source = self.services.read_blob(repository, &digest, redirect).await.map_err(failed)?;
        let reader = match source.ok_or_else(unknown)? {
            BlobSource::Here(reader) => reader,
            BlobSource::Elsewhere(url) => {
                return Ok(empty(StatusCode::TEMPORARY_REDIRECT)
                    .with_text(LOCATION, &url)
                    .with_text(DOCKER_CONTENT_DIGEST, digest.as_str())
                    .with(CACHE_CONTROL, HeaderValue::from_static("no-store")));
            }
        };
        Ok(answer(request, &digest, reader.size(), Some(&reader)))
    }

    pub(super) async fn delete_blob(
        &self,
        request: &Request,
        scoped: &Scoped,
        digest: &str,
    ) -> Result<Response, OciError> {
        let digest = read_digest(digest)?;
        let failed = |error| OciError::internal(&error, request.id());
        let repository = &scoped.resolved.repository;
        // What a digest leads to never changes: what does not hold now never will. A blob that is not there is 404 below.
        if !precondition(request.headers()).holds(Some(&digest))
            && self.services.describe_blob(repository, &digest, false).await.map_err(failed)?.is_some()
        {
            return Err(OciError::precondition_failed());
        }
        let deleted = self.services.delete_blob(repository, &digest).await;
        match deleted.map_err(failed)? {
            DeleteBlob::Deleted => Ok(empty(StatusCode::ACCEPTED).with_text(DOCKER_CONTENT_DIGEST, digest.as_str())),
            DeleteBlob::Referenced => Err(OciError::new(
                StatusCode::CONFLICT,
                ErrorCode::Denied,
                "a manifest of this repository names the blob: delete that first",
            )),
            DeleteBlob::Unknown => {
                Err(OciError::not_found(ErrorCode::BlobUnknown, format!("the repository has no blob {digest}")))
            }
        }
    }
}

fn answer(request: &Request, digest: &Digest, size: u64, reader: Option<&Arc<dyn BlobReader>>) -> Response {
    let blob = Representation { digest, size, content_type: "application/octet-stream" };
    let selected = blob.select(request.method(), request.headers());
    blob.answer(&selected, reader)
        .with_text(DOCKER_CONTENT_DIGEST, digest.as_str())
        .with(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"))
}
