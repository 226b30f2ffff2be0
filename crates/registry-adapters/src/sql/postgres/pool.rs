//! The connections of one instance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::Connector;
use super::options::PostgresOptions;
use crate::sql::error::{Failure, Result};
use crate::sql::statement::Connection;

/// How long a connection rests before it is not trusted any more: what lies between may have forgotten it by then,
/// without telling.
const REST: Duration = Duration::from_secs(120);

/// A bounded number of connections, opened when first needed; the last one used is used next.
///
/// A connection comes back the moment its lease ends, without a question to the server: this is on the path of every
/// request. Whether it still lives shows when it is used; then it is discarded with all that rest, because what ended it
/// (a restart, a cut) has mostly ended them all.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    connections: u32,
    acquire_timeout: Duration,
    permits: Arc<Semaphore>,
    resting: Mutex<Vec<Resting>>,
}

#[derive(Debug)]
struct Resting {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(connector: Connector, options: &PostgresOptions) -> Self {
        let connections = options.connections.max(1);
        Self {
            connector,
            connections,
            acquire_timeout: options.acquire_timeout,
            permits: Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS))),
            resting: Mutex::default(),
        }
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of one's own for a while.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let permit = match tokio::time::timeout(self.acquire_timeout, waiting).await {
            Ok(permit) => permit.map_err(|_| Failure::Closed)?,
            Err(_) => return Err(Failure::Database(sqlx::Error::PoolTimedOut)),
        };
        let last = self.resting().pop().filter(|resting| resting.since.elapsed() < REST);
        let connection = match last {
            Some(Resting { connection, .. }) => connection,
            None => Connection::Postgres(self.connector.connect().await?),
        };
        Ok(Lease { connection: Some(connection), pool: Arc::clone(self), _permit: permit })
    }

    /// Closes what has rested too long.
    pub(super) async fn tidy(&self) {
        let (tired, fresh) =
            std::mem::take(&mut *self.resting()).into_iter().partition(|resting| resting.since.elapsed() >= REST);
        // In front of what came back meanwhile, so that the last one used stays the last.
        self.resting().splice(..0, Vec::<Resting>::from_iter(fresh));
        close_all(tired).await;
    }

    pub(super) fn is_open(&self) -> bool {
        !self.permits.is_closed()
    }

    /// Gives out no more connections, waits for those that are out, and closes all.
    pub(super) async fn close(&self) {
        let out = self.permits.acquire_many(self.connections).await;
        self.permits.close();
        drop(out);
        let resting = std::mem::take(&mut *self.resting());
        close_all(resting).await;
    }
}

async fn close_all(connections: Vec<Resting>) {
    for resting in connections {
        if let Connection::Postgres(connection) = resting.connection {
            connection.close().await;
        }
    }
}

/// A connection, until it is given back. Dropped in the middle of a statement, it is closed: what comes next on it would be
/// that statement's answer.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    // After the connection in the order of drops: never more connections than permits.
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a lease has its connection until it ends")
    }

    /// Ends the lease of a connection that is between two statements, and in no transaction.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.resting().push(Resting { connection, since: Instant::now() });
        }
    }

    /// Ends the lease of a connection that turned out to be dead, or whose state is not known.
    pub(super) fn lost(self) {
        self.pool.resting().clear();
    }
}
