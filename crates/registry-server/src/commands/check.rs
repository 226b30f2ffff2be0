//! Comparing the metadata with what is stored, from the command line.

use std::io::Write as _;
use std::num::NonZero;
use std::time::{Duration, UNIX_EPOCH};

use registry_core::ports::blob_store::ObjectKey;
use registry_core::services::{CheckFinding, CheckOptions, CheckReport, CheckSum, InterruptedCheck, StoreLikeness};
use registry_core::time::Timestamp;
use serde_json::{Value, json};

use super::{CommandError, open_existing};
use crate::arguments::CheckArguments;
use crate::compose::Composition;
use crate::config::Configuration;
use crate::config::backend::{self, BlobBackend};

/// Checks, and prints each finding when it is found. Returns whether all is well now: nothing was found, or all of it
/// was repaired; before an interruption, too, where it goes on after one.
///
/// # Errors
/// [`CommandError`].
pub async fn run(configuration: &Configuration, arguments: CheckArguments) -> Result<bool, CommandError> {
    let composition = open_existing(configuration).await?;
    let CheckArguments { deep, repair, accept_loss, restart, json } = arguments;
    let options = CheckOptions { deep, repair, restart, at_once: at_once(backend::blobs(configuration)) };
    let may_be_any = !repair || accept_loss;
    let outcome = check(&composition, options, may_be_any, json).await;
    composition.close().await;
    outcome
}

async fn check(
    composition: &Composition,
    options: CheckOptions,
    may_be_any: bool,
    json: bool,
) -> Result<bool, CommandError> {
    if !may_be_any {
        let likeness = composition.services.recognise_store(options.at_once).await?;
        if !likeness.is_likely() {
            return Err(CommandError::StrangeStore(likeness));
        }
    }
    let interrupted = composition.services.interrupted_check(options).await?;
    if let Some(interrupted) = &interrupted {
        // Beside the findings, which may be read by a program.
        let _ = writeln!(std::io::stderr(), "registry-server: check: {}", resumption(interrupted));
    }
    let mut broken_output = None;
    let checked = composition
        .services
        .check_storage(options, |finding| {
            let line = if json { as_json(finding).to_string() } else { as_text(finding) };
            // The check goes on: its repairs matter more than its output.
            broken_output = writeln!(std::io::stdout(), "{line}").err().or(broken_output.take());
        })
        .await;
    let report = checked?;
    if let Some(error) = broken_output {
        return Err(error.into());
    }
    let resumed = interrupted.as_ref();
    let summary =
        if json { json!({ "summary": summary(&report, resumed) }).to_string() } else { summary_text(&report) };
    writeln!(std::io::stdout(), "{summary}")?;
    let sum = report.sum();
    Ok(sum.findings == sum.repaired)
}

/// In what the store differs from what the metadata says, and what to do.
pub(super) fn differences(likeness: &StoreLikeness) -> String {
    let StoreLikeness { wanted, missing, stored, unknown } = likeness;
    format!(
        "of {wanted} blobs that were looked for, {missing} are not in it, and of {stored} objects in it, the metadata do \
         not know {unknown}.\n\
         Is its folder mounted, and are bucket, prefix and database the right ones? `check` without --repair lists what \
         is missing and what is not known.\n\
         If the store was lost, or is newer than metadata that were restored: --accept-loss forgets what is missing, and \
         deletes what is not known."
    )
}

/// What whoever goes on with a check should know: not all of its findings will be told again.
fn resumption(InterruptedCheck { begun_at, after, sum }: &InterruptedCheck) -> String {
    let CheckSum { objects, findings, repaired, .. } = sum;
    let after = after.as_ref().map_or("the beginning", ObjectKey::as_str);
    format!(
        "going on after {after} with the check that was begun at {}: {objects} objects, {findings} findings and \
         {repaired} repaired before (--restart begins anew)",
        time(*begun_at)
    )
}

/// As RFC 3339 has it; no check was begun before the epoch.
fn time(at: Timestamp) -> String {
    let since_epoch = Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch).to_string()
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

fn summary(report: &CheckReport, resumed: Option<&InterruptedCheck>) -> Value {
    let CheckSum { objects, bytes, findings, repaired } = report.sum();
    let mut summary = json!({ "objects": objects, "bytes": bytes, "findings": findings, "repaired": repaired });
    if let Some(InterruptedCheck { begun_at, after, .. }) = resumed {
        let CheckSum { objects, findings, repaired, .. } = report.before;
        summary["resumed"] = json!({
            "begun_at": time(*begun_at), "after": after.as_ref().map(ObjectKey::as_str),
            "objects": objects, "findings": findings, "repaired": repaired,
        });
    }
    summary
}

fn summary_text(report: &CheckReport) -> String {
    let CheckSum { objects, bytes, findings, repaired } = report.sum();
    format!("Checked {objects} objects of {bytes} bytes: {findings} findings, {repaired} repaired.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_core::digest::Digest;

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
