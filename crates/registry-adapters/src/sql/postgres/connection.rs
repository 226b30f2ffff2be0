//! A connection, how it is made, and how long it is waited for.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};

use super::options::{PostgresOptions, PostgresServer};
use crate::sql::error::Result;
use crate::sql::statement::Statement;

/// How much longer than the server takes for a statement at most, its answer is waited for: then the connection is
/// dead, whatever the network says.
const GRACE: Duration = Duration::from_secs(5);

/// A connection on which no answer is waited for in vain.
pub(in crate::sql) struct PostgresConnection {
    inner: PgConnection,
    patience: Duration,
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// The answer, or a failure that says that the connection is lost.
async fn within<T>(patience: Duration, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"))),
    }
}

impl PostgresConnection {
    pub(in crate::sql) async fn execute(&mut self, statement: Statement) -> Result<u64> {
        let query = statement.for_postgres()?;
        Ok(within(self.patience, query.execute(&mut self.inner)).await?.rows_affected())
    }

    pub(in crate::sql) async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<PgRow>> {
        let query = statement.for_postgres()?;
        Ok(within(self.patience, query.fetch_all(&mut self.inner)).await?)
    }

    /// Statements without arguments, in one message; the rows of all of them.
    pub(super) async fn run(&mut self, statements: &'static str) -> Result<Vec<PgRow>> {
        Ok(within(self.patience, sqlx::raw_sql(statements).fetch_all(&mut self.inner)).await?)
    }

    pub(super) async fn close(self) {
        // It is gone in either case.
        let _ = within(GRACE, self.inner.close()).await;
    }
}

/// A parameter of a session and its value.
type Setting = (&'static str, String);

/// Makes connections.
pub(super) struct Connector {
    options: PgConnectOptions,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    settings: Vec<Setting>,
}

/// What every session is told, besides its time-outs. The statements are written for one plan each, which is right whatever
/// there is in the tables: their joins go in the order of the text, from few rows to those that belong to them, each
/// step through an index. Statistics, of which a new registry has none, must not lead the planner to another.
const PLANNING: [(&str, &str); 8] = [
    ("join_collapse_limit", "1"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    // But not the sorting of what is in order already, save for the last column.
    ("enable_sort", "off"),
    // It would compile any plan to which one of these applies.
    ("jit", "off"),
];

impl Connector {
    pub(super) fn new(server: PostgresServer, options: &PostgresOptions) -> Self {
        let milliseconds = |duration: Duration| duration.as_millis().max(1).to_string();
        let mut settings = vec![
            ("TimeZone", options.timezone.clone()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("statement_timeout", milliseconds(options.statement_timeout)),
            ("lock_timeout", milliseconds(options.lock_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(options.idle_in_transaction_timeout)),
        ];
        settings.extend(PLANNING.map(|(name, value)| (name, value.to_owned())));
        Self {
            options: server.into_connect_options(),
            acquire_timeout: options.acquire_timeout,
            statement_timeout: options.statement_timeout,
            settings,
        }
    }

    /// A connection for intentions and reads. A server that is starting, or that refuses connections, is waited for; a
    /// connection that ends before it is of use is made again.
    pub(super) async fn connect(&self) -> sqlx::Result<PostgresConnection> {
        let inner = self.reach(&self.options, &self.settings).await?;
        Ok(PostgresConnection { inner, patience: self.statement_timeout + GRACE })
    }

    /// A connection for migrations: it waits for ever for locks and statements.
    pub(super) async fn connect_without_limits(&self) -> sqlx::Result<PgConnection> {
        self.reach(&self.options.clone().application_name("foundry migrations"), &[]).await
    }

    async fn reach(&self, options: &PgConnectOptions, settings: &[Setting]) -> sqlx::Result<PgConnection> {
        let deadline = tokio::time::Instant::now() + self.acquire_timeout;
        let mut pause = Duration::from_millis(10);
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match within(left, connect(options, settings)).await {
                Err(error) if may_come(&error) && left > pause => {}
                outcome => return outcome,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

/// Connects once, and tells the session its settings, if there are any, in one message.
async fn connect(options: &PgConnectOptions, settings: &[Setting]) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect_with(options).await?;
    if settings.is_empty() {
        return Ok(connection);
    }
    // What is acknowledged is durable, whatever the server's default is: `off` becomes `on`, and what waits for standbys
    // stays.
    let mut text = "SELECT CASE WHEN current_setting('synchronous_commit') = 'off' THEN
             set_config('synchronous_commit', 'on', false) END"
        .to_owned();
    for number in 0..settings.len() {
        text.push_str(&format!(", set_config(${}, ${}, false)", 2 * number + 1, 2 * number + 2));
    }
    let mut set = sqlx::query(sqlx::AssertSqlSafe(text)).persistent(false);
    for (name, value) in settings {
        set = set.bind(*name).bind(value.as_str());
    }
    set.execute(&mut connection).await?;
    Ok(connection)
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether a failure to connect may pass: nobody listens (yet), the server starts or stops, or it has no connection left.
fn may_come(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                // The socket of a server that is not up yet.
                | io::ErrorKind::NotFound
        ),
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["57P01", "57P02", "57P03", "53300"].contains(&code.as_ref()))
        }
        _ => false,
    }
}
