//! Bringing the schema up to date, while other replicas may be about to do the same.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::connection::Connector;
use crate::sql::schema::{self, MigrationFile, OpenFailure};

/// The numbered files of `migrations/postgres`, each applied in a transaction of its own.
pub(in crate::sql) const MIGRATIONS: &[MigrationFile] = &[
    (1, "initial", include_str!("../../../migrations/postgres/0001_initial.sql")),
    (2, "server_life", include_str!("../../../migrations/postgres/0002_server_life.sql")),
];

/// What replicas that start at once wait for: an advisory lock of the database, "foundry" in ASCII.
const LOCK: i64 = 0x66_6f75_6e64_7279;

/// The oldest release that has all that is used: `xid8`, `pg_xact_status`.
const OLDEST_SERVER: i32 = 13;

/// Brings the schema up to date, alone; others wait, and then find it done.
pub(super) async fn run(connector: &Connector) -> Result<(), OpenFailure> {
    let mut connection = connector.connect_without_limits().await?;
    fit(&mut connection).await?;
    // Held by the session: closing the connection lets go of it, in whatever way it ends.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await?;
    let migrated = async {
        schema::check(oldest_compatible(&mut connection).await?)?;
        schema::migrator(MIGRATIONS).run(&mut connection).await.map_err(OpenFailure::Migration)
    };
    let outcome = migrated.await;
    // It is gone in either case.
    let _ = connection.close().await;
    outcome
}

/// Refuses a server or a database that cannot keep what is written here.
async fn fit(connection: &mut PgConnection) -> Result<(), OpenFailure> {
    let (version, encoding): (i32, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int4 / 10000, current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await?;
    if version < OLDEST_SERVER {
        return Err(OpenFailure::Unfit(format!(
            "the metadata store needs PostgreSQL {OLDEST_SERVER} or newer, this server is of version {version}"
        )));
    }
    if encoding != "UTF8" {
        return Err(OpenFailure::Unfit(format!(
            "the metadata store needs a database in the encoding UTF8, this one is in {encoding}"
        )));
    }
    Ok(())
}

async fn oldest_compatible(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let known: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_info') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !known {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT oldest_compatible_server FROM schema_info").fetch_optional(connection).await
}
