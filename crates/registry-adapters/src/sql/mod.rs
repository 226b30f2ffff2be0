//! The metadata store in SQL: one file for each port, and beside them the seam to the drivers.
//!
//! `statement.rs` is that seam: statements are written once, with numbered arguments and types that every database
//! has; where dialects differ in a word, both stand in the text. `database.rs` runs them, outside a transaction (reads)
//! or as an *intention* (writes).
//!
//! On SQLite intentions run one after another. On Postgres they run at once, at READ COMMITTED: an intention that
//! decides by what it has read locks that first (`Connection::lock`), or lets a key refuse what came meanwhile: then it
//! runs again. Several rows of a kind are locked in the order of their keys.

mod blob_index;
mod database;
mod error;
#[cfg(feature = "faults")]
pub mod faults;
mod garbage;
mod jobs;
mod ledger;
mod manifests;
mod packages;
#[cfg(test)]
mod plans;
mod postgres;
mod range;
mod registries;
mod schema;
mod shared_reads;
mod signing_keys;
mod sqlite;
mod statement;
mod tokens;
mod transfer;
mod uploads;

use std::path::Path;
use std::sync::Arc;

use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::names::Reference;
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::manifests::StoredManifest;
use registry_core::registry::Repository;

use self::database::Database;
use self::postgres::PostgresDatabase;
pub use self::postgres::{PostgresOptions, PostgresParts, PostgresServer, TlsMode};
use self::shared_reads::SharedReads;
use self::sqlite::SqliteDatabase;
pub use self::sqlite::SqliteOptions;
pub use self::transfer::{TableReport, TransferError, TransferMark, TransferRefusal};
use crate::clock::SystemClock;

/// The metadata store in a SQL database.
#[derive(Debug)]
pub struct SqlMetadata {
    database: Database,
    manifests: SharedReads<(Repository, Reference), Option<StoredManifest>>,
}

impl SqlMetadata {
    fn over(database: Database) -> Self {
        Self { database, manifests: SharedReads::default() }
    }

    /// Opens the SQLite database in the file `path`, makes it if it is not there, and brings its schema up to date.
    /// Several processes may do this at once. The folder must be there.
    ///
    /// The calling task's runtime runs the task that writes: [`close`](Self::close) ends it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened, or a newer release has made it unusable for this one.
    pub async fn open_sqlite(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let database = SqliteDatabase::open(path, options).await?;
        Ok(Self::over(Database::Sqlite(Box::new(database))))
    }

    /// Connects to a Postgres database, which must exist, and brings its schema up to date. Any number of replicas may do
    /// this at once.
    ///
    /// The calling task's runtime runs the task that measures the server's clock, until the store is
    /// [closed](Self::close) or dropped.
    ///
    /// # Errors
    /// [`StoreError`] when the server cannot be reached, or a newer release has made the database unusable for this one.
    pub async fn open_postgres(server: PostgresServer, options: PostgresOptions) -> Result<Self, StoreError> {
        let database = PostgresDatabase::open(server, options).await?;
        Ok(Self::over(Database::Postgres(Box::new(database))))
    }

    /// Writes a consistent, durable copy of the SQLite database in the file `path`, which others may be using, to the file
    /// `target`, which must not exist. The database is not changed, whatever release it is of.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read, or the copy not be written.
    pub async fn snapshot_sqlite(path: &Path, target: &Path) -> Result<(), StoreError> {
        self::sqlite::snapshot(path, target).await.map_err(|failure| failure.while_doing("copying the metadata"))
    }

    /// Whether another process has the SQLite database in the file `path` open. This process must not.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_sqlite_in_use(path: &Path) -> std::io::Result<bool> {
        self::sqlite::is_in_use(path)
    }

    /// The time that all replicas over this database share.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.database {
            Database::Sqlite(_) => Arc::new(SystemClock),
            Database::Postgres(database) => database.clock(),
        }
    }

    /// Finishes every write that was begun, and lets go of the database. Later calls fail as unavailable.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(database) => database.close().await,
            Database::Postgres(database) => database.close().await,
        }
    }

    /// Writes a consistent, durable copy of a SQLite database to the file `target`, which must not exist, while reads
    /// and writes go on.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written; and for Postgres, which has its own tools.
    pub async fn backup_to(&self, target: &Path) -> Result<(), StoreError> {
        match &self.database {
            Database::Sqlite(database) => database.backup_to(target).await,
            Database::Postgres(_) => {
                let context = "a Postgres database is backed up by pg_dump or its server's own means".into();
                return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
            }
        }
        .map_err(|failure| failure.while_doing("backing up the metadata store"))
    }
}
