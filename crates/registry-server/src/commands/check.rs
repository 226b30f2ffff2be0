//! Comparing the metadata with what is stored, from the command line.

use std::io::Write as _;
use std::num::NonZero;

use registry_core::services::{CheckFinding, CheckOptions, CheckReport};
use serde_json::{Value, json};

use super::{CommandError, open_existing};
use crate::arguments::CheckArguments;
use crate::config::Configuration;
use crate::config::backend::{self, BlobBackend};

/// Checks, and prints each finding when it is found. Returns whether all is well now: nothing was found, or all of it
/// was repaired.
///
/// # Errors
/// [`CommandError`].
pub async fn run(configuration: &Configuration, arguments: CheckArguments) -> Result<bool, CommandError> {
    let composition = open_existing(configuration).await?;
    let CheckArguments { deep, repair, restart, json } = arguments;
    let options = CheckOptions { deep, repair, restart, at_once: at_once(backend::blobs(configuration)) };
    let mut broken_output = None;
    let checked = composition
        .services
        .check_storage(options, |finding| {
            let line = if json { as_json(finding).to_string() } else { as_text(finding) };
            // The check goes on: its repairs matter more than its output.
            broken_output = writeln!(std::io::stdout(), "{line}").err().or(broken_output.take());
        })
        .await;
    composition.close().await;
    let report = checked?;
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    let summary = if json { json!({ "summary": summary(&report) }).to_string() } else { summary_text(&report) };
    writeln!(std::io::stdout(), "{summary}")?;
    Ok(u64::try_from(report.findings.len()) == Ok(report.repaired))
}

/// How many objects are looked at at once. A bucket takes its time for each, and that of several passes together; of a
/// folder, each takes a core to be hashed.
pub(super) fn at_once(blobs: BlobBackend) -> usize {
    match blobs {
        BlobBackend::S3 => 16,
        BlobBackend::Files => std::thread::available_parallelism().map_or(1, NonZero::get),
    }
}

fn as_json(finding: &CheckFinding) -> Value {
    match finding {
        CheckFinding::Missing { digest, key } => {
            json!({ "finding": "missing", "digest": digest.to_string(), "key": key.as_str() })
        }
        CheckFinding::WrongSize { digest, key, expected, actual } => json!({
            "finding": "wrong_size", "digest": digest.to_string(), "key": key.as_str(),
            "expected": expected, "actual": actual,
        }),
        CheckFinding::WrongContent { digest, key, actual } => json!({
            "finding": "wrong_content", "digest": digest.to_string(), "key": key.as_str(),
            "actual": actual.to_string(),
        }),
        CheckFinding::Unreadable { digest, key, why } => json!({
            "finding": "unreadable", "digest": digest.to_string(), "key": key.as_str(), "why": why,
        }),
        CheckFinding::Orphaned { key, size } => json!({ "finding": "orphaned", "key": key.as_str(), "size": size }),
    }
}

fn as_text(finding: &CheckFinding) -> String {
    match finding {
        CheckFinding::Missing { digest, key } => format!("missing: {digest} (nothing at {key})"),
        CheckFinding::WrongSize { digest, key, expected, actual } => {
            format!("wrong size: {digest} has {actual} bytes at {key}, not {expected}")
        }
        CheckFinding::WrongContent { digest, key, actual } => {
            format!("wrong content: {digest} has the digest {actual} at {key}")
        }
        CheckFinding::Unreadable { digest, key, why } => format!("unreadable: {digest} at {key}: {why}"),
        CheckFinding::Orphaned { key, size } => format!("orphaned: nothing knows the {size} bytes at {key}"),
    }
}

fn summary(report: &CheckReport) -> Value {
    json!({
        "objects": report.objects,
        "bytes": report.bytes,
        "findings": report.findings.len(),
        "repaired": report.repaired,
    })
}

fn summary_text(report: &CheckReport) -> String {
    let CheckReport { objects, bytes, findings, repaired } = report;
    let findings = findings.len();
    format!("Checked {objects} objects of {bytes} bytes: {findings} findings, {repaired} repaired.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_core::digest::Digest;
    use registry_core::ports::blob_store::ObjectKey;

    #[test]
    fn each_finding_says_what_it_is() {
        let (digest, key) = (Digest::sha256(b"a"), ObjectKey("ca/x".into()));
        let actual = Digest::sha256(b"b");
        for (finding, word, text) in [
            (CheckFinding::Missing { digest: digest.clone(), key: key.clone() }, "missing", "nothing at ca/x"),
            (
                CheckFinding::WrongSize { digest: digest.clone(), key: key.clone(), expected: 2, actual: 1 },
                "wrong_size",
                "has 1 bytes at ca/x, not 2",
            ),
            (
                CheckFinding::WrongContent { digest: digest.clone(), key: key.clone(), actual },
                "wrong_content",
                "has the digest sha256:3e23",
            ),
            (
                CheckFinding::Unreadable { digest, key: key.clone(), why: "it burnt".into() },
                "unreadable",
                "at ca/x: it burnt",
            ),
            (CheckFinding::Orphaned { key, size: 7 }, "orphaned", "7 bytes at ca/x"),
        ] {
            assert_eq!(as_json(&finding)["finding"], word);
            assert_eq!(as_json(&finding)["key"], "ca/x");
            assert!(as_text(&finding).contains(text), "{}", as_text(&finding));
        }
    }
}
