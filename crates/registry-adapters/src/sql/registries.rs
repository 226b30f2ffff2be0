//! Registries, and the repositories inside the `oci` ones.

use async_trait::async_trait;
use registry_core::error::StoreError;
use registry_core::names::{RegistryName, RepositoryName};
use registry_core::ports::metadata::registries::{CreateRegistry, NewRegistry};
use registry_core::ports::metadata::{NameRange, RegistryStore};
use registry_core::registry::{Format, Registry, RegistryId, RegistrySettings, Repository};
use registry_core::time::Timestamp;

use super::SqlMetadata;
use super::database::{Database, Decision};
use super::error::{Failure, Result as SqlResult};
use super::range::Bounds;
use super::statement::{Connection, Row, sql, unreadable};

fn read_registry(row: Row) -> SqlResult<Registry> {
    let settings: String = row.get("settings")?;
    Ok(Registry {
        id: RegistryId(row.get("id")?),
        name: row.parse("name")?,
        format: row.parse("format")?,
        mode: row.parse("mode")?,
        settings: serde_json::from_str(&settings).map_err(|error| unreadable("settings", error))?,
        created_at: row.time("created_at")?,
    })
}

fn settings_text(settings: &RegistrySettings) -> String {
    serde_json::to_string(settings).expect("settings are a document")
}

async fn create(
    connection: &mut Connection,
    (new, now): &(NewRegistry, Timestamp),
) -> SqlResult<Decision<CreateRegistry>> {
    let find = sql("SELECT id, name, format, mode, settings, created_at FROM registries WHERE name = $1");
    if let Some(row) = connection.fetch_optional(find.bind(new.name.as_str())).await? {
        return Ok(Decision::Commit(CreateRegistry::Exists(read_registry(row)?)));
    }
    // Known beforehand, so that a refused name uses no number up; below it is certain. A registry's own segment may have
    // come since the look above: then the name of the registry is refused below, and this runs again.
    let taken = sql("SELECT 1 AS found FROM first_segments WHERE name = $1 AND registry_id IS NULL");
    let taken = taken.bind(new.name.as_str());
    if new.format == Format::Oci && connection.fetch_optional(taken).await?.is_some() {
        return Ok(Decision::Rollback(CreateRegistry::NameTaken));
    }
    let insert = sql("INSERT INTO registries (name, format, mode, settings, created_at) VALUES ($1, $2, $3, $4, $5)
         RETURNING id")
    .bind(new.name.as_str())
    .bind(new.format.as_str())
    .bind(new.mode.as_str())
    .bind(settings_text(&new.settings))
    .bind(*now);
    let id: i64 = connection.fetch_one(insert).await?.get("id")?;
    // Only these stand first in /v2/<name>.
    if new.format == Format::Oci {
        let claim = sql("INSERT INTO first_segments (name, registry_id) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET registry_id = first_segments.registry_id RETURNING registry_id");
        let row = connection.fetch_one(claim.bind(new.name.as_str()).bind(id)).await?;
        if row.get::<Option<i64>>("registry_id")? != Some(id) {
            return Ok(Decision::Rollback(CreateRegistry::NameTaken));
        }
    }
    Ok(Decision::Commit(CreateRegistry::Created(Registry {
        id: RegistryId(id),
        name: new.name.clone(),
        format: new.format,
        mode: new.mode,
        settings: new.settings.clone(),
        created_at: *now,
    })))
}

/// A repository's row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RepositoryRow {
    pub(super) id: i64,
    /// Whether it is in the lists of repositories: it holds a manifest.
    pub(super) listed: bool,
}

/// The row of a repository, if it has one.
pub(super) async fn find_repository(
    connection: &mut Connection,
    registry: RegistryId,
    name: &RepositoryName,
) -> SqlResult<Option<RepositoryRow>> {
    let find =
        sql("SELECT id, listed FROM repositories WHERE registry_id = $1 AND name = $2").bind(registry).bind(name);
    let Some(row) = connection.fetch_optional(find).await? else { return Ok(None) };
    Ok(Some(RepositoryRow { id: row.get("id")?, listed: row.get::<i64>("listed")? != 0 }))
}

/// Makes the row of a repository that has none, and that of its first segment; `None` when that is the name of a
/// registry: then the intention must be rolled back.
pub(super) async fn create_repository(
    connection: &mut Connection,
    registry: RegistryId,
    name: &RepositoryName,
    now: Timestamp,
) -> SqlResult<Option<RepositoryRow>> {
    let find = sql("SELECT name FROM registries WHERE id = $1").bind(registry);
    let row = connection.fetch_optional(find).await?;
    let row = row.ok_or_else(|| Failure::Unreadable(format!("there is no registry of the identity {}", registry.0)))?;
    if row.get::<String>("name")? == RegistryName::default_oci().as_str() {
        // What is set anew, here and below, is no part of a key: whoever refers to the row need not wait.
        let claim = sql("INSERT INTO first_segments (name, registry_id) VALUES ($1, NULL)
             ON CONFLICT (name) DO UPDATE SET registry_id = first_segments.registry_id RETURNING registry_id");
        let row = connection.fetch_one(claim.bind(name.first_segment())).await?;
        if row.get::<Option<i64>>("registry_id")?.is_some() {
            return Ok(None);
        }
    }
    let insert = sql("INSERT INTO repositories (registry_id, name, listed, created_at) VALUES ($1, $2, 0, $3)
         ON CONFLICT (registry_id, name) DO UPDATE SET listed = repositories.listed RETURNING id, listed");
    let row = connection.fetch_one(insert.bind(registry).bind(name).bind(now)).await?;
    Ok(Some(RepositoryRow { id: row.get("id")?, listed: row.get::<i64>("listed")? != 0 }))
}

/// [`find_repository`], or else [`create_repository`].
pub(super) async fn ensure_repository(
    connection: &mut Connection,
    repository: &Repository,
    now: Timestamp,
) -> SqlResult<Option<RepositoryRow>> {
    match find_repository(connection, repository.registry, &repository.name).await? {
        Some(row) => Ok(Some(row)),
        None => create_repository(connection, repository.registry, &repository.name, now).await,
    }
}

#[async_trait]
impl RegistryStore for SqlMetadata {
    async fn registries(&self) -> Result<Vec<Registry>, StoreError> {
        let statement = sql("SELECT id, name, format, mode, settings, created_at FROM registries ORDER BY name");
        self.database.fetch_all("listing registries", statement, read_registry).await
    }

    async fn create_registry(&self, new: NewRegistry, now: Timestamp) -> Result<CreateRegistry, StoreError> {
        self.database
            .write("making a registry", (new, now), |connection, input| Box::pin(create(connection, input)))
            .await
    }

    async fn change_settings(&self, id: RegistryId, settings: RegistrySettings) -> Result<bool, StoreError> {
        self.database
            .write("changing a registry's settings", (id, settings), |connection, (id, settings)| {
                Box::pin(async move {
                    let update = sql("UPDATE registries SET settings = $2 WHERE id = $1");
                    let changed = connection.execute(update.bind(*id).bind(settings_text(settings))).await?;
                    Ok(Decision::Commit(changed > 0))
                })
            })
            .await
    }

    async fn repositories(
        &self,
        registry: RegistryId,
        range: &NameRange,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let statement = sql("SELECT name FROM repositories
             WHERE registry_id = $1 AND listed = 1
               AND name >= $2 AND (name > $2 OR $3 = 1) AND name <= $4 AND (name < $4 OR $5 = 1)
             ORDER BY name LIMIT $6");
        let statement = Bounds::of(range).bind_to(statement.bind(registry)).bind(limit);
        self.database.fetch_all("listing repositories", statement, |row| row.parse("name")).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let statement = sql("SELECT oldest_compatible_server FROM schema_info");
        self.database.fetch_optional("asking whether the metadata store answers", statement, |_| Ok(())).await?;
        let open = match &self.database {
            Database::Sqlite(database) => database.accepts_writes(),
            Database::Postgres(database) => database.is_open(),
        };
        if open { Ok(()) } else { Err(Failure::Closed.while_doing("asking whether the metadata store answers")) }
    }
}
