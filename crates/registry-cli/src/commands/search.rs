//! `registry-cli search`.
use clap::Args;

use super::list::packages;
use crate::context::Context;
use crate::failure::Failure;

/// List the packages whose names match a text
#[derive(Debug, Args)]
pub struct Search {
    /// The text
    query: String,
    /// List no more than this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl Search {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        packages(context, Some(&self.query), self.limit, &format!("no package matches {:?}", self.query)).await
    }
}
