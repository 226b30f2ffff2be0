//! Foreign programs that tests drive.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub use registry_test_postgres::skip;

/// The path of `program`, or `None` after saying that `test` is skipped.
pub fn tool(test: &str, program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(test, &format!("{program} is not installed; tests/run installs it"));
    }
    found
}

/// The path of `program`, looked for in `FOUNDRY_TOOLS/bin`, `.tools/bin` and `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let mut folders = Vec::new();
    if let Some(tools) = std::env::var_os("FOUNDRY_TOOLS") {
        folders.push(PathBuf::from(tools).join("bin"));
    }
    folders.push(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin")));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.push(PathBuf::from("/usr/sbin"));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Runs a command to its end, without standard input.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that has to succeed: what it printed to standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// Runs a command that has to fail: all that it printed.
#[track_caller]
pub fn fail(command: &mut Command) -> String {
    let output = run(command);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{command:?} succeeded:\n{text}");
    text
}
