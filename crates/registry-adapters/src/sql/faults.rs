//! What tests switch on, and no release has: a broken review, to show that the collection's race is noticed when there is
//! one; and the next release's schema, to upgrade to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::ports::metadata::garbage::ReviewBatch;
use registry_core::time::Timestamp;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType};

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::garbage::add_candidate;
use super::statement::{Connection, sql};

static UNLOCKED: AtomicBool = AtomicBool::new(false);

static NEXT_RELEASE: AtomicBool = AtomicBool::new(false);

/// From now on databases are opened as the next release would.
pub fn be_the_next_release() {
    NEXT_RELEASE.store(true, Ordering::SeqCst);
}

/// The migrations that this process has beside those of the release: they expand tables that every push uses. Each
/// locks one table, so that none waits for who holds one and wants the other.
pub(super) fn more_migrations() -> Vec<Migration> {
    if !NEXT_RELEASE.load(Ordering::SeqCst) {
        return Vec::new();
    }
    let migration = |version, description: &'static str, text: &'static str| {
        Migration::new(version, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    vec![
        migration(9001, "more of an upload", "ALTER TABLE uploads ADD COLUMN next_release INTEGER NOT NULL DEFAULT 7"),
        migration(9002, "more of a tag", "ALTER TABLE tags ADD COLUMN next_release INTEGER NOT NULL DEFAULT 7"),
        migration(9003, "tags by time", "CREATE INDEX tags_of_next_release ON tags (updated_at, next_release)"),
    ]
}

/// How long a review stalls between looking and dropping.
const STALL: Duration = Duration::from_millis(30);

/// From now on reviews look in one transaction and drop in another.
pub fn unlock_reviews() {
    UNLOCKED.store(true, Ordering::SeqCst);
}

pub(super) fn reviews_are_unlocked() -> bool {
    UNLOCKED.load(Ordering::SeqCst)
}

type Looked = Vec<(i64, Digest, bool)>;

async fn drop_looked(connection: &mut Connection, looked: &Looked) -> SqlResult<Decision<u64>> {
    let mut dropped = 0;
    for (repository, digest, is_named) in looked {
        if *is_named {
            let keep = sql("UPDATE repository_blobs SET leased_until = NULL WHERE repository_id = $1 AND digest = $2");
            connection.execute(keep.bind(*repository).bind(digest)).await?;
        } else {
            let drop = sql("DELETE FROM repository_blobs WHERE repository_id = $1 AND digest = $2");
            dropped += connection.execute(drop.bind(*repository).bind(digest)).await?;
            add_candidate(connection, digest).await?;
        }
    }
    Ok(Decision::Commit(dropped))
}

pub(super) async fn review_unlocked(
    metadata: &SqlMetadata,
    due: Timestamp,
    limit: usize,
) -> Result<ReviewBatch, StoreError> {
    let look = sql("SELECT m.repository_id, m.digest,
                CAST(CASE WHEN EXISTS (SELECT 1 FROM manifest_references f
                                       WHERE f.repository_id = m.repository_id AND f.digest = m.digest)
                          THEN 1 ELSE 0 END AS BIGINT) AS is_named
         FROM repository_blobs m WHERE m.leased_until <= $1 ORDER BY m.leased_until LIMIT $2");
    let looked: Looked = metadata
        .database
        .fetch_all("looking without a lock", look.bind(due).bind(limit), |row| {
            Ok((row.get("repository_id")?, row.parse("digest")?, row.get::<i64>("is_named")? != 0))
        })
        .await?;
    tokio::time::sleep(STALL).await;
    let reviewed = u64::try_from(looked.len()).unwrap_or(u64::MAX);
    let dropped = metadata
        .database
        .write("dropping without a look", looked, |connection, looked| Box::pin(drop_looked(connection, looked)))
        .await?;
    Ok(ReviewBatch { reviewed, dropped })
}
