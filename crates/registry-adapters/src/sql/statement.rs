//! One statement with its arguments, one row, and the connection between them: the seam between the SQL, which is
//! written once, and the drivers.

use std::str::FromStr;

use registry_core::digest::Digest;
use registry_core::names::{PackageName, RepositoryName, Tag, Version};
use registry_core::ports::blob_store::ObjectKey;
use registry_core::registry::RegistryId;
use registry_core::time::Timestamp;
use registry_core::upload::UploadId;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, Row as _};

use super::error::{Failure, Result};
use super::postgres::PostgresConnection;

/// An argument of a statement; a type is known even where it is NULL.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    /// A list of texts: a JSON array for SQLite, an array for Postgres.
    Texts(Vec<String>),
}

macro_rules! value_from {
    ($($type:ty => |$value:ident| $into:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Value {
                $into
            }
        })*
    };
}

value_from! {
    i64 => |value| Value::Integer(Some(value));
    Option<i64> => |value| Value::Integer(value);
    bool => |value| Value::Integer(Some(value.into()));
    // Counts and sizes beyond 2^63 do not exist; a limit may be as large, and then means "all".
    u64 => |value| Value::Integer(Some(i64::try_from(value).unwrap_or(i64::MAX)));
    usize => |value| Value::Integer(Some(i64::try_from(value).unwrap_or(i64::MAX)));
    Timestamp => |value| Value::Integer(Some(value.as_micros()));
    Option<Timestamp> => |value| Value::Integer(value.map(Timestamp::as_micros));
    RegistryId => |value| Value::Integer(Some(value.0));
    &str => |value| Value::Text(Some(value.to_owned()));
    String => |value| Value::Text(Some(value));
    &String => |value| Value::Text(Some(value.clone()));
    Option<String> => |value| Value::Text(value);
    &Digest => |value| value.as_str().into();
    Option<&Digest> => |value| Value::Text(value.map(|digest| digest.as_str().to_owned()));
    &ObjectKey => |value| value.as_str().into();
    &RepositoryName => |value| value.as_str().into();
    &PackageName => |value| value.as_str().into();
    &Version => |value| value.as_str().into();
    &Tag => |value| value.as_str().into();
    UploadId => |value| Value::Bytes(Some(value.as_bytes().to_vec()));
    &[u8] => |value| Value::Bytes(Some(value.to_vec()));
    Vec<u8> => |value| Value::Bytes(Some(value));
}

/// What a statement says to each of the databases. Most say the same to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// A text whose dialects differ only in some parts: `dialects!("SELECT … ", ["SQLite's" | "Postgres's"], " …")`.
macro_rules! dialects {
    ($($part:tt),+ $(,)?) => {
        $crate::sql::statement::Text {
            sqlite: concat!($(dialects!(@sqlite $part)),+),
            postgres: concat!($(dialects!(@postgres $part)),+),
        }
    };
    (@sqlite [$sqlite:literal | $postgres:literal]) => { $sqlite };
    (@postgres [$sqlite:literal | $postgres:literal]) => { $postgres };
    (@sqlite $both:literal) => { $both };
    (@postgres $both:literal) => { $both };
}
pub(super) use dialects;

/// A statement, its arguments numbered `$1`, `$2`, … in the order they are bound.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    text: Text,
    arguments: Vec<Value>,
}

/// The statement `text`. It is prepared once for each connection.
#[cfg_attr(test, track_caller)]
pub(super) fn sql(text: impl Into<Text>) -> Statement {
    let text = text.into();
    #[cfg(test)]
    super::plans::note(text);
    Statement { text, arguments: Vec::with_capacity(8) }
}

/// A statement that only Postgres is asked.
#[cfg_attr(test, track_caller)]
pub(super) fn on_postgres(text: &'static str) -> Statement {
    sql(Text { sqlite: "", postgres: text })
}

impl Statement {
    /// Adds the next argument.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.arguments.push(value.into());
        self
    }

    fn for_sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>> {
        let mut arguments = SqliteArguments::default();
        for value in self.arguments {
            let added = match value {
                Value::Integer(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(value),
                Value::Texts(values) => arguments.add(serde_json::Value::from(values).to_string()),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(self.text.sqlite, arguments))
    }

    pub(super) fn for_postgres(self) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>> {
        #[cfg(test)]
        super::plans::note_types(self.text, &self.arguments);
        let mut arguments = PgArguments::default();
        for value in self.arguments {
            let added = match value {
                Value::Integer(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value.map(without_nul)),
                Value::Bytes(value) => arguments.add(value),
                Value::Texts(values) => arguments.add(values.into_iter().map(without_nul).collect::<Vec<_>>()),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(self.text.postgres, arguments))
    }
}

/// Postgres has no text with a NUL. No name can hold one; where somebody looks for one, or writes one into a media type,
/// the sign for what cannot be shown stands for it.
pub(super) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

/// A connection to one of the databases.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PostgresConnection),
}

impl Connection {
    /// Runs a statement that answers no rows; how many it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64> {
        match self {
            Connection::Sqlite(connection) => Ok(statement.for_sqlite()?.execute(connection).await?.rows_affected()),
            Connection::Postgres(connection) => connection.execute(statement).await,
        }
    }

    /// The first row, if any. A statement that writes has then written all it does.
    pub(super) async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>> {
        match self {
            Connection::Sqlite(connection) => {
                Ok(statement.for_sqlite()?.fetch_optional(connection).await?.map(Row::Sqlite))
            }
            Connection::Postgres(connection) => {
                Ok(connection.fetch_all(statement).await?.into_iter().next().map(Row::Postgres))
            }
        }
    }

    /// The one row of a statement that always has one.
    pub(super) async fn fetch_one(&mut self, statement: Statement) -> Result<Row> {
        self.fetch_optional(statement).await?.ok_or(Failure::Database(sqlx::Error::RowNotFound))
    }

    /// Every row.
    pub(super) async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>> {
        match self {
            Connection::Sqlite(connection) => {
                let rows = statement.for_sqlite()?.fetch_all(connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Connection::Postgres(connection) => {
                Ok(connection.fetch_all(statement).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Whether nobody else can write until the intention ends.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Connection::Sqlite(_))
    }

    /// Runs a statement of Postgres that takes locks, which last until the intention ends. What a *later* statement
    /// reads is as it was when the locks were got, or newer. On SQLite an intention has locked everything.
    pub(super) async fn lock(&mut self, statement: Statement) -> Result<()> {
        match self {
            Connection::Sqlite(_) => Ok(()),
            Connection::Postgres(connection) => connection.fetch_all(statement).await.map(drop),
        }
    }
}

/// A row of a result.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub(super) trait Column:
    for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>
{
}
impl<T> Column for T where
    T: for<'r> sqlx::Decode<'r, Sqlite>
        + sqlx::Type<Sqlite>
        + for<'r> sqlx::Decode<'r, Postgres>
        + sqlx::Type<Postgres>
{
}

impl Row {
    /// The value of a column.
    pub(super) fn get<T: Column>(&self, column: &str) -> Result<T> {
        match self {
            Row::Sqlite(row) => Ok(row.try_get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// The text of a column as a value of the domain.
    pub(super) fn parse<T: FromStr>(&self, column: &str) -> Result<T> {
        parse(&self.get::<String>(column)?, column)
    }

    /// A count or a size.
    pub(super) fn unsigned(&self, column: &str) -> Result<u64> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| unreadable(column, "a negative number"))
    }

    /// A time.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.get(column)?))
    }

    /// A key of the object store.
    pub(super) fn key(&self, column: &str) -> Result<ObjectKey> {
        Ok(ObjectKey(self.get(column)?))
    }
}

/// `text`, which came from `column`, as a value of the domain.
pub(super) fn parse<T: FromStr>(text: &str, column: &str) -> Result<T> {
    text.parse().map_err(|_| unreadable(column, text))
}

/// The failure to read a stored value.
pub(super) fn unreadable(column: &str, what: impl std::fmt::Display) -> Failure {
    Failure::Unreadable(format!("column {column} holds {what:.200}"))
}

/// A list of texts as one argument, which a statement reads as rows: `["json_each($1) n" | "unnest($1) n (value)"]`.
pub(super) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::Texts(texts.into_iter().map(|text| text.as_ref().to_owned()).collect())
}
