//! Manifests, tags and referrers.

use async_trait::async_trait;
use bytes::Bytes;

use super::NameRange;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::manifest::ManifestFacts;
use crate::names::{Reference, RepositoryName, Tag};
use crate::precondition::Precondition;
use crate::registry::{References, RegistryId, Repository};
use crate::time::Timestamp;

/// A manifest to be stored.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Where.
    pub repository: Repository,
    /// The digest of `content`, already compared.
    pub digest: Digest,
    /// The document, byte for byte.
    pub content: Bytes,
    /// What it says.
    pub facts: ManifestFacts,
    /// The tags that shall point at it.
    pub tags: Vec<Tag>,
    /// Whether what it names must be there.
    pub references: References,
    /// What must hold of what this reference leads to now.
    pub condition: Option<(Reference, Precondition)>,
}

/// What became of a manifest to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutManifest {
    /// It and its tags are stored; it may have been there before.
    Stored,
    /// These are named but not there, and nothing was stored.
    Missing(Vec<Digest>),
    /// The repository's first segment is a registry's name.
    NameTaken,
    /// The condition does not hold, and nothing was stored.
    PreconditionFailed,
}

/// A stored manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type it is served with.
    pub media_type: String,
    /// The document, byte for byte.
    pub content: Bytes,
}

/// A stored manifest without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDescription {
    /// Its digest.
    pub digest: Digest,
    /// The media type it is served with.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// How many bytes the descriptions of a page of referrers have at most, where they are more than one. Clients read no
/// more than 4 MiB of an answer (oras-go's `MaxMetadataBytes`), and a page is made in memory.
pub const REFERRERS_PAGE_BYTES: u64 = 3 * 1024 * 1024;

/// What is allowed for the rest of a description in a page, in bytes: names of fields, the digest, the size.
pub const DESCRIPTION_BYTES: u64 = 256;

/// A manifest whose subject is the one asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The manifest.
    pub manifest: ManifestDescription,
    /// Its artifact type; may be empty.
    pub artifact_type: String,
    /// Its annotations as a JSON object; may be empty.
    pub annotations: String,
}

impl Referrer {
    /// How many bytes of a page it takes, about.
    pub fn bytes(&self) -> u64 {
        let texts = self.manifest.media_type.len() + self.artifact_type.len() + self.annotations.len();
        DESCRIPTION_BYTES + texts as u64
    }
}

/// A tag in the list over all repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEntry {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What it points at.
    pub digest: Digest,
}

/// Manifests and tags.
#[async_trait]
pub trait ManifestStore: Send + Sync {
    /// Stores a manifest and points tags at it. The rows of the blobs that it names are locked first, in the order of
    /// digests, so that a review cannot drop one at the same time. Strict: all named blobs and children must be
    /// there, a child as a manifest or as a blob (BuildKit's cache index names layers as children, and they are
    /// protected as layers are). Sent twice, the second changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn put_manifest(&self, new: NewManifest, now: Timestamp) -> Result<PutManifest, StoreError>;

    /// The manifest: one query.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError>;

    /// The manifest without its content: one query that does not read it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn describe_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<ManifestDescription>, StoreError>;

    /// Deletes a manifest with all tags that point at it, and leases the blobs that it named until `lease_until` (a
    /// longer lease stays).
    /// False when it is not there. Children and referrers stay.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Deletes a tag and nothing else; false when it is not there, or the precondition does not hold for what it points
    /// at.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn delete_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        precondition: &Precondition,
    ) -> Result<bool, StoreError>;

    /// The next at most `limit` tags after `after` (which need not exist) in byte order; `None` when there is no
    /// such repository: it exists from its first upload, mount or manifest on.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn tags(
        &self,
        repository: &Repository,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, StoreError>;

    /// The next at most `limit` tags of all repositories in `range`, by repository and tag; `after` is a repository
    /// and a tag (neither need exist) and stands beside `range.after`, which is ignored.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn all_tags(
        &self,
        registry: RegistryId,
        range: &NameRange,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<TagEntry>, StoreError>;

    /// The next at most `limit` manifests after `after` whose subject is `subject` (which need not exist), by digest;
    /// with `artifact_type` only those of that type; and whether more follow. They are fewer where their descriptions
    /// come to more than [`REFERRERS_PAGE_BYTES`], but at least one.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Referrer>, bool), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrer_takes_what_its_texts_do_and_a_little_more() {
        let manifest = ManifestDescription { digest: Digest::sha256(b"m"), media_type: "abc".into(), size: 1 << 40 };
        let referrer = Referrer { manifest, artifact_type: "defgh".into(), annotations: r#"{"k":"v"}"#.into() };
        assert_eq!(referrer.bytes(), 256 + 3 + 5 + 9);
    }
}
