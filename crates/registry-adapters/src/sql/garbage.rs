//! Finding what nobody refers to.

use async_trait::async_trait;
use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::ports::metadata::GarbageStore;
use registry_core::ports::metadata::garbage::{CollectedBlob, GarbagePreview, ReviewBatch};
use registry_core::time::Timestamp;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::ledger::doom_object;
use super::statement::{Connection, Statement, sql};

/// Notes that a digest lost a membership or a file.
pub(super) async fn add_candidate(connection: &mut Connection, digest: &Digest) -> SqlResult<()> {
    let insert = sql("INSERT INTO garbage_candidates (digest) VALUES ($1)
         ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest");
    connection.execute(insert.bind(digest)).await?;
    Ok(())
}

/// Reviews the first `limit` due memberships in the order of their index, as a range of it.
async fn review(connection: &mut Connection, (due, limit): &(Timestamp, usize)) -> SqlResult<Decision<ReviewBatch>> {
    let pick = sql("SELECT leased_until, repository_id, digest FROM repository_blobs WHERE leased_until <= $1
         ORDER BY leased_until, repository_id, digest LIMIT $2");
    let picked = connection.fetch_all(pick.bind(*due).bind(*limit)).await?;
    let Some(last) = picked.last() else {
        return Ok(Decision::Commit(ReviewBatch::default()));
    };
    let (leased_until, repository_id) = (last.get::<i64>("leased_until")?, last.get::<i64>("repository_id")?);
    let digest: String = last.get("digest")?;
    let up_to_last = |statement: Statement| statement.bind(leased_until).bind(repository_id).bind(&digest);

    let note = sql("INSERT INTO garbage_candidates (digest)
         SELECT DISTINCT m.digest FROM repository_blobs m
         WHERE m.leased_until <= $1 AND (m.leased_until, m.repository_id, m.digest) <= ($1, $2, $3)
           AND NOT EXISTS (SELECT 1 FROM manifest_references f
                           WHERE f.repository_id = m.repository_id AND f.digest = m.digest)
         ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest");
    connection.execute(up_to_last(note)).await?;
    let drop = sql("DELETE FROM repository_blobs
         WHERE leased_until <= $1 AND (leased_until, repository_id, digest) <= ($1, $2, $3)
           AND NOT EXISTS (SELECT 1 FROM manifest_references f
                           WHERE f.repository_id = repository_blobs.repository_id
                             AND f.digest = repository_blobs.digest)");
    let dropped = connection.execute(up_to_last(drop)).await?;
    let keep = sql("UPDATE repository_blobs SET leased_until = NULL
         WHERE leased_until <= $1 AND (leased_until, repository_id, digest) <= ($1, $2, $3)");
    connection.execute(up_to_last(keep)).await?;
    let reviewed = u64::try_from(picked.len()).unwrap_or(u64::MAX);
    Ok(Decision::Commit(ReviewBatch { reviewed, dropped }))
}

async fn collect(
    connection: &mut Connection,
    (digest, now): &(Digest, Timestamp),
) -> SqlResult<Decision<Option<CollectedBlob>>> {
    connection.execute(sql("DELETE FROM garbage_candidates WHERE digest = $1").bind(digest)).await?;
    let delete = sql("DELETE FROM blobs WHERE digest = $1
           AND NOT EXISTS (SELECT 1 FROM repository_blobs m WHERE m.digest = $1)
           AND NOT EXISTS (SELECT 1 FROM files f WHERE f.digest = $1)
         RETURNING object_key, size");
    let Some(row) = connection.fetch_optional(delete.bind(digest)).await? else {
        return Ok(Decision::Commit(None));
    };
    let collected = CollectedBlob { key: row.key("object_key")?, size: row.unsigned("size")? };
    doom_object(connection, &collected.key, *now).await?;
    Ok(Decision::Commit(Some(collected)))
}

#[async_trait]
impl GarbageStore for SqlMetadata {
    async fn review_memberships(&self, due: Timestamp, limit: usize) -> Result<ReviewBatch, StoreError> {
        #[cfg(feature = "faults")]
        if super::faults::reviews_are_unlocked() {
            return super::faults::review_unlocked(self, due, limit).await;
        }
        self.database
            .write("reviewing memberships", (due, limit), |connection, input| Box::pin(review(connection, input)))
            .await
    }

    async fn garbage_candidates(&self, limit: usize) -> Result<Vec<Digest>, StoreError> {
        let statement = sql("SELECT digest FROM garbage_candidates ORDER BY digest LIMIT $1").bind(limit);
        self.database.fetch_all("listing candidates for collection", statement, |row| row.parse("digest")).await
    }

    async fn collect_blob(&self, digest: &Digest, now: Timestamp) -> Result<Option<CollectedBlob>, StoreError> {
        self.database
            .write("collecting a blob", (digest.clone(), now), |connection, input| Box::pin(collect(connection, input)))
            .await
    }

    async fn preview_garbage(&self, due: Timestamp) -> Result<GarbagePreview, StoreError> {
        let statement = sql("SELECT COUNT(*) AS blobs, CAST(COALESCE(SUM(b.size), 0) AS BIGINT) AS bytes
             FROM (SELECT digest FROM garbage_candidates
                   UNION SELECT digest FROM repository_blobs WHERE leased_until <= $1) c
             CROSS JOIN blobs b
             WHERE b.digest = c.digest
               AND NOT EXISTS (SELECT 1 FROM files f WHERE f.digest = b.digest)
               AND NOT EXISTS (
                   SELECT 1 FROM repository_blobs m
                   WHERE m.digest = b.digest
                     AND (m.leased_until IS NULL OR m.leased_until > $1
                          OR EXISTS (SELECT 1 FROM manifest_references f
                                     WHERE f.repository_id = m.repository_id AND f.digest = m.digest)))");
        let preview = self
            .database
            .fetch_optional("looking for garbage", statement.bind(due), |row| {
                Ok(GarbagePreview { blobs: row.unsigned("blobs")?, bytes: row.unsigned("bytes")? })
            })
            .await?;
        Ok(preview.unwrap_or_default())
    }
}
