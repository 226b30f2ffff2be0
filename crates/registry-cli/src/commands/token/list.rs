//! `registry-cli token list`.
use clap::Args;
use registry_client::TokenInfo;

use crate::context::Context;
use crate::failure::Failure;
use crate::listing::{Listing, show};

/// List the tokens, without their secrets
#[derive(Debug, Args)]
pub struct List {}

impl List {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let listing = Listing {
            opening: r#"{"tokens":["#.to_owned(),
            columns: &["ID", "NAME", "SCOPES", "CREATED", "EXPIRES"],
            row: |token: &TokenInfo| {
                vec![
                    token.id.clone(),
                    token.name.clone(),
                    token.scopes.join(" "),
                    token.created_at.clone().unwrap_or_default(),
                    token.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
                ]
            },
            nothing: "there are no tokens".to_owned(),
            limit: None,
        };
        show(context, context.client()?.tokens(), listing).await
    }
}
