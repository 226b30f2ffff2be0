//! What is carried over: the tables in the order in which a row comes after those that it refers to.
//!
//! Not here: `objects` and `blobs`, which come into being as the bytes are copied, under keys of the target's own;
//! `uploads`, whose staged bytes stay behind; `job_cursors`, which are places in the other store.

use std::fmt::Write as _;
use std::sync::LazyLock;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Text,
    Bytes,
}

/// A table, and the statements about it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its columns: the primary key, then what never changes in a row, then the rest.
    pub(super) columns: Vec<(&'static str, Kind)>,
    /// How many columns the primary key has.
    pub(super) keys: usize,
    /// How many columns tell a row from another one that has got its key since.
    pub(super) fixed: usize,
    /// A column that is read only of rows that are carried over; `digest` says what it must be.
    pub(super) content: Option<&'static str>,
    /// Whether what the source does not have is removed from the target.
    pub(super) prune: bool,
    /// The next rows after a key: its arguments are the key and a limit.
    pub(super) page: &'static str,
    /// Writes rows, given as a JSON array of objects, or brings them up to date.
    pub(super) write: &'static str,
    /// Removes rows, given alike, after those that refer to them.
    pub(super) remove: Vec<&'static str>,
    /// Lets the identities of new rows begin after those that are there.
    pub(super) renumber: Option<&'static str>,
}

/// The statement that reads the content of a manifest.
pub(super) const CONTENT: &str = "SELECT content FROM manifests WHERE id = $1";

/// Rows of a JSON array.
macro_rules! rows {
    ($columns:literal) => {
        concat!("json_to_recordset(CAST($1 AS json)) AS r (", $columns, ")")
    };
}

/// What refers to a manifest's or a package's row but would not go with it.
const TAGS_OF_MANIFESTS: &str = concat!(
    "DELETE FROM tags t USING ",
    rows!("repository_id bigint, digest text COLLATE \"C\""),
    " WHERE t.repository_id = r.repository_id AND t.digest = r.digest"
);
const VERSIONS_OF_PACKAGES: &str =
    concat!("DELETE FROM versions v USING ", rows!("id bigint"), " WHERE v.package_id = r.id");

pub(super) static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    use Kind::{Bytes, Integer, Text};
    let mut tables = vec![
        // name, the key, what never changes, the rest
        table(
            "registries",
            &[("id", Integer)],
            &[("name", Text), ("format", Text), ("mode", Text)],
            &[("settings", Text), ("created_at", Integer)],
        ),
        table("first_segments", &[("name", Text)], &[], &[("registry_id", Integer)]),
        table(
            "repositories",
            &[("id", Integer)],
            &[("registry_id", Integer), ("name", Text)],
            &[("listed", Integer), ("created_at", Integer)],
        ),
        table("repository_blobs", &[("repository_id", Integer), ("digest", Text)], &[], &[("leased_until", Integer)]),
        table(
            "manifests",
            &[("id", Integer)],
            &[("repository_id", Integer), ("digest", Text)],
            &[
                ("media_type", Text),
                ("artifact_type", Text),
                ("subject", Text),
                ("size", Integer),
                ("pushed_at", Integer),
                ("annotations", Text),
            ],
        ),
        table(
            "manifest_references",
            &[("repository_id", Integer), ("digest", Text), ("manifest_id", Integer)],
            &[],
            &[],
        ),
        table("tags", &[("repository_id", Integer), ("name", Text)], &[], &[("digest", Text), ("updated_at", Integer)]),
        table(
            "packages",
            &[("id", Integer)],
            &[("registry_id", Integer), ("name", Text)],
            &[
                ("version_count", Integer),
                ("latest_version", Text),
                ("latest_sort_key", Bytes),
                ("updated_at", Integer),
            ],
        ),
        table("package_grams", &[("registry_id", Integer), ("gram", Text), ("name", Text)], &[], &[]),
        table("versions", &[("id", Integer)], &[("package_id", Integer), ("version", Text), ("sort_key", Bytes)], &[]),
        table(
            "files",
            &[("id", Integer)],
            &[("version_id", Integer), ("filename", Text)],
            &[("content_type", Text), ("digest", Text), ("size", Integer), ("uploaded_at", Integer)],
        ),
        // The target has more of its own: what it holds and the source does not any more.
        Table { prune: false, ..table("garbage_candidates", &[("digest", Text)], &[], &[]) },
        table(
            "tokens",
            &[("id", Text)],
            &[],
            &[("name", Text), ("hash", Bytes), ("scopes", Text), ("created_at", Integer), ("expires_at", Integer)],
        ),
        table("signing_keys", &[("id", Text)], &[], &[("secret", Bytes), ("created_at", Integer)]),
    ];
    for table in &mut tables {
        match table.name {
            "manifests" => table.remove.insert(0, TAGS_OF_MANIFESTS),
            "packages" => table.remove.insert(0, VERSIONS_OF_PACKAGES),
            _ => {}
        }
    }
    tables
});

type Columns = [(&'static str, Kind)];

fn table(name: &'static str, key: &Columns, fixed: &Columns, rest: &Columns) -> Table {
    let columns = [key, fixed, rest].concat();
    let content = (name == "manifests").then_some("content");
    let names = |columns: &Columns| columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let arguments: Vec<String> = (1..=key.len()).map(|number| format!("${number}")).collect();

    let page = format!(
        "SELECT {} FROM {name} WHERE ({keys}) > ({}) ORDER BY {keys} LIMIT ${}",
        names(&columns),
        arguments.join(", "),
        key.len() + 1,
        keys = names(key),
    );
    let mut written = columns.clone();
    written.extend(content.map(|name| (name, Kind::Bytes)));
    let values: Vec<String> = written
        .iter()
        .map(|(name, kind)| if *kind == Kind::Bytes { format!("decode(r.{name}, 'hex')") } else { format!("r.{name}") })
        .collect();
    let mut write = format!(
        "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ON CONFLICT ({}) DO ",
        names(&written),
        values.join(", "),
        rows(&written),
        names(key),
    );
    let changed: Vec<String> =
        written[key.len()..].iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    let _ =
        if changed.is_empty() { write!(write, "NOTHING") } else { write!(write, "UPDATE SET {}", changed.join(", ")) };
    let same: Vec<String> = key.iter().map(|(column, _)| format!("t.{column} = r.{column}")).collect();
    let remove = format!("DELETE FROM {name} t USING {} WHERE {}", rows(key), same.join(" AND "));
    let renumber = (key[0].0 == "id" && key[0].1 == Kind::Integer).then(|| {
        let last = format!("(SELECT MAX(id) FROM {name})");
        format!("SELECT setval(pg_get_serial_sequence('{name}', 'id'), COALESCE({last}, 1), {last} IS NOT NULL)")
    });
    // There are as many texts as there are tables, once in a process.
    Table {
        name,
        keys: key.len(),
        fixed: key.len() + fixed.len(),
        columns,
        content,
        prune: true,
        page: page.leak(),
        write: write.leak(),
        remove: vec![remove.leak()],
        renumber: renumber.map(|text| &*text.leak()),
    }
}

/// The rows of a JSON array, with these columns; bytes are in hexadecimal.
fn rows(columns: &Columns) -> String {
    let declared: Vec<String> = columns
        .iter()
        .map(|(name, kind)| format!("{name} {}", if *kind == Kind::Integer { "bigint" } else { "text COLLATE \"C\"" }))
        .collect();
    format!("json_to_recordset(CAST($1 AS json)) AS r ({})", declared.join(", "))
}
