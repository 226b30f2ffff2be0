//! The keys that sign registry tokens.

use async_trait::async_trait;
use registry_core::error::StoreError;
use registry_core::ports::metadata::SigningKeyStore;
use registry_core::time::Timestamp;
use registry_core::token::SigningKey;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::statement::{Connection, Row, on_postgres, sql};

const NEWEST_FIRST: &str = "SELECT id, secret, created_at FROM signing_keys ORDER BY created_at DESC, id";

fn read_key(row: Row) -> SqlResult<SigningKey> {
    Ok(SigningKey { id: row.get("id")?, secret: row.get("secret")?, created_at: row.time("created_at")? })
}

async fn rotate(
    connection: &mut Connection,
    (new, newest_before, drop_before): &(SigningKey, Timestamp, Timestamp),
) -> SqlResult<Vec<SigningKey>> {
    // Nothing but the whole table can be locked against the row that is not there. Who reads does not wait.
    connection.lock(on_postgres("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE")).await?;
    let current = sql("SELECT 1 AS found FROM signing_keys WHERE created_at >= $1 LIMIT 1").bind(*newest_before);
    if connection.fetch_optional(current).await?.is_none() {
        let insert = sql("INSERT INTO signing_keys (id, secret, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET id = excluded.id");
        connection.execute(insert.bind(&new.id).bind(new.secret.as_slice()).bind(new.created_at)).await?;
    }
    let drop = sql("DELETE FROM signing_keys
         WHERE created_at < $1 AND id <> (SELECT id FROM signing_keys ORDER BY created_at DESC, id LIMIT 1)");
    connection.execute(drop.bind(*drop_before)).await?;
    connection.fetch_all(sql(NEWEST_FIRST)).await?.into_iter().map(read_key).collect()
}

#[async_trait]
impl SigningKeyStore for SqlMetadata {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        self.database.fetch_all("reading the signing keys", sql(NEWEST_FIRST), read_key).await
    }

    async fn rotate_signing_keys(
        &self,
        new: SigningKey,
        newest_before: Timestamp,
        drop_before: Timestamp,
    ) -> Result<Vec<SigningKey>, StoreError> {
        self.database
            .write("rotating the signing keys", (new, newest_before, drop_before), |connection, input| {
                Box::pin(async move { Ok(Decision::Commit(rotate(connection, input).await?)) })
            })
            .await
    }
}
