//! Packages and their versions.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{MemoryMetadata, State, contains};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::package::{Artifact, ArtifactDescription, PackageSummary};
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::{NameRange, PackageStore};
use crate::precondition::Precondition;
use crate::registry::RegistryId;
use crate::time::Timestamp;
use crate::version_order::sort_key;

/// A package; it has at least one version.
#[derive(Debug)]
pub(super) struct Package {
    /// By their place in the order of versions.
    versions: BTreeMap<Vec<u8>, Artifact>,
    updated_at: Timestamp,
}

impl Package {
    /// Whether a file of it refers to the blob.
    pub(super) fn refers_to(&self, digest: &Digest) -> bool {
        self.versions.values().any(|artifact| artifact.digest == *digest)
    }
}

impl State {
    /// Whether the version is there.
    pub(super) fn has_version(&self, registry: RegistryId, package: &PackageName, version: &Version) -> bool {
        let package = self.packages.get(&(registry, package.clone()));
        package.is_some_and(|package| package.versions.contains_key(&sort_key(version)))
    }

    /// Makes a version that is not there.
    pub(super) fn publish(
        &mut self,
        (registry, package): (RegistryId, &PackageName),
        description: &ArtifactDescription,
        (digest, size): (&Digest, u64),
        now: Timestamp,
    ) {
        let artifact = Artifact {
            package: package.clone(),
            version: description.version.clone(),
            digest: digest.clone(),
            size,
            content_type: description.content_type.clone(),
            filename: description.filename.clone(),
            uploaded_at: now,
        };
        let package = self.packages.entry((registry, package.clone()));
        let package = package.or_insert_with(|| Package { versions: BTreeMap::new(), updated_at: now });
        package.updated_at = now;
        package.versions.insert(sort_key(&description.version), artifact);
    }
}

#[async_trait]
impl PackageStore for MemoryMetadata {
    async fn find_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
    ) -> Result<Option<(Artifact, ObjectKey)>, StoreError> {
        let state = self.state();
        let package = state.packages.get(&(registry, package.clone()));
        Ok(package.and_then(|package| package.versions.get(&sort_key(version))).map(|artifact| {
            let blob = state.blobs.get(&artifact.digest).expect("a file is of a stored blob");
            (artifact.clone(), blob.key.clone())
        }))
    }

    async fn delete_artifact(
        &self,
        registry: RegistryId,
        package: &PackageName,
        version: &Version,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let name = (registry, package.clone());
        let Some(package) = state.packages.get_mut(&name) else { return Ok(false) };
        let key = sort_key(version);
        let found = package.versions.get(&key);
        let found = found.filter(|artifact| precondition.holds_for_dated(&artifact.digest, artifact.uploaded_at));
        let Some(artifact) = found.cloned() else { return Ok(false) };
        package.versions.remove(&key);
        package.updated_at = now;
        if package.versions.is_empty() {
            state.packages.remove(&name);
        }
        state.candidates.insert(artifact.digest);
        Ok(true)
    }

    async fn packages(
        &self,
        registry: RegistryId,
        range: &NameRange,
        search: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PackageSummary>, StoreError> {
        let search = search.unwrap_or("").to_ascii_lowercase();
        let state = self.state();
        let found = state.packages.iter().filter(|((of, name), _)| {
            *of == registry && contains(range, name.as_str()) && name.as_str().to_ascii_lowercase().contains(&search)
        });
        let summaries = found.map(|((_, name), package)| PackageSummary {
            package: name.clone(),
            version_count: package.versions.len() as u64,
            latest_version: package.versions.values().next_back().expect("it has a version").version.clone(),
            updated_at: package.updated_at,
        });
        Ok(summaries.take(limit).collect())
    }

    async fn versions(
        &self,
        registry: RegistryId,
        package: &PackageName,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Option<Vec<Artifact>>, StoreError> {
        let after = after.map(sort_key);
        let state = self.state();
        Ok(state.packages.get(&(registry, package.clone())).map(|package| {
            let rest = package.versions.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            rest.map(|(_, artifact)| artifact.clone()).take(limit).collect()
        }))
    }
}
