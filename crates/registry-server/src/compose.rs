//! From a configuration to a server: the only place that constructs adapters.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_adapters::blob::filesystem::{FilesystemBlobStore, FilesystemOptions};
use registry_adapters::blob::object_store::{
    Backend, ObjectBlobStore, ObjectStoreOptions, S3Keys, S3Options, S3Patience,
};
use registry_adapters::entropy::OsEntropy;
use registry_adapters::sql::{PostgresOptions, PostgresParts, PostgresServer, SqlMetadata, SqliteOptions, TlsMode};
use registry_core::error::StoreError;
use registry_core::names::RegistryName;
use registry_core::ports::blob_store::BlobStore;
use registry_core::ports::clock::Clock;
use registry_core::ports::entropy::Entropy;
use registry_core::ports::steps::Steps;
use registry_core::registry::{Format, Mode, RegistrySettings};
use registry_core::services::{ConfiguredToken, Ports, PreparedRegistry, Services, Settings};
use registry_http::limits::Limits;
use registry_http::origin::{InvalidOrigin, OriginPolicy};

use crate::config::backend::{self, BlobBackend, MetadataBackend};
use crate::config::{Configuration, Database, RegistryConfiguration, SslMode};
use crate::data_folder::{self, DataFolderError};

/// The file of the metadata below the data folder.
pub const METADATA_FILE: &str = "metadata.sqlite";

/// The stores cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// A store does not open.
    #[error("{}", .0.chain())]
    Store(#[from] StoreError),
    /// The fail point's text is wrong.
    #[error("{0}")]
    FailPoint(String),
}

/// The use cases over the stores of a configuration.
pub struct Composition {
    /// The use cases.
    pub services: Arc<Services>,
    /// The metadata store, for what is not the domain's: backups and closing.
    pub metadata: Arc<SqlMetadata>,
    /// The blob store.
    pub blobs: Arc<dyn BlobStore>,
    /// Randomness, for what is not the domain's.
    pub entropy: Arc<dyn Entropy>,
    /// Time, likewise.
    pub clock: Arc<dyn Clock>,
    /// Named moments, for tests.
    pub steps: Arc<dyn Steps>,
}

impl Composition {
    /// Opens the stores of the data folder, which is made if it is not there, and brings their schema up to date.
    ///
    /// # Errors
    /// [`ComposeError`].
    pub async fn open(configuration: &Configuration) -> Result<Self, ComposeError> {
        #[cfg(feature = "fail-points")]
        switch_faults_on();
        let folder = &configuration.storage.data_dir;
        data_folder::prepare(folder)?;
        let metadata = Arc::new(metadata(configuration).await?);
        let steps = steps()?;
        let blobs = blobs(configuration, &steps)?;
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let clock = metadata.clock();
        let ports = Ports {
            metadata: Arc::<SqlMetadata>::clone(&metadata),
            blobs: Arc::clone(&blobs),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            steps: Arc::clone(&steps),
        };
        let settings = settings(configuration);
        #[cfg(feature = "fail-points")]
        let settings = with_checkpoints_of_tests(settings)?;
        let services = Arc::new(Services::new(ports, settings));
        Ok(Self { services, metadata, blobs, entropy, clock, steps })
    }

    /// Finishes what was begun and lets go of the stores.
    pub async fn close(&self) {
        self.metadata.close().await;
    }
}

/// Opens the metadata store that the configuration chooses.
async fn metadata(configuration: &Configuration) -> Result<SqlMetadata, StoreError> {
    match backend::metadata(configuration) {
        MetadataBackend::Sqlite => open_metadata(&configuration.storage.data_dir.join(METADATA_FILE)).await,
        MetadataBackend::Postgres => {
            let database = &configuration.database;
            SqlMetadata::open_postgres(postgres_server(database)?, postgres_options(database)).await
        }
    }
}

fn postgres_server(database: &Database) -> Result<PostgresServer, StoreError> {
    let Database { url, host, port, user, password, name, sslmode, .. } = database;
    if let Some(url) = url {
        return PostgresServer::from_url(&url.0);
    }
    Ok(PostgresServer::from_parts(&PostgresParts {
        host,
        port: *port,
        user,
        password: &password.0,
        database: name,
        tls: match sslmode {
            SslMode::Disable => TlsMode::Disable,
            // Encrypted only where the server insists: encrypted where it can is no less.
            SslMode::Allow | SslMode::Prefer => TlsMode::Prefer,
            SslMode::Require => TlsMode::Require,
            SslMode::VerifyCa => TlsMode::VerifyCa,
            SslMode::VerifyFull => TlsMode::VerifyFull,
        },
    }))
}

fn postgres_options(database: &Database) -> PostgresOptions {
    PostgresOptions {
        connections: database.max_connections,
        acquire_timeout: database.acquire_timeout.0,
        statement_timeout: database.statement_timeout.0,
        timezone: database.timezone.clone(),
        ..PostgresOptions::default()
    }
}

/// Opens a metadata file.
///
/// # Errors
/// [`StoreError`].
pub async fn open_metadata(file: &Path) -> Result<SqlMetadata, StoreError> {
    SqlMetadata::open_sqlite(file, SqliteOptions::default()).await
}

/// Opens the blob store that the configuration chooses.
#[cfg_attr(not(feature = "fail-points"), expect(unused_variables, reason = "a release has no named moments"))]
fn blobs(configuration: &Configuration, steps: &Arc<dyn Steps>) -> Result<Arc<dyn BlobStore>, StoreError> {
    Ok(match backend::blobs(configuration) {
        BlobBackend::Files => Arc::new(open_blobs(&configuration.storage.data_dir)?),
        BlobBackend::S3 => {
            let options = s3_options(configuration);
            let bucket = Backend::s3(&options)?;
            #[cfg(feature = "fail-points")]
            let bucket = bucket.telling(Arc::clone(steps));
            Arc::new(ObjectBlobStore::new(bucket, &options.store))
        }
    })
}

fn s3_options(configuration: &Configuration) -> S3Options {
    let s3 = &configuration.storage.s3;
    let keys = s3.access_key_id.clone().zip(s3.secret_access_key.as_ref());
    S3Options {
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        endpoint: s3.endpoint.clone(),
        allow_http: s3.allow_http,
        path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
        keys: keys.map(|(access_key_id, secret)| S3Keys {
            access_key_id,
            secret_access_key: secret.0.clone(),
            session_token: s3.session_token.as_ref().map(|token| token.0.clone()),
        }),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        patience: S3Patience { read_timeout: s3.read_timeout.0, retry_timeout: s3.retry_timeout.0 },
        store: ObjectStoreOptions {
            prefix: s3.prefix.clone(),
            part_bytes: s3.part_size.0,
            upload_memory_bytes: s3.upload_memory.0,
        },
    }
}

/// Opens the blobs below a data folder.
///
/// # Errors
/// [`StoreError`].
pub fn open_blobs(folder: &Path) -> Result<FilesystemBlobStore, StoreError> {
    FilesystemBlobStore::open(folder, FilesystemOptions::default())
}

/// What a test wants to be otherwise than in a release.
#[cfg(feature = "fail-points")]
fn switch_faults_on() {
    use registry_adapters::sql::faults;
    match std::env::var("FOUNDRY_FAULT").as_deref() {
        Ok("unlocked-review") => faults::unlock_reviews(),
        Ok("next-release") => faults::be_the_next_release(),
        _ => {}
    }
}

/// The same, with as short a way between two checkpoints as a test wants.
#[cfg(feature = "fail-points")]
fn with_checkpoints_of_tests(settings: Settings) -> Result<Settings, ComposeError> {
    use crate::fail_points::CHECKPOINT_BYTES;
    let Ok(text) = std::env::var(CHECKPOINT_BYTES) else { return Ok(settings) };
    let wrong = |error| ComposeError::FailPoint(format!("{CHECKPOINT_BYTES}={text}: {error}"));
    Ok(Settings { checkpoint_bytes: text.parse().map_err(wrong)?, ..settings })
}

#[cfg(not(feature = "fail-points"))]
fn steps() -> Result<Arc<dyn Steps>, ComposeError> {
    Ok(Arc::new(registry_core::ports::steps::NoSteps))
}

#[cfg(feature = "fail-points")]
fn steps() -> Result<Arc<dyn Steps>, ComposeError> {
    use crate::fail_points::{FailPoint, FailPoints, VARIABLE};
    let point = std::env::var(VARIABLE).ok().map(|text| FailPoint::parse(&text)).transpose();
    Ok(Arc::new(FailPoints(point.map_err(ComposeError::FailPoint)?)))
}

/// What the configuration decides for the use cases.
fn settings(configuration: &Configuration) -> Settings {
    let Configuration { auth, limits, gc, .. } = configuration;
    Settings {
        grace: gc.grace.0,
        upload_idle: gc.upload_idle.0,
        max_manifest_bytes: limits.max_manifest_bytes.0,
        max_blob_bytes: limits.max_blob_bytes.map(|size| size.0),
        max_artifact_bytes: limits.max_artifact_bytes.map(|size| size.0),
        anonymous: auth.anonymous,
        tokens: configured_tokens(configuration),
        registry_token_lifetime: auth.token_lifetime.0,
        failed_attempts_per_minute: auth.failed_attempts_per_minute,
        ..Settings::default()
    }
}

/// The tokens of the configuration. Loading it has shown that each can be had; a file that went away since is the same
/// as a token that nobody holds.
fn configured_tokens(configuration: &Configuration) -> Vec<ConfiguredToken> {
    let entries = configuration.auth.tokens.iter().enumerate();
    entries.filter_map(|(index, entry)| entry.resolve(index).ok()).map(|resolved| resolved.token).collect()
}

/// The registries that are there from the first start, and those of the configuration.
pub fn registries(configuration: &Configuration) -> Vec<PreparedRegistry> {
    let built_in = [(RegistryName::default_oci(), Format::Oci), (RegistryName::default_generic(), Format::Generic)];
    let mut registries: Vec<_> = built_in
        .into_iter()
        .map(|(name, format)| PreparedRegistry { name, format, mode: Mode::Local, settings: None })
        .collect();
    for (name, wanted) in &configuration.registries {
        let RegistryConfiguration { format, mode, references, anonymous, redirect } = wanted;
        let settings = RegistrySettings {
            references: references.unwrap_or_default(),
            anonymous: *anonymous,
            redirect: redirect.unwrap_or_default(),
        };
        match registries.iter_mut().find(|registry| registry.name == *name) {
            Some(registry) => registry.settings = Some(settings),
            None => registries.push(PreparedRegistry {
                name: name.clone(),
                format: format.expect("the configuration was checked: a new registry has a format"),
                mode: mode.unwrap_or(Mode::Local),
                settings: Some(settings),
            }),
        }
    }
    registries
}

/// The bounds on connections and requests.
pub fn limits(configuration: &Configuration) -> Limits {
    let server = &configuration.server;
    Limits {
        max_connections: server.max_connections,
        header_timeout: server.header_timeout.0,
        idle_timeout: server.idle_timeout.0,
        body_idle_timeout: server.body_idle_timeout.0,
        write_idle_timeout: server.write_idle_timeout.0,
        drain_timeout: server.shutdown_grace.0,
        ..Limits::default()
    }
}

/// How the public URL and the client's address are found.
///
/// # Errors
/// [`InvalidOrigin`] for a URL that looked right and is not.
pub fn origin_policy(configuration: &Configuration) -> Result<OriginPolicy, InvalidOrigin> {
    let base_url = configuration.server.base_url.as_ref().map(|url| url.0.parse()).transpose()?;
    let proxies: Vec<String> = configuration.server.trusted_proxies.iter().map(ToString::to_string).collect();
    OriginPolicy::new(base_url, &proxies)
}

/// Where the administrator's token is kept.
pub fn token_file(configuration: &Configuration) -> PathBuf {
    configuration.storage.data_dir.join(crate::first_start::TOKEN_FILE)
}
