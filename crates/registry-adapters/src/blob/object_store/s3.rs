//! A bucket of S3, or of a store that speaks like it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, RetryConfig};
use registry_core::error::StoreError;

use super::connector::{Connector, client};
use super::credentials_file::CredentialsFile;
use super::errors::failure;
use super::unfinished::S3UnfinishedUploads;
use super::{Backend, ObjectStoreOptions};

/// The pauses between tries: each is random, up to three times as long as the one before, so that they grow.
const BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 3. };

/// How long a bucket that does not answer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct S3Patience {
    /// How long it may say nothing in the middle of a request.
    pub read_timeout: Duration,
    /// How long a request that fails is tried again: a client waits that long before it hears of it.
    pub retry_timeout: Duration,
}

impl Default for S3Patience {
    fn default() -> Self {
        Self { read_timeout: Duration::from_secs(30), retry_timeout: Duration::from_mins(1) }
    }
}

/// Which bucket, and how to reach it.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// Its region; `us-east-1` where none is said.
    pub region: Option<String>,
    /// The URL of the store, where it is not AWS.
    pub endpoint: Option<String>,
    /// Whether the endpoint may be plain HTTP.
    pub allow_http: bool,
    /// Whether the bucket stands in the path of a URL rather than in its host.
    pub path_style: bool,
    /// Keys; where none are given, they come from a web identity, the container's endpoint, the shared credentials file
    /// or the instance, as `environment` says.
    pub keys: Option<S3Keys>,
    /// The environment: its `AWS_*` variables say what the fields above do not.
    pub environment: HashMap<String, String>,
    /// How long it is waited for.
    pub patience: S3Patience,
    /// What is the same for every kind of store.
    pub store: ObjectStoreOptions,
}

/// A pair of keys.
#[derive(Clone)]
pub struct S3Keys {
    /// The identifier.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// The token that temporary ones have.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Backend {
    /// The interfaces of a bucket of S3. Asks the bucket nothing: it may come later than this process.
    ///
    /// # Errors
    /// When the options contradict each other, or this machine trusts no certificate authority at all.
    pub fn s3(options: &S3Options) -> Result<Self, StoreError> {
        let context = || format!("open the bucket {}", options.bucket);
        let s3 = build(options).map_err(failure(context()))?;
        let client = client(options.allow_http, options.patience.read_timeout).map_err(failure(context()))?;
        let unfinished = S3UnfinishedUploads { s3: s3.clone(), client };
        let s3 = Arc::new(s3);
        Ok(Self {
            objects: Arc::clone(&s3) as _,
            multipart: Arc::clone(&s3) as _,
            pages: Some(Arc::clone(&s3) as _),
            signer: Some(s3),
            unfinished: Some(Arc::new(unfinished)),
        })
    }
}

fn build(options: &S3Options) -> object_store::Result<AmazonS3> {
    // Empty is absent: compose files and charts pass on what is not set as empty.
    let variable = |name: &str| options.environment.get(name).filter(|value| !value.is_empty()).cloned();
    let mut builder = AmazonS3Builder::new();
    for (name, value) in options.environment.iter().filter(|(_, value)| !value.is_empty()) {
        let Ok(key) = config_key(name) else { continue };
        if name.starts_with("AWS_") && is_of_environment(&key) {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(&options.bucket)
        .with_allow_http(options.allow_http)
        .with_virtual_hosted_style_request(!options.path_style)
        // Objects go one by one; a DELETE is what every store understands.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BACKOFF,
            // The time is what counts: ten tries may be over in two seconds.
            max_retries: usize::MAX,
            retry_timeout: options.patience.retry_timeout,
        })
        .with_http_connector(Connector { read_timeout: options.patience.read_timeout });
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(if options.path_style {
            endpoint.clone()
        } else {
            with_bucket_in_host(endpoint, &options.bucket)
        });
    }
    if let Some(keys) = &options.keys {
        builder = builder.with_access_key_id(&keys.access_key_id).with_secret_access_key(&keys.secret_access_key);
        if let Some(token) = &keys.session_token {
            builder = builder.with_token(token);
        }
    } else if !has_other_credentials(variable)
        && let Some(file) = CredentialsFile::find(variable)
    {
        builder = builder.with_credentials(Arc::new(file));
    }
    builder.build()
}

/// What a variable says; `object_store` has a name of its own for one of AWS'.
fn config_key(variable: &str) -> object_store::Result<AmazonS3ConfigKey> {
    match variable {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT" => Ok(AmazonS3ConfigKey::MetadataEndpoint),
        other => other.to_ascii_lowercase().parse(),
    }
}

/// What only the environment says; the rest is in the options, which the configuration has filled from it.
fn is_of_environment(key: &AmazonS3ConfigKey) -> bool {
    !matches!(
        key,
        AmazonS3ConfigKey::AccessKeyId
            | AmazonS3ConfigKey::SecretAccessKey
            | AmazonS3ConfigKey::Token
            | AmazonS3ConfigKey::Region
            | AmazonS3ConfigKey::DefaultRegion
            | AmazonS3ConfigKey::Bucket
            | AmazonS3ConfigKey::Endpoint
            | AmazonS3ConfigKey::VirtualHostedStyleRequest
            | AmazonS3ConfigKey::SkipSignature
            | AmazonS3ConfigKey::Client(_)
    )
}

/// Whether the environment leads to credentials that are not in a shared file.
fn has_other_credentials(variable: impl Fn(&str) -> Option<String>) -> bool {
    let all = |names: &[&str]| names.iter().all(|name| variable(name).is_some());
    all(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"])
        || all(&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])
        || all(&["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
}

/// `https://host` → `https://bucket.host`
fn with_bucket_in_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => endpoint.to_owned(),
    }
}
