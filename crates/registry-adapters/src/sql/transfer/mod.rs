//! Carrying the rows of one installation over to another database, again and again, until both are the same.
//!
//! The source is a snapshot, so that its rows agree with each other. Both sides are read in the order of their keys; only
//! what differs is written. So a run that was interrupted is simply begun again, and the last one has little to do. What is
//! written is written in transactions that hold the mark of the run: another run, or a server, ends this one.

mod mark;
mod rows;
mod tables;

use std::collections::BTreeMap;

use registry_core::digest::Digest;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::metadata::blob_index::StoredBlob;
use registry_core::ports::steps::{self, Steps};
use serde_json::{Map, Value as Json};

pub use self::mark::{TransferMark, TransferRefusal};
use self::rows::{Cell, Cells, Difference, Walk};
use self::tables::{CONTENT, TABLES, Table};
use super::SqlMetadata;
use super::database::{Database, Decision};
use super::range;
use super::statement::{on_postgres, sql};

/// The most rows in one transaction.
const BATCH: usize = 500;
/// The most bytes of manifests in one transaction, give or take one manifest.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A store failed.
    #[error("{}", .0.chain())]
    Store(#[from] StoreError),
    /// The target is no longer that of this run.
    #[error("another migration, or a server, has taken the target over")]
    Overtaken,
    /// Manifests of the source do not have their digests; nothing was carried over that comes after them.
    #[error("{} manifests are damaged", .0.len())]
    Damaged(Vec<Digest>),
}

/// What became of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// How many rows the source has.
    pub rows: u64,
    /// How many were written, because the target did not have them, or had them otherwise.
    pub written: u64,
    /// How many the target had and the source does not have.
    pub removed: u64,
}

impl SqlMetadata {
    /// What tells this installation from every other; a copy of it is the same. `None` when no server has ever used it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn installation(&self) -> Result<Option<String>, StoreError> {
        // The first registry is made by the first start, and keeps its time for ever.
        let first = sql("SELECT name, created_at FROM registries ORDER BY id LIMIT 1");
        self.database
            .fetch_optional("reading which installation it is", first, |row| {
                let text = format!("{} {}", row.get::<String>("name")?, row.get::<i64>("created_at")?);
                Ok(Digest::sha256(text.as_bytes()).encoded()[..32].to_owned())
            })
            .await
    }

    /// The next at most `limit` blobs after `after`, by digest.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn blob_page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<StoredBlob>, StoreError> {
        let page = sql("SELECT digest, size, object_key FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2")
            .bind(range::after(after.map(Digest::as_str)))
            .bind(limit);
        self.database
            .fetch_all("listing blobs", page, |row| {
                Ok(StoredBlob {
                    digest: row.parse("digest")?,
                    size: row.unsigned("size")?,
                    key: ObjectKey(row.get("object_key")?),
                })
            })
            .await
    }

    /// Makes the rows of this Postgres database those of `source`, which does not change meanwhile. Blobs come first:
    /// whatever digest a row names has to be here.
    ///
    /// # Errors
    /// [`TransferError`]; what was written stays, and the same again goes on from there.
    pub async fn transfer_rows(
        &self,
        source: &SqlMetadata,
        mark: &TransferMark,
        steps: &dyn Steps,
    ) -> Result<BTreeMap<&'static str, TableReport>, TransferError> {
        self.require_postgres()?;
        let mut reports: BTreeMap<&'static str, TableReport> = BTreeMap::new();
        // What refers to others goes first.
        for table in TABLES.iter().rev().filter(|table| table.prune) {
            let removed = self.prune(source, table, mark, steps).await?;
            reports.entry(table.name).or_default().removed = removed;
        }
        for table in TABLES.iter() {
            let report = reports.entry(table.name).or_default();
            self.fill(source, table, mark, steps, report).await?;
        }
        let renumber = TABLES.iter().filter_map(|table| table.renumber).map(|text| (text, String::new()));
        self.write_marked(mark, renumber.collect()).await?;
        Ok(reports)
    }

    /// How many rows of each table differ from those of `source`.
    ///
    /// # Errors
    /// [`StoreError`] when a store failed.
    pub async fn compare_rows(&self, source: &SqlMetadata) -> Result<BTreeMap<&'static str, u64>, StoreError> {
        let mut differing = BTreeMap::new();
        for table in TABLES.iter() {
            let mut walk = Walk::new(source, self, table);
            while let Some(difference) = walk.next().await? {
                if table.prune || !matches!(difference, Difference::Surplus(_)) {
                    *differing.entry(table.name).or_default() += 1;
                }
            }
        }
        Ok(differing)
    }

    /// Has these blobs, which the source does not have any more, looked at by the next collection.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn transfer_garbage(&self, digests: &[Digest], mark: &TransferMark) -> Result<(), TransferError> {
        let candidates = TABLES.iter().find(|table| table.name == "garbage_candidates").expect("it is a table");
        let rows: Vec<Cells> =
            digests.iter().map(|digest| vec![Cell::Text(Some(digest.as_str().to_owned()))]).collect();
        for batch in rows.chunks(BATCH) {
            self.write_marked(mark, vec![(candidates.write, document(candidates, batch))]).await?;
        }
        Ok(())
    }

    /// The digests of manifests whose content has another one; all are read.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn damaged_manifests(&self) -> Result<Vec<Digest>, StoreError> {
        const PAGE: usize = 16;
        let mut damaged = Vec::new();
        let mut after = 0;
        loop {
            let page = sql("SELECT id, digest, content FROM manifests WHERE id > $1 ORDER BY id LIMIT $2");
            let read = |row: super::statement::Row| {
                Ok((row.get::<i64>("id")?, row.parse::<Digest>("digest")?, row.get::<Vec<u8>>("content")?))
            };
            let page = self.database.fetch_all("reading manifests", page.bind(after).bind(PAGE), read).await?;
            let Some((last, ..)) = page.last() else { return Ok(damaged) };
            after = *last;
            let wrong =
                page.into_iter().filter(|(_, digest, content)| Digest::of(digest.algorithm(), content) != *digest);
            damaged.extend(wrong.map(|(_, digest, _)| digest));
        }
    }

    fn require_postgres(&self) -> Result<(), StoreError> {
        match &self.database {
            Database::Postgres(_) => Ok(()),
            Database::Sqlite(_) => {
                let context = "rows are carried over to Postgres only".into();
                Err(StoreError { kind: StoreErrorKind::Other, context, source: None })
            }
        }
    }

    async fn prune(
        &self,
        source: &SqlMetadata,
        table: &'static Table,
        mark: &TransferMark,
        steps: &dyn Steps,
    ) -> Result<u64, TransferError> {
        let mut walk = Walk::new(source, self, table);
        let (mut batch, mut removed) = (Vec::new(), 0);
        loop {
            let difference = walk.next().await?;
            let ended = difference.is_none();
            if let Some(Difference::Surplus(row)) = difference {
                batch.push(row);
            }
            if batch.len() >= BATCH || ended && !batch.is_empty() {
                let document = document(table, &batch);
                let statements = table.remove.iter().map(|text| (*text, document.clone()));
                self.write_marked(mark, statements.collect()).await?;
                removed += batch.len() as u64;
                batch.clear();
                steps.reached(steps::MIGRATE_ROWS_WRITTEN);
            }
            if ended {
                return Ok(removed);
            }
        }
    }

    async fn fill(
        &self,
        source: &SqlMetadata,
        table: &'static Table,
        mark: &TransferMark,
        steps: &dyn Steps,
        report: &mut TableReport,
    ) -> Result<(), TransferError> {
        let mut walk = Walk::new(source, self, table);
        let (mut batch, mut bytes, mut damaged) = (Vec::new(), 0, Vec::new());
        loop {
            let difference = walk.next().await?;
            let ended = difference.is_none();
            if let Some(Difference::Missing(mut row) | Difference::Changed(mut row)) = difference {
                if table.content.is_none() {
                    batch.push(row);
                } else {
                    match content(source, &row).await? {
                        Ok(content) => {
                            bytes += content.len();
                            row.push(Cell::Bytes(Some(content)));
                            batch.push(row);
                        }
                        Err(digest) => damaged.push(digest),
                    }
                }
            }
            if batch.len() >= BATCH || bytes >= BATCH_BYTES || ended && !batch.is_empty() {
                self.write_marked(mark, vec![(table.write, document(table, &batch))]).await?;
                report.written += batch.len() as u64;
                batch.clear();
                bytes = 0;
                steps.reached(steps::MIGRATE_ROWS_WRITTEN);
            }
            if ended {
                report.rows = walk.rows;
                return if damaged.is_empty() { Ok(()) } else { Err(TransferError::Damaged(damaged)) };
            }
        }
    }

    /// Runs statements, each with a document, in one transaction that holds the mark.
    async fn write_marked(
        &self,
        mark: &TransferMark,
        statements: Vec<(&'static str, String)>,
    ) -> Result<(), TransferError> {
        let written = self.database.write("carrying rows over", (mark.clone(), statements), |connection, input| {
            Box::pin(async move {
                let (mark, statements) = input;
                if !mark.hold(connection).await? {
                    return Ok(Decision::Rollback(false));
                }
                for (text, document) in statements {
                    let statement = on_postgres(text);
                    let statement = if document.is_empty() { statement } else { statement.bind(document) };
                    connection.fetch_all(statement).await?;
                }
                Ok(Decision::Commit(true))
            })
        });
        if written.await? { Ok(()) } else { Err(TransferError::Overtaken) }
    }
}

/// The content of a manifest, or its digest when the content has another one.
async fn content(source: &SqlMetadata, row: &Cells) -> Result<Result<Vec<u8>, Digest>, StoreError> {
    let digest: Digest =
        row[2].text().parse().map_err(|_| StoreError::corrupt("a manifest has a digest that is none"))?;
    let read = sql(CONTENT).bind(row[0].argument());
    let content =
        source.database.fetch_optional("reading a manifest", read, |row| row.get::<Vec<u8>>("content")).await?;
    Ok(content.filter(|content| Digest::of(digest.algorithm(), content) == digest).ok_or(digest))
}

/// Rows as the statements of a table take them.
fn document(table: &Table, rows: &[Cells]) -> String {
    let names = || table.columns.iter().map(|(name, _)| *name).chain(table.content);
    let rows = rows.iter().map(|row| {
        let cells = names().zip(row).map(|(name, cell)| (name.to_owned(), cell.json()));
        Json::Object(cells.collect::<Map<_, _>>())
    });
    Json::Array(rows.collect()).to_string()
}
