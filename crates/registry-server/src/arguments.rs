//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::FlagValue;

/// How to leave a process, for scripts and service managers. Documented in `docs/configuration.md`.
pub mod exit {
    /// Done, or stopped as asked.
    pub const DONE: u8 = 0;
    /// Something failed while running: an address in use, a store that does not answer, an unhealthy server.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is wrong; nothing was started.
    pub const MISUSED: u8 = 2;
    /// `check` found damage that it did not repair; `migrate-storage` found blobs that it does not carry over.
    pub const DAMAGED: u8 = 3;
    /// `check --repair` takes the store for another one than the metadata is about; nothing was changed.
    pub const REFUSED: u8 = 4;
}

const AFTER_HELP: &str = "\
Every key of the configuration can also be set in the environment: FOUNDRY_<SECTION>__<KEY>, e.g. FOUNDRY_SERVER__PORT.
`registry-server config` shows what is in effect and where it comes from. Long options also work with one dash.

Exit codes: 0 done or stopped as asked, 1 failure, 2 wrong command line or configuration, 3 check or
migrate-storage found damage, 4 check --repair takes the store for another one.";

/// Foundry, a universal artifact registry. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "registry-server", version, about, long_about = None, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What sets configuration keys.
    #[command(flatten)]
    pub settings: SettingFlags,
    /// What to do; to serve, if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The options that stand for configuration keys.
#[derive(Args, Debug)]
pub struct SettingFlags {
    /// Read this configuration file [default: ./config.yaml, if it is there]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Listen on this address [key: server.host]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub host: Option<String>,
    /// Listen on this TCP port [key: server.port]
    #[arg(short, long, value_name = "PORT", global = true)]
    pub port: Option<String>,
    /// Keep everything in this folder [key: storage.dataDir]
    #[arg(long, value_name = "FOLDER", global = true)]
    pub data_dir: Option<String>,
    /// The URL that clients reach this server by [key: server.base_url]
    #[arg(long, value_name = "URL", global = true)]
    pub base_url: Option<String>,
    /// Log what is at least this severe [key: log.level]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// Log as `json` or `text` [key: log.format]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// The same as --log-level debug
    #[arg(short, long, global = true, conflicts_with = "log_level")]
    pub verbose: bool,
}

impl SettingFlags {
    /// The keys that are set, under the names of their flags.
    pub fn values(&self) -> Vec<FlagValue> {
        let texts = [
            ("--host", "server.host", &self.host),
            ("--port", "server.port", &self.port),
            ("--data-dir", "storage.dataDir", &self.data_dir),
            ("--base-url", "server.base_url", &self.base_url),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        let verbose = self.verbose.then(|| FlagValue { flag: "--verbose", key: "log.level", text: "debug".to_owned() });
        texts
            .into_iter()
            .filter_map(|(flag, key, text)| Some(FlagValue { flag, key, text: text.clone()? }))
            .chain(verbose)
            .collect()
    }
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (what happens without a command, too)
    Serve,
    /// Print the configuration in effect as YAML, with where each value comes from; secrets are masked
    Config,
    /// Compare what the metadata says with what is stored, while serving or not
    Check(CheckArguments),
    /// Delete what nothing refers to any more, while serving or not
    Gc(GcArguments),
    /// Copy everything into an empty folder, while serving or not
    Backup(BackupArguments),
    /// Copy files and SQLite to the S3 bucket and the Postgres of this configuration, while the old server serves; with
    /// --finish, once it is stopped, what has changed since
    MigrateStorage(MigrateStorageArguments),
    /// Ask the server of this configuration whether it is alive: exit code 0 or 1
    Healthcheck(HealthcheckArguments),
}

/// `check`
#[derive(Args, Clone, Copy, Debug)]
pub struct CheckArguments {
    /// Read every blob and hash it again
    #[arg(long)]
    pub deep: bool,
    /// Delete what no row knows; forget blobs that cannot be served, so that they can be pushed again
    #[arg(long)]
    pub repair: bool,
    /// Repair even a store that lacks more than half of the blobs, or is more than half unknown: it was lost, or is newer
    /// than the metadata
    #[arg(long, requires = "repair")]
    pub accept_loss: bool,
    /// Begin at the beginning, wherever an interrupted check stands
    #[arg(long)]
    pub restart: bool,
    /// Print each finding, and at last a summary, as a JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `gc`
#[derive(Args, Clone, Copy, Debug)]
pub struct GcArguments {
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Keep unreferenced blobs for this long instead of gc.grace; a push in flight may then have to send a layer again
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `backup`
#[derive(Args, Clone, Debug)]
pub struct BackupArguments {
    /// An empty or absent folder
    pub folder: PathBuf,
    /// Copy the bytes of blobs even where a hard link could share them
    #[arg(long)]
    pub copy: bool,
}

/// `migrate-storage`
#[derive(Args, Clone, Debug)]
pub struct MigrateStorageArguments {
    /// The configuration file of the old server; only its storage.dataDir matters
    #[arg(long, value_name = "FILE", conflicts_with = "from_data_dir")]
    pub from: Option<PathBuf>,
    /// The data folder of the old server [default: storage.dataDir of this configuration]
    #[arg(long, value_name = "FOLDER")]
    pub from_data_dir: Option<PathBuf>,
    /// The old server is stopped: bring the copy up to date, compare it, and let servers use it
    #[arg(long)]
    pub finish: bool,
    /// Before finishing, read everything back from the target and hash it
    #[arg(long, requires = "finish")]
    pub verify: bool,
    /// Print the report as JSON, and each damaged blob as a JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `healthcheck`
#[derive(Args, Clone, Copy, Debug)]
pub struct HealthcheckArguments {
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// The arguments with `-name` and `-name=value` spelt with two dashes, as clap reads them: people bring command lines
/// along in which long options have one. A single letter stays as it is (`-h`, `-p`), and so does what follows `--`.
pub fn with_two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut verbatim = false;
    arguments
        .into_iter()
        .map(|argument| {
            verbatim |= argument == "--";
            let long = argument.to_str().is_some_and(|text| {
                let name = text.strip_prefix('-').unwrap_or_default();
                let name = name.split_once('=').map_or(name, |(name, _)| name);
                name.len() > 1
                    && name.starts_with(|first: char| first.is_ascii_alphabetic())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            });
            if !long || verbatim {
                return argument;
            }
            let mut spelt = OsString::from("-");
            spelt.push(&argument);
            spelt
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let all = std::iter::once("registry-server").chain(arguments.iter().copied()).map(OsString::from);
        Arguments::try_parse_from(with_two_dashes(all)).map_err(|error| error.to_string())
    }

    fn keys(arguments: &[&str]) -> Vec<(String, String)> {
        let values = parse(arguments).unwrap().settings.values();
        values.into_iter().map(|value| (value.key.to_owned(), value.text)).collect()
    }

    fn pair(key: &str, text: &str) -> (String, String) {
        (key.to_owned(), text.to_owned())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        for arguments in
            [["-config", "f.yaml"].as_slice(), &["--config", "f.yaml"], &["-config=f.yaml"], &["-c", "f.yaml"]]
        {
            assert_eq!(parse(arguments).unwrap().settings.config, Some(PathBuf::from("f.yaml")), "{arguments:?}");
        }
        for arguments in [["-port", "5000"].as_slice(), &["--port=5000"], &["-port=5000"], &["-p", "5000"]] {
            assert_eq!(keys(arguments), [pair("server.port", "5000")], "{arguments:?}");
        }
        let both = [pair("server.port", "5000"), pair("log.level", "debug")];
        assert_eq!(keys(&["-port", "5000", "-verbose"]), both);
        assert_eq!(keys(&["-data-dir", "/x"]), [pair("storage.dataDir", "/x")]);
    }

    #[test]
    fn what_follows_two_dashes_alone_is_left_as_it_is() {
        let spelt = with_two_dashes(["a", "-port", "--", "-port"].map(OsString::from));
        assert_eq!(spelt, ["a", "--port", "--", "-port"]);
        let short = with_two_dashes(["-h", "-", "-5", "-1.5", "--port"].map(OsString::from));
        assert_eq!(short, ["-h", "-", "-5", "-1.5", "--port"]);
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for arguments in [["-port", "1", "config"], ["config", "-port", "1"]] {
            assert_eq!(keys(&arguments), [pair("server.port", "1")]);
            assert!(matches!(parse(&arguments).unwrap().command, Some(Command::Config)));
        }
    }

    #[test]
    fn a_misspelt_option_is_named_with_the_nearest() {
        let error = parse(&["-prot", "5000"]).unwrap_err();
        assert!(error.contains("--prot") && error.contains("--port"), "{error}");
        assert!(parse(&["-verbose", "-log-level", "info"]).unwrap_err().contains("cannot be used with"));
    }

    #[test]
    fn commands_have_their_own_options() {
        let Some(Command::Check(check)) = parse(&["check", "-deep", "--repair", "-json"]).unwrap().command else {
            panic!("not check")
        };
        assert!(check.deep && check.repair && check.json && !check.restart && !check.accept_loss);
        assert!(parse(&["check", "--accept-loss"]).unwrap_err().contains("--repair"));
        let Some(Command::Gc(gc)) = parse(&["gc", "--grace", "0s", "--dry-run"]).unwrap().command else {
            panic!("not gc")
        };
        assert!(gc.dry_run && gc.grace == Some(Duration::ZERO));
        assert!(parse(&["backup"]).unwrap_err().contains("FOLDER"));
        let Some(Command::MigrateStorage(migrate)) =
            parse(&["migrate-storage", "-config", "new.yaml", "-from", "old.yaml", "-finish"]).unwrap().command
        else {
            panic!("not migrate-storage")
        };
        assert!(migrate.finish && !migrate.verify && migrate.from == Some(PathBuf::from("old.yaml")));
        assert!(
            parse(&["migrate-storage", "-from", "a", "-from-data-dir", "b"]).unwrap_err().contains("cannot be used")
        );
        assert!(parse(&["migrate-storage", "-verify"]).unwrap_err().contains("--finish"));
    }
}
