//! An intention as a transaction: what is done when others, or the network, are in the way.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::pool::{Lease, Pool};
use crate::sql::database::Decision;
use crate::sql::error::{Failure, Obstacle, Result, obstacle};
use crate::sql::statement::{Connection, on_postgres};

/// How often an intention is tried. Whoever loses a race finds what the winner has committed, so one more is mostly enough.
const ATTEMPTS: u32 = 8;

/// How often it is tried when a unique or foreign key refuses it. What is refused without any race (an identity that is
/// taken) is refused each time.
const REFUSED_ATTEMPTS: u32 = 4;

/// How long, and how often, the server is asked what became of a commit that it did not answer.
const DOUBT: Duration = Duration::from_secs(10);
const DOUBT_PAUSE: Duration = Duration::from_millis(50);

/// The beginning, and the transaction's identity, by which a lost commit is found again.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
     SELECT pg_current_xact_id()::text AS id, (SELECT life::text FROM server_life WHERE one) AS life";

/// The first words in the life of a server.
const LIVE: &str = "INSERT INTO server_life (one, life) VALUES (TRUE, gen_random_uuid()) ON CONFLICT DO NOTHING";

/// What became of a transaction, in which life of the server. One that is as young as those under way has no status.
const STATUS: &str = "SELECT (SELECT life::text FROM server_life WHERE one) AS life,
     CASE WHEN CAST($1 AS xid8) < pg_snapshot_xmax(pg_current_snapshot())
         THEN pg_xact_status(CAST($1 AS xid8)) END AS status";

/// A transaction's name.
#[derive(Debug)]
pub(super) struct Transaction {
    id: String,
    /// The life of the server that the name belongs to. After a crash another transaction may get the same, if nothing of this
    /// one was durable.
    life: Option<String>,
}

/// What one attempt came to.
enum Attempt<T> {
    Done(Result<T>),
    /// It has left no trace, and may do better another time.
    Again(Failure),
}

/// Runs an intention until it is committed, rolled back as it decided, or has failed; it is never committed twice.
pub(super) async fn run<I, T, F>(pool: &Arc<Pool>, input: &I, run: &F) -> Result<T>
where
    I: Sync,
    T: Send,
    F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Sync,
{
    let mut attempt = 1;
    loop {
        match once(pool, input, run).await {
            Attempt::Done(outcome) => return outcome,
            Attempt::Again(failure) if attempt >= limit(&failure) => return Err(failure),
            Attempt::Again(failure) => tracing::debug!(%failure, attempt, "an intention is tried again"),
        }
        tokio::time::sleep(Duration::from_millis(1 << attempt)).await;
        attempt += 1;
    }
}

fn limit(failure: &Failure) -> u32 {
    match failure {
        Failure::Database(sqlx::Error::Database(error))
            if error.is_unique_violation() || error.is_foreign_key_violation() =>
        {
            REFUSED_ATTEMPTS
        }
        _ => ATTEMPTS,
    }
}

async fn once<I, T, F>(pool: &Arc<Pool>, input: &I, run: &F) -> Attempt<T>
where
    I: Sync,
    T: Send,
    F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Sync,
{
    let mut lease = match pool.acquire().await {
        Ok(lease) => lease,
        // The pool has waited for a connection as long as it may.
        Err(failure) => return Attempt::Done(Err(failure)),
    };
    let transaction = match begin(lease.connection()).await {
        Ok(transaction) => transaction,
        Err(failure) => return roll_back(lease, failure).await,
    };
    let decision = AssertUnwindSafe(run(lease.connection(), input)).catch_unwind().await;
    match decision.unwrap_or(Err(Failure::Panicked)) {
        Err(failure) => roll_back(lease, failure).await,
        Ok(Decision::Rollback(outcome)) => {
            if run_alone(lease.connection(), "ROLLBACK").await.is_ok() {
                lease.give_back();
            } else {
                // The server rolls back what nobody commits.
                lease.lost();
            }
            Attempt::Done(Ok(outcome))
        }
        Ok(Decision::Commit(outcome)) => match run_alone(lease.connection(), "COMMIT").await {
            Ok(_) => {
                lease.give_back();
                Attempt::Done(Ok(outcome))
            }
            Err(failure) if obstacle(&failure) == Some(Obstacle::Lost) => {
                lease.lost();
                match became_of(pool, &transaction).await {
                    Ok(true) => Attempt::Done(Ok(outcome)),
                    Ok(false) => Attempt::Again(failure),
                    Err(unknown) => {
                        tracing::error!(%failure, %unknown, "it is not known what became of a commit");
                        Attempt::Done(Err(failure))
                    }
                }
            }
            Err(failure) => roll_back(lease, failure).await,
        },
    }
}

async fn run_alone(connection: &mut Connection, statements: &'static str) -> Result<Vec<PgRow>> {
    match connection {
        Connection::Postgres(connection) => connection.run(statements).await,
        Connection::Sqlite(_) => unreachable!("the pool holds no others"),
    }
}

pub(super) async fn begin(connection: &mut Connection) -> Result<Transaction> {
    let transaction = begin_named(connection).await?;
    if transaction.life.is_some() {
        return Ok(transaction);
    }
    // The first since the server's last crash, or since the schema was made.
    run_alone(connection, "ROLLBACK").await?;
    run_alone(connection, LIVE).await?;
    begin_named(connection).await
}

async fn begin_named(connection: &mut Connection) -> Result<Transaction> {
    let rows = run_alone(connection, BEGIN).await?;
    let row = rows.first().ok_or(Failure::Database(sqlx::Error::RowNotFound))?;
    Ok(Transaction { id: row.try_get("id")?, life: row.try_get("life")? })
}

/// Ends a transaction that failed before its commit was sent: whatever becomes of the connection, nothing of it is kept.
async fn roll_back<T>(mut lease: Lease, failure: Failure) -> Attempt<T> {
    let obstacle = obstacle(&failure);
    if obstacle == Some(Obstacle::Lost) {
        lease.lost();
    } else if run_alone(lease.connection(), "ROLLBACK").await.is_ok() {
        lease.give_back();
    } else {
        lease.lost();
    }
    match obstacle {
        Some(_) => Attempt::Again(failure),
        None => Attempt::Done(Err(failure)),
    }
}

/// Whether the transaction was committed. The server may still be at it, or just be starting again.
///
/// What was committed when the server crashed is not told from another transaction that was given the same name later:
/// that is a failure. What was not committed is: no durable commit loses its name.
pub(super) async fn became_of(pool: &Arc<Pool>, transaction: &Transaction) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + DOUBT;
    loop {
        let unknown = match status(pool, transaction).await {
            Ok((life, status)) => {
                let is_same = life.is_some() && life == transaction.life;
                match status.as_deref() {
                    Some("committed") if is_same => return Ok(true),
                    Some("committed") => {
                        return Err(Failure::Unreadable("the server has crashed since, or another took over".into()));
                    }
                    Some("aborted") => return Ok(false),
                    _ if !is_same => return Ok(false),
                    _ => Failure::Unreadable(format!("a transaction's status is {status:?}")),
                }
            }
            Err(failure @ Failure::Closed) => return Err(failure),
            Err(failure) => failure,
        };
        if tokio::time::Instant::now() > deadline {
            return Err(unknown);
        }
        tokio::time::sleep(DOUBT_PAUSE).await;
    }
}

async fn status(pool: &Arc<Pool>, transaction: &Transaction) -> Result<(Option<String>, Option<String>)> {
    let mut lease = pool.acquire().await?;
    let row = lease.connection().fetch_one(on_postgres(STATUS).bind(transaction.id.as_str())).await;
    match row {
        Ok(row) => {
            lease.give_back();
            Ok((row.get("life")?, row.get("status")?))
        }
        Err(failure) => {
            lease.lost();
            Err(failure)
        }
    }
}
