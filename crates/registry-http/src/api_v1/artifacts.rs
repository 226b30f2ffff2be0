//! `/api/v1/artifacts/{package}/{version}`

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use registry_core::digest::{Algorithm, Digest, hex};
use registry_core::names::{FileName, PackageName, Version};
use registry_core::package::{Artifact, ArtifactDescription};
use registry_core::permission::Action;
use registry_core::services::{Deletion, PublishArtifact};
use serde_json::{Value, json};

use super::error::ApiError;
use super::{ApiV1, read_segment, rfc3339};
use crate::conditional::{Representation, precondition};
use crate::request::Request;
use crate::response::{Response, ResponseExt, empty, json as json_response};

const CHECKSUM_SHA256: HeaderName = HeaderName::from_static("x-checksum-sha256");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";
const CONTENT_TYPE_LIMIT: usize = 255;

/// An artifact as clients see it.
pub(super) fn artifact_document(artifact: &Artifact) -> Value {
    json!({
        "package": artifact.package,
        "version": artifact.version,
        "digest": artifact.digest,
        "size": artifact.size,
        "content_type": artifact.content_type,
        "filename": artifact.filename,
        "uploaded_at": rfc3339(artifact.uploaded_at),
    })
}

impl ApiV1 {
    pub(super) async fn publish(
        &self,
        request: &mut Request,
        package: &str,
        version: &str,
    ) -> Result<Response, ApiError> {
        let package: PackageName = read_segment(package)?;
        let version: Version = read_segment(version)?;
        let registry = self.permitted(request, Action::Push, package.as_str()).await?;
        let filename: FileName = match request.query_value("filename") {
            // Decoding a query puts this character where there was no UTF-8.
            Some(name) if name.contains('\u{fffd}') => {
                return Err(ApiError::bad_request("invalid_name", "a file's name must be UTF-8"));
            }
            Some(name) => name.parse()?,
            None => format!("{package}-{version}").chars().take(255).collect::<String>().parse()?,
        };
        let content_type = match request.headers().get(CONTENT_TYPE) {
            // It comes back in a header, so it must be able to stand in one.
            Some(value) => match value.to_str() {
                Ok("") => DEFAULT_CONTENT_TYPE,
                Ok(text) if text.len() <= CONTENT_TYPE_LIMIT => text,
                _ => {
                    let message = format!("a content type has at most {CONTENT_TYPE_LIMIT} visible ASCII characters");
                    return Err(ApiError::bad_request("invalid_content_type", message));
                }
            },
            None => DEFAULT_CONTENT_TYPE,
        };
        let publish = PublishArtifact {
            registry: registry.id,
            package,
            description: ArtifactDescription { version, content_type: content_type.to_owned(), filename },
            digest: client_digest(request)?,
            length: request.content_length(),
        };
        let location = request.path().to_owned();
        let published = self.services.publish_artifact(publish, request.body()).await;
        let artifact = published.map_err(|error| ApiError::upload(&error, request.id()))?;
        Ok(json_response(StatusCode::CREATED, &artifact_document(&artifact)).with_text(LOCATION, &location))
    }

    pub(super) async fn download(&self, request: &Request, package: &str, version: &str) -> Result<Response, ApiError> {
        let package: PackageName = read_segment(package)?;
        let version: Version = read_segment(version)?;
        let registry = self.permitted(request, Action::Pull, package.as_str()).await?;
        let unknown = || ApiError::not_found(format!("there is no version {version} of {package}"));
        let failed = |error| ApiError::internal(&error, request.id());
        let (artifact, reader) = if request.method() == Method::HEAD {
            let described = self.services.describe_artifact(registry.id, &package, &version).await.map_err(failed)?;
            (described.ok_or_else(unknown)?, None)
        } else {
            let opened = self.services.read_artifact(registry.id, &package, &version).await.map_err(failed)?;
            let (artifact, reader) = opened.ok_or_else(unknown)?;
            (artifact, Some(reader))
        };
        let content_type = &artifact.content_type;
        let file = Representation { digest: &artifact.digest, size: artifact.size, content_type };
        let selected = file.select_dated(request.method(), request.headers(), artifact.uploaded_at);
        let response = file.answer(&selected, reader.as_ref());
        let modified = u64::try_from(artifact.uploaded_at.as_seconds()).unwrap_or(0);
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified);
        let mut response = response.with_text(LAST_MODIFIED, &httpdate::fmt_http_date(modified));
        // Servers before this one named by its SHA-512 what was uploaded with that alone.
        if artifact.digest.algorithm() == Algorithm::Sha256 {
            response = response.with_text(CHECKSUM_SHA256, artifact.digest.encoded());
        }
        if selected.has_content() {
            response = response
                .with(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"))
                .with_text(CONTENT_DISPOSITION, &content_disposition(&artifact.filename));
        }
        Ok(response)
    }

    pub(super) async fn delete(&self, request: &Request, package: &str, version: &str) -> Result<Response, ApiError> {
        let package: PackageName = read_segment(package)?;
        let version: Version = read_segment(version)?;
        let registry = self.permitted(request, Action::Delete, package.as_str()).await?;
        let precondition = precondition(request.headers());
        let deleted = self.services.delete_artifact(registry.id, &package, &version, &precondition).await;
        match deleted.map_err(|error| ApiError::internal(&error, request.id()))? {
            Deletion::Deleted => Ok(empty(StatusCode::NO_CONTENT)),
            Deletion::Unknown => Err(ApiError::not_found(format!("there is no version {version} of {package}"))),
            Deletion::PreconditionFailed => Err(ApiError::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "the version is not as the request expects",
            )),
        }
    }
}

/// The digest that the client expects: `X-Checksum-Sha256` in hexadecimal, or `Content-Digest` (RFC 9530) in base64.
///
/// Of several, SHA-256 is the one to compare; two that contradict each other are refused, since one of them is wrong.
fn client_digest(request: &Request) -> Result<Option<Digest>, ApiError> {
    let invalid = |what: &str| ApiError::bad_request("invalid_digest", what.to_owned());
    let mut found: Vec<Digest> = Vec::new();
    for value in request.headers().get_all(CHECKSUM_SHA256) {
        let text = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        let digest = format!("sha256:{text}").parse();
        found.push(digest.map_err(|_| invalid("X-Checksum-Sha256 must be 64 hexadecimal digits"))?);
    }
    for value in request.headers().get_all(CONTENT_DIGEST) {
        let text = value.to_str().map_err(|_| invalid("Content-Digest is not text"))?;
        for member in text.split(',') {
            let broken = || invalid("Content-Digest must be a dictionary such as sha-256=:<base64>:");
            let (name, value) = member.trim().split_once('=').ok_or_else(broken)?;
            let value = value.strip_prefix(':').and_then(|value| value.strip_suffix(':')).ok_or_else(broken)?;
            let algorithm = match name {
                "sha-256" => Algorithm::Sha256,
                "sha-512" => Algorithm::Sha512,
                // Algorithms that we do not know are to be ignored (RFC 9530, section 2).
                _ => continue,
            };
            let hash = STANDARD.decode(value).map_err(|_| broken())?;
            found.push(format!("{}:{}", algorithm.name(), hex(&hash)).parse().map_err(|_| broken())?);
        }
    }
    let of = |algorithm: Algorithm| found.iter().filter(move |digest| digest.algorithm() == algorithm);
    let digest = of(Algorithm::Sha256).next().or_else(|| of(Algorithm::Sha512).next()).cloned();
    match digest {
        Some(digest) if of(digest.algorithm()).any(|other| *other != digest) => {
            Err(invalid("the request gives two digests that contradict each other"))
        }
        digest => Ok(digest),
    }
}

/// `attachment` with the file's name (RFC 6266): ASCII for all, and UTF-8 for those that read it.
fn content_disposition(filename: &FileName) -> String {
    let name = filename.as_str();
    let plain: String = name.chars().map(|c| if c.is_ascii() && !matches!(c, '"' | '\\') { c } else { '_' }).collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_body::RequestBody;

    fn digest_of(header: &str, value: &str) -> Result<Option<String>, &'static str> {
        let request = http::Request::post("/").header(header, value).body(RequestBody::empty()).unwrap();
        match client_digest(&Request::local(request)) {
            Ok(digest) => Ok(digest.map(|digest| digest.to_string())),
            Err(_) => Err("refused"),
        }
    }

    #[test]
    fn digests_of_clients() {
        let empty = Digest::sha256(b"").to_string();
        let hexadecimal = empty.strip_prefix("sha256:").unwrap();
        let base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(digest_of("x-checksum-sha256", hexadecimal), Ok(Some(empty.clone())));
        assert_eq!(digest_of("x-checksum-sha256", &hexadecimal.to_uppercase()), Ok(Some(empty.clone())));
        assert_eq!(digest_of("content-digest", &format!("sha-256=:{base64}:")), Ok(Some(empty.clone())));
        assert_eq!(digest_of("content-digest", &format!("md5=:aaaa:, sha-256=:{base64}:")), Ok(Some(empty)));
        assert_eq!(digest_of("content-digest", "md5=:aaaa:"), Ok(None));
        for (header, value) in [
            ("x-checksum-sha256", ""),
            ("x-checksum-sha256", "xyz"),
            ("content-digest", "sha-256"),
            ("content-digest", "sha-256=abc"),
            ("content-digest", "sha-256=:!!!:"),
            ("content-digest", "sha-256=:aaaa:"),
        ] {
            assert_eq!(digest_of(header, value), Err("refused"), "{header}: {value}");
        }
    }

    #[test]
    fn digests_must_not_contradict_each_other() {
        let digests = |headers: &[(&str, String)]| {
            let mut request = http::Request::post("/");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let request = Request::local(request.body(RequestBody::empty()).unwrap());
            client_digest(&request).map(|digest| digest.map(|digest| digest.to_string()))
        };
        let (one, other) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let long = Digest::of(Algorithm::Sha512, b"1");
        let checksum = |digest: &Digest| ("x-checksum-sha256", digest.encoded().to_owned());
        let content = |digest: &Digest| {
            let name = if digest.algorithm() == Algorithm::Sha256 { "sha-256" } else { "sha-512" };
            let hex = digest.encoded();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            ("content-digest", format!("{name}=:{}:", STANDARD.encode(bytes.collect::<Vec<_>>())))
        };
        for agreeing in [
            vec![checksum(&one), content(&one)],
            vec![content(&one), content(&long)],
            vec![content(&long), checksum(&one)],
        ] {
            assert_eq!(digests(&agreeing).unwrap(), Some(one.to_string()), "{agreeing:?}");
        }
        assert_eq!(digests(&[content(&long)]).unwrap(), Some(long.to_string()));
        for contradicting in [vec![checksum(&one), content(&other)], vec![content(&other), content(&one)]] {
            assert!(digests(&contradicting).is_err(), "{contradicting:?}");
        }
    }

    #[test]
    fn dispositions_cannot_be_broken_out_of() {
        for (name, expected) in [
            ("model.gguf", "attachment; filename=\"model.gguf\""),
            ("a \"b\".txt", "attachment; filename=\"a _b_.txt\"; filename*=UTF-8''a%20%22b%22%2Etxt"),
            ("ü.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%BC%2Etxt"),
        ] {
            assert_eq!(content_disposition(&name.parse().unwrap()), expected);
        }
    }
}
