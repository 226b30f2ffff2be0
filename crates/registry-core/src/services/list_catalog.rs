//! Listing repositories.

use super::Services;
use super::stretches::{Position, stretches};
use crate::error::StoreError;
use crate::permission::Principal;
use crate::ports::metadata::NameRange;

impl Services {
    /// The next at most `limit` repositories, of all `oci` registries, that the principal may read, after `after`
    /// (which need not exist), and whether more follow. Each has the name that it is pulled by: one of a further
    /// registry begins with that registry's name. They are sorted by byte.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_repositories(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, bool), StoreError> {
        let mut names = Vec::new();
        for stretch in stretches(&self.known_registries().await?, principal) {
            if names.len() > limit {
                break;
            }
            let after = match after.map_or(Position::Before, |after| stretch.position(after)) {
                Position::Behind => continue,
                Position::Before => None,
                Position::Inside(name) => Some(name.to_owned()),
            };
            let range = NameRange { start: stretch.start.clone(), end: stretch.end.clone(), after };
            let missing = limit.saturating_add(1) - names.len();
            let found = self.ports.metadata.repositories(stretch.registry, &range, missing).await?;
            names.extend(found.into_iter().map(|name| stretch.listed(name)));
        }
        let more = names.len() > limit;
        names.truncate(limit);
        Ok((names, more))
    }
}
