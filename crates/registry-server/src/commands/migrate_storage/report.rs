//! What is printed.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use registry_adapters::sql::TableReport;
use registry_core::digest::Digest;
use registry_core::services::CheckFinding;
use serde_json::{Map, Value, json};

use super::blobs::{Copied, Problem};

/// What a run did.
#[derive(Debug, Default)]
pub(super) struct Report {
    blobs: u64,
    copied: u64,
    bytes: u64,
    surplus: u64,
    pub(super) tables: BTreeMap<&'static str, TableReport>,
    /// How many objects, and bytes, were read back, if they were.
    pub(super) verified: Option<(u64, u64)>,
    pub(super) finished: bool,
}

impl Report {
    /// Takes in what a round copied.
    pub(super) fn add(&mut self, round: &Copied) {
        self.blobs = round.blobs;
        self.copied += round.copied;
        self.bytes += round.bytes;
        self.surplus = round.surplus;
    }

    fn sum(&self, of: impl Fn(&TableReport) -> u64) -> u64 {
        self.tables.values().map(of).sum()
    }

    pub(super) fn as_json(&self) -> String {
        let tables = self.tables.iter().map(|(name, table)| {
            let TableReport { rows, written, removed } = table;
            ((*name).to_owned(), json!({ "rows": rows, "written": written, "removed": removed }))
        });
        json!({
            "finished": self.finished,
            "blobs": self.blobs,
            "blobs_copied": self.copied,
            "bytes_copied": self.bytes,
            "blobs_surplus": self.surplus,
            "rows": self.sum(|table| table.rows),
            "rows_written": self.sum(|table| table.written),
            "rows_removed": self.sum(|table| table.removed),
            "tables": tables.collect::<Map<String, Value>>(),
            "verified": self.verified.map(|(objects, bytes)| json!({ "objects": objects, "bytes": bytes })),
        })
        .to_string()
    }

    pub(super) fn as_text(&self) -> String {
        let Report { blobs, copied, bytes, .. } = self;
        let (rows, written, removed) =
            (self.sum(|table| table.rows), self.sum(|table| table.written), self.sum(|table| table.removed));
        let verified = self.verified.map_or(String::new(), |(objects, bytes)| {
            format!("Read back and hashed: {objects} objects of {bytes} bytes, and every manifest.\n")
        });
        let next = if self.finished {
            "Every row was compared. The migration is finished: start the new servers, and do not start the old one again."
        } else {
            "The target is not in use yet. Run this again as often as you like; at last stop the old server, and run it \
             with --finish."
        };
        format!(
            "Of {blobs} blobs {copied} were copied ({bytes} bytes); of {rows} rows {written} were written, and {removed} \
             were removed that are gone.\n{verified}{next}"
        )
    }
}

fn print(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    lines.into_iter().try_for_each(|line| writeln!(output, "{line}"))
}

const ADVICE: &str = "Nothing was finished. `registry-server check --deep` on the old server says more; with --repair it \
                      takes blobs that cannot be served out of all repositories. Then run this again.";

/// Says which blobs of the source are not carried over.
pub(super) fn damaged_blobs(damaged: &[Problem], as_json: bool) -> io::Result<()> {
    let lines = damaged.iter().map(|Problem { blob, what }| {
        let (digest, key) = (&blob.digest, &blob.key);
        if as_json {
            json!({ "damaged": digest.to_string(), "key": key.as_str(), "what": what }).to_string()
        } else {
            format!("damaged: {digest} at {key}: {what}")
        }
    });
    print(lines.chain((!as_json).then(|| ADVICE.to_owned())))
}

/// Says which manifests are damaged.
pub(super) fn damaged_manifests(digests: &[Digest], as_json: bool) -> io::Result<()> {
    print(digests.iter().map(|digest| {
        if as_json {
            json!({ "damaged_manifest": digest.to_string() }).to_string()
        } else {
            format!("damaged manifest: {digest}. Nothing was finished")
        }
    }))
}

/// Says what of the target is not as it should be.
pub(super) fn damaged_target(findings: &[CheckFinding], as_json: bool) -> io::Result<()> {
    print(findings.iter().map(|finding| {
        if as_json {
            json!({ "target": format!("{finding:?}") }).to_string()
        } else {
            format!("in the target: {finding:?}. Nothing was finished")
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do_next() {
        let table = TableReport { rows: 5, written: 3, removed: 1 };
        let mut report = Report { blobs: 4, copied: 2, bytes: 30, ..Report::default() };
        report.tables = BTreeMap::from([("tags", table), ("tokens", table)]);
        let text = report.as_text();
        assert!(text.starts_with("Of 4 blobs 2 were copied (30 bytes); of 10 rows 6 were written, and 2 "), "{text}");
        assert!(text.contains("not in use yet") && text.contains("--finish"), "{text}");
        report.finished = true;
        report.verified = Some((4, 70));
        let text = report.as_text();
        assert!(text.contains("4 objects of 70 bytes") && text.contains("start the new servers"), "{text}");
        let json: Value = serde_json::from_str(&report.as_json()).unwrap();
        assert_eq!((&json["finished"], &json["rows_written"]), (&true.into(), &6.into()));
        assert_eq!((&json["tables"]["tags"]["removed"], &json["verified"]["bytes"]), (&1.into(), &70.into()));
    }
}
