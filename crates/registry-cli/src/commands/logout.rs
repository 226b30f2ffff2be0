//! `registry-cli logout`.
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::credentials;
use crate::failure::Failure;
use crate::output;

/// Forget the saved token of a server
///
/// The token itself stays valid: to end it, use registry-cli token revoke.
#[derive(Debug, Args)]
pub struct Logout {
    /// Forget the tokens of all servers
    #[arg(long)]
    all: bool,
}

impl Logout {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let server = if self.all { None } else { Some(context.server()?) };
        let forgotten = credentials::forget(server.as_ref())?;
        let sentence = match (forgotten.is_empty(), &server) {
            (false, _) => format!("Logged out of {}", forgotten.join(", ")),
            (true, Some(server)) => format!("No token was saved for {server}"),
            (true, None) => "No token was saved".to_owned(),
        };
        output::result(context, &json!({ "forgotten": forgotten }), &sentence)
    }
}
