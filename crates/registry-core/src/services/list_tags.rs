//! Listing tags: of one repository, and of all.

use super::Services;
use crate::error::StoreError;
use crate::names::Tag;
use crate::permission::{Action, Principal};
use crate::ports::metadata::NameRange;
use crate::ports::metadata::manifests::TagEntry;
use crate::registry::{Registry, Repository};

impl Services {
    /// The next at most `limit` tags after `after`, and whether more follow; `None` when there is no such repository.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_tags(
        &self,
        repository: &Repository,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<(Vec<Tag>, bool)>, StoreError> {
        let page = self.ports.metadata.tags(repository, after, limit.saturating_add(1)).await?;
        Ok(page.map(|mut tags| {
            let more = tags.len() > limit;
            tags.truncate(limit);
            (tags, more)
        }))
    }

    /// The next at most `limit` tags of all repositories that the principal may read, after a repository and a tag,
    /// and whether more follow.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_all_tags(
        &self,
        registry: &Registry,
        principal: &Principal,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<(Vec<TagEntry>, bool), StoreError> {
        let mut entries = Vec::new();
        for (start, end) in principal.ranges(Action::Pull, &registry.name) {
            if entries.len() > limit {
                break;
            }
            if after.is_some_and(|(repository, _)| end.as_ref().is_some_and(|end| end.as_str() <= repository)) {
                continue;
            }
            let range = NameRange { start, end, after: None };
            let missing = limit.saturating_add(1) - entries.len();
            entries.extend(self.ports.metadata.all_tags(registry.id, &range, after, missing).await?);
        }
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok((entries, more))
    }
}
