//! `registry-cli token`.
use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

mod create;
mod list;
mod revoke;

/// Make, list and revoke tokens
#[derive(Debug, Subcommand)]
pub enum Token {
    Create(create::Create),
    List(list::List),
    Revoke(revoke::Revoke),
}

impl Token {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Revoke(command) => command.run(context).await,
        }
    }
}
