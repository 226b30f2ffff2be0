//! Lists: a JSON document or a table, written while the pages arrive.
use futures_util::{Stream, StreamExt, pin_mut};
use registry_client::Result as ClientResult;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{json, printable, write};

/// How many rows are aligned with each other before they are written.
const BATCH: usize = 500;

/// How a list is shown.
pub struct Listing<'a, T> {
    /// The document up to its list's opening bracket, such as `{"packages":[`.
    pub opening: String,
    /// The titles of the columns.
    pub columns: &'a [&'a str],
    /// The cells of an item.
    pub row: fn(&T) -> Vec<String>,
    /// What is said on stderr where there is nothing to list.
    pub nothing: String,
    /// How many items at most.
    pub limit: Option<usize>,
}

/// Writes all items. After a failure a JSON document stays open: half of a list is none.
pub async fn show<T: Serialize>(
    context: &Context,
    items: impl Stream<Item = ClientResult<T>>,
    listing: Listing<'_, T>,
) -> Result<(), Failure> {
    let items = items.take(listing.limit.unwrap_or(usize::MAX));
    pin_mut!(items);
    if context.json() {
        let mut before = listing.opening;
        while let Some(item) = items.next().await {
            write(&format!("{before}{}", json(&item?)))?;
            before = ",".to_owned();
        }
        let start = if before == "," { "" } else { &before };
        return write(&format!("{start}]}}\n"));
    }
    let mut table = Table::new(listing.columns);
    while let Some(item) = items.next().await {
        table.add((listing.row)(&item?));
        if table.rows.len() == BATCH {
            table.flush()?;
        }
    }
    if table.is_empty() {
        eprintln!("{}", printable(&listing.nothing));
    }
    table.flush()
}

/// Rows that wait to be aligned. The widths only grow, so that later rows stay below earlier ones as far as possible.
struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    header: Option<Vec<String>>,
}

impl Table {
    fn new(columns: &[&str]) -> Self {
        let header = columns.iter().map(|&column| column.to_owned()).collect();
        Self { widths: vec![0; columns.len()], rows: Vec::new(), header: Some(header) }
    }

    fn add(&mut self, row: Vec<String>) {
        self.rows.push(row.iter().map(|cell| printable(cell)).collect());
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.header.is_some()
    }

    /// Writes what waits, under the header the first time.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        write(&self.render())
    }

    fn render(&mut self) -> String {
        let mut rows = std::mem::take(&mut self.rows);
        if let Some(header) = self.header.take() {
            rows.insert(0, header);
        }
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(console::measure_text_width(cell));
            }
        }
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (width, cell) in self.widths.iter().zip(&row) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', 2 + width - console::measure_text_width(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(&["NAME", "N"]);
        table.add(vec!["é".into(), "1".into()]);
        table.add(vec!["longer".into(), "22".into()]);
        assert_eq!(table.render(), "NAME    N\né       1\nlonger  22\n");
        table.add(vec!["x".into(), "3".into()]);
        assert_eq!(table.render(), "x       3\n", "the header comes once");
    }
}
