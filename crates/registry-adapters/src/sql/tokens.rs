//! Stored access tokens.

use async_trait::async_trait;
use registry_core::error::StoreError;
use registry_core::permission::Scope;
use registry_core::ports::metadata::TokenStore;
use registry_core::time::Timestamp;
use registry_core::token::{TokenHash, TokenId, TokenRecord};

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::range;
use super::statement::{Row, sql, unreadable};

fn read_token(row: Row) -> SqlResult<TokenRecord> {
    let hash: Vec<u8> = row.get("hash")?;
    let scopes: String = row.get("scopes")?;
    let scopes: Vec<Scope> = serde_json::from_str(&scopes).map_err(|error| unreadable("scopes", error))?;
    Ok(TokenRecord {
        id: TokenId(row.get("id")?),
        name: row.get("name")?,
        hash: TokenHash(hash.try_into().map_err(|_| unreadable("hash", "a hash of another length"))?),
        scopes,
        created_at: row.time("created_at")?,
        expires_at: row.get::<Option<i64>>("expires_at")?.map(Timestamp::from_micros),
    })
}

#[async_trait]
impl TokenStore for SqlMetadata {
    async fn insert_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.database
            .write("storing a token", token, |connection, token| {
                Box::pin(async move {
                    let scopes = serde_json::to_string(&token.scopes).expect("scopes are texts");
                    let insert = sql("INSERT INTO tokens (id, name, hash, scopes, created_at, expires_at)
                         VALUES ($1, $2, $3, $4, $5, $6)")
                    .bind(&token.id.0)
                    .bind(&token.name)
                    .bind(token.hash.0.as_slice())
                    .bind(scopes)
                    .bind(token.created_at)
                    .bind(token.expires_at);
                    connection.execute(insert).await?;
                    Ok(Decision::Commit(()))
                })
            })
            .await
    }

    async fn find_token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let statement = sql("SELECT id, name, hash, scopes, created_at, expires_at FROM tokens WHERE id = $1");
        self.database.fetch_optional("reading a token", statement.bind(&id.0), read_token).await
    }

    async fn tokens(&self, after: Option<&TokenId>, limit: usize) -> Result<Vec<TokenRecord>, StoreError> {
        let statement = sql("SELECT id, name, hash, scopes, created_at, expires_at FROM tokens
             WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(range::after(after.map(|id| id.0.as_str())))
        .bind(limit);
        self.database.fetch_all("listing tokens", statement, read_token).await
    }

    async fn delete_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        self.database
            .write("deleting a token", id.clone(), |connection, id| {
                Box::pin(async move {
                    let deleted = connection.execute(sql("DELETE FROM tokens WHERE id = $1").bind(&id.0)).await?;
                    Ok(Decision::Commit(deleted > 0))
                })
            })
            .await
    }
}
