//! SQLite keeps the contract of the metadata store, and what only it can promise.

#[path = "support/migrations.rs"]
mod migrations;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use registry_adapters::sql::{SqlMetadata, SqliteOptions};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::metadata::{JobStore, Metadata, ObjectLedger, RegistryStore, TokenStore};
use registry_core::testing::metadata_suite::Subject;
use registry_core::token::TokenId;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use migrations::{Rows, assert_kept, fill, released};

/// A database in a folder of its own, opened twice, as two processes have it.
struct Sqlite {
    instances: [Arc<SqlMetadata>; 2],
    given: AtomicUsize,
    _folder: TempDir,
}

impl Sqlite {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metadata.sqlite");
        let open =
            async || Arc::new(SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.expect("it opens"));
        Self { instances: [open().await, open().await], given: AtomicUsize::new(0), _folder: folder }
    }
}

impl Subject for Sqlite {
    fn store(&self) -> Arc<dyn Metadata> {
        self.instances[self.given.fetch_add(1, Ordering::Relaxed) % 2].clone()
    }
}

registry_core::metadata_suite!(Sqlite::new().await);

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("metadata.sqlite")
}

async fn open(folder: &TempDir) -> Result<SqlMetadata, StoreError> {
    SqlMetadata::open_sqlite(&path(folder), SqliteOptions::default()).await
}

/// A connection of another program.
async fn connect(path: &Path) -> sqlx::SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

async fn execute(path: &Path, statement: &'static str) {
    let mut connection = connect(path).await;
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_was_begun_before_closing_is_finished_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await.unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("job {number}")).collect();
    let writes = join_all(names.iter().map(|name| store.set_job_cursor(name, Some("done"))));
    let (outcomes, ()) = join(writes, store.close()).await;
    let begun: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert!(begun.contains(&true), "those that were queued first");
    // Closed for good, and again is no error.
    store.close().await;
    assert_eq!(store.set_job_cursor("late", None).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(store.job_cursor("late").await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(store.ping().await.unwrap_err().kind, StoreErrorKind::Unavailable);
    // Everything is in the database file itself.
    let log = folder.path().join("metadata.sqlite-wal");
    assert!(!log.exists() || log.metadata().unwrap().len() == 0);

    let store = open(&folder).await.unwrap();
    for (name, begun) in names.iter().zip(begun) {
        assert_eq!(store.job_cursor(name).await.unwrap().is_some(), begun, "{name}");
    }
}

#[tokio::test]
async fn a_store_that_was_not_closed_opens_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = open(&folder).await.unwrap();
        for before in 0..round {
            assert_eq!(store.job_cursor(&format!("round {before}")).await.unwrap().as_deref(), Some("done"));
        }
        store.set_job_cursor(&format!("round {round}"), Some("done")).await.unwrap();
    }
}

#[tokio::test]
async fn many_processes_make_the_schema_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let stores = join_all((0..6).map(|_| open(&folder))).await;
    for (number, store) in stores.iter().enumerate() {
        let store = store.as_ref().unwrap_or_else(|error| panic!("{number}: {}", error.chain()));
        store.set_job_cursor(&number.to_string(), Some("there")).await.unwrap();
        for before in 0..=number {
            assert_eq!(store.job_cursor(&before.to_string()).await.unwrap().as_deref(), Some("there"));
        }
    }
}

impl Rows for SqliteConnection {
    const BYTES: &'static str = "x'0102'";

    async fn execute(&mut self, statement: String) {
        let executed = sqlx::query(AssertSqlSafe(statement.clone())).execute(self).await;
        executed.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    async fn tables(&mut self) -> Vec<String> {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'
                      AND name <> '_sqlx_migrations' ORDER BY name";
        sqlx::query_scalar(tables).fetch_all(self).await.unwrap()
    }

    async fn columns(&mut self, table: &str) -> Vec<String> {
        sqlx::query_scalar("SELECT name FROM pragma_table_info($1)").bind(table).fetch_all(self).await.unwrap()
    }

    async fn rows(&mut self, table: &str, columns: &[String]) -> Vec<String> {
        let columns: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
        let rows = AssertSqlSafe(format!("SELECT {} FROM {table} ORDER BY 1", columns.join(" || ', ' || ")));
        sqlx::query_scalar(rows).fetch_all(self).await.unwrap()
    }

    async fn migrate(&mut self, migrator: &Migrator) {
        migrator.run(self).await.unwrap();
    }
}

/// From each schema that was released to the newest.
#[tokio::test]
async fn an_earlier_schema_is_brought_up_to_date_and_keeps_its_rows() {
    let migrations = released("sqlite");
    for earlier in 1..=migrations.len() {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path(&folder)).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let contents = fill(&mut connection, &migrations[..earlier]).await;
        assert!(contents.iter().all(|(_, _, rows)| !rows.is_empty()), "{contents:?}");
        connection.close().await.unwrap();
        let store = open(&folder).await.unwrap();
        let mut connection = connect(&path(&folder)).await;
        assert_kept(&mut connection, &contents).await;
        assert_eq!(store.job_cursor("works").await.unwrap().as_deref(), Some("still"));
        store.set_job_cursor("works", Some("again")).await.unwrap();
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(applied, i64::try_from(migrations.len()).unwrap());
    }
}

#[tokio::test]
async fn a_newer_release_may_have_added_migrations() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await.unwrap().close().await;
    execute(
        &path(&folder),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the next release', TRUE, x'00', 0)",
    )
    .await;
    let store = open(&folder).await.unwrap();
    store.set_job_cursor("works", Some("still")).await.unwrap();
    store.close().await;

    execute(&path(&folder), "UPDATE schema_info SET oldest_compatible_server = 9999").await;
    let refused = open(&folder).await.unwrap_err();
    assert!(refused.chain().contains("needs a server of schema revision 9999 or newer"), "{}", refused.chain());
}

#[tokio::test]
async fn a_backup_holds_all_that_was_acknowledged_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await.unwrap();
    let written: Vec<String> = (0..100).map(|number| format!("before {number}")).collect();
    for outcome in join_all(written.iter().map(|name| store.set_job_cursor(name, Some("x")))).await {
        outcome.unwrap();
    }
    let target = folder.path().join("copy").join("metadata.sqlite");
    assert!(store.backup_to(&target).await.is_err(), "there is no such folder");
    std::fs::create_dir(folder.path().join("copy")).unwrap();
    // Writes go on meanwhile.
    let during: Vec<String> = (0..100).map(|number| format!("during {number}")).collect();
    let writes = join_all(during.iter().map(|name| store.set_job_cursor(name, Some("x"))));
    let (backup, outcomes) = join(store.backup_to(&target), writes).await;
    backup.unwrap();
    for outcome in outcomes {
        outcome.unwrap();
    }
    assert!(store.backup_to(&target).await.is_err(), "it does not overwrite");

    let copy = SqlMetadata::open_sqlite(&target, SqliteOptions::default()).await.unwrap();
    for name in written {
        assert_eq!(copy.job_cursor(&name).await.unwrap().as_deref(), Some("x"));
    }
    copy.set_job_cursor("its own", Some("life")).await.unwrap();
    assert_eq!(store.job_cursor("its own").await.unwrap(), None);
}

#[tokio::test]
async fn nobody_else_may_read_the_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await.unwrap();
    store.set_job_cursor("there is", Some("a log")).await.unwrap();
    let copy = folder.path().join("copy.sqlite");
    store.backup_to(&copy).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        files += 1;
    }
    assert!(files >= 4, "the database, its log and index, the copy");
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(path(&folder), "this is no database, and long enough to be looked at".repeat(100)).unwrap();
    let refused = open(&folder).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt, "{}", refused.chain());
    let nowhere = folder.path().join("no such folder").join("metadata.sqlite");
    let refused = SqlMetadata::open_sqlite(&nowhere, SqliteOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{}", refused.chain());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await.unwrap();
    let token = TokenId("a".into());
    for (statement, word) in [
        ("INSERT INTO tokens VALUES ('a', 'name', x'00', '[]', 0, NULL)", "hash"),
        ("UPDATE tokens SET hash = zeroblob(32), scopes = 'not json'", "scopes"),
    ] {
        execute(&path(&folder), statement).await;
        let failure = store.find_token(&token).await.unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::Corrupt);
        assert!(failure.chain().contains(word), "{}", failure.chain());
    }
    execute(&path(&folder), "UPDATE tokens SET scopes = '[]'").await;
    assert!(store.find_token(&token).await.unwrap().is_some());

    for (statement, key, corrupt) in [
        ("INSERT INTO objects VALUES ('key', 7, 0)", "key", true),
        ("UPDATE objects SET state = 1", "key", false),
        ("INSERT INTO blobs VALUES ('sha256:short', 1, 'key', 0)", "key", true),
        ("UPDATE blobs SET size = -1", "key", true),
    ] {
        execute(&path(&folder), statement).await;
        let outcome = store.ledger_entry(&ObjectKey(key.into())).await;
        assert_eq!(outcome.as_ref().err().map(|error| error.kind == StoreErrorKind::Corrupt), corrupt.then_some(true));
    }
}
