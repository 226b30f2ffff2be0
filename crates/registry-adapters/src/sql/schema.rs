//! Which servers may use a database, and what brings its schema up to date.

use registry_core::error::{StoreError, StoreErrorKind};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::error::Failure;

/// The newest schema revision that this program knows. A database says which is the oldest that may open it.
const SCHEMA_REVISION: i64 = 1;

/// Why a database was not opened.
pub(super) enum OpenFailure {
    Store(Failure),
    Migration(MigrateError),
    /// Servers older than this revision must not use it.
    TooNew(i64),
    /// It is not one that can keep what this program writes.
    Unfit(String),
}

impl From<sqlx::Error> for OpenFailure {
    fn from(error: sqlx::Error) -> Self {
        OpenFailure::Store(error.into())
    }
}

impl OpenFailure {
    /// As the port reports it.
    pub(super) fn report(self) -> StoreError {
        let refusal = |context| StoreError { kind: StoreErrorKind::Other, context, source: None };
        match self {
            OpenFailure::Store(failure) => failure.while_doing("opening the metadata store"),
            OpenFailure::Migration(error) => {
                StoreError::new(StoreErrorKind::Other, "bringing the metadata store's schema up to date", error)
            }
            OpenFailure::TooNew(revision) => refusal(format!(
                "the metadata store needs a server of schema revision {revision} or newer, this one is of \
                 {SCHEMA_REVISION}"
            )),
            OpenFailure::Unfit(why) => refusal(why),
        }
    }
}

/// Refuses a database that says that only newer servers may use it; one without a schema says nothing.
pub(super) fn check(oldest_compatible: Option<i64>) -> Result<(), OpenFailure> {
    match oldest_compatible {
        Some(oldest) if oldest > SCHEMA_REVISION => Err(OpenFailure::TooNew(oldest)),
        _ => Ok(()),
    }
}

/// A file of `migrations/`: its number, the rest of its name, and its statements.
///
/// Not `sqlx::migrate!`: for that macro everything that speaks to a database is compiled a second time, for the compiler.
pub(super) type MigrationFile = (i64, &'static str, &'static str);

/// Runs those of `files` that have not run; the caller has made sure that nobody else does so at the same time.
///
/// Migrations of newer releases may have been applied: they leave this one working ([`check`]), and are passed by.
pub(super) fn migrator(files: &[MigrationFile]) -> Migrator {
    let known = files.iter().map(|&(number, name, statements)| {
        Migration::new(number, name.into(), MigrationType::Simple, statements.into_sql_str(), false)
    });
    let known = known.collect();
    #[cfg(feature = "faults")]
    let known = [known, super::faults::more_migrations()].concat();
    Migrator { ignore_missing: true, locking: false, ..Migrator::with_migrations(known) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::MigrationFile;
    use crate::sql::{postgres, sqlite};

    #[test]
    fn every_file_of_migrations_is_part_of_the_program() {
        for (folder, files) in [("sqlite", sqlite::MIGRATIONS), ("postgres", postgres::MIGRATIONS)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let mut there: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
                .collect();
            there.sort();
            let named = |&(number, name, statements): &MigrationFile| {
                (format!("{number:04}_{name}.sql"), statements.to_owned())
            };
            assert_eq!(files.iter().map(named).collect::<Vec<_>>(), there);
        }
    }
}
