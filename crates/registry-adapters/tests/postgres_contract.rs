//! Postgres keeps the contract of the metadata store, and what only it can promise.

#[path = "support/migrations.rs"]
mod migrations;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use registry_adapters::sql::{PostgresOptions, PostgresParts, PostgresServer, SqlMetadata, TlsMode};
use registry_core::error::StoreErrorKind;
use registry_core::names::Reference;
use registry_core::ports::metadata::{JobStore, ManifestStore, Metadata, NameRange, PackageStore, RegistryStore};
use registry_core::registry::{RegistryId, Repository};
use registry_core::testing::memory::MemoryMetadata;
use registry_core::testing::metadata_suite::Subject;
use registry_test_postgres::{Database, Postgres};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use migrations::{Rows, assert_kept, fill, released};
use support::{migrate, open};

/// A database of its own, opened twice, as two replicas have it. Where there is no server, the model stands for it, so
/// that the cases are still compiled and run; what is skipped was said.
struct Replicas {
    instances: Vec<Arc<dyn Metadata>>,
    given: AtomicUsize,
    _database: Option<Database>,
}

async fn instance(database: &Database) -> Arc<SqlMetadata> {
    Arc::new(open(&database.url()).await.unwrap_or_else(|error| panic!("{}", error.chain())))
}

fn server() -> Option<&'static Postgres> {
    registry_test_postgres::server("the metadata store on Postgres")
}

impl Replicas {
    async fn new() -> Self {
        let Some(server) = server() else {
            return Self { instances: vec![Arc::new(MemoryMetadata::default())], given: 0.into(), _database: None };
        };
        let database = server.copy(migrate);
        let instances: Vec<Arc<dyn Metadata>> = vec![instance(&database).await, instance(&database).await];
        Self { instances, given: AtomicUsize::new(0), _database: Some(database) }
    }
}

impl Subject for Replicas {
    fn store(&self) -> Arc<dyn Metadata> {
        self.instances[self.given.fetch_add(1, Ordering::Relaxed) % self.instances.len()].clone()
    }
}

registry_core::metadata_suite!(Replicas::new().await);

#[tokio::test]
async fn replicas_that_start_at_once_make_the_schema_once() {
    let Some(database) = server().map(Postgres::database) else { return };
    let url = database.url();
    let stores = join_all((0..8).map(|_| open(&url))).await;
    for (number, store) in stores.iter().enumerate() {
        let store = store.as_ref().unwrap_or_else(|error| panic!("{number}: {}", error.chain()));
        store.set_job_cursor(&number.to_string(), Some("there")).await.unwrap();
        assert_eq!(store.job_cursor("0").await.unwrap().as_deref(), Some("there"));
    }
    assert_eq!(database.run("SELECT count(*), bool_and(success) FROM _sqlx_migrations"), "2|t");
    // The lock is let go of.
    assert_eq!(database.run("SELECT pg_try_advisory_lock(x'666f756e647279'::bigint)"), "t");
}

impl Rows for PgConnection {
    const BYTES: &'static str = "'\\x0102'::bytea";

    async fn execute(&mut self, statement: String) {
        let executed = sqlx::query(AssertSqlSafe(statement.clone())).execute(self).await;
        executed.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    async fn tables(&mut self) -> Vec<String> {
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()
                      AND tablename <> '_sqlx_migrations' ORDER BY tablename";
        sqlx::query_scalar(tables).fetch_all(self).await.unwrap()
    }

    async fn columns(&mut self, table: &str) -> Vec<String> {
        let columns = "SELECT column_name::text FROM information_schema.columns
                       WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position";
        sqlx::query_scalar(columns).bind(table).fetch_all(self).await.unwrap()
    }

    async fn rows(&mut self, table: &str, columns: &[String]) -> Vec<String> {
        let columns = columns.join(", ");
        let rows = AssertSqlSafe(format!("SELECT ROW({columns})::text FROM {table} ORDER BY 1"));
        sqlx::query_scalar(rows).fetch_all(self).await.unwrap()
    }

    async fn migrate(&mut self, migrator: &Migrator) {
        migrator.run(self).await.unwrap();
    }
}

/// From each schema that was released to the newest.
#[tokio::test]
async fn an_earlier_schema_is_brought_up_to_date_and_keeps_its_rows() {
    let Some(server) = server() else { return };
    let migrations = released("postgres");
    for earlier in 1..=migrations.len() {
        let database = server.database();
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let contents = fill(&mut connection, &migrations[..earlier]).await;
        for (table, _, rows) in &contents {
            // It has a row once a transaction that was cut off is asked for.
            assert_eq!(rows.is_empty(), table == "server_life", "{table}");
        }
        let store = open(&database.url()).await.unwrap();
        assert_kept(&mut connection, &contents).await;
        assert_eq!(store.job_cursor("works").await.unwrap().as_deref(), Some("still"));
        store.set_job_cursor("works", Some("again")).await.unwrap();
        let newest = format!("{}|t", migrations.len());
        assert_eq!(database.run("SELECT count(*), bool_and(success) FROM _sqlx_migrations"), newest);
        assert_eq!(database.run("SELECT relpersistence FROM pg_class WHERE relname = 'server_life'"), "u");
    }
}

#[tokio::test]
async fn a_newer_release_may_have_added_migrations() {
    let Some(database) = server().map(Postgres::database) else { return };
    migrate(&database.url());
    database.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the next release', TRUE, '', 0)",
    );
    let store = open(&database.url()).await.unwrap();
    store.set_job_cursor("works", Some("still")).await.unwrap();
    database.run("UPDATE schema_info SET oldest_compatible_server = 9999");
    let refused = open(&database.url()).await.unwrap_err();
    assert!(refused.chain().contains("needs a server of schema revision 9999 or newer"), "{}", refused.chain());
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let Some(server) = server() else { return };
    let refused = open(&server.url("no_such_database")).await.unwrap_err();
    assert!(refused.chain().contains("no_such_database"), "{}", refused.chain());
    let name = format!("foundry_test_{}_latin", std::process::id());
    server.run("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'"));
    let refused = open(&server.url(&name)).await.unwrap_err();
    server.run("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    assert!(refused.chain().contains("in the encoding UTF8, this one is in LATIN1"), "{}", refused.chain());

    // Nobody listens there.
    let nowhere = PostgresServer::from_url("postgres://me:hunter2@127.0.0.1:1/artifacts").unwrap();
    let options = PostgresOptions { acquire_timeout: Duration::from_millis(50), ..PostgresOptions::default() };
    let refused = SqlMetadata::open_postgres(nowhere, options).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unavailable);
    assert!(refused.chain().contains("refused") && !refused.chain().contains("hunter2"), "{}", refused.chain());
}

#[tokio::test]
async fn a_password_is_asked_for_and_sessions_are_as_configured() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let Some((port, password)) = database.server().tcp_parts() else { return };
    let server = |password: &str| {
        let (host, user, database, tls) = ("127.0.0.1", "postgres", database.name.as_str(), TlsMode::Prefer);
        PostgresServer::from_parts(&PostgresParts { host, port, user, password, database, tls })
    };
    let options = PostgresOptions { timezone: "Europe/Zurich".into(), connections: 3, ..PostgresOptions::default() };
    let refused = SqlMetadata::open_postgres(server("wrong"), options.clone()).await.unwrap_err();
    assert!(refused.chain().contains("password authentication failed"), "{}", refused.chain());
    let store = SqlMetadata::open_postgres(server(password), options.clone()).await.unwrap();
    // Many at once, on the three connections.
    let writes = (0..20).map(async |number: u32| store.set_job_cursor(&number.to_string(), Some("x")).await.unwrap());
    join_all(writes).await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'foundry'",
        database.name
    );
    assert_eq!(database.run(&sessions), "3");
    store.close().await;
    assert_eq!(store.set_job_cursor("late", None).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(store.job_cursor("late").await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(store.ping().await.unwrap_err().kind, StoreErrorKind::Unavailable);

    let unknown = PostgresOptions { timezone: "Mars/Olympus".into(), ..options };
    let refused = SqlMetadata::open_postgres(server(password), unknown).await.unwrap_err();
    assert!(refused.chain().contains("Mars/Olympus"), "{}", refused.chain());
}

/// A server that proves who it is, to those who ask.
#[tokio::test]
async fn connections_are_encrypted_as_configured() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let Some(folder) = database.server().folder() else { return };
    let plain = open(&database.server().tcp_url(&database.name, "require")).await.unwrap_err();
    assert!(plain.chain().contains("does not support TLS"), "{}", plain.chain());

    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    // The server writes its own files, as they must be its own.
    let write = |name: &str, text: &str| {
        let path = folder.join(name).display().to_string();
        let rows = text.trim_end().lines().map(|line| format!("('{line}')")).collect::<Vec<_>>().join(", ");
        database.run(&format!("COPY (VALUES {rows}) TO PROGRAM 'umask 077; cat >{path}'"));
        database.run(&format!("ALTER SYSTEM SET ssl_{}_file = '{path}'", name.split('.').next().unwrap()));
    };
    write("cert.pem", &certificate);
    write("key.pem", &key);
    database.run("ALTER SYSTEM SET ssl = on;\nSELECT pg_reload_conf()");
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), &certificate).unwrap();
    let trusting = format!("&sslrootcert={}", authority.path().display());
    let encrypted = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                             WHERE datname = '{}' AND ssl AND application_name = 'foundry'",
        database.name
    );
    for (mode, more, works) in [
        ("require", "", true),
        ("prefer", "", true),
        ("verify-full", trusting.as_str(), true),
        ("verify-ca", trusting.as_str(), true),
        ("verify-full", "", false),
        ("verify-ca", "", false),
    ] {
        let url = format!("{}{more}", database.server().tcp_url(&database.name, mode));
        // The reload takes effect soon after it was asked for.
        let mut outcome = open(&url).await;
        while mode == "require" && outcome.as_ref().is_err_and(|error| error.chain().contains("not support TLS")) {
            tokio::task::yield_now().await;
            outcome = open(&url).await;
        }
        match outcome {
            Ok(store) => {
                assert!(works, "{mode}{more}");
                assert_eq!(database.run(&encrypted), "1", "{mode}");
                store.close().await;
            }
            Err(error) => assert!(!works && error.chain().contains("certificate"), "{mode}: {}", error.chain()),
        }
    }
    database.run("ALTER SYSTEM RESET ssl;\nSELECT pg_reload_conf()");
}

/// Each time all of them, in the middle of what they do. What was acknowledged is there, and nothing fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_are_not_noticed() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let store = instance(&database).await;
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{}' AND application_name = 'foundry'",
        database.name
    );
    let stop = Arc::new(AtomicUsize::new(0));
    let done: [Arc<AtomicUsize>; 6] = Default::default();
    let workers = (0..6).zip(done.clone()).map(|(worker, done)| {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut round = 0_u64;
            while stop.load(Ordering::Relaxed) == 0 || round < 20 {
                round += 1;
                let (job, cursor) = (format!("worker {worker}"), round.to_string());
                let written = store.set_job_cursor(&job, Some(&cursor)).await;
                written.unwrap_or_else(|error| panic!("write {round}: {}", error.chain()));
                let read = store.job_cursor(&job).await;
                let read = read.unwrap_or_else(|error| panic!("read {round}: {}", error.chain()));
                assert_eq!(read.as_deref(), Some(cursor.as_str()));
                done.fetch_add(1, Ordering::Relaxed);
            }
            round
        })
    });
    let workers = join_all(workers);
    let cuts = async {
        let mut ended = 0;
        for _ in 0..6 {
            ended += tokio::task::block_in_place(|| database.run(&cut)).parse::<u32>().unwrap();
            // Until each has gone on; what is cut time and again must fail in the end.
            for done in &done {
                let before = done.load(Ordering::Relaxed);
                let gone_on = async {
                    while done.load(Ordering::Relaxed) < before + 2 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), gone_on).await.expect("each goes on");
            }
        }
        stop.store(1, Ordering::Relaxed);
        ended
    };
    let (rounds, ended) = join(workers, cuts).await;
    assert!(ended > 6, "only {ended} connections were cut");
    for rounds in rounds {
        assert!(rounds.unwrap() >= 20);
    }
}

#[tokio::test]
async fn the_clock_is_the_databases() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let store = instance(&database).await;
    let clock = store.clock();
    let shown = || database.run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").parse::<i64>();
    let (before, now, after) = (shown().unwrap(), clock.now().as_micros(), shown().unwrap());
    // The measurement is wrong by half of its shortest round trip at most; a thousand times more is allowed for.
    assert!((before - 100_000..=after + 100_000).contains(&now), "{before} {now} {after}");
}

#[tokio::test]
async fn a_backup_is_for_the_servers_own_tools() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let refused = instance(&database).await.backup_to(std::path::Path::new("/nowhere")).await.unwrap_err();
    assert!(refused.chain().contains("pg_dump"), "{}", refused.chain());
}

/// Postgres has no text with a NUL.
#[tokio::test]
async fn what_nobody_can_be_called_is_not_found() {
    let Some(database) = server().map(|server| server.copy(migrate)) else { return };
    let store = instance(&database).await;
    let all = NameRange::default();
    for search in ["\0", "a\0b", "abc\0def"] {
        assert_eq!(store.packages(RegistryId(1), &all, Some(search), 10).await.unwrap(), []);
    }
    let repository = Repository { registry: RegistryId(1), name: "team/app".parse().unwrap() };
    let subject = registry_core::digest::Digest::sha256(b"x");
    assert_eq!(store.referrers(&repository, &subject, Some("a\0"), Some("\0"), 10).await.unwrap().0, []);
    assert_eq!(store.tags(&repository, Some("\0"), 10).await.unwrap(), None);
    assert_eq!(store.find_manifest(&repository, &Reference::Digest(subject)).await.unwrap(), None);
}
