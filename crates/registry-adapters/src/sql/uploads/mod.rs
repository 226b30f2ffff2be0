//! Upload sessions; `finalise.rs` has how they become blobs.

use async_trait::async_trait;
use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::metadata::uploads::{
    BeginWrite, CheckpointStep, CommitOutcome, CreateUpload, NewUpload, SealOutcome, SealUpload, WriteStart,
};
use registry_core::registry::RegistryId;
use registry_core::time::Timestamp;
use registry_core::upload::{Checkpoint, Epoch, StagingState, UploadId, UploadSession, UploadState, UploadTarget};

use self::finalise::{commit, seal};
use super::SqlMetadata;
use super::database::Decision;
use super::error::Result as SqlResult;
use super::ledger::doom_object;
use super::registries::create_repository;
use super::statement::{Connection, Row, Statement, Text, on_postgres, sql, unreadable};

/// The assignments and the condition of a checkpoint, with more assignments between them.
macro_rules! checkpoint {
    ($more:literal, $returning:literal) => {
        concat!(
            "UPDATE uploads SET durable_offset = $4, durable_hashes = $5, durable_staging = $6,
                 told_offset = CASE WHEN $7 = 1 THEN $4 ELSE told_offset END,
                 told_hashes = CASE WHEN $7 = 1 THEN $5 ELSE told_hashes END,
                 told_staging = CASE WHEN $7 = 1 THEN $6 ELSE told_staging END,
                 touched_at = $8",
            $more,
            " WHERE id = $1 AND state = 0 AND epoch = $2 AND durable_offset = $3",
            $returning
        )
    };
}

mod finalise;

/// Stands for the registry of an upload that goes to none.
const NO_REGISTRY: RegistryId = RegistryId(0);

/// The columns that [`read_session`] reads.
macro_rules! session {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " id, registry_id, name, description, state, epoch, durable_offset, durable_hashes, \
             durable_staging, told_offset, told_hashes, told_staging, final_digest, final_size, object_key, touched_at ",
            $after
        )
    };
}

fn read_session(row: Row) -> SqlResult<UploadSession> {
    let registry = RegistryId(row.get("registry_id")?);
    let target = match row.get::<Option<String>>("description")? {
        None if row.get::<String>("name")?.is_empty() => UploadTarget::Unreferenced,
        Some(text) => UploadTarget::Version {
            registry,
            package: row.parse("name")?,
            description: serde_json::from_str(&text).map_err(|error| unreadable("description", error))?,
        },
        None => UploadTarget::Repository { registry, repository: row.parse("name")? },
    };
    let state = match row.get::<i64>("state")? {
        0 => UploadState::Open,
        1 => UploadState::Finalising {
            digest: row.parse("final_digest")?,
            size: row.unsigned("final_size")?,
            key: row.key("object_key")?,
        },
        2 => UploadState::Done { digest: row.parse("final_digest")? },
        3 => UploadState::Ended,
        other => return Err(unreadable("state", other)),
    };
    let id: Vec<u8> = row.get("id")?;
    Ok(UploadSession {
        id: UploadId::from_bytes(&id).ok_or_else(|| unreadable("id", "an identity of another length"))?,
        target,
        state,
        epoch: Epoch(row.get("epoch")?),
        durable: Checkpoint {
            offset: row.unsigned("durable_offset")?,
            hashes: row.get("durable_hashes")?,
            staging: StagingState(row.get("durable_staging")?),
        },
        told: Checkpoint {
            offset: row.unsigned("told_offset")?,
            hashes: row.get("told_hashes")?,
            staging: StagingState(row.get("told_staging")?),
        },
        touched_at: row.time("touched_at")?,
    })
}

fn find(id: UploadId) -> Statement {
    sql(session!("SELECT", "FROM uploads WHERE id = $1")).bind(id)
}

/// The session, which nobody else changes until the intention ends.
async fn lock_session(connection: &mut Connection, id: UploadId) -> SqlResult<Option<UploadSession>> {
    let find = sql(Text {
        sqlite: session!("SELECT", "FROM uploads WHERE id = $1"),
        postgres: session!("SELECT", "FROM uploads WHERE id = $1 FOR UPDATE"),
    });
    connection.fetch_optional(find.bind(id)).await?.map(read_session).transpose()
}

async fn find_session(connection: &mut Connection, id: UploadId) -> SqlResult<Option<UploadSession>> {
    let row = connection.fetch_optional(find(id)).await?;
    row.map(read_session).transpose()
}

async fn create(connection: &mut Connection, (new, now): &(NewUpload, Timestamp)) -> SqlResult<Decision<CreateUpload>> {
    let epoch = Epoch(i64::from(new.writing));
    let with_values = |statement: Statement| {
        statement
            .bind(new.id)
            .bind(new.target.registry().unwrap_or(NO_REGISTRY))
            .bind(new.target.name())
            .bind(epoch.0)
            .bind(new.start.offset)
            .bind(new.start.hashes.as_slice())
            .bind(&new.start.staging.0)
            .bind(*now)
    };
    match &new.target {
        UploadTarget::Repository { registry, repository } => {
            let insert = || {
                with_values(sql("INSERT INTO uploads (id, registry_id, repository_id, name, state, epoch,
                         durable_offset, durable_hashes, durable_staging, told_offset, told_hashes, told_staging,
                         touched_at)
                     SELECT $1, $2, r.id, $3, 0, $4, $5, $6, $7, $5, $6, $7, $8
                     FROM repositories r WHERE r.registry_id = $2 AND r.name = $3"))
            };
            if connection.execute(insert()).await? == 0 {
                if create_repository(connection, *registry, repository, *now).await?.is_none() {
                    return Ok(Decision::Rollback(CreateUpload::NameTaken));
                }
                connection.execute(insert()).await?;
            }
        }
        UploadTarget::Version { .. } | UploadTarget::Unreferenced => {
            let description = match &new.target {
                UploadTarget::Version { description, .. } => {
                    Some(serde_json::to_string(description).expect("a description is a document"))
                }
                _ => None,
            };
            let insert = sql("INSERT INTO uploads (id, registry_id, name, state, epoch, durable_offset,
                     durable_hashes, durable_staging, told_offset, told_hashes, told_staging, touched_at, description)
                 VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $5, $6, $7, $8, $9)");
            connection.execute(with_values(insert).bind(description)).await?;
        }
    }
    Ok(Decision::Commit(CreateUpload::Created(UploadSession {
        id: new.id,
        target: new.target.clone(),
        state: UploadState::Open,
        epoch,
        durable: new.start.clone(),
        told: new.start.clone(),
        touched_at: *now,
    })))
}

async fn begin_write(
    connection: &mut Connection,
    (id, start, now): &(UploadId, WriteStart, Timestamp),
) -> SqlResult<Decision<BeginWrite>> {
    let begin = || match start {
        WriteStart::AtTold => sql(session!(
            "UPDATE uploads SET epoch = epoch + 1, durable_offset = told_offset, durable_hashes = told_hashes,
                 durable_staging = told_staging, touched_at = $2
             WHERE id = $1 AND state = 0 RETURNING",
            ""
        ))
        .bind(*id)
        .bind(*now),
        WriteStart::At(offset) => sql(session!(
            "UPDATE uploads SET epoch = epoch + 1, touched_at = $2
             WHERE id = $1 AND state = 0 AND durable_offset = $3 RETURNING",
            ""
        ))
        .bind(*id)
        .bind(*now)
        .bind(*offset),
    };
    if let Some(row) = connection.fetch_optional(begin()).await? {
        return Ok(Decision::Commit(BeginWrite::Started(read_session(row)?)));
    }
    if !connection.is_alone() {
        // So that the answer is about one state of the session: it may have come to the offset since.
        connection.lock(on_postgres("SELECT 1 FROM uploads WHERE id = $1 FOR UPDATE").bind(*id)).await?;
        if let Some(row) = connection.fetch_optional(begin()).await? {
            return Ok(Decision::Commit(BeginWrite::Started(read_session(row)?)));
        }
    }
    if let Some(row) = connection.fetch_optional(tell_durable(*id, *now)).await? {
        return Ok(Decision::Commit(BeginWrite::OutOfOrder(read_session(row)?)));
    }
    let session = find_session(connection, *id).await?;
    Ok(Decision::Commit(session.map_or(BeginWrite::Unknown, BeginWrite::NotOpen)))
}

/// Makes `told` what is durable, of an open session.
fn tell_durable(id: UploadId, now: Timestamp) -> Statement {
    sql(session!(
        "UPDATE uploads SET told_offset = durable_offset, told_hashes = durable_hashes,
             told_staging = durable_staging, touched_at = $2
         WHERE id = $1 AND state = 0 RETURNING",
        ""
    ))
    .bind(id)
    .bind(now)
}

/// Binds `$1` to `$8` of the statements that record a checkpoint.
fn bind_step(statement: Statement, step: &CheckpointStep, now: Timestamp) -> Statement {
    statement
        .bind(step.id)
        .bind(step.epoch.0)
        .bind(step.from)
        .bind(step.to.offset)
        .bind(step.to.hashes.as_slice())
        .bind(&step.to.staging.0)
        .bind(step.tell)
        .bind(now)
}

async fn checkpoint(
    connection: &mut Connection,
    (step, now): &(CheckpointStep, Timestamp),
) -> SqlResult<Decision<bool>> {
    let recorded = connection.execute(bind_step(sql(checkpoint!("", "")), step, *now)).await?;
    Ok(Decision::Commit(recorded > 0))
}

async fn tell(
    connection: &mut Connection,
    (id, now): &(UploadId, Timestamp),
) -> SqlResult<Decision<Option<UploadSession>>> {
    if let Some(row) = connection.fetch_optional(tell_durable(*id, *now)).await? {
        return Ok(Decision::Commit(Some(read_session(row)?)));
    }
    Ok(Decision::Commit(find_session(connection, *id).await?))
}

async fn end(connection: &mut Connection, id: UploadId) -> SqlResult<()> {
    connection.execute(sql("UPDATE uploads SET state = 3 WHERE id = $1").bind(id)).await?;
    Ok(())
}

async fn end_upload(
    connection: &mut Connection,
    (id, idle_before, now): &(UploadId, Option<Timestamp>, Timestamp),
) -> SqlResult<Decision<Option<UploadSession>>> {
    let Some(session) = lock_session(connection, *id).await? else {
        return Ok(Decision::Commit(None));
    };
    let idle = idle_before.map(|idle_before| session.touched_at < idle_before);
    match (&session.state, idle) {
        (UploadState::Ended, _) => return Ok(Decision::Commit(Some(session))),
        (_, Some(false)) | (UploadState::Done { .. }, None) => return Ok(Decision::Commit(None)),
        (UploadState::Open | UploadState::Done { .. }, _) => {}
        (UploadState::Finalising { key, .. }, _) => doom_object(connection, key, *now).await?,
    }
    end(connection, *id).await?;
    Ok(Decision::Commit(Some(session)))
}

#[async_trait]
impl UploadStore for SqlMetadata {
    async fn create_upload(&self, new: NewUpload, now: Timestamp) -> Result<CreateUpload, StoreError> {
        self.database
            .write("making an upload", (new, now), |connection, input| Box::pin(create(connection, input)))
            .await
    }

    async fn find_upload(&self, id: UploadId) -> Result<Option<UploadSession>, StoreError> {
        self.database.fetch_optional("reading an upload", find(id), read_session).await
    }

    async fn begin_write(&self, id: UploadId, start: WriteStart, now: Timestamp) -> Result<BeginWrite, StoreError> {
        self.database
            .write("beginning to write an upload", (id, start, now), |connection, input| {
                Box::pin(begin_write(connection, input))
            })
            .await
    }

    async fn checkpoint_upload(&self, step: CheckpointStep, now: Timestamp) -> Result<bool, StoreError> {
        self.database
            .write("recording an upload's offset", (step, now), |connection, input| {
                Box::pin(checkpoint(connection, input))
            })
            .await
    }

    async fn tell_upload(&self, id: UploadId, now: Timestamp) -> Result<Option<UploadSession>, StoreError> {
        self.database
            .write("noting what a client is told", (id, now), |connection, input| Box::pin(tell(connection, input)))
            .await
    }

    async fn seal_upload(&self, seal_upload: SealUpload, now: Timestamp) -> Result<SealOutcome, StoreError> {
        self.database
            .write("finalising an upload", (seal_upload, now), |connection, input| Box::pin(seal(connection, input)))
            .await
    }

    async fn commit_upload(
        &self,
        id: UploadId,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError> {
        let input = (id, digest.clone(), lease_until, now);
        self.database
            .write("committing an upload", input, |connection, input| Box::pin(commit(connection, input)))
            .await
    }

    async fn end_upload(
        &self,
        id: UploadId,
        idle_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<UploadSession>, StoreError> {
        self.database
            .write("ending an upload", (id, idle_before, now), |connection, input| {
                Box::pin(end_upload(connection, input))
            })
            .await
    }

    async fn remove_upload(&self, id: UploadId) -> Result<(), StoreError> {
        self.database
            .write("removing an upload", id, |connection, id| {
                Box::pin(async move {
                    connection.execute(sql("DELETE FROM uploads WHERE id = $1 AND state = 3").bind(*id)).await?;
                    Ok(Decision::Commit(()))
                })
            })
            .await
    }

    async fn idle_uploads(&self, idle_before: Timestamp, limit: usize) -> Result<Vec<UploadId>, StoreError> {
        let statement = sql("SELECT id, touched_at FROM
                 (SELECT id, touched_at FROM uploads WHERE touched_at < $1 ORDER BY touched_at LIMIT $2) idle
             UNION
             SELECT id, touched_at FROM
                 (SELECT id, touched_at FROM uploads WHERE state = 3 ORDER BY touched_at LIMIT $2) ended
             ORDER BY touched_at, id LIMIT $2")
        .bind(idle_before)
        .bind(limit);
        self.database
            .fetch_all("looking for idle uploads", statement, |row| {
                let id: Vec<u8> = row.get("id")?;
                UploadId::from_bytes(&id).ok_or_else(|| unreadable("id", "an identity of another length"))
            })
            .await
    }
}
