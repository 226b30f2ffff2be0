//! What can go wrong between here and a database, and how the domain hears of it.

use std::borrow::Cow;

use registry_core::error::{StoreError, StoreErrorKind};
use sqlx::postgres::PgDatabaseError;

/// A failure inside an intention; it becomes a [`StoreError`] where what was being done is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The driver or the database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A row holds what no version of this program writes.
    #[error("{0}")]
    Unreadable(String),
    /// The code of an intention panicked; nothing of it was kept.
    #[error("the intention panicked")]
    Panicked,
    /// The store was closed.
    #[error("the metadata store is closed")]
    Closed,
    /// What was shared with others failed: the transaction of a group did not begin, or a query for several.
    #[error(transparent)]
    Shared(std::sync::Arc<Failure>),
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The kind that callers decide by.
    pub(super) fn kind(&self) -> StoreErrorKind {
        match self {
            Failure::Database(error) => kind_of(error),
            Failure::Unreadable(_) => StoreErrorKind::Corrupt,
            Failure::Panicked => StoreErrorKind::Other,
            Failure::Closed => StoreErrorKind::Unavailable,
            Failure::Shared(failure) => failure.kind(),
        }
    }

    /// As the port reports it.
    pub(super) fn while_doing(self, context: &'static str) -> StoreError {
        StoreError::new(self.kind(), context, self)
    }
}

fn kind_of(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => postgres_kind(error.code()),
            None => error.code().and_then(sqlite_kind).unwrap_or(StoreErrorKind::Other),
        },
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => StoreErrorKind::Full,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed => StoreErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreErrorKind::Corrupt
        }
        _ => StoreErrorKind::Other,
    }
}

/// The kind of an extended SQLite result code (<https://www.sqlite.org/rescode.html>).
fn sqlite_kind(code: Cow<'_, str>) -> Option<StoreErrorKind> {
    const SHARED_MEMORY_CANNOT_GROW: i32 = 4874;
    let code: i32 = code.parse().ok()?;
    Some(match (code, code & 0xff) {
        // SQLITE_FULL; and the index of the write-ahead log, whose growth fails as an I/O error on a full disk.
        (_, 13) | (SHARED_MEMORY_CANNOT_GROW, _) => StoreErrorKind::Full,
        // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CANTOPEN, PROTOCOL
        (_, 5 | 6 | 7 | 8 | 9 | 10 | 14 | 15) => StoreErrorKind::Unavailable,
        // CORRUPT, NOTADB
        (_, 11 | 26) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Other,
    })
}

/// The kind of a SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn postgres_kind(code: &str) -> StoreErrorKind {
    match code {
        // disk_full
        "53100" => StoreErrorKind::Full,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => StoreErrorKind::Corrupt,
        // read_only_sql_transaction: this is a standby now. serialization_failure and deadlock_detected, time and again.
        // lock_not_available and the time-outs of transactions: too much is going on.
        "25006" | "40001" | "40P01" | "55P03" | "25P02" | "25P03" | "25P04" => StoreErrorKind::Unavailable,
        // Connection exceptions, insufficient resources, operator intervention (query_canceled too), system errors.
        _ if ["08", "53", "57", "58"].contains(&code.get(..2).unwrap_or_default()) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Other,
    }
}

/// What the database says of an intention that others were in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The connection is gone, or of no use any more.
    Lost,
    /// Somebody else committed, or waited, at the wrong moment: a serialisation failure, a deadlock, or a row that came
    /// or went after it was looked for, as a unique or a foreign key has noticed. The same again will find it.
    Raced,
}

/// The obstacle that a failure tells of, if it is one.
pub(super) fn obstacle(failure: &Failure) -> Option<Obstacle> {
    let Failure::Database(error) = failure else { return None };
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Some(Obstacle::Lost)
        }
        sqlx::Error::Database(error) => obstacle_of_code(error.try_downcast_ref::<PgDatabaseError>()?.code()),
        _ => None,
    }
}

fn obstacle_of_code(code: &str) -> Option<Obstacle> {
    match code {
        "40001" | "40P01" | "23503" | "23505" => Some(Obstacle::Raced),
        // The server ended the connection (admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
        // idle_session_timeout, the time-outs of transactions), or has become a standby.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | "25006" => Some(Obstacle::Lost),
        _ if code.starts_with("08") => Some(Obstacle::Lost),
        _ => None,
    }
}

/// Whether another process holds the lock that was waited for (SQLITE_BUSY).
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kinds() {
        for (code, kind) in [
            ("13", StoreErrorKind::Full),
            ("4874", StoreErrorKind::Full),
            ("5", StoreErrorKind::Unavailable),
            ("261", StoreErrorKind::Unavailable),
            ("778", StoreErrorKind::Unavailable),
            ("14", StoreErrorKind::Unavailable),
            ("11", StoreErrorKind::Corrupt),
            ("267", StoreErrorKind::Corrupt),
            ("26", StoreErrorKind::Corrupt),
            ("787", StoreErrorKind::Other),
        ] {
            assert_eq!(sqlite_kind(code.into()), Some(kind), "{code}");
        }
        assert_eq!(sqlite_kind("40001".into()), Some(StoreErrorKind::Other));
        assert_eq!(sqlite_kind("no number".into()), None);
    }

    #[test]
    fn states_have_kinds_and_say_whether_to_try_again() {
        use StoreErrorKind::{Corrupt, Full, Other, Unavailable};
        for (code, kind, again) in [
            ("53100", Full, None),
            ("XX001", Corrupt, None),
            ("40001", Unavailable, Some(Obstacle::Raced)),
            ("40P01", Unavailable, Some(Obstacle::Raced)),
            ("23503", Other, Some(Obstacle::Raced)),
            ("23505", Other, Some(Obstacle::Raced)),
            ("57P01", Unavailable, Some(Obstacle::Lost)),
            ("57P03", Unavailable, Some(Obstacle::Lost)),
            ("08006", Unavailable, Some(Obstacle::Lost)),
            ("25006", Unavailable, Some(Obstacle::Lost)),
            ("25P03", Unavailable, Some(Obstacle::Lost)),
            // The statement took too long, or its lock: again would take as long.
            ("57014", Unavailable, None),
            ("55P03", Unavailable, None),
            ("53300", Unavailable, None),
            ("23502", Other, None),
            ("42P01", Other, None),
            ("", Other, None),
        ] {
            assert_eq!((postgres_kind(code), obstacle_of_code(code)), (kind, again), "{code}");
        }
    }

    #[test]
    fn failures_have_kinds() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        for (failure, kind) in [
            (Failure::Database(sqlx::Error::Io(full)), StoreErrorKind::Full),
            (Failure::Database(sqlx::Error::WorkerCrashed), StoreErrorKind::Unavailable),
            (Failure::Database(sqlx::Error::ColumnNotFound("x".into())), StoreErrorKind::Corrupt),
            (Failure::Database(sqlx::Error::RowNotFound), StoreErrorKind::Other),
            (Failure::Unreadable("a row".into()), StoreErrorKind::Corrupt),
            (Failure::Panicked, StoreErrorKind::Other),
            (Failure::Closed, StoreErrorKind::Unavailable),
        ] {
            assert_eq!(failure.while_doing("testing").kind, kind);
        }
    }
}
