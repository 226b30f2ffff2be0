//! The registry's server.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::configure();
    registry_server::program::run(std::env::args_os(), std::env::vars_os())
}
