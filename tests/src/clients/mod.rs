//! What the tests of foreign clients share: surroundings of their own, images that can run, and what the server saw.

pub mod containers;
pub mod docker;
pub mod images;
pub mod requests;
pub mod server_images;

use std::path::PathBuf;

use serde_json::json;

use crate::server::Server;
use crate::tools::{skip, tool};

pub use containers::Containers;
pub use docker::Docker;
pub use requests::Requests;

/// What the programs of Debian and this repository's own are called with: the user's name means nothing.
pub const USER: &str = "any";

/// What the server says to one without credentials; clients show it.
pub const LOG_IN: &str = "log in with any user name and an access token as the password";

/// The paths of programs, or `None` after saying that `test` is skipped.
pub fn tools<const N: usize>(test: &str, programs: [&str; N]) -> Option<[PathBuf; N]> {
    let mut found = Vec::with_capacity(N);
    for program in programs {
        found.push(tool(test, program)?);
    }
    found.try_into().ok()
}

/// Whether this is root; otherwise says that `test` is skipped.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "containers are run as root here");
    }
    root
}

/// Makes a token with these scopes (`registry:name:actions`) on the server.
#[track_caller]
pub fn token(server: &Server, name: &str, scopes: &[&str]) -> String {
    let wanted = json!({ "name": name, "scopes": scopes }).to_string();
    let headers = ["Content-Type: application/json"];
    let made = server.request("POST", "/api/v1/tokens", &headers, wanted.as_bytes()).expect(201).json();
    made["token"].as_str().expect("a made token is shown once").to_owned()
}

/// Asserts that `text` holds one of `expected`, whatever their case.
#[track_caller]
pub fn assert_says(text: &str, expected: &[&str]) {
    let found = expected.iter().any(|part| text.to_lowercase().contains(&part.to_lowercase()));
    assert!(found, "none of {expected:?} in:\n{text}");
}
