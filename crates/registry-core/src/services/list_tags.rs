//! Listing tags: of one repository, and of all.

use super::Services;
use super::stretches::{Position, stretches};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::names::Tag;
use crate::permission::Principal;
use crate::ports::metadata::NameRange;
use crate::ports::metadata::manifests::TagEntry;
use crate::registry::Repository;

/// A tag in the list over all repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTag {
    /// The repository, by the name that it is pulled by.
    pub repository: String,
    /// The tag.
    pub tag: Tag,
    /// What it points at.
    pub digest: Digest,
}

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

    /// The next at most `limit` tags of all repositories that the principal may read, after a repository and a tag
    /// (neither need exist), and whether more follow. Repositories have the names, and the order, of
    /// [`list_repositories`](Self::list_repositories).
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_all_tags(
        &self,
        principal: &Principal,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<(Vec<ListedTag>, bool), StoreError> {
        let mut entries = Vec::new();
        for stretch in stretches(&self.known_registries().await?, principal) {
            if entries.len() > limit {
                break;
            }
            let after = match after.map(|(repository, tag)| (stretch.position(repository), tag)) {
                Some((Position::Behind, _)) => continue,
                Some((Position::Inside(repository), tag)) => Some((repository, tag)),
                Some((Position::Before, _)) | None => None,
            };
            let range = NameRange { start: stretch.start.clone(), end: stretch.end.clone(), after: None };
            let missing = limit.saturating_add(1) - entries.len();
            let found = self.ports.metadata.all_tags(stretch.registry, &range, after, missing).await?;
            entries.extend(found.into_iter().map(|TagEntry { repository, tag, digest }| ListedTag {
                repository: stretch.listed(repository),
                tag,
                digest,
            }));
        }
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok((entries, more))
    }
}
