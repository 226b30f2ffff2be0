//! `/v2/<name>/manifests/<reference>`

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderName, Method, StatusCode};
use registry_core::names::{Reference, Tag};
use registry_core::services::{BodyError, Deletion, PutManifestRequest};

use super::error::{ErrorCode, OciError};
use super::{DOCKER_CONTENT_DIGEST, Scoped, V2, read_digest};
use crate::conditional::precondition;
use crate::request::Request;
use crate::response::{Response, ResponseExt, bytes, empty, head, header_text};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// The most tags in one push.
const TAGS_LIMIT: usize = 100;

impl V2 {
    pub(super) async fn read_manifest(
        &self,
        request: &Request,
        scoped: &Scoped,
        reference: &str,
    ) -> Result<Response, OciError> {
        let reference = read_reference(reference)?;
        let repository = &scoped.resolved.repository;
        let failed = |error| OciError::internal(&error, request.id());
        let unknown =
            || OciError::not_found(ErrorCode::ManifestUnknown, format!("the repository has no manifest {reference}"));
        let (digest, media_type, response) = if request.method() == Method::HEAD {
            let described = self.services.describe_manifest(repository, &reference).await.map_err(failed)?;
            let manifest = described.ok_or_else(unknown)?;
            (manifest.digest, manifest.media_type, head(StatusCode::OK, manifest.size))
        } else {
            let found = self.services.read_manifest(repository, &reference).await.map_err(failed)?;
            let manifest = found.ok_or_else(unknown)?;
            let content_type = header_text(&manifest.media_type);
            (manifest.digest, manifest.media_type, bytes(StatusCode::OK, content_type, manifest.content))
        };
        let etag = format!("\"{digest}\"");
        let known = request.headers().get_all(IF_NONE_MATCH).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|value| value.split(',').any(|tag| matches!(tag.trim(), t if t == etag || t == "*")))
        });
        let response = if known { empty(StatusCode::NOT_MODIFIED) } else { response };
        Ok(response
            .with_text(CONTENT_TYPE, &media_type)
            .with_text(ETAG, &etag)
            .with_text(DOCKER_CONTENT_DIGEST, digest.as_str()))
    }

    pub(super) async fn put_manifest(
        &self,
        request: &mut Request,
        scoped: &Scoped,
        reference: &str,
    ) -> Result<Response, OciError> {
        let reference = read_reference(reference)?;
        let tags = read_tags(request, &reference)?;
        let limit = self.services.settings().max_manifest_bytes;
        let too_large = || {
            let message = format!("a manifest has at most {limit} bytes");
            OciError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message)
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let content = request.body().read_to_limit(limit).await.map_err(|error| match error {
            BodyError::TooLarge => too_large(),
            other => OciError::bad_request(ErrorCode::ManifestInvalid, other.to_string()),
        })?;
        let content_type = request.header(CONTENT_TYPE).filter(|value| !value.is_empty()).map(str::to_owned);
        let put = PutManifestRequest {
            repository: scoped.resolved.repository.clone(),
            reference: reference.clone(),
            tags: tags.clone(),
            content_type,
            content,
            references: scoped.resolved.registry.settings.references,
            precondition: precondition(request.headers()),
        };
        let stored = self.services.put_manifest(put).await;
        let (digest, subject) = stored.map_err(|error| OciError::manifest(&error, request.id()))?;
        let mut response = empty(StatusCode::CREATED)
            .with_text(LOCATION, &format!("/v2/{}/manifests/{digest}", scoped.name))
            .with_text(DOCKER_CONTENT_DIGEST, digest.as_str());
        if let Some(subject) = subject {
            response = response.with_text(OCI_SUBJECT, subject.as_str());
        }
        for tag in tags {
            response.headers_mut().append(OCI_TAG, header_text(tag.as_str()));
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(
        &self,
        request: &Request,
        scoped: &Scoped,
        reference: &str,
    ) -> Result<Response, OciError> {
        let reference = read_reference(reference)?;
        let precondition = precondition(request.headers());
        let deleted = self.services.delete_manifest(&scoped.resolved.repository, &reference, &precondition).await;
        match deleted.map_err(|error| OciError::internal(&error, request.id()))? {
            Deletion::Deleted => Ok(empty(StatusCode::ACCEPTED)),
            Deletion::Unknown => {
                let message = format!("the repository has no manifest {reference}");
                Err(OciError::not_found(ErrorCode::ManifestUnknown, message))
            }
            Deletion::PreconditionFailed => Err(OciError::precondition_failed()),
        }
    }
}

/// A reference with a colon is a digest; a tag has none.
fn read_reference(text: &str) -> Result<Reference, OciError> {
    if text.contains(':') {
        return read_digest(text).map(Reference::Digest);
    }
    match text.parse() {
        Ok(tag) => Ok(Reference::Tag(tag)),
        Err(error) => Err(OciError::bad_request(ErrorCode::ManifestInvalid, error.to_string())),
    }
}

/// `?tag=` of a push by digest (distribution-spec 1.2 development edition, end-7b).
fn read_tags(request: &Request, reference: &Reference) -> Result<Vec<Tag>, OciError> {
    if matches!(reference, Reference::Tag(_)) {
        return Ok(Vec::new());
    }
    let mut tags = Vec::new();
    for (name, value) in request.query_pairs() {
        if name == "tag" {
            let tag: Tag = value.parse().map_err(|error: registry_core::names::InvalidName| {
                OciError::bad_request(ErrorCode::ManifestInvalid, error.to_string())
            })?;
            tags.push(tag);
        }
    }
    if tags.len() > TAGS_LIMIT {
        let message = format!("at most {TAGS_LIMIT} tags in one push");
        return Err(OciError::new(StatusCode::URI_TOO_LONG, ErrorCode::ManifestInvalid, message));
    }
    tags.dedup();
    Ok(tags)
}
