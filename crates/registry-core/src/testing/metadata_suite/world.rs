//! What the cases have in common: two registries, and short words for long intentions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Subject;
use crate::digest::Digest;
use crate::manifest::{ManifestFacts, OCI_INDEX, OCI_MANIFEST};
use crate::names::{Reference, RegistryName, Tag};
use crate::package::ArtifactDescription;
use crate::ports::blob_store::{KeyCandidates, ObjectKey};
use crate::ports::metadata::manifests::{NewManifest, PutManifest};
use crate::ports::metadata::registries::{CreateRegistry, NewRegistry};
use crate::ports::metadata::uploads::{
    CheckpointStep, CommitOutcome, CreateUpload, NewUpload, SealOutcome, SealUpload,
};
use crate::ports::metadata::{Metadata, NameRange};
use crate::precondition::{Expected, Precondition};
use crate::registry::{Format, Mode, References, RegistryId, RegistrySettings, Repository};
use crate::time::Timestamp;
use crate::upload::{Checkpoint, StagingState, UploadId, UploadSession, UploadTarget};

/// The time of a case: so many seconds after its beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_735_689_600_000_000 + seconds * 1_000_000)
}

/// A store with the default registries in it.
pub struct World {
    /// The store.
    pub store: Arc<dyn Metadata>,
    /// The store as another replica has it.
    pub other: Arc<dyn Metadata>,
    /// The registry `oci`.
    pub oci: RegistryId,
    /// The registry `generic`.
    pub generic: RegistryId,
    ids: AtomicU64,
}

/// The keys that a blob's object may get, as a file store names them.
pub trait CandidatesOf {
    /// The candidates.
    fn candidates(&self) -> KeyCandidates;

    /// The first of them.
    fn plain_key(&self) -> ObjectKey {
        self.candidates().nth(0)
    }
}

impl CandidatesOf for Digest {
    fn candidates(&self) -> KeyCandidates {
        KeyCandidates::new(format!("{}/{}", &self.encoded()[..2], self.encoded()))
    }
}

impl World {
    /// The default registries, made at the beginning.
    pub async fn new(subject: &impl Subject) -> Self {
        let (store, other) = (subject.store(), subject.store());
        let oci = Self::registry_in(&*store, RegistryName::default_oci().as_str(), Format::Oci).await;
        let generic = Self::registry_in(&*store, RegistryName::default_generic().as_str(), Format::Generic).await;
        Self { store, other, oci, generic, ids: AtomicU64::new(1) }
    }

    /// The same registries in another store, which has their identities already.
    pub fn over(store: Arc<dyn Metadata>, world: &World) -> Self {
        let (oci, generic) = (world.oci, world.generic);
        // Identities of uploads that no case takes.
        Self { other: Arc::clone(&store), store, oci, generic, ids: AtomicU64::new(1 << 32) }
    }

    /// An image manifest that names `blobs`, told apart by `text`.
    pub fn image(&self, repository: &Repository, text: &str, blobs: &[&Digest]) -> NewManifest {
        image(repository, text, blobs)
    }

    async fn registry_in(store: &dyn Metadata, name: &str, format: Format) -> RegistryId {
        let new = new_registry(name, format);
        match store.create_registry(new, at(0)).await.unwrap() {
            CreateRegistry::Created(registry) => registry.id,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Makes a registry.
    pub async fn registry(&self, name: &str, format: Format) -> RegistryId {
        Self::registry_in(&*self.store, name, format).await
    }

    /// A repository of the registry `oci`.
    pub fn repository(&self, name: &str) -> Repository {
        Repository { registry: self.oci, name: name.parse().unwrap() }
    }

    /// A fresh identity.
    pub fn id(&self) -> UploadId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ids.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        UploadId::from_random(bytes)
    }

    /// Makes a session, whose epoch is 1.
    pub async fn open(&self, target: UploadTarget, now: Timestamp) -> UploadSession {
        let new = NewUpload { id: self.id(), target, start: Checkpoint::start(false), writing: true };
        match self.store.create_upload(new, now).await.unwrap() {
            CreateUpload::Created(session) => session,
            CreateUpload::NameTaken => panic!("the name is taken"),
        }
    }

    /// A session for a blob of `repository`.
    pub async fn open_blob(&self, repository: &Repository) -> UploadSession {
        self.open(target(repository), at(0)).await
    }

    /// A session for a version of a package.
    pub async fn open_version(&self, package: &str, version: &str) -> UploadSession {
        self.open(self.version(package, version), at(0)).await
    }

    /// The target of a version.
    pub fn version(&self, package: &str, version: &str) -> UploadTarget {
        UploadTarget::Version {
            registry: self.generic,
            package: package.parse().unwrap(),
            description: ArtifactDescription {
                version: version.parse().unwrap(),
                content_type: "application/x-test".into(),
                filename: format!("{package} {version} ü.bin").parse().unwrap(),
            },
        }
    }

    /// Seals a session that was just made with the bytes `content`; where the object goes.
    pub async fn seal(&self, session: &UploadSession, content: &str, lease_until: Timestamp) -> SealOutcome {
        self.store.seal_upload(seal_of(session, content, lease_until), at(0)).await.unwrap()
    }

    /// Seals a session and expects to be told to publish.
    pub async fn seal_to_publish(&self, session: &UploadSession, content: &str) -> ObjectKey {
        match self.seal(session, content, at(1_000)).await {
            SealOutcome::Publish(key) => key,
            other => panic!("{other:?}"),
        }
    }

    /// Seals and commits.
    pub async fn finish(
        &self,
        session: &UploadSession,
        content: &str,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> CommitOutcome {
        match self.store.seal_upload(seal_of(session, content, lease_until), now).await.unwrap() {
            SealOutcome::Publish(_) => {
                let digest = Digest::sha256(content.as_bytes());
                self.store.commit_upload(session.id, &digest, lease_until, now).await.unwrap()
            }
            SealOutcome::AlreadyStored(outcome) => outcome,
            SealOutcome::Superseded => panic!("nobody else has written"),
        }
    }

    /// A blob of a repository, leased until `lease_until`.
    pub async fn push_until(&self, repository: &Repository, content: &str, lease_until: Timestamp) -> Digest {
        let session = self.open_blob(repository).await;
        assert_eq!(self.finish(&session, content, lease_until, at(0)).await, CommitOutcome::Committed);
        Digest::sha256(content.as_bytes())
    }

    /// A blob of a repository, leased for 1,000 seconds from the beginning.
    pub async fn push(&self, repository: &Repository, content: &str) -> Digest {
        self.push_until(repository, content, at(1_000)).await
    }

    /// A version of a package, published at `now`.
    pub async fn publish_at(&self, package: &str, version: &str, content: &str, now: Timestamp) -> Digest {
        let session = self.open_version(package, version).await;
        assert_eq!(self.finish(&session, content, at(1_000), now).await, CommitOutcome::Committed);
        Digest::sha256(content.as_bytes())
    }

    /// A version of a package, whose bytes are its name and version.
    pub async fn publish(&self, package: &str, version: &str) -> Digest {
        self.publish_at(package, version, &format!("{package} {version}"), at(0)).await
    }

    /// Stores a manifest and its tags, whatever it names.
    pub async fn put(&self, new: NewManifest) -> Digest {
        let digest = new.digest.clone();
        assert_eq!(self.store.put_manifest(new, at(0)).await.unwrap(), PutManifest::Stored);
        digest
    }

    /// A manifest of its own for each `text`, which names nothing, with tags.
    pub async fn tagged(&self, repository: &Repository, text: &str, tags: &[&str]) -> Digest {
        self.put(with_tags(image(repository, text, &[]), tags)).await
    }

    /// The digest that a tag points at.
    pub async fn resolve(&self, repository: &Repository, tag: &str) -> Option<Digest> {
        let reference = Reference::Tag(tag.parse().unwrap());
        let found = self.other.describe_manifest(repository, &reference).await.unwrap();
        found.map(|manifest| manifest.digest)
    }

    /// Whether the manifest is there.
    pub async fn holds_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        let reference = Reference::Digest(digest.clone());
        self.other.find_manifest(repository, &reference).await.unwrap().is_some()
    }

    /// Whether the blob is visible.
    pub async fn holds_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        self.other.find_blob(repository, digest).await.unwrap().is_some()
    }

    /// Whether the repository exists at all.
    pub async fn exists(&self, repository: &Repository) -> bool {
        self.other.tags(repository, None, 1).await.unwrap().is_some()
    }

    /// The names of all listed repositories of a registry.
    pub async fn listed(&self, registry: RegistryId) -> Vec<String> {
        let names = self.other.repositories(registry, &NameRange::default(), 1_000).await.unwrap();
        names.into_iter().map(String::from).collect()
    }

    /// Reviews everything that is due; how many memberships were looked at and dropped.
    pub async fn review(&self, due: Timestamp) -> (u64, u64) {
        let batch = self.store.review_memberships(due, 1_000).await.unwrap();
        (batch.reviewed, batch.dropped)
    }

    /// Asserts that the membership's lease ends at exactly `until`, by letting it end: the blob must not be named.
    pub async fn assert_leased_until(&self, repository: &Repository, digest: &Digest, until: Timestamp) {
        let just_before = Timestamp::from_micros(until.as_micros() - 1);
        self.review(just_before).await;
        assert!(self.holds_blob(repository, digest).await, "the lease ended before {until}");
        self.review(until).await;
        assert!(!self.holds_blob(repository, digest).await, "the lease lasts beyond {until}");
    }
}

/// A registry to be made.
pub fn new_registry(name: &str, format: Format) -> NewRegistry {
    let settings = RegistrySettings { references: References::Lenient, ..RegistrySettings::default() };
    NewRegistry { name: name.parse().unwrap(), format, mode: Mode::Local, settings }
}

/// The target of a blob.
pub fn target(repository: &Repository) -> UploadTarget {
    UploadTarget::Repository { registry: repository.registry, repository: repository.name.clone() }
}

/// A checkpoint after `offset` bytes; its hashes and staging tell it from others.
pub fn checkpoint(offset: u64) -> Checkpoint {
    let mut hashes = Checkpoint::start(true).restore_hashes().unwrap();
    hashes.update(&offset.to_be_bytes());
    Checkpoint { offset, hashes: hashes.save(), staging: StagingState(format!("{{\"parts\":{offset}}}")) }
}

/// A step of the session's writer from its durable offset.
pub fn step(session: &UploadSession, to: u64) -> CheckpointStep {
    CheckpointStep {
        id: session.id,
        epoch: session.epoch,
        from: session.durable.offset,
        to: checkpoint(to),
        tell: false,
    }
}

/// The wish to make the bytes `content` of an open session a blob.
pub fn seal_of(session: &UploadSession, content: &str, lease_until: Timestamp) -> SealUpload {
    let digest = Digest::sha256(content.as_bytes());
    let candidates = digest.candidates();
    SealUpload { step: step(session, content.len() as u64), digest, candidates, lease_until }
}

/// An image manifest that names `blobs`, told apart by `text`.
pub fn image(repository: &Repository, text: &str, blobs: &[&Digest]) -> NewManifest {
    let content = format!("{{\"text\":\"{text}\",\"blobs\":{blobs:?}}}");
    let mut blobs: Vec<Digest> = blobs.iter().map(|digest| (*digest).clone()).collect();
    blobs.sort();
    let facts = ManifestFacts {
        media_type: OCI_MANIFEST.into(),
        artifact_type: String::new(),
        subject: None,
        blobs,
        children: Vec::new(),
        annotations: String::new(),
    };
    NewManifest {
        repository: repository.clone(),
        digest: Digest::sha256(content.as_bytes()),
        content: content.into_bytes().into(),
        facts,
        tags: Vec::new(),
        references: References::Lenient,
        condition: None,
    }
}

/// An index that names `children`.
pub fn index(repository: &Repository, text: &str, children: &[&Digest]) -> NewManifest {
    let mut new = image(repository, text, children);
    new.facts.children = std::mem::take(&mut new.facts.blobs);
    new.facts.media_type = OCI_INDEX.into();
    new
}

/// With tags.
pub fn with_tags(mut new: NewManifest, tags: &[&str]) -> NewManifest {
    new.tags = tags.iter().map(|tag| tag.parse::<Tag>().unwrap()).collect();
    new
}

/// With a condition for what `reference` leads to.
pub fn on_condition(mut new: NewManifest, reference: Reference, precondition: Precondition) -> NewManifest {
    new.condition = Some((reference, precondition));
    new
}

/// `If-Match` with these digests.
pub fn if_match(digests: &[&Digest]) -> Precondition {
    let digests = digests.iter().map(|digest| (*digest).clone()).collect();
    Precondition { if_match: Some(Expected::OneOf(digests)), ..Precondition::NONE }
}

/// `If-None-Match: *`
pub fn if_absent() -> Precondition {
    Precondition { if_none_match: Some(Expected::Anything), ..Precondition::NONE }
}

/// With strict references.
pub fn strict(mut new: NewManifest) -> NewManifest {
    new.references = References::Strict;
    new
}

/// A range of names.
pub fn range(start: &str, end: Option<&str>, after: Option<&str>) -> NameRange {
    NameRange { start: start.into(), end: end.map(str::to_owned), after: after.map(str::to_owned) }
}

/// All entries of a list, in pages of at most `limit`, each asked for after the last entry of the one before.
pub async fn pages<T>(limit: usize, page: impl AsyncFn(Option<&T>) -> Vec<T>) -> Vec<T> {
    const MORE_THAN_ANY_CASE_MAKES: usize = 1_000;
    let mut all = Vec::new();
    loop {
        let next = page(all.last()).await;
        assert!(next.len() <= limit, "a page of {} instead of {limit}", next.len());
        if next.is_empty() {
            return all;
        }
        all.extend(next);
        assert!(all.len() < MORE_THAN_ANY_CASE_MAKES, "the pages repeat");
    }
}

/// The texts of names.
pub fn texts<T: ToString>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    names.into_iter().map(|name| name.to_string()).collect()
}
