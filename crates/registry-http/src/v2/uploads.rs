//! `/v2/<name>/blobs/uploads/`

use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderName, HeaderValue, StatusCode};
use registry_core::digest::{Algorithm, Digest};
use registry_core::names::RepositoryName;
use registry_core::permission::Action;
use registry_core::services::{ContentRange, FinishUpload, Mounted, UploadError, WriteUpload};
use registry_core::upload::{UploadId, UploadTarget};

use super::error::{ErrorCode, OciError};
use super::{DOCKER_CONTENT_DIGEST, Scoped, V2, read_digest};
use crate::auth::token_endpoint::repository_scope;
use crate::request::Request;
use crate::response::{Response, ResponseExt, empty};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl V2 {
    /// `POST`: a session, a mount, or a whole blob.
    pub(super) async fn start_upload(&self, request: &mut Request, scoped: &Scoped) -> Result<Response, OciError> {
        let digest = request.query_value("digest").map(|digest| read_digest(&digest)).transpose()?;
        let mount = request.query_value("mount").map(|digest| read_digest(&digest)).transpose()?;
        let algorithm = match request.query_value("digest-algorithm").as_deref() {
            None => None,
            Some(name) => Some(
                name.parse::<Algorithm>()
                    .map_err(|error| OciError::bad_request(ErrorCode::DigestInvalid, error.to_string()))?,
            ),
        };
        if let Some(digest) = mount
            && let Some(response) = self.try_mount(request, scoped, &digest).await?
        {
            return Ok(response);
        }
        let target = target(scoped);
        if let Some(digest) = digest {
            let length = request.content_length();
            let uploaded = self.services.upload_blob(target, digest.clone(), length, request.body()).await;
            uploaded.map_err(|error| OciError::upload(&error, request.id()))?;
            return Ok(created(scoped, &digest));
        }
        let session = self.services.start_upload(target, algorithm == Some(Algorithm::Sha512)).await;
        let session = session.map_err(|error| OciError::upload(&error, request.id()))?;
        Ok(with_session(empty(StatusCode::ACCEPTED), scoped, session.id, session.durable.offset))
    }

    /// A mount that cannot be had is no refusal: the client uploads instead.
    async fn try_mount(
        &self,
        request: &Request,
        scoped: &Scoped,
        digest: &Digest,
    ) -> Result<Option<Response>, OciError> {
        let failed = |error| OciError::internal(&error, request.id());
        let Some(from) = request.query_value("from") else {
            let source = self.services.find_mount_source(&scoped.principal, digest).await.map_err(failed)?;
            // No scope stands for "wherever I may read": a registry token finds what it names, or the client uploads.
            let Some(source) = source else { return Ok(None) };
            return self.mount(request, scoped, &source, digest).await;
        };
        let Ok(name) = from.parse::<RepositoryName>() else { return Ok(None) };
        let Some(source) = self.services.resolve_repository(&name).await.map_err(failed)? else { return Ok(None) };
        if !scoped.principal.may(Action::Pull, &source.registry.name, source.repository.name.as_str()) {
            self.ask_for_source(request, scoped, &from, &repository_scope(&name, "pull"))?;
            return Ok(None);
        }
        self.mount(request, scoped, &source.repository, digest).await
    }

    /// A registry token that was never asked for the source says nothing of whether its holder may read it: the
    /// challenge names both scopes, and the client comes again with a token that was. Then the answer is 201 or 202.
    fn ask_for_source(&self, request: &Request, scoped: &Scoped, name: &str, scope: &str) -> Result<(), OciError> {
        let Some(asked) = &scoped.asked else { return Ok(()) };
        if asked.iter().any(|access| access.kind == "repository" && access.name == name) {
            return Ok(());
        }
        let scopes = format!("{} {scope}", repository_scope(&scoped.name, "pull,push"));
        let challenge = self.challenge(request, Some(&scopes), Some("insufficient_scope"));
        Err(OciError::unauthorized("the token was not asked for the source of the mount", &challenge))
    }

    async fn mount(
        &self,
        request: &Request,
        scoped: &Scoped,
        source: &registry_core::registry::Repository,
        digest: &Digest,
    ) -> Result<Option<Response>, OciError> {
        match self.services.mount_blob(source, &scoped.resolved.repository, digest).await {
            Ok(Mounted::Yes) => Ok(Some(created(scoped, digest))),
            Ok(Mounted::No) => Ok(None),
            Err(error) => Err(OciError::upload(&error, request.id())),
        }
    }

    /// `GET`: how far the session has come.
    pub(super) async fn upload_status(
        &self,
        request: &Request,
        scoped: &Scoped,
        id: &str,
    ) -> Result<Response, OciError> {
        let status = self.services.upload_status(read_id(id)?, is_target(scoped)).await;
        let session = status.map_err(|error| OciError::upload(&error, request.id()))?;
        Ok(with_session(empty(StatusCode::NO_CONTENT), scoped, session.id, session.durable.offset))
    }

    /// `PATCH`: a piece.
    pub(super) async fn write_upload(
        &self,
        request: &mut Request,
        scoped: &Scoped,
        id: &str,
    ) -> Result<Response, OciError> {
        let id = read_id(id)?;
        let write = WriteUpload { id, range: read_range(request)?, length: request.content_length() };
        match self.services.write_upload(write, is_target(scoped), request.body()).await {
            Ok(session) => Ok(with_session(empty(StatusCode::ACCEPTED), scoped, id, session.durable.offset)),
            Err(error) => self.refuse(request, scoped, id, error).await,
        }
    }

    /// `PUT`: the last piece, or none, and the digest.
    pub(super) async fn finish_upload(
        &self,
        request: &mut Request,
        scoped: &Scoped,
        id: &str,
    ) -> Result<Response, OciError> {
        let id = read_id(id)?;
        let digest = request.query_value("digest");
        let digest = digest.ok_or_else(|| OciError::bad_request(ErrorCode::DigestInvalid, "the digest is missing"))?;
        let digest = read_digest(&digest)?;
        let range = read_range(request)?;
        let finish = FinishUpload { id, range, length: request.content_length(), digest: digest.clone() };
        match self.services.finish_upload(finish, is_target(scoped), request.body()).await {
            Ok(()) => Ok(created(scoped, &digest)),
            Err(error) => self.refuse(request, scoped, id, error).await,
        }
    }

    /// `DELETE`: gives the session up.
    pub(super) async fn cancel_upload(
        &self,
        request: &Request,
        scoped: &Scoped,
        id: &str,
    ) -> Result<Response, OciError> {
        let cancelled = self.services.cancel_upload(read_id(id)?, is_target(scoped)).await;
        cancelled.map_err(|error| OciError::upload(&error, request.id()))?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// A refusal; one that is about the offset says what the offset is, and the client is thereby told.
    async fn refuse(
        &self,
        request: &Request,
        scoped: &Scoped,
        id: UploadId,
        error: UploadError,
    ) -> Result<Response, OciError> {
        let refusal = OciError::upload(&error, request.id());
        let offset = match error {
            UploadError::OutOfOrder(session) => Some(session.durable.offset),
            UploadError::Superseded | UploadError::Busy => {
                // The session may be finished or gone by now: then there is nothing to say.
                let status = self.services.upload_status(id, is_target(scoped)).await;
                status.ok().map(|session| session.durable.offset)
            }
            _ => None,
        };
        Ok(match offset {
            Some(offset) => with_session(refusal.into(), scoped, id, offset),
            None => return Err(refusal),
        })
    }
}

fn target(scoped: &Scoped) -> UploadTarget {
    let repository = &scoped.resolved.repository;
    UploadTarget::Repository { registry: repository.registry, repository: repository.name.clone() }
}

/// Sessions are looked up by their identity alone; the path must still name where they belong.
fn is_target(scoped: &Scoped) -> impl Fn(&UploadTarget) -> bool + use<> {
    let expected = target(scoped);
    move |actual| *actual == expected
}

fn read_id(text: &str) -> Result<UploadId, OciError> {
    // Another shape was never handed out: to the client it is as unknown as any other.
    text.parse().map_err(|_| OciError::not_found(ErrorCode::BlobUploadUnknown, "there is no such upload"))
}

fn created(scoped: &Scoped, digest: &Digest) -> Response {
    empty(StatusCode::CREATED)
        .with_text(LOCATION, &format!("/v2/{}/blobs/{digest}", scoped.name))
        .with_text(DOCKER_CONTENT_DIGEST, digest.as_str())
}

fn with_session(response: Response, scoped: &Scoped, id: UploadId, offset: u64) -> Response {
    // The specification has no way to say "nothing yet": an empty session reports 0-0, as other registries do.
    let last = offset.saturating_sub(1);
    response
        .with_text(LOCATION, &format!("/v2/{}/blobs/uploads/{id}", scoped.name))
        .with_text(RANGE, &format!("0-{last}"))
        .with_text(UPLOAD_UUID, &id.to_string())
}

/// `Content-Range: <first>-<last>`, and also HTTP's own `bytes <first>-<last>/<size>`.
fn read_range(request: &Request) -> Result<Option<ContentRange>, OciError> {
    let Some(value) = request.headers().get(CONTENT_RANGE) else { return Ok(None) };
    parse_content_range(value).map(Some).ok_or_else(|| {
        OciError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::BlobUploadInvalid,
            "Content-Range must be <first>-<last>, the offsets of the piece's first and last byte",
        )
    })
}

fn parse_content_range(value: &HeaderValue) -> Option<ContentRange> {
    let text = value.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = ContentRange { first: number(first)?, last: number(last)? };
    (range.first <= range.last && range.last < u64::MAX).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_ranges() {
        for (text, expected) in [
            ("0-9", Some((0, 9))),
            (" 5-5 ", Some((5, 5))),
            ("bytes 5-9/10", Some((5, 9))),
            ("bytes 5-9/*", Some((5, 9))),
            ("9-5", None),
            ("-5", None),
            ("5-", None),
            ("", None),
            ("+1-2", None),
            ("0x1-2", None),
            ("99999999999999999999-1", None),
        ] {
            let parsed = parse_content_range(&HeaderValue::from_str(text).unwrap());
            assert_eq!(parsed.map(|range| (range.first, range.last)), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_the_parser_panic(bytes in proptest::collection::vec(32u8..=255, 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) && let Some(range) = parse_content_range(&value) {
                prop_assert!(range.length() > 0);
            }
        }
    }
}
