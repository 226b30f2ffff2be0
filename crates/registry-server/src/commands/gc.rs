//! Collecting garbage from the command line.

use std::io::Write as _;

use registry_core::services::{CollectGarbage, GarbageReport};
use serde_json::json;

use super::{CommandError, open_existing};
use crate::arguments::GcArguments;
use crate::config::Configuration;

/// Collects, and prints what was done.
///
/// # Errors
/// [`CommandError`].
pub async fn run(configuration: &Configuration, arguments: GcArguments) -> Result<(), CommandError> {
    let composition = open_existing(configuration).await?;
    let request = CollectGarbage { grace: arguments.grace, dry_run: arguments.dry_run };
    let collected = composition.services.collect_garbage(request).await;
    composition.close().await;
    let report = collected?;
    let text = if arguments.json { as_json(&report) } else { as_text(&report) };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn as_json(report: &GarbageReport) -> String {
    json!({
        "dry_run": report.dry_run,
        "blobs_deleted": report.blobs_deleted,
        "bytes_freed": report.bytes_freed,
        "memberships_reviewed": report.memberships_reviewed,
        "memberships_dropped": report.memberships_dropped,
        "uploads_ended": report.uploads_ended,
        "objects_deleted": report.objects_deleted,
    })
    .to_string()
}

fn as_text(report: &GarbageReport) -> String {
    let GarbageReport { blobs_deleted: blobs, bytes_freed: bytes, uploads_ended: uploads, .. } = report;
    if report.dry_run {
        return format!("A collection now would delete {blobs} blobs and free {bytes} bytes.");
    }
    format!("Deleted {blobs} blobs, freed {bytes} bytes, and ended {uploads} uploads.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_that_it_is_one() {
        let report = GarbageReport { dry_run: true, blobs_deleted: 2, bytes_freed: 30, ..GarbageReport::default() };
        assert_eq!(as_text(&report), "A collection now would delete 2 blobs and free 30 bytes.");
        assert!(as_json(&report).contains("\"dry_run\":true"));
        let done = GarbageReport { dry_run: false, ..report };
        assert_eq!(as_text(&done), "Deleted 2 blobs, freed 30 bytes, and ended 0 uploads.");
    }
}
