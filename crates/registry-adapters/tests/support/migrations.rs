//! Databases as earlier releases left them: the first files of `migrations/`, and a row in each table.

use std::fs;
use std::path::Path;

use registry_core::digest::Digest;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

/// Every migration that was released, and what its file holds. It has run in databases that nobody can reach any more, so
/// no byte of it changes: a new line here is the only change that there may be.
const RELEASED: [(&str, &str); 3] = [
    ("postgres/0001_initial.sql", "sha256:b7f1aae74e688251a1c77135089ac0c3c68c1f1e88ef2f7b6818433e166ece17"),
    ("postgres/0002_server_life.sql", "sha256:6f47b0c9bf5219819499def289a649735be1478cdf757f8287c7ca3d01ab8a21"),
    ("sqlite/0001_initial.sql", "sha256:4ce28a9a3d82445c77c4a701e47ad97636f4f067f42ddb445ba5e9a991ba205f"),
];

/// A row in every table, by the number of the migration that made the table. `{x}` is a value of bytes.
const ROWS: [(i64, &str); 18] = [
    (1, "INSERT INTO registries (name, format, mode, settings, created_at) VALUES ('oci', 'oci', 'local', '{}', 1)"),
    (1, "INSERT INTO first_segments (name, registry_id) VALUES ('oci', 1)"),
    (1, "INSERT INTO repositories (registry_id, name, listed, created_at) VALUES (1, 'team/app', 1, 2)"),
    (1, "INSERT INTO objects (key, state, since) VALUES ('a/b', 1, 3)"),
    (1, "INSERT INTO blobs (digest, size, object_key, created_at) VALUES ('sha256:b', 4, 'a/b', 5)"),
    (1, "INSERT INTO repository_blobs (repository_id, digest, leased_until) VALUES (1, 'sha256:b', NULL)"),
    (
        1,
        "INSERT INTO manifests
             (repository_id, digest, media_type, artifact_type, subject, size, pushed_at, annotations, content)
         VALUES (1, 'sha256:m', 'application/m', 'application/a', 'sha256:s', 6, 7, '{}', {x})",
    ),
    (1, "INSERT INTO manifest_references (repository_id, digest, manifest_id) VALUES (1, 'sha256:b', 1)"),
    (1, "INSERT INTO tags (repository_id, name, digest, updated_at) VALUES (1, 'latest', 'sha256:m', 8)"),
    (
        1,
        "INSERT INTO uploads
             (id, registry_id, repository_id, name, state, epoch, durable_offset, durable_hashes, durable_staging,
              told_offset, told_hashes, told_staging, touched_at)
         VALUES ({x}, 1, 1, 'team/app', 0, 9, 10, {x}, 'durable', 11, {x}, 'told', 12)",
    ),
    (
        1,
        "INSERT INTO packages (registry_id, name, version_count, latest_version, latest_sort_key, updated_at)
         VALUES (1, 'model', 1, '1.0', {x}, 13)",
    ),
    (1, "INSERT INTO package_grams (registry_id, gram, name) VALUES (1, 'mod', 'model')"),
    (1, "INSERT INTO versions (package_id, version, sort_key) VALUES (1, '1.0', {x})"),
    (
        1,
        "INSERT INTO files (version_id, filename, content_type, digest, size, uploaded_at)
         VALUES (1, 'model.bin', 'application/octet-stream', 'sha256:b', 4, 14)",
    ),
    (1, "INSERT INTO garbage_candidates (digest) VALUES ('sha256:c')"),
    (1, "INSERT INTO tokens (id, name, hash, scopes, created_at, expires_at) VALUES ('t', 'ci', {x}, '[]', 15, 16)"),
    (1, "INSERT INTO signing_keys (id, secret, created_at) VALUES ('k', {x}, 17)"),
    (1, "INSERT INTO job_cursors (job, cursor) VALUES ('works', 'still')"),
];

/// A database that is looked into from outside.
pub trait Rows {
    /// Bytes, as a value in a statement.
    const BYTES: &'static str;

    /// Runs a statement.
    async fn execute(&mut self, statement: String);

    /// The names of its tables, but those of its own and of migrations.
    async fn tables(&mut self) -> Vec<String>;

    /// The columns of a table, by which its rows can be asked for as text.
    async fn columns(&mut self, table: &str) -> Vec<String>;

    /// Every row of a table as text, of these columns.
    async fn rows(&mut self, table: &str, columns: &[String]) -> Vec<String>;

    /// Runs migrations.
    async fn migrate(&mut self, migrator: &Migrator);
}

/// The rows of every table.
type Contents = Vec<(String, Vec<String>, Vec<String>)>;

/// The files of `migrations/<database>`, which hold what they held when they were released.
pub fn released(database: &str) -> Vec<Migration> {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files: Vec<_> = fs::read_dir(migrations.join(database))
        .unwrap()
        .map(|entry| format!("{database}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .map(|name| (name.clone(), fs::read_to_string(migrations.join(name)).unwrap()))
        .collect();
    let mut found: Vec<_> =
        files.iter().map(|(name, text)| (name.as_str(), Digest::sha256(text.as_bytes()).to_string())).collect();
    found.sort();
    let released = RELEASED.iter().filter(|(name, _)| name.starts_with(database));
    assert_eq!(found, released.map(|(name, digest)| (*name, (*digest).to_owned())).collect::<Vec<_>>());
    let mut migrations: Vec<_> = files
        .into_iter()
        .map(|(name, text)| {
            let name = name.rsplit('/').next().unwrap().strip_suffix(".sql").unwrap();
            let (number, name) = name.split_once('_').unwrap();
            let statements = AssertSqlSafe(text).into_sql_str();
            Migration::new(number.parse().unwrap(), name.to_owned().into(), MigrationType::Simple, statements, false)
        })
        .collect();
    migrations.sort();
    migrations
}

/// Makes the schema of the first of these migrations, as the release of that time did, and a row in each of its tables; all
/// that is in it.
pub async fn fill<R: Rows>(database: &mut R, migrations: &[Migration]) -> Contents {
    database.migrate(&Migrator::with_migrations(migrations.to_vec())).await;
    let newest = migrations.last().expect("there is a first").version;
    for (_, statement) in ROWS.iter().filter(|(since, _)| *since <= newest) {
        database.execute(statement.replace("{x}", R::BYTES)).await;
    }
    let mut contents = Vec::new();
    for table in database.tables().await {
        let columns = database.columns(&table).await;
        let rows = database.rows(&table, &columns).await;
        contents.push((table, columns, rows));
    }
    assert!(contents.len() >= 17, "{contents:?}");
    contents
}

/// Each row is still there as it was, in the columns that there were.
pub async fn assert_kept<R: Rows>(database: &mut R, contents: &Contents) {
    for (table, columns, rows) in contents {
        assert_eq!(&database.rows(table, columns).await, rows, "{table}");
    }
}
