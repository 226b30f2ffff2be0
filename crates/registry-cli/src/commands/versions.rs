//! `registry-cli versions`.
use clap::Args;
use registry_client::Artifact;

use super::list::page_size;
use crate::context::Context;
use crate::failure::Failure;
use crate::listing::{Listing, show};
use crate::output;

/// List the versions of a package, in the order of versions
#[derive(Debug, Args)]
pub struct Versions {
    /// The package
    pub package: String,
    /// List no more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl Versions {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let listing = Listing {
            opening: format!(r#"{{"package":{},"versions":["#, output::json(&self.package)),
            columns: &["VERSION", "SIZE", "UPLOADED", "FILE", "DIGEST"],
            row: |artifact: &Artifact| {
                vec![
                    artifact.version.clone(),
                    output::size(artifact.size),
                    artifact.uploaded_at.clone(),
                    artifact.filename.clone().unwrap_or_default(),
                    artifact.digest.to_string(),
                ]
            },
            nothing: format!("{} has no versions", self.package),
            limit: self.limit.map(|limit| limit as usize),
        };
        show(context, context.client()?.versions(&self.package, page_size(self.limit)), listing).await
    }
}
