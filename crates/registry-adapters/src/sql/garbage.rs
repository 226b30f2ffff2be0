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
use super::statement::{Connection, dialects, list, sql};

/// Notes that a digest lost a membership or a file.
pub(super) async fn add_candidate(connection: &mut Connection, digest: &Digest) -> SqlResult<()> {
    let insert = sql("INSERT INTO garbage_candidates (digest) VALUES ($1)
         ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest");
    connection.execute(insert.bind(digest)).await?;
    Ok(())
}

/// The due memberships that a review takes, in the order of their index. On Postgres they are locked from then on; what
/// a manifest that is being stored holds, or another review has taken, is passed over.
async fn take_due(connection: &mut Connection, due: Timestamp, limit: usize) -> SqlResult<Vec<(i64, String)>> {
    let pick = sql(dialects!(
        "SELECT repository_id, digest FROM repository_blobs WHERE leased_until <= $1
         ORDER BY leased_until, repository_id, digest LIMIT $2",
        ["" | " FOR UPDATE SKIP LOCKED"]
    ));
    let rows = connection.fetch_all(pick.bind(due).bind(limit)).await?;
    rows.iter().map(|row| Ok((row.get("repository_id")?, row.get("digest")?))).collect()
}

/// A statement about the memberships in the list `$1`, each written `<repository's identity>/<digest>`.
macro_rules! of_listed_memberships {
    ($statement:literal, $more:literal) => {
        dialects!(
            $statement,
            " WHERE (repository_id, digest) IN (SELECT ",
            ["CAST(substr(n.value, 1, instr(n.value, '/') - 1) AS INTEGER), substr(n.value, instr(n.value, '/') + 1)
                 FROM json_each($1) n"
                | "split_part(n.value, '/', 1)::bigint, split_part(n.value, '/', 2) FROM unnest($1) n (value)"],
            ")",
            $more
        )
    };
}

/// Reviews the first `limit` due memberships. They are taken by one statement and looked at by later ones, which so see
/// every manifest that was stored before they were taken.
async fn review(connection: &mut Connection, (due, limit): &(Timestamp, usize)) -> SqlResult<Decision<ReviewBatch>> {
    let taken = take_due(connection, *due, *limit).await?;
    let reviewed = u64::try_from(taken.len()).unwrap_or(u64::MAX);
    let all = || list(taken.iter().map(|(repository, digest)| format!("{repository}/{digest}")));
    let drop = sql(of_listed_memberships!(
        "DELETE FROM repository_blobs",
        " AND NOT EXISTS (
             SELECT 1 FROM manifest_references f
             WHERE f.repository_id = repository_blobs.repository_id AND f.digest = repository_blobs.digest)
         RETURNING digest"
    ));
    let rows = connection.fetch_all(drop.bind(all())).await?;
    let mut dropped = rows.iter().map(|row| row.get::<String>("digest")).collect::<SqlResult<Vec<_>>>()?;
    let keep = sql(of_listed_memberships!("UPDATE repository_blobs SET leased_until = NULL", ""));
    connection.execute(keep.bind(all())).await?;
    let batch = ReviewBatch { reviewed, dropped: u64::try_from(dropped.len()).unwrap_or(u64::MAX) };
    // The order of the candidates' locks.
    dropped.sort_unstable();
    dropped.dedup();
    if !dropped.is_empty() {
        let note = sql(dialects!(
            "INSERT INTO garbage_candidates (digest) SELECT n.value FROM ",
            ["json_each($1) n" | "unnest($1) n (value)"],
            " WHERE 1 = 1 ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest"
        ));
        connection.execute(note.bind(list(dropped))).await?;
    }
    Ok(Decision::Commit(batch))
}

/// The candidacy ends first: who adds the digest again waits for this, and then does so; or this waits for them, and then
/// sees what they did. A membership or a file that comes after this has looked is seen by the foreign key, which refuses:
/// then this runs again, and sees it.
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
               AND NOT EXISTS (SELECT 1 FROM repository_blobs m
                               WHERE m.digest = b.digest AND (m.leased_until IS NULL OR m.leased_until > $1))
               AND NOT EXISTS (SELECT 1 FROM repository_blobs m CROSS JOIN manifest_references f
                               WHERE m.digest = b.digest
                                 AND f.repository_id = m.repository_id AND f.digest = m.digest)");
        let preview = self
            .database
            .fetch_optional("looking for garbage", statement.bind(due), |row| {
                Ok(GarbagePreview { blobs: row.unsigned("blobs")?, bytes: row.unsigned("bytes")? })
            })
            .await?;
        Ok(preview.unwrap_or_default())
    }
}
