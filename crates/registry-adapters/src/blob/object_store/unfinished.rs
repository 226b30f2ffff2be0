//! The multipart uploads that were begun and neither completed nor aborted.

use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use registry_core::error::{StoreError, StoreErrorKind};
use serde::Deserialize;

use super::errors::failure;

/// How long a signed request may be on its way.
const VALID_FOR: Duration = Duration::from_mins(5);
/// How often a request is sent at most, and the pause before it is sent again the first time.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Lists unfinished multipart uploads.
#[async_trait]
pub trait UnfinishedUploads: Send + Sync {
    /// Those at paths that begin with `prefix`, with the store's name for each. A store may know only those at exactly
    /// that path (MinIO does).
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn list(&self, prefix: &str) -> Result<Vec<(Path, String)>, StoreError>;
}

/// Those of an S3 bucket. `object_store` has no such request, but signs it.
pub(super) struct S3UnfinishedUploads {
    pub(super) s3: AmazonS3,
    pub(super) client: reqwest::Client,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

#[async_trait]
impl UnfinishedUploads for S3UnfinishedUploads {
    async fn list(&self, prefix: &str) -> Result<Vec<(Path, String)>, StoreError> {
        let mut listed = Vec::new();
        let mut query = vec![("uploads".to_owned(), String::new()), ("prefix".to_owned(), prefix.to_owned())];
        loop {
            let page = self.page(&query).await?;
            let paths =
                page.uploads.into_iter().filter_map(|upload| Some((Path::parse(&upload.key).ok()?, upload.upload_id)));
            listed.extend(paths);
            let (true, Some(key)) = (page.is_truncated, page.next_key_marker) else { return Ok(listed) };
            query.truncate(2);
            query.push(("key-marker".to_owned(), key));
            query.extend(page.next_upload_id_marker.map(|id| ("upload-id-marker".to_owned(), id)));
        }
    }
}

impl S3UnfinishedUploads {
    async fn page(&self, query: &[(String, String)]) -> Result<Page, StoreError> {
        let mut attempt = 1;
        loop {
            match self.try_page(query).await {
                Err(error) if error.kind == StoreErrorKind::Unavailable && attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_page(&self, query: &[(String, String)]) -> Result<Page, StoreError> {
        const CONTEXT: &str = "list unfinished multipart uploads";
        let options = SignedUrlOptions::new().with_query(query.iter().cloned());
        let signed = self.s3.signed_url_opts(http::Method::GET, &Path::default(), VALID_FOR, &options).await;
        let url = signed.map_err(failure(CONTEXT))?;
        // The address is a credential: it stays out of errors, which are logged.
        let unreachable =
            |error: reqwest::Error| StoreError::new(StoreErrorKind::Unavailable, CONTEXT, error.without_url());
        let answer = self.client.get(url).send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if !status.is_success() {
            let kind = if status.is_server_error() { StoreErrorKind::Unavailable } else { StoreErrorKind::Other };
            return Err(StoreError::new(kind, CONTEXT, format!("the answer is {status}: {text}")));
        }
        quick_xml::de::from_str(&text).map_err(|error| StoreError::new(StoreErrorKind::Other, CONTEXT, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page: Page = quick_xml::de::from_str(
            r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><KeyMarker/>
            <NextKeyMarker>blobs/1/whole</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker><MaxUploads>2</MaxUploads>
            <IsTruncated>true</IsTruncated><Upload><Key>blobs/0/whole</Key><UploadId>u1</UploadId><Owner><ID>x</ID></Owner></Upload>
            <Upload><Key>blobs/1/whole</Key><UploadId>u2</UploadId></Upload></ListMultipartUploadsResult>"#,
        )
        .unwrap();
        assert!(page.is_truncated);
        assert_eq!(page.next_key_marker.as_deref(), Some("blobs/1/whole"));
        let uploads: Vec<_> =
            page.uploads.iter().map(|upload| (upload.key.as_str(), upload.upload_id.as_str())).collect();
        assert_eq!(uploads, [("blobs/0/whole", "u1"), ("blobs/1/whole", "u2")]);
        let empty: Page =
            quick_xml::de::from_str("<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>")
                .unwrap();
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
