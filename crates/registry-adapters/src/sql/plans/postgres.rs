//! The same of Postgres, with the settings of its sessions: on empty tables, of which the planner knows nothing, and on
//! full ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_core::ports::metadata::Metadata;
use registry_core::testing::metadata_suite::Subject;
use registry_test_postgres::{self as postgres, Database};

use super::made;
use crate::sql::SqlMetadata;
use crate::sql::database::Decision;
use crate::sql::postgres::{PostgresOptions, PostgresServer};
use crate::sql::statement::on_postgres;

/// The tables that may be read whole, whatever index there is, and why.
const READ_WHOLE: [(&str, &str); 2] =
    [("schema_info", "one row"), ("signing_keys", "the keys of one token's life: two or three")];

/// What the statements on the path of a request, and of a collection, must use.
const REQUIRED: [(&str, &str); 7] = [
    ("SELECT m.digest, m.media_type, m.content FROM tags", "Index Cond: ((repository_id = $0) AND (name = $3))"),
    ("SELECT name FROM tags", "Index Cond: ((repository_id = $0) AND (name > $3))"),
    // Of what is in the order of the repositories already, only the tags of each are put in order.
    ("SELECT r.name AS repository", "Incremental Sort"),
    ("SELECT v.version, f.digest", "Index Cond: ((package_id = $0) AND (sort_key > $3))"),
    (
        "SELECT p.name, p.version_count",
        "Index Cond: ((registry_id = $1) AND (gram = $6) AND (name >= $2) AND (name <= $4))",
    ),
    (
        "SELECT repository_id, digest FROM repository_blobs",
        "repository_blobs_due on repository_blobs  Index Cond: (leased_until <= $1)",
    ),
    (
        "DELETE FROM repository_blobs WHERE (repository_id, digest) IN",
        "repository_blobs_of_blob on repository_blobs  Index Cond: ((digest = (split_part or \
         repository_blobs_pkey on repository_blobs  Index Cond: ((repository_id = (split_part",
    ),
];

/// Many of everything that a statement could walk over by mistake.
const FILL: &str = "
    INSERT INTO registries (name, format, mode, settings, created_at)
        SELECT 'r' || n, 'oci', 'local', '{}', 0 FROM generate_series(1, 20) n;
    INSERT INTO repositories (registry_id, name, listed, created_at)
        SELECT 1 + n % 2, 'team/app' || n, n % 3 % 2, 0 FROM generate_series(1, 3000) n;
    INSERT INTO first_segments (name) SELECT 'segment' || n FROM generate_series(1, 3000) n;
    INSERT INTO objects SELECT 'key' || n, n % 3, 0 FROM generate_series(1, 20000) n;
    INSERT INTO blobs SELECT 'sha256:' || n, n, 'key' || n, 0 FROM generate_series(1, 20000) n;
    INSERT INTO repository_blobs SELECT 1 + n % 300, 'sha256:' || n, nullif(n % 5, 0) FROM generate_series(1, 20000) n;
    INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, size, pushed_at, annotations, content)
        SELECT 1 + n % 100, 'sha256:' || n, '', 'a', nullif('sha256:' || n % 7, 'sha256:0'), 1, 0, '', ''
        FROM generate_series(1, 10000) n;
    INSERT INTO manifest_references SELECT repository_id, digest, id FROM manifests;
    INSERT INTO tags SELECT 1 + n % 100, 'tag' || m, 'sha256:' || n, 0
        FROM generate_series(1, 100) n, generate_series(1, 150) m;
    INSERT INTO uploads SELECT decode(md5(n::text), 'hex'), 1, 1, '', NULL, n % 4, 0, 0, '', '', 0, '', '', NULL, NULL, NULL, n
        FROM generate_series(1, 5000) n;
    INSERT INTO packages (registry_id, name, version_count, latest_version, latest_sort_key, updated_at)
        SELECT 1 + n % 2, 'package' || n, 1, '', '', 0 FROM generate_series(1, 3000) n;
    INSERT INTO package_grams SELECT registry_id, 'pac', name FROM packages;
    INSERT INTO versions (package_id, version, sort_key)
        SELECT 1 + n % 50, 'v' || n, decode(md5(n::text), 'hex') FROM generate_series(1, 10000) n;
    INSERT INTO files (version_id, filename, content_type, digest, size, uploaded_at)
        SELECT id, 'f', '', 'sha256:' || id, 1, 0 FROM versions;
    INSERT INTO garbage_candidates SELECT 'sha256:' || n FROM generate_series(1, 1000) n;
    INSERT INTO tokens SELECT n::text, '', '', '', 0, NULL FROM generate_series(1, 1000) n;
    INSERT INTO job_cursors SELECT n::text, '' FROM generate_series(1, 100) n;
    VACUUM ANALYZE;
";

struct Watched(Arc<SqlMetadata>, Database);

impl Watched {
    async fn new() -> Self {
        let server = postgres::server("the plans of Postgres").expect("it was asked for before");
        let database = server.copy(|url| {
            let url = url.to_owned();
            let migrated = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { open(&url).await.close().await });
            });
            migrated.join().unwrap();
        });
        Self(Arc::new(open(&database.url()).await), database)
    }
}

async fn open(url: &str) -> SqlMetadata {
    let server = PostgresServer::from_url(url).unwrap();
    SqlMetadata::open_postgres(server, PostgresOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

impl Subject for Watched {
    fn store(&self) -> Arc<dyn Metadata> {
        self.0.clone()
    }
}

registry_core::metadata_suite!(fn every_case = Watched::new().await);

#[test]
fn no_statement_reads_a_whole_table_and_hot_ones_use_their_index() {
    if postgres::server("the plans of Postgres").is_none() {
        return;
    }
    // Every case of the suite in one future is more than the stack of a test's thread holds.
    let looking = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            every_case().await;
            look_at_plans().await;
        });
    });
    if let Err(panic) = looking.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

async fn look_at_plans() {
    let watched = Watched::new().await;
    let mut wrong = Vec::new();
    for filled in [false, true] {
        if filled {
            watched.1.run(FILL);
        }
        let explained = watched.explain_all().await;
        assert!(explained.len() > 70, "only {} statements were made", explained.len());
        for (text, plan) in &explained {
            for step in plan.iter().filter(|step| reads_whole_table(step)) {
                wrong.push(format!("{step} (full: {filled})\n    in {text}"));
            }
        }
        for (statement, steps) in REQUIRED {
            // Of empty tables the planner knows nothing, and takes one index or another.
            if !filled {
                continue;
            }
            let uses = |(text, plan): (&String, &Vec<String>)| {
                text.starts_with(statement)
                    && plan.iter().any(|used| steps.split(" or ").any(|step| used.contains(step)))
            };
            if !explained.iter().any(uses) {
                let plans: Vec<_> = explained.iter().filter(|(text, _)| text.starts_with(statement)).collect();
                wrong.push(format!("not {steps} (full: {filled})\n    in {statement}: {plans:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever deletes a row that others may refer to has these looked for.
#[tokio::test]
async fn every_foreign_key_has_an_index() {
    if postgres::server("the plans of Postgres").is_none() {
        return;
    }
    let watched = Watched::new().await;
    let without = watched.1.run(
        "SELECT conrelid::regclass || ' ' || conkey::text FROM pg_constraint c
         WHERE contype = 'f' AND NOT EXISTS (
             SELECT 1 FROM pg_index i WHERE i.indrelid = c.conrelid
               AND (i.indkey::int2[])[0:array_length(c.conkey, 1) - 1] @> c.conkey)",
    );
    assert_eq!(without, "");
    assert_ne!(watched.1.run("SELECT count(*) FROM pg_constraint WHERE contype = 'f'"), "0");
}

/// Whether a step reads a table without an index, which these sessions do only where none fits.
fn reads_whole_table(step: &str) -> bool {
    step.contains("Seq Scan on") && !READ_WHOLE.iter().any(|(table, _)| step.contains(&format!("Seq Scan on {table}")))
}

impl Watched {
    /// The plan of each statement that went to Postgres, whatever its arguments are.
    async fn explain_all(&self) -> BTreeMap<String, Vec<String>> {
        let mut explained = BTreeMap::new();
        for (text, types) in made() {
            let (Some(types), text) = (types, text.postgres) else { continue };
            let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let verb = on_one_line.split(' ').next().expect("a statement has words");
            if ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&verb) {
                let steps = self.explain(text, &types).await;
                explained.insert(on_one_line, steps);
            }
        }
        explained
    }

    /// The steps of a statement's plan: each with its conditions.
    async fn explain(&self, text: &str, types: &[&str]) -> Vec<String> {
        let list = |items: Vec<&str>| if items.is_empty() { String::new() } else { format!("({})", items.join(", ")) };
        let prepare = format!("PREPARE explained {} AS {text}", list(types.to_vec()));
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE explained {}", list(vec!["NULL"; types.len()]));
        let statements: [&'static str; 4] =
            [prepare.leak(), "SET LOCAL plan_cache_mode = force_generic_plan", explain.leak(), "DEALLOCATE explained"];
        let explaining = self.0.database.write("explaining", statements, |connection, statements| {
            Box::pin(async move {
                let mut lines = Vec::new();
                for statement in statements {
                    for row in connection.fetch_all(on_postgres(statement)).await? {
                        lines.push(row.get::<String>("QUERY PLAN")?);
                    }
                }
                Ok(Decision::Rollback(lines))
            })
        });
        let lines: Vec<String> = explaining.await.unwrap_or_else(|error| panic!("{text}: {}", error.chain()));
        let mut steps: Vec<String> = Vec::new();
        for line in lines {
            let line = line.trim();
            match steps.last_mut() {
                // A condition of the step before, which is on a line of its own.
                Some(step) if line.contains(": ") && !line.starts_with("->") => step.push_str(&format!("  {line}")),
                _ => steps.push(line.trim_start_matches("-> ").trim().to_owned()),
            }
        }
        steps
    }
}
