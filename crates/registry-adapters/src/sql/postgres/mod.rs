//! Postgres: a bounded number of connections; each intention is a transaction of its own, at READ COMMITTED.
//!
//! What keeps intentions apart is in their statements: rows are locked before what depends on them is read, and unique
//! and foreign keys refuse what came in between. `transaction.rs` says what is then done again. See
//! `docs/adr/0008-locks-and-retries-on-postgres.md`.

mod clock;
mod connection;
mod migrate;
mod options;
mod pool;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use registry_core::error::StoreError;
use tokio::task::AbortHandle;

use self::connection::Connector;
pub(super) use self::connection::PostgresConnection;
#[cfg(test)]
pub(super) use self::migrate::MIGRATIONS;
pub use self::options::{PostgresOptions, PostgresParts, PostgresServer, TlsMode};
use self::pool::Pool;
use super::database::Decision;
use super::error::{Failure, Obstacle, Result, obstacle};
use super::schema::OpenFailure;
use super::statement::Connection;
use crate::clock::DatabaseClock;

/// How often a read is tried when its connection turns out to be lost: again on a new one, which may be lost as well while
/// a server goes down.
const READ_ATTEMPTS: usize = 3;

/// An open database.
#[derive(Debug)]
pub(super) struct PostgresDatabase {
    pool: Arc<Pool>,
    clock: Arc<DatabaseClock>,
    upkeep: AbortHandle,
}

impl PostgresDatabase {
    /// Connects, brings the schema up to date, measures the server's clock, and keeps measuring it on the calling task's
    /// runtime.
    pub(super) async fn open(
        server: PostgresServer,
        options: PostgresOptions,
    ) -> std::result::Result<Self, StoreError> {
        let open = async {
            let connector = Connector::new(server, &options);
            migrate::run(&connector).await?;
            let pool = Arc::new(Pool::new(connector, &options));
            let reading = clock::read(&pool).await.map_err(OpenFailure::Store)?;
            let clock = Arc::new(DatabaseClock::new(reading));
            let upkeep = tokio::spawn(clock::keep(Arc::downgrade(&pool), Arc::clone(&clock))).abort_handle();
            Ok(Self { pool, clock, upkeep })
        };
        open.await.map_err(OpenFailure::report)
    }

    pub(super) fn clock(&self) -> Arc<DatabaseClock> {
        Arc::clone(&self.clock)
    }

    pub(super) async fn read<T>(
        &self,
        run: impl for<'a> Fn(&'a mut Connection) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut attempts = READ_ATTEMPTS;
        loop {
            attempts -= 1;
            let mut lease = self.pool.acquire().await?;
            let outcome = run(lease.connection()).await;
            match &outcome {
                Err(failure) if obstacle(failure) == Some(Obstacle::Lost) => {
                    tracing::warn!(%failure, again = attempts > 0, "a connection to the metadata store was lost");
                    lease.lost();
                    if attempts == 0 {
                        return outcome;
                    }
                }
                _ => {
                    lease.give_back();
                    return outcome;
                }
            }
        }
    }

    /// Runs an intention, in a task of its own: it ends whole even if the caller's future is dropped.
    pub(super) async fn write<I, T, F>(&self, input: I, run: F) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Send + Sync + 'static,
    {
        let pool = Arc::clone(&self.pool);
        let task = tokio::spawn(async move { transaction::run(&pool, &input, &run).await });
        // Its own panics are caught inside; else it ends early only when the runtime does.
        task.await.unwrap_or(Err(Failure::Closed))
    }

    /// Whether connections are still given out.
    pub(super) fn is_open(&self) -> bool {
        self.pool.is_open()
    }

    /// Waits for what was begun, and closes every connection.
    pub(super) async fn close(&self) {
        self.upkeep.abort();
        self.pool.close().await;
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}
