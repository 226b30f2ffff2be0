//! Metadata in memory: the plainest program that keeps the contracts of all metadata ports, one file for each.

mod blob_index;
mod garbage;
mod jobs;
mod ledger;
mod manifests;
mod packages;
mod registries;
mod signing_keys;
mod tokens;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::manifests::Manifest;
use self::packages::Package;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::names::{PackageName, RegistryName, Tag};
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::NameRange;
use crate::ports::metadata::blob_index::StoredBlob;
use crate::ports::metadata::ledger::ObjectState;
use crate::registry::{Registry, RegistryId, Repository};
use crate::time::Timestamp;
use crate::token::{SigningKey, TokenId, TokenRecord};
use crate::upload::{UploadId, UploadSession};

/// Keeps metadata in memory. A clone is another replica over the same content.
///
/// Every intention holds one lock and awaits nothing, so it happens whole or not at all; one that is refused looks
/// first and changes nothing.
#[derive(Clone, Debug, Default)]
pub struct MemoryMetadata(Arc<Mutex<State>>);

impl MemoryMetadata {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere shall fail with its own message.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    registries: BTreeMap<RegistryName, Registry>,
    /// What may stand first in `/v2/<name>`: the name of an `oci` registry, or a first segment in use in the default
    /// one (`None`).
    first_segments: BTreeMap<String, Option<RegistryId>>,
    repositories: BTreeMap<Repository, RepositoryContent>,
    blobs: BTreeMap<Digest, Blob>,
    objects: BTreeMap<ObjectKey, Object>,
    candidates: BTreeSet<Digest>,
    uploads: BTreeMap<UploadId, UploadSession>,
    packages: BTreeMap<(RegistryId, PackageName), Package>,
    tokens: BTreeMap<TokenId, TokenRecord>,
    signing_keys: Vec<SigningKey>,
    job_cursors: BTreeMap<String, String>,
}

/// What the ledger says of a key, and since when.
#[derive(Clone, Copy, Debug)]
struct Object {
    state: ObjectState,
    since: Timestamp,
}

#[derive(Debug)]
struct Blob {
    size: u64,
    key: ObjectKey,
}

#[derive(Debug, Default)]
struct RepositoryContent {
    /// Until when each visible blob is leased; `None`: reviewed.
    memberships: BTreeMap<Digest, Option<Timestamp>>,
    manifests: BTreeMap<Digest, Manifest>,
    tags: BTreeMap<Tag, Digest>,
}

impl RepositoryContent {
    /// Whether a manifest here names the digest.
    fn names(&self, digest: &Digest) -> bool {
        self.manifests.values().any(|manifest| manifest.names(digest))
    }
}

impl State {
    /// The blob, if the repository has it.
    fn visible(&self, repository: &Repository, digest: &Digest) -> Option<StoredBlob> {
        self.repositories.get(repository)?.memberships.get(digest)?;
        let blob = self.blobs.get(digest).expect("a membership is of a stored blob");
        Some(StoredBlob { digest: digest.clone(), size: blob.size, key: blob.key.clone() })
    }

    /// Whether a file of a package refers to the blob.
    fn is_published(&self, digest: &Digest) -> bool {
        self.packages.values().any(|package| package.refers_to(digest))
    }

    /// Marks an object for deletion, whatever its state.
    fn doom(&mut self, key: &ObjectKey, now: Timestamp) {
        if let Some(object) = self.objects.get_mut(key)
            && object.state != ObjectState::Doomed
        {
            *object = Object { state: ObjectState::Doomed, since: now };
        }
    }

    /// Whether the repository is there or can be made; not when its first segment is the name of a registry.
    fn may_hold(&self, repository: &Repository) -> Result<bool, StoreError> {
        if self.repositories.contains_key(repository) {
            return Ok(true);
        }
        let taken = self.first_segments.get(repository.name.first_segment());
        Ok(!self.is_default(repository.registry)? || !matches!(taken, Some(Some(_))))
    }

    /// The repository, which is made if need be; [`may_hold`](Self::may_hold) said that it can.
    fn repository(&mut self, repository: &Repository) -> Result<&mut RepositoryContent, StoreError> {
        if !self.repositories.contains_key(repository) && self.is_default(repository.registry)? {
            self.first_segments.insert(repository.name.first_segment().to_owned(), None);
        }
        Ok(self.repositories.entry(repository.clone()).or_default())
    }

    fn is_default(&self, id: RegistryId) -> Result<bool, StoreError> {
        match self.registries.values().find(|registry| registry.id == id) {
            Some(registry) => Ok(registry.name == RegistryName::default_oci()),
            None => Err(StoreError::corrupt(format!("there is no registry of the identity {}", id.0))),
        }
    }
}

/// Makes a blob visible until `until` at least; a reviewed membership stays reviewed.
fn lease(repository: &mut RepositoryContent, digest: &Digest, until: Timestamp) {
    let lease = repository.memberships.entry(digest.clone()).or_insert(Some(until));
    *lease = lease.map(|leased_until| leased_until.max(until));
}

/// Whether `name` lies in `range`.
fn contains(range: &NameRange, name: &str) -> bool {
    name >= range.start.as_str()
        && range.end.as_deref().is_none_or(|end| name < end)
        && range.after.as_deref().is_none_or(|after| name > after)
}
