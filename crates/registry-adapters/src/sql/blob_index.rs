//! Which blobs are visible in which repository.

use std::time::Duration;

use async_trait::async_trait;
use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::ports::metadata::BlobIndex;
use registry_core::ports::metadata::blob_index::{DeleteBlob, MountBlob, StoredBlob};
use registry_core::registry::{RegistryId, Repository};
use registry_core::time::Timestamp;

use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::garbage::add_candidate;
use super::registries::{ensure_repository, find_repository};
use super::statement::{Connection, Row, Statement, on_postgres, sql};

/// A blob as a repository has it.
struct Membership {
    blob: StoredBlob,
    /// `None`: reviewed.
    leased_until: Option<Timestamp>,
}

impl Membership {
    /// Whether it is sure to stay for at least half of `grace`.
    fn lasts(&self, grace: Duration, now: Timestamp) -> bool {
        self.leased_until.is_none_or(|leased_until| leased_until >= now + grace / 2)
    }
}

fn find(repository: &Repository, digest: &Digest) -> Statement {
    sql("SELECT b.digest, b.size, b.object_key, m.leased_until
         FROM repositories r
         CROSS JOIN repository_blobs m
         CROSS JOIN blobs b
         WHERE r.registry_id = $1 AND r.name = $2
           AND m.repository_id = r.id AND m.digest = $3
           AND b.digest = m.digest")
    .bind(repository.registry)
    .bind(&repository.name)
    .bind(digest)
}

fn read_membership(row: Row) -> SqlResult<Membership> {
    Ok(Membership {
        blob: StoredBlob { digest: row.parse("digest")?, size: row.unsigned("size")?, key: row.key("object_key")? },
        leased_until: row.get::<Option<i64>>("leased_until")?.map(Timestamp::from_micros),
    })
}

/// Makes a blob visible in a repository until `lease_until` at least. A reviewed membership stays reviewed: a manifest
/// names the blob, and the loss of that reference brings a full lease.
pub(super) async fn lease_blob(
    connection: &mut Connection,
    repository_id: i64,
    digest: &Digest,
    lease_until: Timestamp,
) -> SqlResult<()> {
    // A comparison with NULL is not true, so NULL stays.
    let upsert = sql("INSERT INTO repository_blobs (repository_id, digest, leased_until) VALUES ($1, $2, $3)
         ON CONFLICT (repository_id, digest) DO UPDATE SET leased_until =
             CASE WHEN repository_blobs.leased_until < excluded.leased_until THEN excluded.leased_until
                  ELSE repository_blobs.leased_until END");
    connection.execute(upsert.bind(repository_id).bind(digest).bind(lease_until)).await?;
    Ok(())
}

async fn renew(
    connection: &mut Connection,
    (repository, digest, grace, now): &(Repository, Digest, Duration, Timestamp),
) -> SqlResult<Decision<Option<StoredBlob>>> {
    let update = sql("UPDATE repository_blobs SET leased_until = $4
         WHERE repository_id = (SELECT id FROM repositories WHERE registry_id = $1 AND name = $2)
           AND digest = $3 AND leased_until < $5")
    .bind(repository.registry)
    .bind(&repository.name)
    .bind(digest)
    .bind(*now + *grace)
    .bind(*now + *grace / 2);
    connection.execute(update).await?;
    // Whether this renewed it, or somebody else did or reviewed it meanwhile: the row as it is now is the answer.
    let row = connection.fetch_optional(find(repository, digest)).await?;
    Ok(Decision::Commit(row.map(read_membership).transpose()?.map(|membership| membership.blob)))
}

async fn mount(
    connection: &mut Connection,
    (from, to, digest, lease_until, now): &(Repository, Repository, Digest, Timestamp, Timestamp),
) -> SqlResult<Decision<MountBlob>> {
    let Some(row) = connection.fetch_optional(find(from, digest)).await? else {
        return Ok(Decision::Commit(MountBlob::Unknown));
    };
    let source = read_membership(row)?;
    let Some(target) = ensure_repository(connection, to, *now).await? else {
        return Ok(Decision::Rollback(MountBlob::NameTaken));
    };
    lease_blob(connection, target.id, digest, *lease_until).await?;
    Ok(Decision::Commit(MountBlob::Mounted(source.blob)))
}

async fn delete(
    connection: &mut Connection,
    (repository, digest): &(Repository, Digest),
) -> SqlResult<Decision<DeleteBlob>> {
    let Some(row) = find_repository(connection, repository.registry, &repository.name).await? else {
        return Ok(Decision::Commit(DeleteBlob::Unknown));
    };
    // A manifest that is being stored holds the row; whether it names the blob shows to a statement after that.
    let lock = on_postgres("SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = $2 FOR UPDATE");
    connection.lock(lock.bind(row.id).bind(digest)).await?;
    let delete = sql("DELETE FROM repository_blobs WHERE repository_id = $1 AND digest = $2
           AND NOT EXISTS (SELECT 1 FROM manifest_references f WHERE f.repository_id = $1 AND f.digest = $2)");
    if connection.execute(delete.bind(row.id).bind(digest)).await? == 0 {
        let there = sql("SELECT 1 AS found FROM repository_blobs WHERE repository_id = $1 AND digest = $2");
        let there = connection.fetch_optional(there.bind(row.id).bind(digest)).await?.is_some();
        return Ok(Decision::Commit(if there { DeleteBlob::Referenced } else { DeleteBlob::Unknown }));
    }
    add_candidate(connection, digest).await?;
    Ok(Decision::Commit(DeleteBlob::Deleted))
}

#[async_trait]
impl BlobIndex for SqlMetadata {
    async fn find_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        let found = self.database.fetch_optional("finding a blob", find(repository, digest), read_membership).await?;
        Ok(found.map(|membership| membership.blob))
    }

    async fn find_blob_for_push(
        &self,
        repository: &Repository,
        digest: &Digest,
        grace: Duration,
        now: Timestamp,
    ) -> Result<Option<StoredBlob>, StoreError> {
        let found = self.database.fetch_optional("finding a blob", find(repository, digest), read_membership).await?;
        match found {
            Some(membership) if !membership.lasts(grace, now) => {}
            other => return Ok(other.map(|membership| membership.blob)),
        }
        let input = (repository.clone(), digest.clone(), grace, now);
        self.database
            .write("renewing a blob's lease", input, |connection, input| Box::pin(renew(connection, input)))
            .await
    }

    async fn repositories_with_blob(&self, digest: &Digest, limit: usize) -> Result<Vec<Repository>, StoreError> {
        let statement = sql("SELECT r.registry_id, r.name FROM repository_blobs m CROSS JOIN repositories r
             WHERE m.digest = $1 AND r.id = m.repository_id LIMIT $2");
        self.database
            .fetch_all("looking for a blob in all repositories", statement.bind(digest).bind(limit), |row| {
                Ok(Repository { registry: RegistryId(row.get("registry_id")?), name: row.parse("name")? })
            })
            .await
    }

    async fn mount_blob(
        &self,
        from: &Repository,
        to: &Repository,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<MountBlob, StoreError> {
        let input = (from.clone(), to.clone(), digest.clone(), lease_until, now);
        self.database.write("mounting a blob", input, |connection, input| Box::pin(mount(connection, input))).await
    }

    async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        _now: Timestamp,
    ) -> Result<DeleteBlob, StoreError> {
        let input = (repository.clone(), digest.clone());
        self.database
            .write("taking a blob out of a repository", input, |connection, input| Box::pin(delete(connection, input)))
            .await
    }
}
