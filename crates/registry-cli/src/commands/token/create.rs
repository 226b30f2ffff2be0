//! `registry-cli token create`.
use std::time::Duration;

use clap::Args;
use registry_client::{NewToken, TokenInfo};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, printable};

/// Make a token and print it, this once
///
/// Only the token goes to stdout, so that it can be kept: TOKEN=$(registry-cli token create ci --scope ...)
#[derive(Debug, Args)]
pub struct Create {
    /// What to call it
    name: String,
    /// What it may do, such as generic:mypkg:pull,push or '*:*:admin'; may be given several times
    ///
    /// A scope is REGISTRY:NAME:ACTIONS: a registry or *, a name or PREFIX/* or *, and pull, push, delete and admin
    /// separated by commas.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// After how long it ends, such as 30d or 12h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    info: &'a TokenInfo,
    token: &'a str,
}

impl Create {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let new = NewToken { name: self.name.clone(), scopes: self.scopes.clone(), expires_in: self.expires_in };
        let created = context.client()?.create_token(&new).await?;
        let document = Created { info: &created.info, token: created.token.reveal() };
        output::result(context, &document, created.token.reveal())?;
        if !context.json() {
            let info = &created.info;
            eprintln!(
                "Made the token {} (id {}) with {}, expires: {}. It is shown only this once; revoke it with: \
                 registry-cli token revoke {1}",
                printable(&info.name),
                printable(&info.id),
                printable(&info.scopes.join(" ")),
                printable(info.expires_at.as_deref().unwrap_or("never")),
            );
        }
        Ok(())
    }
}
