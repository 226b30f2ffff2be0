//! The connection that writes, and the task that owns it.
//!
//! Intentions are queued; the task takes all that wait (up to a bound), runs them in one transaction and commits
//! once: a commit waits for the disk, so a group costs little more than one. Each is answered after the commit.
//!
//! A group runs first as if every intention would keep what it wrote. When one fails or decides to leave no trace, the
//! transaction is rolled back and the group runs again with a savepoint around each; intentions may be run again for
//! that reason. This is rare, and saves two statements for each intention in every other group.

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

    /// Answers the caller: with what the last run came to, or with the failure of the group.
    fn answer(self: Box<Self>, failure: Option<&Arc<Failure>>);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
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

    fn answer(self: Box<Self>, failure: Option<&Arc<Failure>>) {
        let outcome = match failure {
            Some(failure) => Err(Failure::Group(Arc::clone(failure))),
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
            if !jobs.is_empty() {
                let failure = self.commit_group(&mut jobs).await.err().map(Arc::new);
                for job in jobs.drain(..) {
                    job.answer(failure.as_ref());
                }
            }
        }
        self.finish().await;
        for reply in closing {
            let _ = reply.send(());
        }
    }

    /// Runs the jobs in one transaction. On an error none of them has left a trace.
    async fn commit_group(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        let outcome = self.try_group(jobs).await;
        if outcome.is_err() {
            // Whatever state the transaction is in. A connection on which that fails is of no more use.
            if let Some(connection) = &mut self.connection {
                let rolled_back = connection.execute(sql("ROLLBACK")).await;
                let idle = matches!(&rolled_back, Err(Failure::Database(error)) if no_transaction(error));
                if rolled_back.is_err() && !idle {
                    self.connection = None;
                }
            }
        }
        outcome
    }

    async fn try_group(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<()> {
        let connection = self.connection().await?;
        begin(connection).await?;
        let mut keep = Keep::Yes;
        for job in jobs.iter_mut() {
            keep = job.run(connection).await;
            if keep == Keep::No {
                break;
            }
        }
        if keep == Keep::Yes {
            connection.execute(sql("COMMIT")).await?;
            return Ok(());
        }
        roll_back(connection).await?;
        if jobs.len() == 1 {
            return Ok(());
        }
        begin(connection).await?;
        for job in jobs {
            connection.execute(sql("SAVEPOINT intention")).await?;
            if job.run(connection).await == Keep::No {
                connection.execute(sql("ROLLBACK TO intention")).await?;
            }
            connection.execute(sql("RELEASE intention")).await?;
        }
        connection.execute(sql("COMMIT")).await?;
        Ok(())
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
        let Connection::Sqlite(connection) = connection;
        if let Err(error) = sqlx::Connection::close(connection).await {
            tracing::warn!(%error, "closing the metadata store");
        }
    }
}

/// Takes the write lock, waiting for other processes.
async fn begin(connection: &mut Connection) -> Result<()> {
    let mut attempts = BUSY_ATTEMPTS;
    loop {
        attempts -= 1;
        match connection.execute(sql("BEGIN IMMEDIATE")).await {
            Err(Failure::Database(error)) if is_busy(&error) && attempts > 0 => {}
            outcome => return outcome.map(drop),
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
