//! The options that every command takes.
use std::path::PathBuf;

use clap::{Args, Parser};

use crate::commands::Command;

/// What `--help` ends with.
const HELP_END: &str = "\
Environment:
  REGISTRY_SERVER   the server, as by --server
  REGISTRY_TOKEN    the token, as by --token; unlike that, other users of the machine cannot see it
  REGISTRY_CA_CERT  a file of certificate authorities, as by --ca-cert
  XDG_CONFIG_HOME   'login' saves in registry-cli/credentials.json below it (default: ~/.config)
  --server and --token come before the environment, and that before what 'login' saved.

Exit codes:
  0    done
  1    another failure: a local file, a limit, an error of the server
  2    the command line is wrong, or the server does not take a name or value in it
  3    there is no such package, version or token
  4    not logged in, or the token may not do this
  5    the version exists already
  6    the bytes do not have the digest they should have
  7    the server cannot be reached, or the connection broke
  130  interrupted";

/// Push, pull and manage what a Foundry registry holds.
#[derive(Debug, Parser)]
#[command(name = "registry-cli", version, about, after_help = HELP_END, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// The options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The server [default: the one logged in to last, else http://localhost:8080]
    #[arg(long, global = true, value_name = "URL", env = "REGISTRY_SERVER", help_heading = "Global options")]
    pub server: Option<String>,

    /// The token; better put it in the environment, where other users of the machine cannot see it
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "REGISTRY_TOKEN",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub token: Option<String>,

    /// Print one JSON document on stdout, and errors as JSON on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,

    /// Trust the certificate authorities in this PEM file too
    #[arg(long, global = true, value_name = "FILE", env = "REGISTRY_CA_CERT", help_heading = "Global options")]
    pub ca_cert: Option<PathBuf>,

    /// How often in a row to try again what is safe to repeat
    #[arg(long, global = true, value_name = "N", default_value_t = 5, help_heading = "Global options")]
    pub retries: u32,
}
