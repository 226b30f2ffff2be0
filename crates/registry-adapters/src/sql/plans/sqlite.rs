//! No statement walks over a table or sorts what it finds: each that the adapter ever makes is explained by SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry_core::ports::metadata::Metadata;
use registry_core::testing::metadata_suite::Subject;

use super::made;
use crate::sql::SqlMetadata;
use crate::sql::database::Decision;
use crate::sql::sqlite::SqliteOptions;
use crate::sql::statement::sql;

/// The steps that visit more than one key's rows, and why each may: how the statement begins, and the step.
const PERMITTED: [(&str, &str, &str); 22] = [
    ("SELECT id, name, format", "SCAN registries USING INDEX", "administrators make them by hand: they are few"),
    ("SELECT oldest_compatible_server", "SCAN schema_info", "one row"),
    ("SELECT id, secret", "SCAN signing_keys", "the keys of one token's life: two or three"),
    ("SELECT id, secret", "USE TEMP B-TREE FOR ORDER BY", "two or three"),
    ("SELECT 1 AS found FROM signing_keys", "SCAN signing_keys", "two or three"),
    ("DELETE FROM signing_keys", "SCAN signing_keys", "two or three"),
    ("DELETE FROM signing_keys", "USE TEMP B-TREE FOR ORDER BY", "two or three"),
    ("SELECT digest FROM garbage_candidates", "SCAN garbage_candidates", "the first of them in the order of the key"),
    ("SELECT COUNT(*) AS blobs", "SCAN garbage_candidates", "the candidates are the garbage"),
    ("SELECT COUNT(*) AS blobs", "SCAN c", "the garbage"),
    ("SELECT id, touched_at", "SCAN uploads USING COVERING INDEX uploads_ended", "a page of the ended ones"),
    ("SELECT id, touched_at", "USE TEMP B-TREE FOR ORDER BY", "two pages are merged"),
    ("SELECT g.value AS gram", "USE TEMP B-TREE FOR ORDER BY", "as many rows as the text has pieces"),
    ("SELECT r.name AS repository", "SEARCH t USING PRIMARY KEY (repository_id=?)", "in the order of the page"),
    ("SELECT m.digest, m.media_type, m.size", "SCAN", "a page of lengths"),
    ("SELECT m.digest, m.media_type, m.size", "USE TEMP B-TREE FOR ORDER BY", "what is on the page"),
    ("SELECT version, sort_key", "sqlite_autoindex_versions_2 (package_id=?)", "the last of them"),
    ("UPDATE repositories SET listed = 0", "sqlite_autoindex_manifests_1 (repository_id=?)", "the first of them"),
    // For foreign keys; passed over at run time, as no row can refer to a row that is new.
    ("INSERT INTO registries", "(registry_id=?)", "the row is new"),
    ("INSERT INTO repositories", "(repository_id=?)", "the row is new"),
    ("INSERT INTO packages", "sqlite_autoindex_versions_2 (package_id=?)", "the row is new"),
    ("DELETE FROM packages", "sqlite_autoindex_versions_2 (package_id=?)", "none is left"),
];

/// Steps over what an argument lists, or over rows that steps before have bounded.
const BOUNDED: [&str; 7] = [
    "SCAN n VIRTUAL TABLE",
    "SCAN g VIRTUAL TABLE",
    "SCAN CONSTANT ROW",
    // The two halves of idle_uploads, each a page of an index; the counting of a piece's names, up to a bound.
    "SCAN counted",
    "SCAN idle",
    "SCAN ended",
    // The two sources of preview_garbage.
    "UNION USING TEMP B-TREE",
];

/// Whether a step visits all rows of something, or all that belong to one registry, repository or package.
fn visits_many(step: &str) -> bool {
    const ALL: [&str; 4] = ["SCAN", "TEMP B-TREE", "AUTOMATIC", "MATERIALIZE"];
    const ALL_OF_ONE: [&str; 3] = ["(registry_id=?)", "(repository_id=?)", "(package_id=?)"];
    ALL.iter().chain(&ALL_OF_ONE).any(|word| step.contains(word))
}

/// What the statements on the path of a request must use.
const REQUIRED: [(&str, &str); 16] = [
    ("SELECT m.digest, m.media_type, m.content FROM tags", "t USING PRIMARY KEY (repository_id=? AND name=?)"),
    (
        "SELECT m.digest, m.media_type, m.content FROM tags",
        "m USING INDEX sqlite_autoindex_manifests_1 (repository_id=? AND digest=?)",
    ),
    (
        "SELECT m.digest, m.media_type, m.content FROM repositories r CROSS JOIN manifests",
        "m USING INDEX sqlite_autoindex_manifests_1 (repository_id=? AND digest=?)",
    ),
    ("SELECT b.digest, b.size, b.object_key", "m USING PRIMARY KEY (repository_id=? AND digest=?)"),
    ("SELECT name FROM repositories", "COVERING INDEX repositories_listed (registry_id=? AND name>? AND name<?)"),
    ("SELECT name FROM tags", "tags USING PRIMARY KEY (repository_id=? AND name>?)"),
    ("SELECT r.name AS repository", "r USING COVERING INDEX repositories_listed (registry_id=? AND name>? AND name<?)"),
    (
        "SELECT m.digest, m.media_type, m.size, m.artifact_type",
        "manifests_referrers (repository_id=? AND subject=? AND digest>?)",
    ),
    (
        "SELECT m.digest, m.media_type, m.size, m.artifact_type",
        "manifests_referrers_of_type (repository_id=? AND subject=? AND artifact_type=? AND digest>?)",
    ),
    ("SELECT name, version_count", "(registry_id=? AND name>? AND name<?)"),
    ("SELECT p.name, p.version_count", "g USING PRIMARY KEY (registry_id=? AND gram=? AND name>? AND name<?)"),
    ("SELECT v.version, f.digest", "v USING INDEX sqlite_autoindex_versions_2 (package_id=? AND sort_key>?)"),
    (
        "DELETE FROM tags WHERE repository_id = $1 AND digest = $2",
        "tags USING INDEX tags_of_manifest (repository_id=? AND digest=?)",
    ),
    ("DELETE FROM manifests", "tags USING INDEX tags_of_manifest (repository_id=? AND digest=?)"),
    ("SELECT repository_id, digest FROM repository_blobs", "COVERING INDEX repository_blobs_due (leased_until<?)"),
    ("SELECT key FROM objects", "COVERING INDEX objects_doomed (key>?)"),
];

struct Watched(Arc<SqlMetadata>, #[expect(dead_code, reason = "holds the folder")] tempfile::TempDir);

static OPENED: AtomicUsize = AtomicUsize::new(0);

impl Watched {
    async fn new() -> Self {
        OPENED.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteOptions { readers: 1, ..SqliteOptions::default() };
        let store = SqlMetadata::open_sqlite(&folder.path().join("plans.sqlite"), options).await.expect("it opens");
        Self(Arc::new(store), folder)
    }
}

impl Subject for Watched {
    fn store(&self) -> Arc<dyn Metadata> {
        self.0.clone()
    }
}

registry_core::metadata_suite!(fn every_case = Watched::new().await);

#[tokio::test]
async fn every_statement_walks_an_index_and_no_further_than_it_must() {
    every_case().await;
    assert!(OPENED.load(Ordering::Relaxed) > 90, "the suite has run");
    let watched = Watched::new().await;
    let mut explained = BTreeMap::new();
    for text in made().into_keys().map(|text| text.sqlite).filter(|text| !text.is_empty()) {
        let verb = text.split_whitespace().next().expect("a statement has words");
        if ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&verb) {
            let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            explained.insert(on_one_line, watched.0.explain(text).await);
        }
    }
    assert!(explained.len() > 70, "only {} statements were made", explained.len());

    let mut wrong = Vec::new();
    let (mut permitted, mut bounded) = (BTreeSet::<&(&str, &str, &str)>::new(), BTreeSet::<&&str>::new());
    for (text, plan) in &explained {
        for step in plan.iter().filter(|step| visits_many(step)) {
            let permission =
                PERMITTED.iter().find(|(statement, may, _)| text.starts_with(statement) && step.contains(may));
            let bound = BOUNDED.iter().find(|bound| step.contains(*bound));
            if permission.is_none() && bound.is_none() {
                wrong.push(format!("{step}\n    in {text}"));
            }
            permitted.extend(permission);
            bounded.extend(bound);
        }
    }
    for (statement, step) in REQUIRED {
        let uses = |(text, plan): (&String, &Vec<String>)| {
            text.starts_with(statement) && plan.iter().any(|used| used.contains(step))
        };
        if !explained.iter().any(uses) {
            let plans: Vec<_> = explained.iter().filter(|(text, _)| text.starts_with(statement)).collect();
            wrong.push(format!("not {step}\n    in {statement}: {plans:#?}"));
        }
    }
    // What is no longer needed would hide what comes later.
    wrong.extend(PERMITTED.iter().filter(|entry| !permitted.contains(entry)).map(|entry| format!("unused: {entry:?}")));
    wrong.extend(BOUNDED.iter().filter(|entry| !bounded.contains(entry)).map(|entry| format!("unused: {entry}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl SqlMetadata {
    /// The steps of a statement's plan, as the connection that has made the schema sees it.
    async fn explain(&self, text: &str) -> Vec<String> {
        let text: &'static str = format!("EXPLAIN QUERY PLAN {text}").leak();
        let steps = self.database.write(text, (), move |connection, ()| {
            Box::pin(async move {
                let rows = connection.fetch_all(sql(text)).await?;
                let steps = rows.iter().map(|row| row.get::<String>("detail")).collect::<Result<_, _>>()?;
                Ok(Decision::Rollback(steps))
            })
        });
        steps.await.unwrap_or_else(|error| panic!("{}", error.chain()))
    }
}
