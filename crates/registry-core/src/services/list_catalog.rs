//! Listing repositories.

use super::Services;
use crate::error::StoreError;
use crate::names::RepositoryName;
use crate::permission::{Action, Principal};
use crate::ports::metadata::NameRange;
use crate::registry::Registry;

impl Services {
    /// The next at most `limit` repositories that the principal may read, after `after`, and whether more follow.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_repositories(
        &self,
        registry: &Registry,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<RepositoryName>, bool), StoreError> {
        let mut names = Vec::new();
        for (start, end) in principal.ranges(Action::Pull, &registry.name) {
            if names.len() > limit {
                break;
            }
            let range = NameRange { start, end, after: after.map(str::to_owned) };
            let missing = limit.saturating_add(1) - names.len();
            names.extend(self.ports.metadata.repositories(registry.id, &range, missing).await?);
        }
        let more = names.len() > limit;
        names.truncate(limit);
        Ok((names, more))
    }
}
