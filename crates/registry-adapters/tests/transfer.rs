//! The rows of a SQLite database, carried over to Postgres: again and again, until both are the same.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use registry_adapters::sql::{SqlMetadata, SqliteOptions, TransferError, TransferMark, TransferRefusal};
use registry_core::digest::Digest;
use registry_core::ports::metadata::uploads::{
    CheckpointStep, CommitOutcome, CreateUpload, NewUpload, SealOutcome, SealUpload,
};
use registry_core::ports::metadata::{GarbageStore, JobStore, Metadata, PackageStore, UploadStore};
use registry_core::ports::steps::{NoSteps, Steps};
use registry_core::precondition::Precondition;
use registry_core::registry::Repository;
use registry_core::testing::metadata_suite::{CandidatesOf, Subject, World, at};
use registry_core::upload::{Checkpoint, UploadId, UploadTarget};
use registry_test_postgres::Database;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use support::{migrate, open};

/// A source in a folder, and a target that is empty but for the mark of a run.
struct Pair {
    source: Arc<SqlMetadata>,
    target: Arc<SqlMetadata>,
    folder: TempDir,
    database: Database,
    copies: AtomicU8,
}

struct Only(Arc<SqlMetadata>);

impl Subject for Only {
    fn store(&self) -> Arc<dyn Metadata> {
        self.0.clone()
    }
}

/// Counts the batches.
#[derive(Default)]
struct Batches(AtomicUsize);

impl Steps for Batches {
    fn reached(&self, _: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn mark(installation: &str, run: &str) -> TransferMark {
    TransferMark { installation: installation.into(), run: run.into() }
}

/// What was written and removed, of each table where something was.
type Changes = BTreeMap<&'static str, (u64, u64)>;

impl Pair {
    async fn new() -> Option<(Self, World)> {
        let database = registry_test_postgres::server("carrying rows over to Postgres")?.copy(migrate);
        let folder = tempfile::tempdir().unwrap();
        let source = SqlMetadata::open_sqlite(&folder.path().join("source"), SqliteOptions::default()).await.unwrap();
        let source = Arc::new(source);
        let target = open(&database.url()).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        target.begin_transfer(&mark("this", "1")).await.unwrap().unwrap();
        let world = World::new(&Only(Arc::clone(&source))).await;
        Some((Self { source, target: Arc::new(target), folder, database, copies: AtomicU8::new(0) }, world))
    }

    /// Stores every blob of the source in the target, as if its bytes were copied.
    async fn copy_blobs(&self) {
        for blob in self.source.blob_page(None, 1000).await.unwrap() {
            let id = UploadId::from_random([self.copies.fetch_add(1, Ordering::Relaxed); 16]);
            let start = Checkpoint::start(false);
            let new = NewUpload { id, target: UploadTarget::Unreferenced, start: start.clone(), writing: true };
            let created = self.target.create_upload(new, at(0)).await.unwrap();
            let CreateUpload::Created(session) = created else { panic!("{created:?}") };
            let to = Checkpoint { offset: blob.size, ..start };
            let step = CheckpointStep { id, epoch: session.epoch, from: 0, to, tell: false };
            let (digest, candidates) = (blob.digest.clone(), blob.digest.candidates());
            let seal = SealUpload { step, digest, candidates, lease_until: at(0) };
            if let SealOutcome::Publish(_) = self.target.seal_upload(seal, at(0)).await.unwrap() {
                let committed = self.target.commit_upload(id, &blob.digest, at(0), at(0)).await.unwrap();
                assert_eq!(committed, CommitOutcome::Committed);
            }
        }
    }

    /// Makes both the same.
    async fn transfer(&self) -> Changes {
        self.copy_blobs().await;
        let reports = self.target.transfer_rows(&self.source, &mark("this", "1"), &NoSteps).await.unwrap();
        assert_eq!(self.target.compare_rows(&self.source).await.unwrap(), BTreeMap::new());
        let changed = reports.into_iter().map(|(table, report)| (table, (report.written, report.removed)));
        changed.filter(|(_, changes)| *changes != (0, 0)).collect()
    }
}

async fn delete(world: &World, repository: &Repository, digest: &Digest) {
    assert!(world.store.delete_manifest(repository, digest, at(2_000), at(5)).await.unwrap());
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let Some((pair, world)) = Pair::new().await else { return };
    let app = world.repository("team/app");
    let blob = world.push(&app, "bytes").await;
    world.put(world.image(&app, "one", &[&blob])).await;
    world.tagged(&app, "two", &["2", "latest"]).await;
    world.publish("package", "1").await;
    let all = pair.transfer().await;
    for (table, rows) in
        [("registries", 2), ("repositories", 1), ("repository_blobs", 1), ("manifests", 2), ("tags", 2), ("files", 1)]
    {
        assert_eq!(all[table], (rows, 0), "{table}: {all:?}");
    }
    assert_eq!(pair.transfer().await, Changes::new());

    world.tagged(&app, "three", &["latest"]).await;
    world.store.delete_tag(&app, &"2".parse().unwrap(), &Precondition::NONE).await.unwrap();
    let expected = Changes::from([("manifests", (1, 0)), ("tags", (1, 1))]);
    assert_eq!(pair.transfer().await, expected);
    // A review changes a row where it is.
    world.review(at(5_000)).await;
    assert_eq!(pair.transfer().await, Changes::from([("repository_blobs", (1, 0))]));
}

/// SQLite gives the identity of the last row out again when that is gone.
#[tokio::test]
async fn a_row_that_has_got_anothers_identity_takes_its_place() {
    let Some((pair, world)) = Pair::new().await else { return };
    let app = world.repository("team/app");
    let kept = world.tagged(&app, "kept", &["a"]).await;
    let last = world.tagged(&app, "last", &["b"]).await;
    world.publish("package", "1").await;
    pair.transfer().await;

    // The same content again has a new identity, as another one has got its own; the tag is the same.
    delete(&world, &app, &last).await;
    let other = world.tagged(&app, "other", &["c"]).await;
    assert_eq!(world.tagged(&app, "last", &["b"]).await, last);
    // Another package, whose version has the identity and the name of the one that is gone.
    world
        .store
        .delete_artifact(world.generic, &"package".parse().unwrap(), &"1".parse().unwrap(), &Precondition::NONE, at(5))
        .await
        .unwrap();
    world.publish("quite-another", "1").await;
    pair.transfer().await;

    let target = World::over(Arc::clone(&pair.target) as Arc<dyn Metadata>, &world);
    for (tag, digest) in [("a", &kept), ("b", &last), ("c", &other)] {
        assert_eq!(target.resolve(&app, tag).await.as_ref(), Some(digest), "{tag}");
    }
    let found =
        pair.target.find_artifact(world.generic, &"quite-another".parse().unwrap(), &"1".parse().unwrap()).await;
    assert!(found.unwrap().is_some());
    // And new rows have identities that nobody has.
    target.tagged(&app, "new", &["d"]).await;
    target.publish("new", "1").await;
}

#[tokio::test]
async fn large_tables_are_carried_over_in_batches() {
    let Some((pair, world)) = Pair::new().await else { return };
    let app = world.repository("app");
    let tags: Vec<String> = (0..1_201).map(|number| format!("t{number}")).collect();
    world.tagged(&app, "one", &tags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let batches = Batches::default();
    let report = pair.target.transfer_rows(&pair.source, &mark("this", "1"), &batches).await.unwrap();
    assert_eq!((report["tags"].rows, report["tags"].written), (1_201, 1_201));
    // registries, repositories, first segments, manifests, and three of tags.
    assert_eq!(batches.0.load(Ordering::Relaxed), 7);
    assert_eq!(pair.target.compare_rows(&pair.source).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_damaged_manifest_is_not_carried_over() {
    let Some((pair, world)) = Pair::new().await else { return };
    let app = world.repository("app");
    let digest = world.tagged(&app, "one", &["1"]).await;
    world.tagged(&app, "two", &["2"]).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(pair.folder.path().join("source"));
    let mut connection = options.connect().await.unwrap();
    let damage = sqlx::query("UPDATE manifests SET content = CAST('{}' AS BLOB) WHERE digest = $1");
    damage.bind(digest.as_str()).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let refused = pair.target.transfer_rows(&pair.source, &mark("this", "1"), &NoSteps).await;
    assert!(matches!(&refused, Err(TransferError::Damaged(damaged)) if damaged[..] == [digest.clone()]), "{refused:?}");
    assert_eq!(pair.database.run("SELECT count(*) FROM manifests"), "1");
    assert_eq!(pair.source.damaged_manifests().await.unwrap(), [digest]);
    assert_eq!(pair.target.damaged_manifests().await.unwrap(), []);
}

#[tokio::test]
async fn a_run_ends_the_one_before_and_a_server_ends_all() {
    let Some((pair, _world)) = Pair::new().await else { return };
    let (first, second) = (mark("this", "1"), mark("this", "2"));
    assert_eq!(
        pair.target.begin_transfer(&mark("another", "3")).await.unwrap(),
        Err(TransferRefusal::OtherInstallation)
    );
    pair.target.begin_transfer(&second).await.unwrap().unwrap();
    let overtaken = pair.target.transfer_rows(&pair.source, &first, &NoSteps).await;
    assert!(matches!(overtaken, Err(TransferError::Overtaken)), "{overtaken:?}");
    assert_eq!(pair.database.run("SELECT count(*) FROM registries"), "0");
    assert!(matches!(pair.target.finish_transfer(&first).await, Err(TransferError::Overtaken)));
    assert!(!pair.target.admit_server().await.unwrap());

    pair.target.transfer_rows(&pair.source, &second, &NoSteps).await.unwrap();
    pair.target.finish_transfer(&second).await.unwrap();
    // What is finished can be begun again, until a server has it.
    pair.target.begin_transfer(&first).await.unwrap().unwrap();
    assert!(!pair.target.admit_server().await.unwrap());
    pair.target.finish_transfer(&first).await.unwrap();
    assert!(pair.target.admit_server().await.unwrap() && pair.target.admit_server().await.unwrap());
    assert_eq!(pair.target.begin_transfer(&first).await.unwrap(), Err(TransferRefusal::Occupied));
    let late = pair.target.transfer_rows(&pair.source, &first, &NoSteps).await;
    assert!(matches!(late, Err(TransferError::Overtaken)), "{late:?}");
    assert_eq!(pair.target.job_cursor("migrate-storage").await.unwrap(), None);
}

#[tokio::test]
async fn what_the_source_has_forgotten_is_garbage_in_the_target() {
    let Some((pair, world)) = Pair::new().await else { return };
    let digest = world.publish("package", "1").await;
    pair.transfer().await;
    assert_eq!(pair.target.garbage_candidates(10).await.unwrap(), []);
    pair.target.transfer_garbage(std::slice::from_ref(&digest), &mark("this", "1")).await.unwrap();
    assert_eq!(pair.target.garbage_candidates(10).await.unwrap(), [digest]);
    // That is no difference, and stays.
    assert_eq!(pair.transfer().await, Changes::new());
}

#[tokio::test]
async fn an_installation_is_known_by_its_first_registry() {
    let folder = tempfile::tempdir().unwrap();
    let mut known = Vec::new();
    for name in ["one", "other"] {
        let path = folder.path().join(name);
        let store = Arc::new(SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.unwrap());
        assert_eq!(store.installation().await.unwrap(), None);
        let seconds = known.len().try_into().unwrap();
        let registry = registry_core::ports::metadata::registries::NewRegistry {
            name: "oci".parse().unwrap(),
            format: registry_core::registry::Format::Oci,
            mode: registry_core::registry::Mode::Local,
            settings: Default::default(),
        };
        registry_core::ports::metadata::RegistryStore::create_registry(&*store, registry, at(seconds)).await.unwrap();
        let copy = folder.path().join(format!("{name}.copy"));
        SqlMetadata::snapshot_sqlite(&path, &copy).await.unwrap();
        let copy = SqlMetadata::open_sqlite(&copy, SqliteOptions::default()).await.unwrap();
        assert_eq!(copy.installation().await.unwrap(), store.installation().await.unwrap());
        known.push(store.installation().await.unwrap().unwrap());
    }
    assert_ne!(known[0], known[1]);
}
