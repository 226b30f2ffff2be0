//! Uploads: the sessions that collect the bytes of one blob, in pieces, on any replica.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::digest::{Algorithm, DamagedHashState, Digest, Hashes};
use crate::names::{PackageName, RepositoryName};
use crate::package::ArtifactDescription;
use crate::ports::blob_store::ObjectKey;
use crate::registry::RegistryId;
use crate::time::Timestamp;

/// The identity of an upload; unguessable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(Uuid);

impl UploadId {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The 16 bytes as they are stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes that were stored; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl FromStr for UploadId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// What the bytes will become when the upload is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// A blob of a repository.
    Repository {
        /// The registry.
        registry: RegistryId,
        /// The repository.
        repository: RepositoryName,
    },
    /// The file of a new version of a generic package.
    Version {
        /// The registry.
        registry: RegistryId,
        /// The package.
        package: PackageName,
        /// The version and what is known of it.
        description: ArtifactDescription,
    },
    /// A blob that nothing refers to yet: it is copied from another installation, and what refers to it follows.
    Unreferenced,
}

impl UploadTarget {
    /// The registry it goes to, if to one.
    pub fn registry(&self) -> Option<RegistryId> {
        match self {
            UploadTarget::Repository { registry, .. } | UploadTarget::Version { registry, .. } => Some(*registry),
            UploadTarget::Unreferenced => None,
        }
    }

    /// The repository's or package's name; empty without one.
    pub fn name(&self) -> &str {
        match self {
            UploadTarget::Repository { repository, .. } => repository.as_str(),
            UploadTarget::Version { package, .. } => package.as_str(),
            UploadTarget::Unreferenced => "",
        }
    }
}

/// What a blob store remembers of staged bytes besides their count (S3: the multipart upload, its parts and the
/// tail; files: nothing). Opaque to everyone else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagingState(pub String);

/// A point of an upload from which it can go on: all bytes before `offset` are durable and hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many bytes are durable.
    pub offset: u64,
    /// The running hashes over exactly these bytes, as [`Hashes::save`] made them.
    pub hashes: Vec<u8>,
    /// Where the store keeps these bytes.
    pub staging: StagingState,
}

impl Checkpoint {
    /// Before the first byte; `with_sha512` also runs SHA-512.
    pub fn start(with_sha512: bool) -> Self {
        Self { offset: 0, hashes: Hashes::new(with_sha512).save(), staging: StagingState::default() }
    }

    /// The running hashes at this point.
    ///
    /// # Errors
    /// [`DamagedHashState`] when what was stored cannot be used.
    pub fn restore_hashes(&self) -> Result<Hashes, DamagedHashState> {
        Hashes::restore(&self.hashes)
    }

    /// The digest of the bytes, when `algorithm` was running.
    ///
    /// # Errors
    /// [`DamagedHashState`] when what was stored cannot be used.
    pub fn digest(&self, algorithm: Algorithm) -> Result<Option<Digest>, DamagedHashState> {
        Ok(self.restore_hashes()?.digest(algorithm))
    }
}

/// The fencing number of a session's writers: the newest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// How far an upload has come. Each step is one compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// It takes bytes.
    Open,
    /// Its bytes have the digest; they are on their way to `key`, which the ledger has reserved.
    Finalising {
        /// The verified digest.
        digest: Digest,
        /// The verified size in bytes.
        size: u64,
        /// Where the object will be.
        key: ObjectKey,
    },
    /// Committed: the same request again gets the same answer.
    Done {
        /// The committed digest.
        digest: Digest,
    },
    /// Given up (cancelled, expired, or lost); what is staged is being removed.
    Ended,
}

/// An upload session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadSession {
    /// Its identity.
    pub id: UploadId,
    /// What it will become.
    pub target: UploadTarget,
    /// How far it has come.
    pub state: UploadState,
    /// The number of its newest writer.
    pub epoch: Epoch,
    /// What is durable.
    pub durable: Checkpoint,
    /// What the client was last told (by 202, 416 or status): a body without a range begins there.
    pub told: Checkpoint,
    /// When it was last written or asked for.
    pub touched_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back() {
        let id = UploadId::from_random([9; 16]);
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        assert_eq!(UploadId::from_bytes(id.as_bytes()), Some(id));
        assert_eq!(UploadId::from_bytes(b"short"), None);
        assert!("not-an-id".parse::<UploadId>().is_err());
    }

    #[test]
    fn a_target_says_where_it_goes_if_anywhere() {
        let registry = RegistryId(7);
        let repository = UploadTarget::Repository { registry, repository: "team/app".parse().unwrap() };
        let description = ArtifactDescription {
            version: "1.0".parse().unwrap(),
            content_type: "text/plain".into(),
            filename: "file.txt".parse().unwrap(),
        };
        let version = UploadTarget::Version { registry, package: "tool".parse().unwrap(), description };
        for (target, registry, name) in [
            (repository, Some(registry), "team/app"),
            (version, Some(registry), "tool"),
            (UploadTarget::Unreferenced, None, ""),
        ] {
            assert_eq!((target.registry(), target.name()), (registry, name));
        }
    }

    #[test]
    fn a_start_is_the_empty_blob() {
        let start = Checkpoint::start(true);
        assert_eq!(start.offset, 0);
        assert_eq!(start.digest(Algorithm::Sha512), Ok(Some(Digest::of(Algorithm::Sha512, b""))));
        assert_eq!(Checkpoint::start(false).digest(Algorithm::Sha512), Ok(None));
    }
}
