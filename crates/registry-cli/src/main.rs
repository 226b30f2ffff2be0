//! `registry-cli`: pushes, pulls and manages what a Foundry server holds.
//!
//! Every command stands on the `registry-client` crate; here are only the command line, the words and the exit codes.
#![forbid(unsafe_code)]

mod commands;
mod context;
mod credentials;
mod failure;
mod hints;
mod listing;
mod options;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser;
use options::Cli;

use crate::context::Context;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_wrong_usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let context = Context::new(cli.options, cli.command.package());
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = cli.command.run(&context) => ended,
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    // Nothing waits for a thread that still reads a file or a terminal.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report(&context)),
    }
}
