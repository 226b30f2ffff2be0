//! `registry-cli token revoke`.
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Revoke a token: it ends at once
#[derive(Debug, Args)]
pub struct Revoke {
    /// The token's id, from registry-cli token list; of a whole token its id is taken
    id: String,
}

impl Revoke {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let id = registry_client::token_id(&self.id);
        context.client()?.revoke_token(id).await?;
        output::result(context, &json!({ "id": id, "revoked": true }), &format!("Revoked the token {id}"))
    }
}
