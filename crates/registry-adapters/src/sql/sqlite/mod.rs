//! SQLite: one connection that writes, several that read.
//!
//! Write-ahead log, so that readers and the writer do not wait for each other; `synchronous=FULL`, so that what is
//! committed survives power loss. Other processes may use the same file at the same time.

mod readers;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use registry_core::error::StoreError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _};

use self::readers::Readers;
pub(super) use self::snapshot::{is_in_use, snapshot};
use self::writer::Writer;
use super::database::Decision;
use super::error::{Failure, Result, is_busy};
use super::schema::{self, MigrationFile, OpenFailure};
use super::statement::Connection;

/// The numbered files of `migrations/sqlite`, applied in one transaction when a database is opened.
pub(super) const MIGRATIONS: &[MigrationFile] =
    &[(1, "initial", include_str!("../../../migrations/sqlite/0001_initial.sql"))];

/// How long one statement waits for another process; such waits are repeated up to [`BUSY_ATTEMPTS`] times.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_ATTEMPTS: usize = 6;

/// How a SQLite database is used.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// How many connections read at the same time, each on a thread of its own.
    pub readers: usize,
    /// The most intentions that are committed together.
    pub group: usize,
    /// The most intentions that wait for their turn; more wait to be queued.
    pub queue: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { readers: 8, group: 128, queue: 1024 }
    }
}

/// An open database.
#[derive(Debug)]
pub(super) struct SqliteDatabase {
    path: PathBuf,
    limit: usize,
    readers: Readers,
    writer: Writer,
}

impl SqliteDatabase {
    pub(super) async fn open(path: &Path, options: SqliteOptions) -> std::result::Result<Self, StoreError> {
        let open = async {
            let connection = open_writer(path).await?;
            let limit = options.readers.max(1);
            let readers =
                Readers::new(connect_options(path).create_if_missing(false).pragma("query_only", "ON"), limit);
            let writer = Writer::start(connection, writer_options(path), options.group.max(1), options.queue.max(1));
            Ok(Self { path: path.to_owned(), limit, readers, writer })
        };
        open.await.map_err(OpenFailure::report)
    }

    pub(super) async fn read<T>(
        &self,
        run: impl for<'a> FnOnce(&'a mut Connection) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut reader = self.readers.acquire().await?;
        let outcome = run(reader.connection()).await;
        if let Err(Failure::Database(sqlx::Error::WorkerCrashed)) = outcome {
            reader.discard();
        }
        outcome
    }

    pub(super) async fn write<I, T, F>(&self, input: I, run: F) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection, &'a I) -> BoxFuture<'a, Result<Decision<T>>> + Send + Sync + 'static,
    {
        self.writer.write(input, run).await
    }

    /// Whether intentions can still be queued.
    pub(super) fn accepts_writes(&self) -> bool {
        self.writer.is_running()
    }

    /// Finishes what is queued, moves the write-ahead log into the database file, and closes every connection.
    pub(super) async fn close(&self) {
        self.readers.close(self.limit).await;
        self.writer.close().await;
    }

    /// Writes a consistent copy to `target`, which must not exist, while reads and writes go on; durable on return.
    pub(super) async fn backup_to(&self, target: &Path) -> Result<()> {
        let target_text =
            target.to_str().ok_or_else(|| Failure::Unreadable("the path of the backup is not UTF-8".into()))?;
        create_private(target, true).await?;
        let outcome = self.vacuum_into(target_text).await;
        if outcome.is_err() {
            // What is there is no backup. An error here is less than the one that is reported.
            let _ = tokio::fs::remove_file(target).await;
            return outcome;
        }
        // VACUUM INTO does not wait for the disk.
        sync(target).await.map_err(|error| Failure::Database(error.into()))
    }

    async fn vacuum_into(&self, target: &str) -> Result<()> {
        let options = connect_options(&self.path).create_if_missing(false);
        let mut connection = options.connect().await?;
        sqlx::query("VACUUM INTO $1").bind(target).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

/// Makes an empty file that only its owner may read, as it will hold secrets: SQLite takes it for a database without
/// tables, and makes the files beside it with the same mode. With `new`, one that is there is an error.
async fn create_private(path: &Path, new: bool) -> std::result::Result<(), sqlx::Error> {
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).create_new(new).mode(0o600);
    options.open(path).await.map(drop).map_err(sqlx::Error::Io)
}

async fn sync(path: &Path) -> std::io::Result<()> {
    tokio::fs::File::open(path).await?.sync_all().await?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tokio::fs::File::open(folder).await?.sync_all().await
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(512)
        .pragma("temp_store", "MEMORY")
        // A log that a burst has grown is cut back to this many bytes once it has been moved.
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

/// As every connection, with room for the pages of a large transaction: 16 MiB.
fn writer_options(path: &Path) -> SqliteConnectOptions {
    connect_options(path).pragma("cache_size", "-16384")
}

/// Opens the writing connection, makes the database if there is none, and brings its schema up to date.
async fn open_writer(path: &Path) -> std::result::Result<SqliteConnection, OpenFailure> {
    create_private(path, false).await?;
    let mut connection = connect(&writer_options(path).journal_mode(SqliteJournalMode::Wal)).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    schema::check(oldest_compatible(&mut transaction).await?)?;
    schema::migrator(MIGRATIONS).run(&mut *transaction).await.map_err(OpenFailure::Migration)?;
    transaction.commit().await?;
    Ok(connection)
}

async fn oldest_compatible(connection: &mut SqliteConnection) -> std::result::Result<Option<i64>, sqlx::Error> {
    let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_info'")
        .fetch_one(&mut *connection)
        .await?;
    if known == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT oldest_compatible_server FROM schema_info").fetch_optional(connection).await
}

/// Connects; switching to the write-ahead log does not wait for others by itself, so it is tried again.
async fn connect(options: &SqliteConnectOptions) -> std::result::Result<SqliteConnection, sqlx::Error> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut attempts = BUSY_ATTEMPTS * usize::try_from(BUSY_TIMEOUT.as_millis() / PAUSE.as_millis()).unwrap_or(1);
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && attempts > 1 => attempts -= 1,
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
