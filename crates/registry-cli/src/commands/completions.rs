//! `registry-cli completions`.
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Cli;
use crate::output;

/// Print a shell's completions of this command
///
/// For bash: registry-cli completions bash > ~/.local/share/bash-completion/completions/registry-cli
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "registry-cli", &mut script);
        let mut script = String::from_utf8_lossy(&script).into_owned();
        if self.shell == Shell::Bash {
            // clap_complete 4.6 names the commands of a program with a hyphen in two ways, so that bash would complete
            // nothing behind a command.
            script = script.replace("registry__subcmd__cli", "registry__cli");
        }
        let document = json!({ "shell": self.shell.to_string(), "script": script });
        output::result(context, &document, script.trim_end())
    }
}
