//! From a command line to an exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use crate::arguments::{Arguments, Command, exit, with_two_dashes};
use crate::commands::{CommandError, backup, check, gc, healthcheck, migrate_storage, serve};
use crate::config::{self, Configuration, Loaded, Sources, backend};
use crate::logging;

/// Runs the program to its end.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let arguments = match Arguments::try_parse_from(with_two_dashes(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no errors.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::MISUSED } else { exit::DONE });
        }
    };
    let sources = Sources {
        file: arguments.settings.config.clone(),
        folder: std::path::PathBuf::from("."),
        variables: readable(variables),
        flags: arguments.settings.values(),
    };
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(error) => return failed(exit::MISUSED, "configuration", &error),
    };
    let command = arguments.command.unwrap_or(Command::Serve);
    if let Command::Config = command {
        let printed = std::io::stdout().write_all(loaded.report().as_bytes());
        return printed.map_or_else(|error| failed(exit::FAILED, "config", &error), |()| ExitCode::from(exit::DONE));
    }
    if let Err(error) = backend::check(&sources.variables) {
        return failed(exit::MISUSED, "configuration", &error);
    }
    // Tokens' hashes and signing keys are in these files: nobody else reads them, whatever folder they lie in.
    umask(Mode::RWXG | Mode::RWXO);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::FAILED, "cannot start threads", &error),
    };
    runtime.block_on(execute(command, &loaded))
}

async fn execute(command: Command, loaded: &Loaded) -> ExitCode {
    let configuration: &Configuration = &loaded.configuration;
    let outcome = match command {
        Command::Serve | Command::Config => return serving(loaded).await,
        Command::Healthcheck(arguments) => {
            return match healthcheck::run(configuration, arguments).await {
                Ok(()) => ExitCode::from(exit::DONE),
                Err(error) => failed(exit::FAILED, "healthcheck", &error),
            };
        }
        Command::Check(arguments) => check::run(configuration, arguments).await,
        Command::Gc(arguments) => gc::run(configuration, arguments).await.map(|()| true),
        Command::Backup(arguments) => backup::run(configuration, &arguments).await.map(|()| true),
        Command::MigrateStorage(arguments) => migrate_storage::run(configuration, &arguments).await,
    };
    match outcome {
        Ok(true) => ExitCode::from(exit::DONE),
        Ok(false) => ExitCode::from(exit::DAMAGED),
        Err(error @ CommandError::StrangeStore(_)) => failed(exit::REFUSED, "check", &error),
        Err(CommandError::Migrate(error)) if error.is_misuse() => failed(exit::MISUSED, "migrate-storage", &error),
        Err(error) => failed(exit::FAILED, "failed", &error),
    }
}

async fn serving(loaded: &Loaded) -> ExitCode {
    let guard = logging::start(&loaded.configuration.log);
    raise_file_limit();
    let outcome = serve::run(loaded).await;
    let code = match &outcome {
        Ok(()) => exit::DONE,
        Err(error) => {
            tracing::error!(error = %error, "the server cannot start");
            if error.is_misuse() { exit::MISUSED } else { exit::FAILED }
        }
    };
    // Writes what is still waiting.
    drop(guard);
    ExitCode::from(code)
}

/// Each connection and each open blob is a file: takes as many as the system lets this process have.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the number of open files stays limited");
    }
}

/// The variables that are text; no name that is not text concerns this server, and a value that is not is shown as such.
fn readable(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let pairs = variables.into_iter();
    pairs.filter_map(|(name, text)| Some((name.into_string().ok()?, text.to_string_lossy().into_owned()))).collect()
}

fn failed(code: u8, what: &str, error: &dyn std::fmt::Display) -> ExitCode {
    let lines = error.to_string();
    let mut stderr = std::io::stderr().lock();
    for line in lines.lines() {
        let _ = writeln!(stderr, "registry-server: {what}: {line}");
    }
    ExitCode::from(code)
}
