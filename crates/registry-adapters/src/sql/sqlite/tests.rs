//! What groups of intentions promise, when some of them fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use registry_core::error::{StoreError, StoreErrorKind};
use tempfile::TempDir;

use super::*;
use crate::sql::database::Database;
use crate::sql::statement::sql;

async fn open(folder: &TempDir) -> Database {
    open_at(&folder.path().join("test.sqlite")).await
}

async fn open_at(path: &Path) -> Database {
    Database::Sqlite(Box::new(SqliteDatabase::open(path, SqliteOptions::default()).await.unwrap()))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What an intention of these tests does after it has written its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Undo,
    Fail,
    Panic,
}

/// Writes a row called `name`, and then does as it was told. Counts how often it runs.
async fn write(
    database: &Database,
    name: &str,
    then: Then,
    runs: &Arc<AtomicUsize>,
) -> std::result::Result<String, StoreError> {
    let input = (name.to_owned(), Arc::clone(runs));
    database
        .write("testing", input, move |connection, (name, runs)| {
            Box::pin(async move {
                runs.fetch_add(1, Ordering::Relaxed);
                let insert = sql("INSERT INTO job_cursors (job, cursor) VALUES ($1, '')").bind(name);
                assert_eq!(connection.execute(insert).await?, 1);
                match then {
                    Then::Keep => Ok(Decision::Commit(name.clone())),
                    Then::Undo => Ok(Decision::Rollback(name.clone())),
                    Then::Fail => {
                        connection.execute(sql("INSERT INTO no_such_table VALUES (1)")).await?;
                        Ok(Decision::Commit(name.clone()))
                    }
                    Then::Panic => panic!("as it was told"),
                }
            })
        })
        .await
}

async fn names(database: &Database) -> Vec<String> {
    let all = sql("SELECT job FROM job_cursors ORDER BY job");
    database.fetch_all("testing", all, |row| row.get("job")).await.unwrap()
}

#[tokio::test]
async fn in_a_group_each_is_kept_or_undone_by_itself() {
    let folder = folder();
    let database = open(&folder).await;
    let told = [Then::Keep, Then::Undo, Then::Keep, Then::Fail, Then::Keep, Then::Panic, Then::Keep];
    let runs = Arc::new(AtomicUsize::new(0));
    let labels: Vec<String> = (0..told.len()).map(|number| format!("job {number}")).collect();
    let jobs = labels.iter().zip(told).map(|(name, then)| write(&database, name, then, &runs));
    let outcomes = join_all(jobs).await;
    for ((outcome, then), name) in outcomes.iter().zip(told).zip(&labels) {
        match then {
            Then::Keep | Then::Undo => assert_eq!(outcome.as_ref().unwrap(), name),
            Then::Fail | Then::Panic => assert_eq!(outcome.as_ref().unwrap_err().kind, StoreErrorKind::Other),
        }
    }
    assert_eq!(names(&database).await, ["job 0", "job 2", "job 4", "job 6"]);
    // They waited together: the first two ran before it was known that one is undone, then each by itself.
    assert_eq!(runs.load(Ordering::Relaxed), 2 + told.len());
}

#[tokio::test]
async fn a_group_of_which_all_is_kept_runs_once() {
    let folder = folder();
    let database = open(&folder).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let labels: Vec<String> = (0..300).map(|number| format!("job {number:03}")).collect();
    let jobs = labels.iter().map(|name| write(&database, name, Then::Keep, &runs));
    for outcome in join_all(jobs).await {
        outcome.unwrap();
    }
    assert_eq!(names(&database).await, labels);
    assert_eq!(runs.load(Ordering::Relaxed), labels.len());
}

#[tokio::test]
async fn one_alone_leaves_no_trace_and_stops_nobody() {
    let folder = folder();
    let database = open(&folder).await;
    for then in [Then::Undo, Then::Fail, Then::Panic] {
        let runs = Arc::new(AtomicUsize::new(0));
        let outcome = write(&database, "alone", then, &runs).await;
        assert_eq!(outcome.is_ok(), then == Then::Undo, "{then:?}");
        assert_eq!((names(&database).await, runs.load(Ordering::Relaxed)), (vec![], 1), "{then:?}");
    }
    write(&database, "alone", Then::Keep, &Arc::default()).await.unwrap();
    assert_eq!(names(&database).await, ["alone"]);
}

/// A row without its parent, which is noticed when the transaction is committed.
async fn write_what_cannot_be_committed(database: &Database) -> std::result::Result<(), StoreError> {
    database
        .write("testing", (), |connection, ()| {
            Box::pin(async move {
                connection.execute(sql("PRAGMA defer_foreign_keys = ON")).await?;
                let insert = sql("INSERT INTO repositories (registry_id, name, created_at) VALUES (77, 'x', 0)");
                connection.execute(insert).await?;
                Ok(Decision::Commit(()))
            })
        })
        .await
}

#[tokio::test]
async fn when_a_commit_is_refused_only_who_caused_it_fails() {
    let folder = folder();
    let database = open(&folder).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let (kept, refused) =
        join(write(&database, "good", Then::Keep, &runs), write_what_cannot_be_committed(&database)).await;
    kept.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2, "they shared a transaction first");
    let refused = refused.unwrap_err();
    assert!(refused.chain().contains("FOREIGN KEY"), "{}", refused.chain());
    assert_eq!(names(&database).await, ["good"]);
    let repositories = sql("SELECT id FROM repositories");
    assert!(database.fetch_optional("testing", repositories, |_| Ok(())).await.unwrap().is_none());
}

async fn limit_pages(database: &Database, pragma: &'static str) {
    let limit = database.write("testing", pragma, |connection, pragma| {
        Box::pin(async move {
            connection.fetch_all(sql(*pragma)).await?;
            Ok(Decision::Commit(()))
        })
    });
    limit.await.unwrap();
}

async fn fill(database: &Database, name: &str, bytes: usize) -> std::result::Result<(), StoreError> {
    let input = (name.to_owned(), "x".repeat(bytes));
    database
        .write("filling", input, |connection, (name, text)| {
            Box::pin(async move {
                connection.execute(sql("INSERT INTO job_cursors VALUES ($1, $2)").bind(name).bind(text)).await?;
                Ok(Decision::Commit(()))
            })
        })
        .await
}

#[tokio::test]
async fn a_full_store_says_so_and_goes_on_when_there_is_room() {
    let folder = folder();
    let database = open(&folder).await;
    limit_pages(&database, "PRAGMA max_page_count = 100").await;
    let mut stored = 0;
    let refused = loop {
        match fill(&database, &format!("{stored:04}"), 10_000).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "it is never full");
    };
    assert_eq!(refused.kind, StoreErrorKind::Full, "{}", refused.chain());
    assert_eq!(names(&database).await.len(), stored);
    // Of a group, what needs no more room is done.
    let update = database.write("testing", (), |connection, ()| {
        Box::pin(async move {
            connection.execute(sql("UPDATE job_cursors SET cursor = 'short' WHERE job = '0000'")).await?;
            Ok(Decision::Commit(()))
        })
    });
    let (large, update) = join(fill(&database, "large", 1_000_000), update).await;
    assert_eq!(large.unwrap_err().kind, StoreErrorKind::Full);
    update.unwrap();
    assert_eq!(names(&database).await.len(), stored);
    limit_pages(&database, "PRAGMA max_page_count = 100000").await;
    fill(&database, "large", 1_000_000).await.unwrap();
    assert!(names(&database).await.contains(&"large".to_owned()));
}

#[tokio::test]
async fn a_writer_waits_for_another_process() {
    let folder = folder();
    let path = folder.path().join("test.sqlite");
    let database = open_at(&path).await;
    let mut other = connect_options(&path).connect().await.unwrap();
    let transaction = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let runs = Arc::default();
    let waiting = write(&database, "waits", Then::Keep, &runs);
    let (_, outcome) = join(
        async {
            // Reads do not wait.
            assert_eq!(names(&database).await, Vec::<String>::new());
            transaction.commit().await.unwrap();
        },
        waiting,
    )
    .await;
    outcome.unwrap();
    assert_eq!(names(&database).await, ["waits"]);
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let folder = folder();
    let database = open(&folder).await;
    // A transaction within the transaction: what the task then does fails as well, whatever state it finds.
    let outcome = database
        .write("testing", (), |connection, ()| {
            Box::pin(async move {
                connection.execute(sql("COMMIT")).await?;
                Ok(Decision::Commit(()))
            })
        })
        .await;
    assert!(outcome.is_err());
    write(&database, "goes on", Then::Keep, &Arc::default()).await.unwrap();
    assert_eq!(names(&database).await, ["goes on"]);
}

#[tokio::test]
async fn a_connection_that_cannot_even_roll_back_is_replaced() {
    let folder = folder();
    let database = open(&folder).await;
    let outcome = database
        .write("testing", (), |connection, ()| {
            Box::pin(async move {
                let Connection::Sqlite(connection) = connection else { unreachable!("it was opened by SQLite") };
                // From here on it interrupts whatever runs on it.
                connection.lock_handle().await?.set_progress_handler(1, || false);
                Ok(Decision::Rollback(()))
            })
        })
        .await;
    outcome.unwrap();
    write(&database, "goes on", Then::Keep, &Arc::default()).await.unwrap();
    assert_eq!(names(&database).await, ["goes on"]);
}
