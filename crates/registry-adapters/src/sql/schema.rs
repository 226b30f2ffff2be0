//! Which servers may use a database, and what brings its schema up to date.

use registry_core::error::{StoreError, StoreErrorKind};
use sqlx::migrate::{MigrateError, Migrator};

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

/// Runs the migrations of `all` that have not run; the caller has made sure that nobody else does so at the same time.
///
/// Migrations of newer releases may have been applied: they leave this one working ([`check`]), and are passed by.
pub(super) fn migrator(all: &Migrator) -> Migrator {
    let known: Vec<_> = all.iter().cloned().collect();
    #[cfg(feature = "faults")]
    let known = [known, super::faults::more_migrations()].concat();
    Migrator { ignore_missing: true, locking: false, ..Migrator::with_migrations(known) }
}
