//! `registry-cli delete`.
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Delete a version of a package
///
/// The next garbage collection frees its bytes.
#[derive(Debug, Args)]
pub struct Delete {
    /// The package
    pub package: String,
    /// The version
    version: String,
}

impl Delete {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let Self { package, version } = self;
        context.client()?.delete(package, version).await?;
        let document = json!({ "package": package, "version": version, "deleted": true });
        output::result(context, &document, &format!("Deleted {package} {version}"))
    }
}
