//! The use cases: one a file, all methods of [`Services`].

use std::sync::Arc;
use std::time::Duration;

use crate::permission::{AnonymousAccess, Scope};
use crate::ports::blob_store::BlobStore;
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::metadata::Metadata;
use crate::ports::steps::Steps;
use crate::time::Timestamp;
use crate::token::TokenHash;

mod activity;
mod authenticate;
mod body;
mod cancel_upload;
mod check_place;
mod check_storage;
mod collect_garbage;
mod copy_blob;
mod delete_artifact;
mod delete_blob;
mod delete_manifest;
mod discard_staged;
mod finish_upload;
mod in_order;
mod list_catalog;
mod list_packages;
mod list_referrers;
mod list_tags;
mod manage_tokens;
mod mount_blob;
mod prepare_registries;
mod publish_artifact;
mod put_manifest;
mod read_artifact;
mod read_blob;
mod read_manifest;
mod receive;
mod recognise_store;
mod resolve_repository;
mod rotate_signing_keys;
mod start_upload;
mod stretches;
mod throttle;
mod upload_blob;
mod upload_error;
mod upload_status;
mod write_upload;
mod writers;

pub use activity::{Activity, ActivitySnapshot};
pub use authenticate::{BadCredential, Credential};
pub use body::BodyError;
pub use check_storage::{CheckFinding, CheckOptions, CheckReport, CheckSum, InterruptedCheck};
pub use collect_garbage::{CollectGarbage, GarbageReport};
pub use copy_blob::CopyBlobError;
pub use delete_artifact::Deletion;
pub use finish_upload::FinishUpload;
pub use list_packages::PackageQuery;
pub use list_tags::ListedTag;
pub use manage_tokens::{NewToken, TOKEN_NAME_LIMIT, TokenRefusal};
pub use mount_blob::Mounted;
pub use prepare_registries::{PrepareRefusal, PreparedRegistry};
pub use publish_artifact::PublishArtifact;
pub use put_manifest::{ManifestRefusal, PutManifestRequest};
pub use read_blob::BlobSource;
pub use receive::Body;
pub use recognise_store::StoreLikeness;
pub use resolve_repository::ResolvedRepository;
pub use throttle::Throttled;
pub use upload_error::UploadError;
pub use write_upload::{ContentRange, WriteUpload};

/// A token from the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredToken {
    /// What it is called in logs.
    pub name: String,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// When it ends; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// What an administrator decides for the use cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a blob without a reference is kept, and how long "exists" holds (at least half of it).
    pub grace: Duration,
    /// After how long an idle upload is ended, and a finished one forgotten.
    pub upload_idle: Duration,
    /// The longest manifest, in bytes.
    pub max_manifest_bytes: u64,
    /// The longest blob of a repository, in bytes.
    pub max_blob_bytes: Option<u64>,
    /// The longest file of a generic version, in bytes.
    pub max_artifact_bytes: Option<u64>,
    /// How many bytes of one request may be received before their offset is recorded, at most.
    pub checkpoint_bytes: u64,
    /// What strangers may do where a registry does not say.
    pub anonymous: AnonymousAccess,
    /// Tokens from the configuration.
    pub tokens: Vec<ConfiguredToken>,
    /// How long a registry token lives.
    pub registry_token_lifetime: Duration,
    /// How many failed attempts one client has in a minute before its further ones are refused unseen.
    pub failed_attempts_per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            upload_idle: Duration::from_hours(24),
            max_manifest_bytes: 4 * 1024 * 1024,
            max_blob_bytes: None,
            max_artifact_bytes: None,
            checkpoint_bytes: 128 * 1024 * 1024,
            anonymous: AnonymousAccess::None,
            tokens: Vec::new(),
            registry_token_lifetime: Duration::from_mins(5),
            failed_attempts_per_minute: 20,
        }
    }
}

/// The ports that the use cases stand on.
#[derive(Clone)]
pub struct Ports {
    /// Everything but bytes.
    pub metadata: Arc<dyn Metadata>,
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Named moments, for tests.
    pub steps: Arc<dyn Steps>,
}

/// The use cases.
///
/// One instance serves a process; any number of processes may serve the same stores. What is kept in memory here
/// (known registries, recently proven tokens, the writers of this process) only saves time: nothing depends on it.
pub struct Services {
    ports: Ports,
    settings: Settings,
    writers: writers::Writers,
    registries: resolve_repository::KnownRegistries,
    proven: authenticate::ProvenTokens,
    throttle: throttle::Throttle,
    activity: Activity,
}

impl Services {
    /// The use cases over `ports`.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        let throttle = throttle::Throttle::new(settings.failed_attempts_per_minute);
        Self {
            ports,
            settings,
            writers: writers::Writers::default(),
            registries: resolve_repository::KnownRegistries::default(),
            proven: authenticate::ProvenTokens::default(),
            throttle,
            activity: Activity::default(),
        }
    }

    /// What this process has done since it started.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What the administrator decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.ports.entropy.fill(&mut bytes);
        bytes
    }
}
