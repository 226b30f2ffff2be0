//! Which database it is, and the two ways to use it: reads, and intentions.

use futures_util::future::BoxFuture;
use registry_core::error::StoreError;

use super::error::{Failure, Result};
use super::postgres::PostgresDatabase;
use super::sqlite::SqliteDatabase;
use super::statement::{Connection, Row, Statement};

/// What an intention decided.
#[derive(Debug)]
pub(super) enum Decision<T> {
    /// Keep what was written, and answer.
    Commit(T),
    /// Leave no trace of what was written, and answer.
    Rollback(T),
}

/// The database.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(Box<SqliteDatabase>),
    Postgres(Box<PostgresDatabase>),
}

impl Database {
    /// Reads on a connection of its own, outside any transaction. `run` is called again when the connection was lost.
    pub(super) async fn read<T>(
        &self,
        context: &'static str,
        run: impl for<'a> Fn(&'a mut Connection) -> BoxFuture<'a, Result<T>>,
    ) -> std::result::Result<T, StoreError> {
        let outcome = match self {
            Database::Sqlite(database) => database.read(run).await,
            Database::Postgres(database) => database.read(run).await,
        };
        outcome.map_err(|failure| failure.while_doing(context))
    }

    /// The first row of one statement, if any.
    pub(super) async fn fetch_optional<T>(
        &self,
        context: &'static str,
        statement: Statement,
        decode: impl FnOnce(Row) -> Result<T>,
    ) -> std::result::Result<Option<T>, StoreError> {
        self.try_fetch_optional(statement, decode).await.map_err(|failure| failure.while_doing(context))
    }

    /// The same, while what is being done is not known.
    pub(super) async fn try_fetch_optional<T>(
        &self,
        statement: Statement,
        decode: impl FnOnce(Row) -> Result<T>,
    ) -> Result<Option<T>> {
        let row = match self {
            Database::Sqlite(database) => {
                database.read(|connection| Box::pin(connection.fetch_optional(statement))).await
            }
            Database::Postgres(database) => {
                database.read(|connection| Box::pin(connection.fetch_optional(statement.clone()))).await
            }
        };
        row?.map(decode).transpose()
    }

    /// Every row of one statement.
    pub(super) async fn fetch_all<T>(
        &self,
        context: &'static str,
        statement: Statement,
        decode: impl Fn(Row) -> Result<T>,
    ) -> std::result::Result<Vec<T>, StoreError> {
        let rows = match self {
            Database::Sqlite(database) => database.read(|connection| Box::pin(connection.fetch_all(statement))).await,
            Database::Postgres(database) => {
                database.read(|connection| Box::pin(connection.fetch_all(statement.clone()))).await
            }
        };
        let rows = rows.map_err(|failure| failure.while_doing(context))?;
        rows.into_iter().map(decode).collect::<Result<_>>().map_err(|failure| failure.while_doing(context))
    }

    /// Runs an intention in a transaction: it is durable when this returns, or has left no trace.
    ///
    /// `run` may be called several times with the same input, each time as if for the first: what an earlier call
    /// did has been rolled back. It runs to its end even if the caller's future is dropped.
    pub(super) async fn write<I, T, F>(
        &self,
        context: &'static str,
        input: I,
        run: F,
    ) -> std::result::Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Send + Sync + 'static,
    {
        let outcome = match self {
            Database::Sqlite(database) => database.write(input, run).await,
            Database::Postgres(database) => database.write(input, run).await,
        };
        outcome.map_err(|failure: Failure| failure.while_doing(context))
    }
}
