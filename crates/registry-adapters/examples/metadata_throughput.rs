//! How fast the SQLite metadata store is on this machine's disk.
//!
//! `cargo run --release -p registry-adapters --example metadata_throughput [folder]` prints, for one task and for
//! sixteen, the time of each step of a small blob's upload, manifests put per second, and look-ups per second; then the
//! time of pages and deletions in a repository with 100,000 tags.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry_adapters::sql::{SqlMetadata, SqliteOptions};
use registry_core::digest::Digest;
use registry_core::manifest::ManifestFacts;
use registry_core::names::{Reference, RegistryName};
use registry_core::ports::blob_store::KeyCandidates;
use registry_core::ports::metadata::manifests::NewManifest;
use registry_core::ports::metadata::registries::{CreateRegistry, NewRegistry};
use registry_core::ports::metadata::uploads::{CheckpointStep, NewUpload, SealUpload, WriteStart};
use registry_core::ports::metadata::{ManifestStore, NameRange, RegistryStore, UploadStore};
use registry_core::registry::{Format, Mode, References, RegistrySettings, Repository};
use registry_core::time::Timestamp;
use registry_core::upload::{Checkpoint, Epoch, UploadId, UploadTarget};

const UPLOADS: usize = 4_000;
const MANIFESTS: usize = 2_000;
const LOOK_UPS: usize = 100_000;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const LEASE: Timestamp = Timestamp::from_micros(1_700_086_400_000_000);

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).expect("a folder of its own");
    for tasks in [1, 16] {
        let path = folder.path().join(format!("{tasks}.sqlite"));
        let bench = Arc::new(Bench::open(&path).await);
        println!("{tasks} task(s)");
        bench.uploads(tasks).await;
        bench.manifests(tasks).await;
        bench.look_ups(tasks).await;
        bench.store.close().await;
    }
    let bench = Bench::open(&folder.path().join("large.sqlite")).await;
    bench.large_repository().await;
    bench.store.close().await;
}

struct Bench {
    store: SqlMetadata,
    repository: Repository,
}

impl Bench {
    async fn open(path: &Path) -> Self {
        let store = SqlMetadata::open_sqlite(path, SqliteOptions::default()).await.expect("the store opens");
        let new = NewRegistry {
            name: RegistryName::default_oci(),
            format: Format::Oci,
            mode: Mode::Local,
            settings: RegistrySettings::default(),
        };
        let CreateRegistry::Created(registry) = store.create_registry(new, NOW).await.expect("it is made") else {
            panic!("the database is fresh");
        };
        let repository = Repository { registry: registry.id, name: "team/app".parse().expect("a name") };
        Self { store, repository }
    }

    /// Small blobs: create, begin to write, seal, commit.
    async fn uploads(self: &Arc<Self>, tasks: usize) {
        let [mut create, mut begin, mut seal, mut commit] = [const { Vec::<Duration>::new() }; 4];
        let begun = Instant::now();
        let outcomes = in_tasks(self, tasks, UPLOADS, |bench, number| async move {
            let start = Checkpoint::start(false);
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            let id = UploadId::from_random(id);
            let target = UploadTarget::Repository {
                registry: bench.repository.registry,
                repository: bench.repository.name.clone(),
            };
            let digest = Digest::sha256(&number.to_be_bytes());
            let at = Instant::now();
            let new = NewUpload { id, target, start: start.clone(), writing: false };
            bench.store.create_upload(new, NOW).await.expect("created");
            let created = Instant::now();
            bench.store.begin_write(id, WriteStart::AtTold, NOW).await.expect("begun");
            let began = Instant::now();
            let step =
                CheckpointStep { id, epoch: Epoch(1), from: 0, to: Checkpoint { offset: 100, ..start }, tell: false };
            let candidates = KeyCandidates::new(format!("{}/{}", &digest.encoded()[..2], digest.encoded()));
            let wish = SealUpload { step, digest: digest.clone(), candidates, lease_until: LEASE };
            bench.store.seal_upload(wish, NOW).await.expect("sealed");
            let sealed = Instant::now();
            bench.store.commit_upload(id, &digest, LEASE, NOW).await.expect("committed");
            [created - at, began - created, sealed - began, sealed.elapsed()]
        })
        .await;
        let elapsed = begun.elapsed();
        for outcome in outcomes {
            create.push(outcome[0]);
            begin.push(outcome[1]);
            seal.push(outcome[2]);
            commit.push(outcome[3]);
        }
        println!(
            "  uploads: {:.0}/s, {:.0} intentions/s",
            per_second(UPLOADS, elapsed),
            per_second(4 * UPLOADS, elapsed)
        );
        for (name, times) in [("create", create), ("begin", begin), ("seal", seal), ("commit", commit)] {
            println!("    {name:6} {}", percentiles(times));
        }
    }

    /// One manifest after another, each with a tag.
    async fn manifests(self: &Arc<Self>, tasks: usize) {
        let begun = Instant::now();
        let times = in_tasks(self, tasks, MANIFESTS, |bench, number| async move {
            let content = format!("{{\"manifest\":{number}}}{}", " ".repeat(1_500));
            let new = NewManifest {
                repository: bench.repository.clone(),
                digest: Digest::sha256(content.as_bytes()),
                content: content.into(),
                facts: ManifestFacts {
                    media_type: registry_core::manifest::OCI_MANIFEST.into(),
                    artifact_type: String::new(),
                    subject: None,
                    blobs: vec![Digest::sha256(&(number % UPLOADS).to_be_bytes())],
                    children: Vec::new(),
                    annotations: String::new(),
                },
                tags: vec![format!("tag-{number}").parse().expect("a tag")],
                references: References::Strict,
                condition: None,
            };
            let at = Instant::now();
            bench.store.put_manifest(new, NOW).await.expect("stored");
            at.elapsed()
        })
        .await;
        println!("  manifests: {:.0}/s, {}", per_second(MANIFESTS, begun.elapsed()), percentiles(times));
    }

    /// 100 manifests with 1,000 tags each.
    async fn large_repository(&self) {
        let digest = |number: usize| Digest::sha256(format!("manifest {number}").as_bytes());
        let begun = Instant::now();
        for number in 0..100 {
            let content = format!("manifest {number}");
            let tags = (0..1_000).map(|tag| format!("{tag:03}-{number}").parse().expect("a tag")).collect();
            let new = NewManifest {
                repository: self.repository.clone(),
                digest: digest(number),
                content: content.into(),
                facts: ManifestFacts {
                    media_type: registry_core::manifest::OCI_MANIFEST.into(),
                    artifact_type: String::new(),
                    subject: None,
                    blobs: Vec::new(),
                    children: Vec::new(),
                    annotations: String::new(),
                },
                tags,
                references: References::Strict,
                condition: None,
            };
            self.store.put_manifest(new, NOW).await.expect("stored");
        }
        println!("100,000 tags were put in {:.1?}", begun.elapsed());
        let everything = NameRange::default();
        for _ in 0..2 {
            let begun = Instant::now();
            let page =
                self.store.tags(&self.repository, Some("500-5"), 100).await.expect("listed").expect("it is there");
            assert_eq!(page.len(), 100);
            println!("  a page of 100 tags in the middle: {:.3?}", begun.elapsed());
            let begun = Instant::now();
            let after = Some((self.repository.name.as_str(), "500-5"));
            let page = self.store.all_tags(self.repository.registry, &everything, after, 100).await.expect("listed");
            assert_eq!(page.len(), 100);
            println!("  a page of 100 of all repositories' tags: {:.3?}", begun.elapsed());
        }
        let begun = Instant::now();
        for number in 0..10 {
            let deleted = self.store.delete_manifest(&self.repository, &digest(number), LEASE, NOW).await;
            assert!(deleted.expect("deleted"));
        }
        println!("  deleting a manifest with 1,000 tags: {:.3?}", begun.elapsed() / 10);
        let begun = Instant::now();
        let repository = Repository { name: "team/other".parse().expect("a name"), ..self.repository.clone() };
        assert!(!self.store.delete_manifest(&repository, &digest(50), LEASE, NOW).await.expect("nothing"));
        println!("  deleting what is not there: {:.3?}", begun.elapsed());
    }

    /// Manifests by tag and by digest.
    async fn look_ups(self: &Arc<Self>, tasks: usize) {
        let by_tag = in_tasks_timed(self, tasks, |bench, number| async move {
            let reference = Reference::Tag(format!("tag-{}", number % MANIFESTS).parse().expect("a tag"));
            assert!(bench.store.find_manifest(&bench.repository, &reference).await.expect("found").is_some());
        })
        .await;
        println!("  look-ups by tag: {by_tag:.0}/s");
    }
}

async fn in_tasks_timed<F>(
    bench: &Arc<Bench>,
    tasks: usize,
    run: impl Fn(Arc<Bench>, usize) -> F + Copy + Send + 'static,
) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let begun = Instant::now();
    in_tasks(bench, tasks, LOOK_UPS, run).await;
    per_second(LOOK_UPS, begun.elapsed())
}

/// Runs `run` for each number below `count`, spread over tasks.
async fn in_tasks<T, F>(
    bench: &Arc<Bench>,
    tasks: usize,
    count: usize,
    run: impl Fn(Arc<Bench>, usize) -> F + Copy + Send + 'static,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let bench = Arc::clone(bench);
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                for number in (task..count).step_by(tasks) {
                    outcomes.push(run(Arc::clone(&bench), number).await);
                }
                outcomes
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in running {
        outcomes.extend(task.await.expect("the task ends"));
    }
    outcomes
}

fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    format!("p50 {:.3} ms, p99 {:.3} ms", at(50), at(99))
}
