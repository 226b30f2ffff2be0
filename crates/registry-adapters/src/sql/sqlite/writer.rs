//! The connection that writes, and the task that owns it.
//!
//! Intentions are queued; the task takes all that wait (up to a bound), runs them in one transaction and commits
//! once: a commit waits for the disk, so a group costs little more than one. Each is answered after the commit.
//!
//! When an intention fails or decides to leave no trace, the whole transaction is rolled back, and each of the group
//! runs again in a transaction of its own. This is rare, and saves a savepoint around each in every other group;
//! and whatever made the transaction fail (a full disk, a commit that is refused) concerns only who caused it.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::BUSY_ATTEMPTS;
use crate::sql::database::Decision;
use crate::sql::error::{Failure, Result, is_busy};
use crate::sql::statement::{Connection, sql};

/// Hands intentions to the task.
#[derive(Debug)]
pub(super) struct Writer {
    messages: mpsc::Sender<Message>,
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message")
    }
}

impl Writer {
    /// Starts the task on the runtime that this is called in.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        group: usize,
        queue: usize,
    ) -> Self {
        let (messages, queue) = mpsc::channel(queue);
        let task = Task { connection: Some(Connection::Sqlite(connection)), options };
        tokio::spawn(task.run(queue, group));
        Self { messages }
    }

    /// Queues an intention and waits until it is durable, or has left no trace.
    pub(super) async fn write<I, T, F>(&self, input: I, run: F) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Send + Sync + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Intention { input, run, outcome: Err(Failure::Closed), reply });
        self.messages.send(Message::Job(job)).await.map_err(|_| Failure::Closed)?;
        answer.await.map_err(|_| Failure::Closed)?
    }

    pub(super) fn is_running(&self) -> bool {
        !self.messages.is_closed()
    }

    /// Waits until all that was queued before is done, and the connection closed.
    pub(super) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.messages.send(Message::Close(reply)).await.is_ok() {
            // An error means that the task ended by itself: then it is closed too.
            let _ = answer.await;
        }
    }
}

/// An intention without its types.
trait Job: Send {
    /// Runs it, as if for the first time; whether what it wrote is to be kept.
    fn run<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Keep>;

    /// Answers the caller: with what the last run came to, or with why there was no transaction.
    fn answer(self: Box<Self>, failure: Option<Failure>);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// What became of a transaction.
enum Transaction {
    /// Durable.
    Committed,
    /// Rolled back, because one of the intentions said so or failed.
    RolledBack,
    /// Rolled back, because it could not be committed.
    Refused(Failure),
    /// There was none.
    NotBegun(Failure),
}

struct Intention<I, T, F> {
    input: I,
    run: F,
    outcome: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<I, T, F> Job for Intention<I, T, F>
where
    I: Send + Sync,
    T: Send,
    F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Send + Sync,
{
    fn run<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Keep> {
        Box::pin(async move {
            // A panic must not take the task with it: every later write would fail.
            let decision = AssertUnwindSafe((self.run)(connection, &self.input)).catch_unwind().await;
            let (outcome, keep) = match decision {
                Ok(Ok(Decision::Commit(outcome))) => (Ok(outcome), Keep::Yes),
                Ok(Ok(Decision::Rollback(outcome))) => (Ok(outcome), Keep::No),
                Ok(Err(failure)) => (Err(failure), Keep::No),
                Err(_panic) => (Err(Failure::Panicked), Keep::No),
            };
            self.outcome = outcome;
            keep
        })
    }

    fn answer(self: Box<Self>, failure: Option<Failure>) {
        let outcome = match failure {
            Some(failure) => Err(failure),
            None => self.outcome,
        };
        // The caller may have gone; what was done is done.
        let _ = self.reply.send(outcome);
    }
}

struct Task {
    /// `None` after a connection was given up.
    connection: Option<Connection>,
    options: SqliteConnectOptions,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>, limit: usize) {
        let mut messages = Vec::with_capacity(limit);
        let mut jobs: Vec<Box<dyn Job>> = Vec::with_capacity(limit);
        let mut closing = Vec::new();
        while queue.recv_many(&mut messages, limit).await > 0 {
            for message in messages.drain(..) {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close(reply) => {
                        // What is queued already still runs; nothing more is taken.
                        queue.close();
                        closing.push(reply);
                    }
                }
            }
            self.run_group(&mut jobs).await;
        }
        self.finish().await;
        for reply in closing {
            let _ = reply.send(());
        }
    }

    /// Runs the jobs, together if that can be, and answers each.
    async fn run_group(&mut self, jobs: &mut Vec<Box<dyn Job>>) {
        if jobs.len() > 1 {
            match self.transaction(jobs).await {
                Transaction::Committed => {
                    jobs.drain(..).for_each(|job| job.answer(None));
                }
                Transaction::NotBegun(failure) => {
                    // None would fare better by itself, and each would wait as long.
                    let failure = Arc::new(failure);
                    jobs.drain(..).for_each(|job| job.answer(Some(Failure::Shared(Arc::clone(&failure)))));
                }
                Transaction::RolledBack | Transaction::Refused(_) => {}
            }
        }
        for mut job in jobs.drain(..) {
            let failure = match self.transaction(std::slice::from_mut(&mut job)).await {
                Transaction::Committed | Transaction::RolledBack => None,
                Transaction::Refused(failure) | Transaction::NotBegun(failure) => Some(failure),
            };
            job.answer(failure);
        }
    }

    /// Runs the jobs in one transaction, until one says that nothing is to be kept.
    async fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> Transaction {
        let connection = match self.begin().await {
            Ok(connection) => connection,
            Err(failure) => return Transaction::NotBegun(failure),
        };
        let mut keep = Keep::Yes;
        for job in jobs {
            keep = job.run(connection).await;
            if keep == Keep::No {
                break;
            }
        }
        let outcome = match keep {
            Keep::No => Transaction::RolledBack,
            Keep::Yes => match connection.execute(sql("COMMIT")).await {
                Ok(_) => return Transaction::Committed,
                Err(failure) => Transaction::Refused(failure),
            },
        };
        if let Err(failure) = roll_back(connection).await {
            // Whatever state it is in: a new one is made for the next.
            tracing::warn!(%failure, "giving up the connection that writes metadata");
            self.connection = None;
        }
        outcome
    }

    /// Takes the write lock, waiting for other processes.
    async fn begin(&mut self) -> Result<&mut Connection> {
        let connection = self.connection().await?;
        let mut attempts = BUSY_ATTEMPTS;
        loop {
            attempts -= 1;
            match connection.execute(sql("BEGIN IMMEDIATE")).await {
                Ok(_) => return Ok(connection),
                Err(Failure::Database(error)) if is_busy(&error) && attempts > 0 => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Some(Connection::Sqlite(self.options.connect().await?));
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    async fn finish(self) {
        let Some(mut connection) = self.connection else { return };
        if let Err(error) = connection.fetch_all(sql("PRAGMA wal_checkpoint(TRUNCATE)")).await {
            // The log stays and is read when the database is opened again.
            tracing::warn!(%error, "moving the write-ahead log into the metadata store");
        }
        if let Connection::Sqlite(connection) = connection
            && let Err(error) = sqlx::Connection::close(connection).await
        {
            tracing::warn!(%error, "closing the metadata store");
        }
    }
}

/// Rolls back; some failures (a full disk) have done so already.
async fn roll_back(connection: &mut Connection) -> Result<()> {
    match connection.execute(sql("ROLLBACK")).await {
        Err(Failure::Database(error)) if no_transaction(&error) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// SQLite has no code of its own for "there is no transaction".
fn no_transaction(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains("no transaction is active"))
}
