//! `registry-cli token revoke`.
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Revoke a token: it ends at once
#[derive(Debug, Args)]
pub struct Revoke {
    /// The token's id, from registry-cli token list
    id: String,
}

impl Revoke {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        context.client()?.revoke_token(&self.id).await?;
        output::result(context, &json!({ "id": self.id, "revoked": true }), &format!("Revoked the token {}", self.id))
    }
}
