//! What becomes of intentions when others, or the network, are in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join;
use registry_core::error::StoreErrorKind;
use registry_test_postgres::{self as postgres, Database as TestDatabase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

use super::*;
use crate::sql::database::Database;
use crate::sql::statement::{on_postgres, sql};

type StoreResult<T> = std::result::Result<T, StoreError>;

fn fresh() -> Option<TestDatabase> {
    Some(postgres::server("what Postgres does when others are in the way")?.database())
}

async fn open_at(url: &str) -> Arc<Database> {
    let server = PostgresServer::from_url(url).unwrap();
    let opened = PostgresDatabase::open(server, PostgresOptions::default()).await;
    Arc::new(Database::Postgres(Box::new(opened.unwrap_or_else(|error| panic!("{}", error.chain())))))
}

async fn open(database: &TestDatabase) -> Arc<Database> {
    let opened = open_at(&database.url()).await;
    // What the intentions of these tests count up.
    database.run("INSERT INTO registries (name, format, mode, settings, created_at) VALUES ('a', '', '', '', 0), ('b', '', '', '', 0)");
    opened
}

/// How often the rows were counted up.
fn counts(database: &TestDatabase) -> String {
    database.run("SELECT string_agg(created_at::text, ' ' ORDER BY name) FROM registries WHERE name IN ('a', 'b')")
}

async fn count_up(connection: &mut Connection, name: &str) -> Result<u64> {
    let update = sql("UPDATE registries SET created_at = created_at + 1 WHERE name = $1");
    connection.execute(update.bind(name)).await
}

/// An intention that counts its runs, counts a row up, and does something more while it runs for the first `times`.
async fn with_trouble(database: &Database, times: usize, trouble: &'static str) -> (StoreResult<()>, usize) {
    let runs = Arc::new(AtomicUsize::new(0));
    let outcome = database
        .write("testing", Arc::clone(&runs), move |connection, runs| {
            Box::pin(async move {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                count_up(connection, "a").await?;
                if run < times {
                    connection.fetch_all(on_postgres(trouble)).await?;
                }
                Ok(Decision::Commit(()))
            })
        })
        .await;
    (outcome, runs.load(Ordering::Relaxed))
}

#[tokio::test]
async fn who_is_in_a_deadlock_runs_again() {
    let Some(place) = fresh() else { return };
    let database = open(&place).await;
    let both = Arc::new(Barrier::new(2));
    let runs = Arc::new(AtomicUsize::new(0));
    let lock = async |first: &'static str, second: &'static str| {
        let mine = Arc::new(AtomicUsize::new(0));
        let input = (Arc::clone(&both), Arc::clone(&runs), mine);
        database
            .write("testing", input, move |connection, (both, runs, mine)| {
                Box::pin(async move {
                    runs.fetch_add(1, Ordering::Relaxed);
                    count_up(connection, first).await?;
                    if mine.fetch_add(1, Ordering::Relaxed) == 0 {
                        both.wait().await;
                    }
                    count_up(connection, second).await?;
                    Ok(Decision::Commit(()))
                })
            })
            .await
    };
    let (one, other) = join(lock("a", "b"), lock("b", "a")).await;
    one.unwrap();
    other.unwrap();
    assert_eq!(counts(&place), "2 2");
    // Who runs again may meet the other once more.
    let runs = runs.load(Ordering::Relaxed);
    assert!((3..=6).contains(&runs), "{runs}");
}

#[tokio::test]
async fn what_the_database_could_not_put_in_order_runs_again_and_what_is_wrong_does_not() {
    macro_rules! raise {
        ($code:literal) => {
            concat!("DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '", $code, "'; END $$")
        };
    }
    let Some(place) = fresh() else { return };
    let database = open(&place).await;
    for (trouble, times, works, runs) in [
        (raise!("40001"), 3, true, 4),
        (raise!("40P01"), 1, true, 2),
        (raise!("23503"), 1, true, 2),
        (raise!("23505"), 2, true, 3),
        // Time and again.
        (raise!("40001"), 100, false, 8),
        (raise!("23505"), 100, false, 4),
        (raise!("22012"), 1, false, 1),
        (raise!("57014"), 1, false, 1),
        ("SELECT no_such_column", 1, false, 1),
    ] {
        let before = counts(&place);
        let (outcome, ran) = with_trouble(&database, times, trouble).await;
        assert_eq!((outcome.is_ok(), ran), (works, runs), "{trouble} {times}");
        assert_eq!(counts(&place) != before, works, "{trouble} {times}");
    }
    assert_eq!(counts(&place), "4 0");
}

#[tokio::test]
async fn one_alone_leaves_no_trace_and_stops_nobody() {
    let Some(place) = fresh() else { return };
    let database = open(&place).await;
    let undone = database.write("testing", (), |connection, ()| {
        Box::pin(async move { Ok(Decision::Rollback(count_up(connection, "a").await?)) })
    });
    assert_eq!(undone.await.unwrap(), 1);
    let panics = database.write("testing", (), |connection, ()| {
        Box::pin(async move {
            count_up(connection, "a").await?;
            if connection.is_alone() { Ok(Decision::Commit(())) } else { panic!("as it was told") }
        })
    });
    assert_eq!(panics.await.unwrap_err().kind, StoreErrorKind::Other);
    assert_eq!(counts(&place), "0 0");
    with_trouble(&database, 0, "").await.0.unwrap();
    assert_eq!(counts(&place), "1 0");
    // They all had the same connection, which has come back in order.
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'foundry'";
    assert_eq!(place.run(sessions), "1");
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_middle_is_replaced() {
    let Some(place) = fresh() else { return };
    let database = open(&place).await;
    let (outcome, runs) = with_trouble(&database, 1, "SELECT pg_terminate_backend(pg_backend_pid())").await;
    outcome.unwrap();
    assert_eq!((runs, counts(&place)), (2, "1 0".into()));
    let reads = AtomicUsize::new(0);
    let read = database.read("testing", |connection| {
        let first = reads.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            if first {
                connection.fetch_all(on_postgres("SELECT pg_terminate_backend(pg_backend_pid())")).await?;
            }
            connection.fetch_one(sql("SELECT name FROM registries WHERE name = 'a'")).await?.get::<String>("name")
        })
    });
    assert_eq!(read.await.unwrap(), "a");
    assert_eq!(reads.load(Ordering::Relaxed), 2);
}

/// What it waited for is known then, so it is not done twice.
#[tokio::test]
async fn a_replica_that_stands_still_in_a_transaction_loses_it_and_begins_anew() {
    let Some(place) = fresh() else { return };
    let other = open(&place).await;
    let stopped = open_at(&place.url()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let outcome = stopped
        .write("testing", (Arc::clone(&runs), Arc::clone(&other)), |connection, (runs, other)| {
            Box::pin(async move {
                count_up(connection, "a").await?;
                if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                    // Another waits for the row, not in vain, though this one does not move.
                    with_trouble(other, 0, "").await.0.map_err(|error| Failure::Unreadable(error.chain()))?;
                }
                count_up(connection, "b").await?;
                Ok(Decision::Commit(()))
            })
        })
        .await;
    outcome.unwrap();
    assert_eq!((runs.load(Ordering::Relaxed), counts(&place)), (2, "2 1".into()));
}

#[tokio::test]
async fn a_dropped_intention_runs_to_its_end() {
    let Some(place) = fresh() else { return };
    let database = open(&place).await;
    let begun = Arc::new(Barrier::new(2));
    let intention = database.write("testing", Arc::clone(&begun), |connection, begun| {
        Box::pin(async move {
            begun.wait().await;
            count_up(connection, "a").await?;
            Ok(Decision::Commit(()))
        })
    });
    tokio::select! {
        biased;
        _ = begun.wait() => {}
        outcome = intention => panic!("{outcome:?}"),
    }
    // Closing waits for it.
    match &*database {
        Database::Postgres(database) => database.close().await,
        Database::Sqlite(_) => unreachable!(),
    }
    assert_eq!(counts(&place), "1 0");
}

/// Before what a proxy cuts the connection, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// It was just made; what the session is told first does not reach the server.
    Settings,
    /// The commit does not reach the server.
    Commit,
    /// Its answer does not reach the client.
    Answer,
}

impl Cut {
    /// What the client says when its time has come.
    fn cue(self) -> &'static [u8] {
        match self {
            Cut::Settings => b"set_config",
            Cut::Commit | Cut::Answer => b"COMMIT\0",
        }
    }
}

/// Stands between a client and the server, and cuts the first connection whose time comes after it was armed.
async fn proxy(to: String, cut: Cut, armed: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, armed) = (to.clone(), Arc::clone(&armed));
            tokio::spawn(async move { carry(client, TcpStream::connect(to).await.unwrap(), cut, &armed).await });
        }
    });
    port
}

async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Cut, armed: &AtomicUsize) {
    let (mut up, mut down) = ([0; 8192], [0; 8192]);
    let mut answer_is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let is_time = up[..length].windows(cut.cue().len()).any(|bytes| bytes == cut.cue());
                if is_time && armed.swap(0, Ordering::SeqCst) == 1 {
                    if cut != Cut::Answer {
                        return;
                    }
                    answer_is_lost = true;
                }
                if server.write_all(&up[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if answer_is_lost || client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The URL of a database whose connections a proxy may cut.
async fn through_a_proxy(place: &TestDatabase, port: u16, cut: Cut, armed: &Arc<AtomicUsize>) -> String {
    let through = proxy(format!("127.0.0.1:{port}"), cut, Arc::clone(armed)).await;
    place.server().tcp_url(&place.name, "disable").replace(&format!(":{port}/"), &format!(":{through}/"))
}

#[tokio::test]
async fn a_connection_that_is_cut_while_it_is_made_is_made_again() {
    let Some(place) = fresh() else { return };
    let Some((port, _)) = place.server().tcp_parts() else { return };
    let _direct = open(&place).await;
    let armed = Arc::new(AtomicUsize::new(1));
    let database = open_at(&through_a_proxy(&place, port, Cut::Settings, &armed).await).await;
    assert_eq!(armed.load(Ordering::SeqCst), 0, "it was cut");
    let (outcome, runs) = with_trouble(&database, 0, "").await;
    outcome.unwrap();
    assert_eq!((runs, counts(&place).as_str()), (1, "1 0"));
}

#[tokio::test]
async fn what_became_of_a_commit_without_an_answer_is_found_out() {
    let Some(place) = fresh() else { return };
    let Some((port, _)) = place.server().tcp_parts() else { return };
    let direct = open(&place).await;
    for (cut, runs, after) in [(Cut::Commit, 2, "1 0"), (Cut::Answer, 1, "2 0")] {
        let armed = Arc::new(AtomicUsize::new(0));
        let database = open_at(&through_a_proxy(&place, port, cut, &armed).await).await;
        armed.store(1, Ordering::SeqCst);
        let (outcome, ran) = with_trouble(&database, 0, "").await;
        outcome.unwrap();
        assert_eq!(armed.load(Ordering::SeqCst), 0, "it was cut");
        assert_eq!((ran, counts(&place).as_str()), (runs, after), "{cut:?}");
    }
    with_trouble(&direct, 0, "").await.0.unwrap();
}

/// A server gives the name of a transaction out again when it crashed before anything of it was durable.
#[tokio::test]
async fn what_was_committed_before_a_crash_is_not_told_from_what_has_its_name_now() {
    let Some(server) = postgres::own("commits before a crash") else { return };
    let place = server.database();
    let at = PostgresServer::from_url(&place.url()).unwrap();
    let opened = PostgresDatabase::open(at, PostgresOptions::default()).await;
    let database = opened.unwrap_or_else(|error| panic!("{}", error.chain()));
    let transaction = async |end: &'static str| {
        let mut lease = database.pool.acquire().await.unwrap();
        let begun = transaction::begin(lease.connection()).await.unwrap();
        let change = on_postgres("INSERT INTO garbage_candidates (digest) VALUES (gen_random_uuid()::text)");
        lease.connection().execute(change).await.unwrap();
        lease.connection().execute(on_postgres(end)).await.unwrap();
        lease.give_back();
        begun
    };
    let became_of = async |begun: &transaction::Transaction| {
        transaction::became_of(&database.pool, begun).await.map_err(|failure| failure.to_string())
    };
    let (committed, aborted) = (transaction("COMMIT").await, transaction("ROLLBACK").await);
    assert_eq!((became_of(&committed).await, became_of(&aborted).await), (Ok(true), Ok(false)));

    let mut lease = database.pool.acquire().await.unwrap();
    let under_way = transaction::begin(lease.connection()).await.unwrap();
    server.crash();
    server.start_again();
    lease.lost();
    let unknown = became_of(&committed).await.unwrap_err();
    assert!(unknown.contains("crashed"), "{unknown}");
    assert_eq!((became_of(&aborted).await, became_of(&under_way).await), (Ok(false), Ok(false)));

    // And in its new life it is sure again.
    let later = transaction("COMMIT").await;
    assert_eq!(became_of(&later).await, Ok(true));
    assert!(became_of(&committed).await.is_err());
}
