//! Rows of any table, in the order of their keys, and how those of two databases differ.

use std::cmp::Ordering;
use std::collections::VecDeque;

use registry_core::digest::hex;
use registry_core::error::StoreError;
use serde_json::Value as Json;

use super::tables::{Kind, Table};
use crate::sql::SqlMetadata;
use crate::sql::error::Result as SqlResult;
use crate::sql::statement::{Row, Value, sql, without_nul};

/// How many rows are in memory of each side.
const PAGE: usize = 1000;

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Cell {
    fn read(row: &Row, (name, kind): (&str, Kind)) -> SqlResult<Self> {
        Ok(match kind {
            Kind::Integer => Cell::Integer(row.get(name)?),
            // As the target will say it.
            Kind::Text => Cell::Text(row.get::<Option<String>>(name)?.map(without_nul)),
            Kind::Bytes => Cell::Bytes(row.get(name)?),
        })
    }

    /// Less than any key.
    fn before_all(kind: Kind) -> Self {
        match kind {
            Kind::Integer => Cell::Integer(Some(i64::MIN)),
            Kind::Text => Cell::Text(Some(String::new())),
            Kind::Bytes => Cell::Bytes(Some(Vec::new())),
        }
    }

    pub(super) fn argument(&self) -> Value {
        match self.clone() {
            Cell::Integer(value) => Value::Integer(value),
            Cell::Text(value) => Value::Text(value),
            Cell::Bytes(value) => Value::Bytes(value),
        }
    }

    pub(super) fn json(&self) -> Json {
        match self {
            Cell::Integer(value) => (*value).into(),
            Cell::Text(value) => value.clone().into(),
            Cell::Bytes(value) => value.as_deref().map(hex).into(),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Cell::Text(Some(text)) => text,
            _ => "",
        }
    }
}

/// The columns of a row, as its table lists them.
pub(super) type Cells = Vec<Cell>;

/// The rows of one side.
struct Rows<'a> {
    metadata: &'a SqlMetadata,
    table: &'static Table,
    after: Cells,
    page: VecDeque<Cells>,
    ended: bool,
}

impl<'a> Rows<'a> {
    fn new(metadata: &'a SqlMetadata, table: &'static Table) -> Self {
        let after = table.columns[..table.keys].iter().map(|(_, kind)| Cell::before_all(*kind)).collect();
        Self { metadata, table, after, page: VecDeque::new(), ended: false }
    }

    async fn peek(&mut self) -> Result<Option<&Cells>, StoreError> {
        if self.page.is_empty() && !self.ended {
            let mut statement = sql(self.table.page);
            for cell in &self.after {
                statement = statement.bind(cell.argument());
            }
            let read = |row: Row| self.table.columns.iter().map(|column| Cell::read(&row, *column)).collect();
            let rows: Vec<Cells> = self.metadata.database.fetch_all("reading rows", statement.bind(PAGE), read).await?;
            self.ended = rows.len() < PAGE;
            if let Some(last) = rows.last() {
                self.after = last[..self.table.keys].to_vec();
            }
            self.page = rows.into();
        }
        Ok(self.page.front())
    }

    fn take(&mut self) -> Option<Cells> {
        self.page.pop_front()
    }
}

/// How the two sides differ in a row.
pub(super) enum Difference {
    /// The source has it, and the target has not.
    Missing(Cells),
    /// The target has an older version of it.
    Changed(Cells),
    /// The target has it, and the source has not, or has another row under its key.
    Surplus(Cells),
}

/// Two tables, side by side.
pub(super) struct Walk<'a> {
    source: Rows<'a>,
    target: Rows<'a>,
    /// How many rows the source has had so far.
    pub(super) rows: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a SqlMetadata, target: &'a SqlMetadata, table: &'static Table) -> Self {
        Self { source: Rows::new(source, table), target: Rows::new(target, table), rows: 0 }
    }

    /// The next difference, in the order of keys.
    pub(super) async fn next(&mut self) -> Result<Option<Difference>, StoreError> {
        let (keys, fixed) = (self.source.table.keys, self.source.table.fixed);
        loop {
            let order = match (self.source.peek().await?, self.target.peek().await?) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(source), Some(target)) => source[..keys].cmp(&target[..keys]),
            };
            if order == Ordering::Greater {
                return Ok(self.target.take().map(Difference::Surplus));
            }
            self.rows += 1;
            let Some(source) = self.source.take() else { return Ok(None) };
            if order == Ordering::Less {
                return Ok(Some(Difference::Missing(source)));
            }
            let Some(target) = self.target.take() else { return Ok(None) };
            if source[..fixed] != target[..fixed] {
                return Ok(Some(Difference::Surplus(target)));
            }
            if source != target {
                return Ok(Some(Difference::Changed(source)));
            }
        }
    }
}
