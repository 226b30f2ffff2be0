//! The commands: each has its arguments and what it does in a file of its own.
use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

mod completions;
mod delete;
mod gc;
mod list;
mod login;
mod logout;
mod pull;
mod push;
mod search;
mod token;
mod versions;

#[derive(Debug, Subcommand)]
pub enum Command {
    Push(push::Push),
    Pull(pull::Pull),
    List(list::List),
    Search(search::Search),
    Versions(versions::Versions),
    Delete(delete::Delete),
    Gc(gc::Gc),
    #[command(subcommand)]
    Token(token::Token),
    Login(login::Login),
    Logout(logout::Logout),
    Completions(completions::Completions),
}

impl Command {
    /// The package that the command line names, for what is said about a failure.
    pub fn package(&self) -> Option<&str> {
        match self {
            Self::Push(command) => Some(&command.package),
            Self::Pull(command) => Some(&command.package),
            Self::Versions(command) => Some(&command.package),
            Self::Delete(command) => Some(&command.package),
            _ => None,
        }
    }

    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Push(command) => command.run(context).await,
            Self::Pull(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Search(command) => command.run(context).await,
            Self::Versions(command) => command.run(context).await,
            Self::Delete(command) => command.run(context).await,
            Self::Gc(command) => command.run(context).await,
            Self::Token(command) => command.run(context).await,
            Self::Login(command) => command.run(context).await,
            Self::Logout(command) => command.run(context),
            Self::Completions(command) => command.run(context),
        }
    }
}
