//! Listing what refers to a manifest.

use super::Services;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::metadata::manifests::Referrer;
use crate::registry::Repository;

impl Services {
    /// The next at most `limit` manifests whose subject is `subject`, after `after`, and whether more follow: fewer where
    /// their descriptions are long. A subject, or repository, that is not there has none.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Referrer>, bool), StoreError> {
        self.ports.metadata.referrers(repository, subject, artifact_type, after, limit).await
    }
}
