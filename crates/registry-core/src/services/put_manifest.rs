//! Storing a manifest.

use bytes::Bytes;

use super::Services;
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::manifest::{InvalidManifest, ManifestFacts};
use crate::names::{Reference, Tag};
use crate::ports::metadata::manifests::{NewManifest, PutManifest};
use crate::ports::steps;
use crate::precondition::Precondition;
use crate::registry::{References, Repository};

/// A manifest that a client sent.
pub struct PutManifestRequest {
    /// Where it goes.
    pub repository: Repository,
    /// The tag or digest that it was sent to.
    pub reference: Reference,
    /// More tags that shall point at it.
    pub tags: Vec<Tag>,
    /// The media type that the client gave.
    pub content_type: Option<String>,
    /// The document.
    pub content: Bytes,
    /// Whether what it names must be there.
    pub references: References,
    /// What must hold of what the reference leads to now.
    pub precondition: Precondition,
}

/// A manifest was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefusal {
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidManifest),
    /// It does not have the digest that it was sent to.
    #[error("the manifest does not have the digest given")]
    DigestMismatch,
    /// It names what is not there.
    #[error("the manifest names what the repository does not hold")]
    Missing(Vec<Digest>),
    /// The repository's name collides with a registry's.
    #[error("the name is that of a registry")]
    NameTaken,
    /// What the reference leads to is not as the client expects.
    #[error("what is there is not as the request expects")]
    PreconditionFailed,
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Stores the manifest, byte for byte, and points its tags at it. Its digest and its subject's.
    ///
    /// # Errors
    /// [`ManifestRefusal`].
    pub async fn put_manifest(&self, request: PutManifestRequest) -> Result<(Digest, Option<Digest>), ManifestRefusal> {
        let facts = ManifestFacts::read(&request.content, request.content_type.as_deref())?;
        let algorithm = match &request.reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = Digest::of(algorithm, &request.content);
        let condition = (!request.precondition.is_none()).then(|| (request.reference.clone(), request.precondition));
        let mut tags = request.tags;
        match request.reference {
            Reference::Digest(expected) if expected != digest => return Err(ManifestRefusal::DigestMismatch),
            Reference::Digest(_) => {}
            Reference::Tag(tag) => tags.push(tag),
        }
        tags.sort();
        tags.dedup();
        let subject = facts.subject.clone();
        let new = NewManifest {
            repository: request.repository,
            digest: digest.clone(),
            content: request.content,
            facts,
            tags,
            references: request.references,
            condition,
        };
        match self.ports.metadata.put_manifest(new, self.now()).await? {
            PutManifest::Stored => {
                self.ports.steps.reached(steps::MANIFEST_COMMITTED);
                Ok((digest, subject))
            }
            PutManifest::Missing(missing) => Err(ManifestRefusal::Missing(missing)),
            PutManifest::NameTaken => Err(ManifestRefusal::NameTaken),
            PutManifest::PreconditionFailed => Err(ManifestRefusal::PreconditionFailed),
        }
    }
}
