//! What lies in deploy/: images that run, balancers that stream, charts and templates that their checkers accept and
//! that ask of the server only what it has.

mod balancer;
mod chart;
mod cloudformation;
mod cluster;
mod compose;
mod dashboard;
mod image;
mod load;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use registry_tests::process::{Ended, Process, server_command};
use serde_norway::Value;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The text of a file of the repository.
#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML text, aliases and merges resolved; those that are empty are left out.
#[track_caller]
fn documents(text: &str) -> Vec<Value> {
    let parse = |document| {
        let mut value: Value =
            serde::Deserialize::deserialize(document).unwrap_or_else(|error| panic!("{error}\n{text}"));
        value.apply_merge().expect("merges are of mappings");
        value
    };
    serde_norway::Deserializer::from_str(text).map(parse).filter(|value| !value.is_null()).collect()
}

/// The names of the environment that docs/configuration.md explains.
fn documented_variables() -> BTreeSet<String> {
    let text = read("docs/configuration.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('|').nth(3)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(names.contains("DB_HOST") && names.contains("S3_BUCKET"), "{names:?}");
    names
}

/// Asserts that each name is one that the server reads.
#[track_caller]
fn assert_read_by_the_server<'a>(names: impl IntoIterator<Item = &'a str>) {
    let documented = documented_variables();
    let unknown: Vec<_> = names.into_iter().filter(|name| !documented.contains(*name)).collect();
    assert!(unknown.is_empty(), "the server reads no {unknown:?}");
}

/// `registry-server config` with that file and environment.
fn effective_configuration(folder: &Path, file: &Path, environment: &[(&str, &str)]) -> Ended {
    let mut command: Command = server_command(folder);
    command.arg("-config").arg(file).arg("config").envs(environment.iter().copied());
    Process::run(&mut command)
}
