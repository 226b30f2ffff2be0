//! `registry-cli list`.
use clap::Args;
use registry_client::{PackageQuery, PackageSummary};

use crate::context::Context;
use crate::failure::Failure;
use crate::listing::{Listing, show};

/// List the packages
#[derive(Debug, Args)]
pub struct List {
    /// List no more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl List {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        packages(context, None, self.limit, "there are no packages").await
    }
}

/// Lists the packages whose names match `search`, or all.
pub async fn packages(
    context: &Context,
    search: Option<&str>,
    limit: Option<u32>,
    nothing: &str,
) -> Result<(), Failure> {
    let query = PackageQuery { search: search.map(str::to_owned), page_size: page_size(limit) };
    let listing = Listing {
        opening: r#"{"packages":["#.to_owned(),
        columns: &["PACKAGE", "VERSIONS", "LATEST", "UPDATED"],
        row: |package: &PackageSummary| {
            vec![
                package.package.clone(),
                package.version_count.to_string(),
                package.latest_version.clone().unwrap_or_default(),
                package.updated_at.clone().unwrap_or_default(),
            ]
        },
        nothing: nothing.to_owned(),
        limit: limit.map(|limit| limit as usize),
    };
    show(context, context.client()?.packages(query), listing).await
}

/// How many items to ask for at once: what is wanted if that is little, else as many as the server likes.
pub fn page_size(limit: Option<u32>) -> Option<u32> {
    limit.filter(|&limit| limit < 100)
}
