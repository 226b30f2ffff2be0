//! Publishing a version of a generic package.

use super::{Body, Services, UploadError};
use crate::digest::{Algorithm, Digest};
use crate::names::PackageName;
use crate::package::{Artifact, ArtifactDescription};
use crate::registry::RegistryId;
use crate::upload::UploadTarget;

/// A version to be published.
pub struct PublishArtifact {
    /// The registry.
    pub registry: RegistryId,
    /// The package; made when this is its first version.
    pub package: PackageName,
    /// The version and what is said of it.
    pub description: ArtifactDescription,
    /// The digest that the client expects. Whichever it is, the version is known by its SHA-256.
    pub digest: Option<Digest>,
    /// How many bytes the request announces.
    pub length: Option<u64>,
}

impl Services {
    /// Receives the file and publishes the version. An existing version is never touched.
    ///
    /// # Errors
    /// [`UploadError::VersionExists`], also when another request published it meanwhile; [`UploadError`].
    pub async fn publish_artifact(&self, request: PublishArtifact, body: Body<'_>) -> Result<Artifact, UploadError> {
        let PublishArtifact { registry, package, description, digest, length } = request;
        let limit = self.max_upload_bytes(self.settings.max_artifact_bytes);
        self.check_length(length, limit)?;
        if self.ports.metadata.find_artifact(registry, &package, &description.version).await?.is_some() {
            return Err(UploadError::VersionExists);
        }
        let target = UploadTarget::Version { registry, package: package.clone(), description: description.clone() };
        let sha512 = digest.as_ref().is_some_and(|digest| digest.algorithm() == Algorithm::Sha512);
        let session = self.create_session(target, sha512, true).await?;
        let outcome = self.receive_whole(&session, digest, limit, body).await;
        self.abandon_unless_done(&session, outcome).await?;
        let stored = self.ports.metadata.find_artifact(registry, &package, &description.version).await?;
        // Deleted again between commit and look-up: what was acknowledged then never was visible to this client.
        stored.map(|(artifact, _)| artifact).ok_or(UploadError::Unknown)
    }
}
