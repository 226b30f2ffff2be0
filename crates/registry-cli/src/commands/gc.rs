//! `registry-cli gc`.
use std::time::Duration;

use clap::Args;
use registry_client::GcOptions;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Collect garbage now, while the server goes on serving
#[derive(Debug, Args)]
pub struct Gc {
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// How long what nothing refers to is kept, such as 0s or 12h [default: the server's setting]
    ///
    /// With a short time, a push that is under way may have to send a layer again.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
}

impl Gc {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let options = GcOptions { dry_run: self.dry_run, grace: self.grace };
        let report = context.client()?.collect_garbage(&options).await?;
        let blobs = format!("{} ({})", output::count(report.blobs_deleted, "blob"), output::size(report.bytes_freed));
        // The rest shows when it is done.
        let sentence = if report.dry_run {
            format!("Would delete {blobs}")
        } else {
            format!(
                "Deleted {blobs} and {}; reviewed {} and ended {}",
                output::count(report.objects_deleted, "object"),
                output::count(report.references_reviewed, "reference"),
                output::count(report.uploads_ended, "upload"),
            )
        };
        output::result(context, &report, &sentence)
    }
}
