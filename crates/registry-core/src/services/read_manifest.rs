//! Reading a manifest.

use super::Services;
use crate::error::StoreError;
use crate::names::Reference;
use crate::ports::metadata::manifests::{ManifestDescription, StoredManifest};
use crate::registry::Repository;

impl Services {
    /// The manifest that a tag points at now, or that has a digest: one query.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn read_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        self.ports.metadata.find_manifest(repository, reference).await
    }

    /// The same without the document: one query that does not read it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn describe_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<ManifestDescription>, StoreError> {
        self.ports.metadata.describe_manifest(repository, reference).await
    }
}
