//! `/api/v1/artifacts/{package}/{version}`: the artifact's facts, and deleting it. Its bytes are moved by `push` and
//! `pull`.
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use crate::transport::text_header;
use crate::{Client, Digest, Error, RefusalKind, Result, content_disposition};

/// One version of a package, as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The package.
    pub package: String,
    /// The version.
    pub version: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// The media type that the upload named.
    pub content_type: Option<String>,
    /// The file name that the upload named.
    pub filename: Option<String>,
    /// When it was uploaded, as RFC 3339.
    pub uploaded_at: String,
}

/// What the headers of a download say about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes the whole file has.
    pub size: u64,
    /// The media type that the upload named.
    pub content_type: Option<String>,
    /// The file name that the upload named: somebody's choice, not a safe path.
    pub filename: Option<String>,
}

impl Client {
    pub(crate) fn artifact_url(&self, package: &str, version: &str) -> Result<Url> {
        self.inner.server.api(&["artifacts", package, version])
    }

    /// What the server would send for this version.
    ///
    /// # Errors
    /// A refusal of kind [`NotFound`](crate::RefusalKind::NotFound) if there is no such version; else as every read.
    pub async fn head(&self, package: &str, version: &str) -> Result<FileInfo> {
        let url = self.artifact_url(package, version)?;
        let response = self
            .retrying(|| self.send(self.request(Method::HEAD, url.clone()), self.inner.timeouts.idle))
            .await
            .map_err(|error| self.explain_empty_refusal(error, package, version))?;
        let size = text_header(response.headers(), CONTENT_LENGTH.as_str())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.unexpected("a download without Content-Length"))?;
        self.file_info(response.headers(), size)
    }

    /// Deletes this version. The next garbage collection frees its bytes.
    ///
    /// It is not retried: the second try could not tell whether the first one worked.
    ///
    /// # Errors
    /// A refusal of kind [`NotFound`](crate::RefusalKind::NotFound) if there is no such version; else see
    /// [`crate::Error`].
    pub async fn delete(&self, package: &str, version: &str) -> Result<()> {
        let request = self.request(Method::DELETE, self.artifact_url(package, version)?);
        self.send(request, self.inner.timeouts.idle).await.map(drop)
    }

    pub(crate) fn file_info(&self, headers: &HeaderMap, size: u64) -> Result<FileInfo> {
        Ok(FileInfo {
            digest: self.digest_header(headers)?,
            size,
            content_type: text_header(headers, CONTENT_TYPE.as_str()),
            filename: headers
                .get(CONTENT_DISPOSITION)
                .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
                .and_then(content_disposition::filename),
        })
    }

    /// The digest that an answer announces: its strong entity tag.
    pub(crate) fn digest_header(&self, headers: &HeaderMap) -> Result<Digest> {
        let tag = text_header(headers, ETAG.as_str()).ok_or_else(|| self.unexpected("a download without an ETag"))?;
        tag.trim_matches('"')
            .parse()
            .map_err(|_| self.unexpected(format!("a download whose ETag {tag} is no sha256 digest")))
    }

    /// An answer to HEAD has no body, so the words for the frequent refusals are found here.
    fn explain_empty_refusal(&self, error: Error, package: &str, version: &str) -> Error {
        match error {
            Error::Refused(mut refusal) => {
                let explained = match refusal.kind() {
                    RefusalKind::NotFound => Some(("not_found", format!("{package} {version} does not exist"))),
                    RefusalKind::Unauthenticated if self.inner.token.is_none() => {
                        Some(("unauthenticated", "a token is needed".to_owned()))
                    }
                    RefusalKind::Unauthenticated => Some(("unauthenticated", "the token is not valid".to_owned())),
                    RefusalKind::Forbidden => Some(("forbidden", format!("this token may not pull {package}"))),
                    _ => None,
                };
                if let Some((code, message)) = explained {
                    refusal.code.get_or_insert_with(|| code.to_owned());
                    refusal.message = message;
                }
                Error::Refused(refusal)
            }
            other => other,
        }
    }
}
