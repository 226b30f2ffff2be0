//! The registry's server.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry_server::program::run(std::env::args_os(), std::env::vars_os())
}
