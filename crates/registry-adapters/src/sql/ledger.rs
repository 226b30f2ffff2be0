//! The ledger of the object store.

use async_trait::async_trait;
use registry_core::error::StoreError;
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::metadata::ObjectLedger;
use registry_core::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};
use registry_core::time::Timestamp;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::range;
use super::statement::{Connection, Row, parse, sql, unreadable};

fn read_entry(row: Row) -> SqlResult<LedgerEntry> {
    let state = match row.get::<i64>("state")? {
        0 => ObjectState::Reserved,
        1 => ObjectState::Live,
        2 => ObjectState::Doomed,
        other => return Err(unreadable("state", other)),
    };
    let blob = match row.get::<Option<String>>("digest")? {
        Some(digest) => Some((parse(&digest, "digest")?, row.unsigned("size")?)),
        None => None,
    };
    Ok(LedgerEntry { key: row.key("key")?, state, since: row.time("since")?, blob })
}

/// Marks an object for deletion, whatever its state.
pub(super) async fn doom_object(connection: &mut Connection, key: &ObjectKey, now: Timestamp) -> SqlResult<()> {
    let doom = sql("UPDATE objects SET state = 2, since = $2 WHERE key = $1 AND state <> 2").bind(key).bind(now);
    connection.execute(doom).await?;
    Ok(())
}

async fn forget(
    connection: &mut Connection,
    (seen, now): &(LedgerEntry, Timestamp),
) -> SqlResult<Decision<ForgetBlob>> {
    let Some((digest, _)) = &seen.blob else { return Ok(Decision::Rollback(ForgetBlob::Unknown)) };
    let used = sql("SELECT 1 AS found FROM files WHERE digest = $1 LIMIT 1").bind(digest);
    if connection.fetch_optional(used).await?.is_some() {
        return Ok(Decision::Commit(ForgetBlob::InUse));
    }
    connection.execute(sql("DELETE FROM repository_blobs WHERE digest = $1").bind(digest)).await?;
    connection.execute(sql("DELETE FROM garbage_candidates WHERE digest = $1").bind(digest)).await?;
    let delete = sql("DELETE FROM blobs WHERE digest = $1 AND object_key = $2").bind(digest).bind(&seen.key);
    if connection.execute(delete).await? == 0 {
        return Ok(Decision::Rollback(ForgetBlob::Unknown));
    }
    // The blob's row referred to this one, so this is the life of the key that it had.
    let doom = sql("UPDATE objects SET state = 2, since = $3 WHERE key = $1 AND state = 1 AND since = $2");
    let doomed = connection.execute(doom.bind(&seen.key).bind(seen.since).bind(*now)).await? > 0;
    Ok(if doomed { Decision::Commit(ForgetBlob::Forgotten) } else { Decision::Rollback(ForgetBlob::Unknown) })
}

#[async_trait]
impl ObjectLedger for SqlMetadata {
    async fn ledger_entry(&self, key: &ObjectKey) -> Result<Option<LedgerEntry>, StoreError> {
        let statement = sql("SELECT o.key, o.state, o.since, b.digest, b.size
             FROM objects o LEFT JOIN blobs b ON b.object_key = o.key WHERE o.key = $1");
        self.database.fetch_optional("reading the ledger", statement.bind(key), read_entry).await
    }

    async fn ledger_page(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        let statement = sql("SELECT o.key, o.state, o.since, b.digest, b.size
             FROM objects o LEFT JOIN blobs b ON b.object_key = o.key
             WHERE o.key > $1 ORDER BY o.key LIMIT $2")
        .bind(range::after(after.map(ObjectKey::as_str)))
        .bind(limit);
        self.database.fetch_all("reading the ledger", statement, read_entry).await
    }

    async fn doomed_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectKey>, StoreError> {
        let statement = sql("SELECT key FROM objects WHERE state = 2 AND key > $1 ORDER BY key LIMIT $2")
            .bind(range::after(after.map(ObjectKey::as_str)))
            .bind(limit);
        self.database.fetch_all("listing doomed objects", statement, |row| row.key("key")).await
    }

    async fn clear_doomed(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.database
            .write("removing a doomed object's row", key.clone(), |connection, key| {
                Box::pin(async move {
                    let delete = sql("DELETE FROM objects WHERE key = $1 AND state = 2").bind(key);
                    Ok(Decision::Commit(connection.execute(delete).await? > 0))
                })
            })
            .await
    }

    async fn doom_orphan(&self, key: &ObjectKey, now: Timestamp) -> Result<bool, StoreError> {
        self.database
            .write("dooming an orphaned object", (key.clone(), now), |connection, (key, now)| {
                Box::pin(async move {
                    // Whoever inserted first decides; the row that is there is not needed, so it need not be locked.
                    let insert = sql("INSERT INTO objects (key, state, since) VALUES ($1, 2, $2)
                         ON CONFLICT (key) DO NOTHING");
                    Ok(Decision::Commit(connection.execute(insert.bind(key).bind(*now)).await? > 0))
                })
            })
            .await
    }

    async fn forget_blob(&self, seen: &LedgerEntry, now: Timestamp) -> Result<ForgetBlob, StoreError> {
        self.database
            .write("forgetting a blob", (seen.clone(), now), |connection, input| Box::pin(forget(connection, input)))
            .await
    }
}
