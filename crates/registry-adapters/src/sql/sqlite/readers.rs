//! The connections that only read.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::Semaphore;

use crate::sql::error::{Failure, Result};
use crate::sql::statement::Connection;

/// A bounded number of connections, opened when first needed; the last one used is used next, its caches are warm.
///
/// A connection comes back the moment its guard is dropped, without a task of its own: this is on the path of every
/// request.
pub(super) struct Readers {
    options: SqliteConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("available", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions, limit: usize) -> Self {
        Self { options, permits: Semaphore::new(limit), idle: Mutex::new(Vec::with_capacity(limit)) }
    }

    /// A connection of one's own for a while.
    pub(super) async fn acquire(&self) -> Result<Reader<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| Failure::Closed)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::Sqlite(self.options.connect().await?),
        };
        Ok(Reader { connection: Some(connection), readers: self, _permit: permit })
    }

    /// Gives out no more connections, waits for those that are out, and closes all.
    pub(super) async fn close(&self, limit: usize) {
        let out = self.permits.acquire_many(u32::try_from(limit).unwrap_or(u32::MAX)).await;
        self.permits.close();
        drop(out);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            if let Connection::Sqlite(connection) = connection
                && let Err(error) = sqlx::Connection::close(connection).await
            {
                tracing::warn!(%error, "closing a connection of the metadata store");
            }
        }
    }
}

/// A connection that comes back when this is dropped.
///
/// That is safe in the middle of a statement too: the connection's thread ends the statement, which only reads,
/// before it takes the next.
pub(super) struct Reader<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
    // After the connection in the order of drops: whoever is let in finds it.
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Reader<'_> {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a reader has its connection until it is discarded")
    }

    /// Closes the connection instead of giving it back.
    pub(super) fn discard(mut self) {
        self.connection = None;
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
