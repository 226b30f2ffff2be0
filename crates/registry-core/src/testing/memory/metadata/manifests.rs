//! Manifests, tags and referrers.

use async_trait::async_trait;
use bytes::Bytes;

use super::{MemoryMetadata, RepositoryContent, State, contains};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::manifest::ManifestFacts;
use crate::names::{Reference, Tag};
use crate::ports::metadata::manifests::{
    ManifestDescription, NewManifest, PutManifest, REFERRERS_PAGE_BYTES, Referrer, StoredManifest, TagEntry,
};
use crate::ports::metadata::{ManifestStore, NameRange};
use crate::precondition::Precondition;
use crate::registry::{References, RegistryId, Repository};
use crate::time::Timestamp;

/// A stored manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    content: Bytes,
    facts: ManifestFacts,
}

impl Manifest {
    /// Whether it names the digest, as a blob or as a child.
    pub(super) fn names(&self, digest: &Digest) -> bool {
        self.facts.blobs.contains(digest) || self.facts.children.contains(digest)
    }

    fn description(&self, digest: &Digest) -> ManifestDescription {
        ManifestDescription {
            digest: digest.clone(),
            media_type: self.facts.media_type.clone(),
            size: self.content.len() as u64,
        }
    }
}

impl State {
    fn manifest(&self, repository: &Repository, reference: &Reference) -> Option<(&Digest, &Manifest)> {
        let content = self.repositories.get(repository)?;
        let digest = match reference {
            Reference::Tag(tag) => content.tags.get(tag)?,
            Reference::Digest(digest) => digest,
        };
        content.manifests.get_key_value(digest)
    }
}

/// What the manifest names that the repository does not have.
fn missing(content: Option<&RepositoryContent>, facts: &ManifestFacts) -> Vec<Digest> {
    let has_blob = |digest: &Digest| content.is_some_and(|content| content.memberships.contains_key(digest));
    let has_manifest = |digest: &Digest| content.is_some_and(|content| content.manifests.contains_key(digest));
    let blobs = facts.blobs.iter().filter(|digest| !has_blob(digest));
    let children = facts.children.iter().filter(|digest| !has_manifest(digest) && !has_blob(digest));
    blobs.chain(children).cloned().collect()
}

#[async_trait]
impl ManifestStore for MemoryMetadata {
    async fn put_manifest(&self, new: NewManifest, _now: Timestamp) -> Result<PutManifest, StoreError> {
        let mut state = self.state();
        if !state.may_hold(&new.repository)? {
            return Ok(PutManifest::NameTaken);
        }
        if new.references == References::Strict {
            let missing = missing(state.repositories.get(&new.repository), &new.facts);
            if !missing.is_empty() {
                return Ok(PutManifest::Missing(missing));
            }
        }
        if let Some((reference, precondition)) = &new.condition {
            let current = state.manifest(&new.repository, reference).map(|(digest, _)| digest);
            if !precondition.holds(current) {
                return Ok(PutManifest::PreconditionFailed);
            }
        }
        let content = state.repository(&new.repository)?;
        let manifest = Manifest { content: new.content, facts: new.facts };
        content.manifests.entry(new.digest.clone()).or_insert(manifest);
        content.tags.extend(new.tags.into_iter().map(|tag| (tag, new.digest.clone())));
        Ok(PutManifest::Stored)
    }

    async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let state = self.state();
        Ok(state.manifest(repository, reference).map(|(digest, manifest)| StoredManifest {
            digest: digest.clone(),
            media_type: manifest.facts.media_type.clone(),
            content: manifest.content.clone(),
        }))
    }

    async fn describe_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<ManifestDescription>, StoreError> {
        let state = self.state();
        Ok(state.manifest(repository, reference).map(|(digest, manifest)| manifest.description(digest)))
    }

    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(content) = state.repositories.get_mut(repository) else { return Ok(false) };
        let Some(manifest) = content.manifests.remove(digest) else { return Ok(false) };
        content.tags.retain(|_, tagged| tagged != digest);
        for (named, lease) in &mut content.memberships {
            if manifest.names(named) {
                *lease = Some(lease.map_or(lease_until, |leased_until| leased_until.max(lease_until)));
            }
        }
        Ok(true)
    }

    async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        precondition: &Precondition,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(content) = state.repositories.get_mut(repository) else { return Ok(false) };
        if !content.tags.get(tag).is_some_and(|digest| precondition.holds(Some(digest))) {
            return Ok(false);
        }
        content.tags.remove(tag);
        Ok(true)
    }

    async fn tags(
        &self,
        repository: &Repository,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        let state = self.state();
        Ok(state.repositories.get(repository).map(|content| {
            let rest = content.tags.keys().filter(|tag| after.is_none_or(|after| tag.as_str() > after));
            rest.take(limit).cloned().collect()
        }))
    }

    async fn all_tags(
        &self,
        registry: RegistryId,
        range: &NameRange,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<TagEntry>, StoreError> {
        let range = NameRange { after: None, ..range.clone() };
        let state = self.state();
        let mut entries = Vec::new();
        for (repository, content) in &state.repositories {
            if repository.registry != registry || !contains(&range, repository.name.as_str()) {
                continue;
            }
            for (tag, digest) in &content.tags {
                if after.is_none_or(|after| (repository.name.as_str(), tag.as_str()) > after) {
                    let (repository, tag, digest) = (repository.name.clone(), tag.clone(), digest.clone());
                    entries.push(TagEntry { repository, tag, digest });
                }
            }
        }
        entries.truncate(limit);
        Ok(entries)
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Referrer>, bool), StoreError> {
        let state = self.state();
        let Some(content) = state.repositories.get(repository) else { return Ok((Vec::new(), false)) };
        let referrers = content.manifests.iter().filter(|(digest, manifest)| {
            manifest.facts.subject.as_ref() == Some(subject)
                && artifact_type.is_none_or(|artifact_type| manifest.facts.artifact_type == artifact_type)
                && after.is_none_or(|after| digest.as_str() > after)
        });
        let mut referrers = referrers.map(|(digest, manifest)| Referrer {
            manifest: manifest.description(digest),
            artifact_type: manifest.facts.artifact_type.clone(),
            annotations: manifest.facts.annotations.clone(),
        });
        let (mut page, mut bytes) = (Vec::new(), 0);
        for referrer in referrers.by_ref() {
            bytes += referrer.bytes();
            if page.len() == limit || (!page.is_empty() && bytes > REFERRERS_PAGE_BYTES) {
                return Ok((page, true));
            }
            page.push(referrer);
        }
        Ok((page, false))
    }
}
