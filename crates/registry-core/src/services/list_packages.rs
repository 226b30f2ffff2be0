//! Listing packages and their versions.

use super::Services;
use crate::error::StoreError;
use crate::names::{PackageName, Version};
use crate::package::{Artifact, PackageSummary};
use crate::permission::{Action, Principal};
use crate::ports::metadata::NameRange;
use crate::registry::{Registry, RegistryId};

/// Which packages to list.
#[derive(Clone, Debug, Default)]
pub struct PackageQuery {
    /// Only those whose name contains this, whatever the case.
    pub search: Option<String>,
    /// Only those after this name.
    pub after: Option<String>,
    /// At most this many.
    pub limit: usize,
}

impl Services {
    /// The next packages that the principal may read, and whether more follow.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_packages(
        &self,
        registry: &Registry,
        principal: &Principal,
        query: &PackageQuery,
    ) -> Result<(Vec<PackageSummary>, bool), StoreError> {
        let mut page = Vec::new();
        let search = query.search.as_deref().filter(|search| !search.is_empty());
        for (start, end) in principal.ranges(Action::Pull, &registry.name) {
            if page.len() > query.limit {
                break;
            }
            let range = NameRange { start, end, after: query.after.clone() };
            let missing = query.limit.saturating_add(1) - page.len();
            page.extend(self.ports.metadata.packages(registry.id, &range, search, missing).await?);
        }
        let more = page.len() > query.limit;
        page.truncate(query.limit);
        Ok((page, more))
    }

    /// The next at most `limit` versions after `after`, in the order of versions, and whether more follow; `None`
    /// when there is no such package.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn list_versions(
        &self,
        registry: RegistryId,
        package: &PackageName,
        after: Option<&Version>,
        limit: usize,
    ) -> Result<Option<(Vec<Artifact>, bool)>, StoreError> {
        let page = self.ports.metadata.versions(registry, package, after, limit.saturating_add(1)).await?;
        Ok(page.map(|mut versions| {
            let more = versions.len() > limit;
            versions.truncate(limit);
            (versions, more)
        }))
    }
}
