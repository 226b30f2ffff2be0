//! The metadata store in SQL: one file for each port, and beside them the seam to the drivers.
//!
//! `statement.rs` is that seam: statements are written once, with numbered arguments and types that every database
//! has. `database.rs` runs them, outside a transaction (reads) or as an *intention* (writes). A list of texts is one
//! argument, a JSON array read with `json_each`.

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
mod range;
mod registries;
mod signing_keys;
mod sqlite;
mod statement;
mod tokens;
mod uploads;

use std::path::Path;

use registry_core::error::StoreError;

use self::database::Database;
use self::sqlite::SqliteDatabase;
pub use self::sqlite::SqliteOptions;

/// The metadata store in a SQL database.
#[derive(Debug)]
pub struct SqlMetadata {
    database: Database,
}

impl SqlMetadata {
    /// Opens the SQLite database in the file `path`, makes it if it is not there, and brings its schema up to date.
    /// Several processes may do this at once. The folder must be there.
    ///
    /// The calling task's runtime runs the task that writes: [`close`](Self::close) ends it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened, or a newer release has made it unusable for this one.
    pub async fn open_sqlite(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        Ok(Self { database: Database::Sqlite(SqliteDatabase::open(path, options).await?) })
    }

    /// Finishes every write that was begun, and lets go of the database. Later calls fail as unavailable.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(database) => database.close().await,
        }
    }

    /// Writes a consistent, durable copy of a SQLite database to the file `target`, which must not exist, while reads
    /// and writes go on.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub async fn backup_to(&self, target: &Path) -> Result<(), StoreError> {
        match &self.database {
            Database::Sqlite(database) => database.backup_to(target).await,
        }
        .map_err(|failure| failure.while_doing("backing up the metadata store"))
    }
}
