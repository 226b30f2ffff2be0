//! The conformance suite of the OCI distribution specification, as its authors wrote it.
//!
//! `tests/lib/install` builds the suite from the Go module proxy. Its `results.yaml` says of each API and kind of data
//! how it went; how many cases passed only its `junit.xml` says. The same requirements, and those that the suite does not
//! know, are also cases of our own in `oci_protocol`.

use std::fs;
use std::path::Path;
use std::process::Command;

use registry_tests::server::ADMIN;
use registry_tests::{Server, tools};

/// What the suite reported.
#[derive(Debug)]
struct Report {
    passed: u64,
    failed: u64,
    errors: u64,
    /// The cases that the suite left out because of what the registry answered.
    skipped: Vec<String>,
    /// What it said of each API and kind of data, e.g. `Blob mount: Pass`.
    results: String,
}

#[test]
fn the_stable_edition_with_references_that_must_exist() {
    conforms("stable", false, 860);
}

#[test]
fn the_stable_edition_with_references_that_may_be_missing() {
    conforms("stable", true, 906);
}

#[test]
fn the_development_edition_with_references_that_must_exist() {
    conforms("dev", false, 986);
}

#[test]
fn the_development_edition_with_references_that_may_be_missing() {
    conforms("dev", true, 1032);
}

/// `sparse`: whether the suite pushes images whose layers are missing, which a lenient registry takes.
fn conforms(edition: &str, sparse: bool, least: u64) {
    let Some(suite) = tools::tool(&format!("the {edition} conformance suite"), "conformance") else { return };
    let mut builder = Server::builder();
    if sparse {
        builder = builder.config("registries:\n  oci:\n    references: lenient");
    }
    let server = builder.start();
    let report = run(&suite, &server, edition, sparse);

    assert_eq!((report.failed, report.errors), (0, 0), "{report:#?}");
    for verdict in ["FAIL", "Error", "Skip"] {
        let line = format!(": {verdict}");
        assert!(!report.results.lines().any(|result| result.ends_with(&line)), "{report:#?}");
    }
    assert!(report.skipped.is_empty(), "{report:#?}");
    assert!(report.passed >= least, "fewer than {least} passed: {report:#?}");
}

fn run(suite: &Path, server: &Server, edition: &str, sparse: bool) -> Report {
    // A folder that did not exist before: what is in it afterwards is of this run. The suite exits with 0 too when it
    // cannot write its report, so that alone says nothing.
    let folder = server.folder().join("conformance");
    fs::create_dir(&folder).expect("the folder is new");
    let mut command = Command::new(suite);
    command.current_dir(&folder).env("OCI_RESULTS_DIR", &folder);
    command.env("OCI_REGISTRY", server.host()).env("OCI_TLS", "disabled");
    command.env("OCI_REPO1", "conformance/one").env("OCI_REPO2", "conformance/two");
    command.env("OCI_USERNAME", "any").env("OCI_PASSWORD", ADMIN);
    command.env("OCI_VERSION", edition).env("OCI_DATA_SPARSE", sparse.to_string());
    let output = tools::run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |name: &str| {
        fs::read_to_string(folder.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{text}\n{}", String::from_utf8_lossy(&output.stderr)))
    };

    let results = read("results.yaml");
    assert!(results.contains(&format!("version: {edition}")), "{results}");
    let (_, results) = results.split_once("\napis:\n").expect("the results are listed by API");
    let junit = read("junit.xml");
    let counts = junit.split("<testsuite ").nth(1).expect("there is one suite");
    let count = |name: &str| attribute(counts, name);
    let (failed, errors) = (count("failures"), count("errors"));
    let not_passed = failed + errors + count("skipped") + count("disabled");
    let skipped = text.lines().filter_map(|line| line.trim().strip_suffix(": Skip")).map(str::to_owned).collect();
    Report { passed: count("tests") - not_passed, failed, errors, skipped, results: results.to_owned() }
}

/// A number in an element's head; 0 where the suite left it out.
fn attribute(element: &str, name: &str) -> u64 {
    let head = element.split('>').next().expect("split yields at least one part");
    let value = head.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next());
    value.map_or(0, |value| value.parse().expect("counts are numbers"))
}
