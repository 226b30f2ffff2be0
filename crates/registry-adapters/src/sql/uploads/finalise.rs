//! How an upload becomes a blob: sealed, then committed.

use registry_core::digest::Digest;
use registry_core::names::PackageName;
use registry_core::package::ArtifactDescription;
use registry_core::ports::blob_store::{KeyCandidates, ObjectKey};
use registry_core::ports::metadata::uploads::{CommitOutcome, SealOutcome, SealUpload};
use registry_core::registry::RegistryId;
use registry_core::time::Timestamp;
use registry_core::upload::{UploadId, UploadState};

use super::{bind_step, end, find_session};
use crate::sql::blob_index::lease_blob;
use crate::sql::database::Decision;
use crate::sql::error::Result as SqlResult;
use crate::sql::ledger::doom_object;
use crate::sql::packages::{publish_version, version_exists};
use crate::sql::statement::{Connection, Row, dialects, sql, unreadable};

/// See `UploadStore::seal_upload`.
pub(super) async fn seal(
    connection: &mut Connection,
    (seal, now): &(SealUpload, Timestamp),
) -> SqlResult<Decision<SealOutcome>> {
    let reserved = match reserve_plain_key(connection, seal, *now).await? {
        Some(key) => key,
        None => {
            // Locked, so that it stays: a collection that has it is waited for.
            let stored = sql(dialects!("SELECT digest FROM blobs WHERE digest = $1", ["" | " FOR KEY SHARE"]));
            let stored = stored.bind(&seal.digest);
            if connection.fetch_optional(stored).await?.is_some() {
                return commit_at_once(connection, seal, *now).await;
            }
            reserve_next_key(connection, &seal.candidates, *now).await?
        }
    };
    let finalise = sql(checkpoint!(", state = 1, final_digest = $9, final_size = $4, object_key = $10", ""));
    let finalise = bind_step(finalise, &seal.step, *now).bind(&seal.digest).bind(&reserved);
    if connection.execute(finalise).await? == 0 {
        return Ok(Decision::Rollback(sealed_before(connection, seal).await?));
    }
    Ok(Decision::Commit(SealOutcome::Publish(reserved)))
}

/// Reserves the first candidate, unless it has a row or a blob of this digest is stored: the usual case in one
/// statement. A row that is there need not stay: whoever reserves it at the same time is waited for, and has it.
async fn reserve_plain_key(
    connection: &mut Connection,
    seal: &SealUpload,
    now: Timestamp,
) -> SqlResult<Option<ObjectKey>> {
    let plain = seal.candidates.nth(0);
    let reserve = sql("INSERT INTO objects (key, state, since)
         SELECT $1, 0, $2 WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE digest = $3)
         ON CONFLICT (key) DO NOTHING");
    let reserved = connection.execute(reserve.bind(&plain).bind(now).bind(&seal.digest)).await?;
    Ok((reserved > 0).then_some(plain))
}

/// Reserves the first of the later candidates that has no row.
async fn reserve_next_key(
    connection: &mut Connection,
    candidates: &KeyCandidates,
    now: Timestamp,
) -> SqlResult<ObjectKey> {
    let mut number = 0;
    loop {
        let key = candidates.nth(number);
        let reserve = sql("INSERT INTO objects (key, state, since) VALUES ($1, 0, $2) ON CONFLICT (key) DO NOTHING");
        if connection.execute(reserve.bind(&key).bind(now)).await? > 0 {
            return Ok(key);
        }
        number += 1;
    }
}

/// The bytes are stored already: the session is done with the checkpoint that would have finalised it.
async fn commit_at_once(
    connection: &mut Connection,
    seal: &SealUpload,
    now: Timestamp,
) -> SqlResult<Decision<SealOutcome>> {
    let finish = sql(checkpoint!(
        ", state = 2, final_digest = $9, final_size = $4",
        " RETURNING repository_id, registry_id, name, description"
    ));
    let finish = bind_step(finish, &seal.step, now).bind(&seal.digest);
    let Some(row) = connection.fetch_optional(finish).await? else {
        return Ok(Decision::Commit(sealed_before(connection, seal).await?));
    };
    let destination = Destination::read(&row)?;
    if destination.is_taken(connection).await? {
        end(connection, seal.step.id).await?;
        return Ok(Decision::Commit(SealOutcome::AlreadyStored(CommitOutcome::VersionExists)));
    }
    destination.refer(connection, (&seal.digest, seal.step.to.offset), seal.lease_until, now).await?;
    Ok(Decision::Commit(SealOutcome::AlreadyStored(CommitOutcome::Committed)))
}

/// The answer when the session is not as the writer left it: the former answer, where the same writer has sealed it
/// with the same digest before.
async fn sealed_before(connection: &mut Connection, seal: &SealUpload) -> SqlResult<SealOutcome> {
    let Some(session) = find_session(connection, seal.step.id).await? else {
        return Ok(SealOutcome::Superseded);
    };
    if session.epoch != seal.step.epoch || session.durable.offset != seal.step.to.offset {
        return Ok(SealOutcome::Superseded);
    }
    Ok(match session.state {
        UploadState::Finalising { digest, key, .. } if digest == seal.digest => SealOutcome::Publish(key),
        UploadState::Done { digest } if digest == seal.digest => SealOutcome::AlreadyStored(CommitOutcome::Committed),
        _ => SealOutcome::Superseded,
    })
}

/// What will refer to the blob.
enum Destination {
    Repository(i64),
    Version(RegistryId, PackageName, ArtifactDescription),
    Nothing,
}

impl Destination {
    fn read(row: &Row) -> SqlResult<Self> {
        if let Some(repository_id) = row.get::<Option<i64>>("repository_id")? {
            return Ok(Destination::Repository(repository_id));
        }
        let Some(description) = row.get::<Option<String>>("description")? else {
            return Ok(Destination::Nothing);
        };
        Ok(Destination::Version(
            RegistryId(row.get("registry_id")?),
            row.parse("name")?,
            serde_json::from_str(&description).map_err(|error| unreadable("description", error))?,
        ))
    }

    /// Whether it is a version that exists.
    async fn is_taken(&self, connection: &mut Connection) -> SqlResult<bool> {
        match self {
            Destination::Version(registry, package, description) => {
                version_exists(connection, *registry, package, &description.version).await
            }
            Destination::Repository(_) | Destination::Nothing => Ok(false),
        }
    }

    /// Makes the stored blob visible there.
    async fn refer(
        &self,
        connection: &mut Connection,
        (digest, size): (&Digest, u64),
        lease_until: Timestamp,
        now: Timestamp,
    ) -> SqlResult<()> {
        match self {
            Destination::Repository(repository_id) => lease_blob(connection, *repository_id, digest, lease_until).await,
            Destination::Version(registry, package, description) => {
                publish_version(connection, (*registry, package), description, (digest, size), now).await
            }
            Destination::Nothing => Ok(()),
        }
    }
}

/// See `UploadStore::commit_upload`.
pub(super) async fn commit(
    connection: &mut Connection,
    (id, digest, lease_until, now): &(UploadId, Digest, Timestamp, Timestamp),
) -> SqlResult<Decision<CommitOutcome>> {
    let finish = sql("UPDATE uploads SET state = 2, touched_at = $3
         WHERE id = $1 AND state = 1 AND final_digest = $2
         RETURNING final_size, object_key, repository_id, registry_id, name, description");
    let Some(row) = connection.fetch_optional(finish.bind(*id).bind(digest).bind(*now)).await? else {
        let done = sql("SELECT state FROM uploads WHERE id = $1 AND state = 2 AND final_digest = $2");
        let done = connection.fetch_optional(done.bind(*id).bind(digest)).await?.is_some();
        return Ok(Decision::Commit(if done { CommitOutcome::Committed } else { CommitOutcome::Superseded }));
    };
    let (size, key) = (row.unsigned("final_size")?, row.key("object_key")?);
    let destination = Destination::read(&row)?;
    if destination.is_taken(connection).await? {
        end(connection, *id).await?;
        doom_object(connection, &key, *now).await?;
        return Ok(Decision::Commit(CommitOutcome::VersionExists));
    }
    // The row that is there has that size already. To set its digest, though the same, would look for all references.
    let store = sql("INSERT INTO blobs (digest, size, object_key, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (digest) DO UPDATE SET size = excluded.size RETURNING object_key");
    let stored = connection.fetch_one(store.bind(digest).bind(size).bind(&key).bind(*now)).await?;
    if stored.key("object_key")? == key {
        let live = sql("UPDATE objects SET state = 1, since = $2 WHERE key = $1").bind(&key).bind(*now);
        connection.execute(live).await?;
    } else {
        doom_object(connection, &key, *now).await?;
    }
    destination.refer(connection, (digest, size), *lease_until, *now).await?;
    Ok(Decision::Commit(CommitOutcome::Committed))
}
