//! `/api/v1/packages`: which packages there are, and which versions they have.
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::{Artifact, Client, Page, Result};

/// One line of the list of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSummary {
    /// The package's name.
    pub package: String,
    /// How many versions it has.
    pub version_count: u64,
    /// The highest version, in the order of versions.
    pub latest_version: Option<String>,
    /// When a version was last added or removed, as RFC 3339.
    pub updated_at: Option<String>,
}

/// Which packages to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageQuery {
    /// Only packages whose name matches this text, as the server matches.
    pub search: Option<String>,
    /// How many to ask for at once; the server's default if `None`.
    pub page_size: Option<u32>,
}

#[derive(Deserialize)]
struct PackagesDocument {
    packages: Vec<PackageSummary>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct VersionsDocument {
    versions: Vec<Artifact>,
    next: Option<String>,
}

impl Client {
    /// One page of the packages this token may see, in the order of names.
    ///
    /// # Errors
    /// As every read: see [`crate::Error`].
    pub async fn packages_page(&self, query: &PackageQuery, after: Option<&str>) -> Result<Page<PackageSummary>> {
        let mut url = self.inner.server.api(&["packages"])?;
        let limit = query.page_size.map(|size| size.to_string());
        for (name, value) in [("search", query.search.as_deref()), ("limit", limit.as_deref()), ("after", after)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let document: PackagesDocument = self.get_json(url).await?;
        Ok(Page { items: document.packages, next: document.next })
    }

    /// Every package that `query` selects, read page by page as the stream is read.
    pub fn packages(&self, query: PackageQuery) -> impl Stream<Item = Result<PackageSummary>> {
        self.all_pages(move |client, after| {
            let query = query.clone();
            async move { client.packages_page(&query, after.as_deref()).await }
        })
    }

    /// One page of a package's versions, ascending as versions.
    ///
    /// # Errors
    /// A refusal of kind [`NotFound`](crate::RefusalKind::NotFound) if there is no such package; else as every read.
    pub async fn versions_page(
        &self,
        package: &str,
        page_size: Option<u32>,
        after: Option<&str>,
    ) -> Result<Page<Artifact>> {
        let mut url = self.inner.server.api(&["packages", package])?;
        let limit = page_size.map(|size| size.to_string());
        for (name, value) in [("limit", limit.as_deref()), ("after", after)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let document: VersionsDocument = self.get_json(url).await?;
        Ok(Page { items: document.versions, next: document.next })
    }

    /// Every version of `package`, ascending as versions, read page by page as the stream is read.
    pub fn versions(&self, package: &str, page_size: Option<u32>) -> impl Stream<Item = Result<Artifact>> {
        let package = package.to_owned();
        self.all_pages(move |client, after| {
            let package = package.clone();
            async move { client.versions_page(&package, page_size, after.as_deref()).await }
        })
    }
}
