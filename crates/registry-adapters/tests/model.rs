//! The databases and the in-memory model are told the same random stories and must always say the same.

mod support;

use std::fmt::{Debug, Write as _};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use registry_adapters::sql::{SqlMetadata, SqliteOptions};
use registry_core::digest::{Algorithm, Digest};
use registry_core::error::StoreError;
use registry_core::manifest::{ManifestFacts, OCI_INDEX, OCI_MANIFEST};
use registry_core::names::Reference;
use registry_core::package::ArtifactDescription;
use registry_core::ports::blob_store::{KeyCandidates, ObjectKey};
use registry_core::ports::metadata::ledger::{LedgerEntry, ObjectState};
use registry_core::ports::metadata::manifests::NewManifest;
use registry_core::ports::metadata::registries::NewRegistry;
use registry_core::ports::metadata::uploads::{CheckpointStep, NewUpload, SealUpload, WriteStart};
use registry_core::ports::metadata::{Metadata, NameRange};
use registry_core::precondition::Precondition;
use registry_core::registry::{Format, Mode, References, RegistryId, RegistrySettings, Repository};
use registry_core::testing::memory::MemoryMetadata;
use registry_core::time::Timestamp;
use registry_core::token::{SigningKey, TokenHash, TokenId, TokenRecord};
use registry_core::upload::{Checkpoint, Epoch, StagingState, UploadId, UploadSession, UploadState, UploadTarget};

/// One thing that happens: which intention, and what decides its arguments.
type Step = (usize, [u8; 4]);

const REGISTRIES: [(&str, Format); 5] = [
    ("oci", Format::Oci),
    ("generic", Format::Generic),
    ("mirror", Format::Oci),
    ("team", Format::Oci),
    ("solo", Format::Generic),
];
const REPOSITORIES: [(i64, &str); 6] =
    [(1, "team/app"), (1, "team/lib"), (1, "solo"), (1, "mirror/x"), (1, "team/app"), (3, "team/app")];
const TAGS: [&str; 3] = ["latest", "1.0", "Z"];
const PACKAGES: [&str; 2] = ["model", "Mod-el2"];
const VERSIONS: [&str; 4] = ["1.0.0", "1.10", "1.9", "v1.0.0"];
const CONTENTS: [&str; 4] = ["a", "bb", "ccc", ""];
/// How many manifests there are.
const MANIFESTS: u8 = 12;

/// The time, so many seconds after the beginning.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_735_689_600_000_000) + Duration::from_secs(seconds)
}

fn pick<T: Copy>(of: &[T], by: u8) -> T {
    of[usize::from(by) % of.len()]
}

fn repository(by: u8) -> Repository {
    let (registry, name) = pick(&REPOSITORIES, by);
    Repository { registry: RegistryId(registry), name: name.parse().unwrap() }
}

fn digest(by: u8) -> Digest {
    let content = pick(&CONTENTS, by);
    Digest::of(if content == "ccc" { Algorithm::Sha512 } else { Algorithm::Sha256 }, content.as_bytes())
}

fn candidates(digest: &Digest) -> KeyCandidates {
    KeyCandidates::new(digest.as_str().replace(':', "/"))
}

/// The identity of the upload that is made by step number `step`.
fn fresh(step: u64) -> UploadId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&step.to_be_bytes());
    UploadId::from_random(bytes)
}

fn checkpoint(offset: u64) -> Checkpoint {
    Checkpoint { offset, hashes: offset.to_be_bytes().into(), staging: StagingState(format!("at {offset}")) }
}

/// One of a few images and indexes.
fn manifest(by: u8) -> (Digest, Bytes, ManifestFacts) {
    let number = by % MANIFESTS;
    let content = Bytes::from(format!("manifest {number}"));
    let is_index = number >= 8;
    // The first ones name nothing, the next ones blobs, the last ones earlier manifests and, as BuildKit does, a blob.
    let mut blobs: Vec<Digest> = if is_index { vec![] } else { (0..number / 2).map(digest).collect() };
    let mut children: Vec<Digest> =
        if is_index { vec![manifest(number - 8).0, manifest(number - 5).0] } else { vec![] };
    if number == 11 {
        children.push(digest(0));
    }
    blobs.sort();
    children.sort();
    let facts = ManifestFacts {
        media_type: if is_index { OCI_INDEX } else { OCI_MANIFEST }.into(),
        artifact_type: pick(&["", "a/b", "c/d"], number).into(),
        subject: (number % 4 == 1).then(|| manifest(number / 4).0),
        blobs,
        children,
        annotations: if number & 1 == 0 { String::new() } else { r#"{"k":"v"}"#.into() },
    };
    (Digest::sha256(&content), content, facts)
}

fn said(outcome: Result<impl Debug, StoreError>) -> String {
    match outcome {
        Ok(answer) => format!("{answer:?}"),
        // Stores may name their failures as they like.
        Err(_) => "failed".to_owned(),
    }
}

/// What the model knows when a step begins, so that steps are often the right ones.
struct Knowledge {
    /// The number of the step.
    step: u64,
    /// The time, in seconds after the beginning.
    seconds: u64,
    /// The session that the step is about: one of the last that were made.
    session: Option<UploadSession>,
    doomed: Vec<ObjectKey>,
    ledger: Vec<LedgerEntry>,
}

impl Knowledge {
    async fn of(model: &MemoryMetadata, step: u64, seconds: u64, by: u8) -> Self {
        use registry_core::ports::metadata::{ObjectLedger, UploadStore};
        let doomed = model.doomed_objects(None, 100).await.unwrap();
        let ledger = model.ledger_page(None, 1_000).await.unwrap();
        let sessions = model.idle_uploads(at(1_000_000), 1_000).await.unwrap();
        let session = match sessions.iter().rev().nth(usize::from(by % 3)) {
            Some(id) => model.find_upload(*id).await.unwrap(),
            None => None,
        };
        Self { step, seconds, session, doomed, ledger }
    }

    fn id(&self) -> UploadId {
        self.session.as_ref().map_or(fresh(self.step), |session| session.id)
    }

    /// The step of a writer of the session; `wrong` makes it one that was overtaken.
    fn checkpoint(&self, length: u64, wrong: Option<bool>, tell: bool) -> CheckpointStep {
        let (epoch, offset) =
            self.session.as_ref().map_or((Epoch(1), 0), |session| (session.epoch, session.durable.offset));
        CheckpointStep {
            id: self.id(),
            epoch: if wrong == Some(true) { Epoch(epoch.0 - 1) } else { epoch },
            from: if wrong == Some(false) { offset + 1 } else { offset },
            to: checkpoint(offset + length),
            tell,
        }
    }

    /// The row of a blob, if it is stored; with `before`, as it was in an earlier life.
    fn seen(&self, digest: &Digest, before: bool) -> LedgerEntry {
        let row = self.ledger.iter().find(|row| row.blob.as_ref().is_some_and(|(stored, _)| stored == digest));
        let mut row = row.cloned().unwrap_or_else(|| LedgerEntry {
            key: candidates(digest).nth(0),
            state: ObjectState::Live,
            since: at(0),
            blob: Some((digest.clone(), 1)),
        });
        if before {
            row.since = Timestamp::from_micros(row.since.as_micros() - 1);
        }
        row
    }

    fn sealed(&self) -> Option<Digest> {
        match &self.session.as_ref()?.state {
            UploadState::Finalising { digest, .. } | UploadState::Done { digest } => Some(digest.clone()),
            UploadState::Open | UploadState::Ended => None,
        }
    }
}

fn blob_target(by: u8) -> UploadTarget {
    let Repository { registry, name } = repository(by);
    UploadTarget::Repository { registry, repository: name }
}

fn version_target(package: u8, version: u8) -> UploadTarget {
    UploadTarget::Version {
        registry: RegistryId(2),
        package: pick(&PACKAGES, package).parse().unwrap(),
        description: ArtifactDescription {
            version: pick(&VERSIONS, version).parse().unwrap(),
            content_type: "text/plain".into(),
            filename: "f".parse().unwrap(),
        },
    }
}

fn seal(step: CheckpointStep, content: u8, lease_until: Timestamp) -> SealUpload {
    let digest = digest(content);
    let step = CheckpointStep { to: checkpoint(pick(&CONTENTS, content).len() as u64), ..step };
    SealUpload { candidates: candidates(&digest), step, digest, lease_until }
}

const INTENTIONS: usize = 25;

/// Does one step and says what came of it.
async fn tell(store: &dyn Metadata, (intention, [a, b, c, d]): Step, known: &Knowledge) -> String {
    let (now, id) = (at(known.seconds), known.id());
    let back = |by: u8| at(known.seconds.saturating_sub(u64::from(by)));
    let lease_until = now + Duration::from_secs(u64::from(c % 40));
    let wrong = (d % 8 == 0).then_some(d & 8 == 0);
    match intention {
        0 => {
            // Most names make a registry only early in a story.
            let (name, format) = pick(&REGISTRIES, if known.step < 20 { a } else { a % 3 });
            let settings = RegistrySettings::default();
            let new = NewRegistry { name: name.parse().unwrap(), format, mode: Mode::Local, settings };
            said(store.create_registry(new, now).await)
        }
        1 => {
            let references = if b & 1 == 0 { References::Strict } else { References::Lenient };
            let settings = RegistrySettings { references, ..RegistrySettings::default() };
            said(store.change_settings(RegistryId(i64::from(a % 4)), settings).await)
        }
        2 | 3 => {
            let target = if b & 1 == 0 { blob_target(c) } else { version_target(c, d) };
            let id = if a % 16 == 0 { id } else { fresh(known.step) };
            said(store.create_upload(NewUpload { id, target, start: checkpoint(0), writing: d & 1 == 0 }, now).await)
        }
        4 => {
            let offset = known.session.as_ref().map_or(0, |session| session.durable.offset);
            let start =
                if d & 16 == 0 { WriteStart::AtTold } else { WriteStart::At(offset + u64::from(wrong.is_some())) };
            said(store.begin_write(id, start, now).await)
        }
        5 => {
            let step = known.checkpoint(u64::from(b % 5), wrong, d & 16 != 0);
            said(store.checkpoint_upload(step, now).await)
        }
        6 => said(store.tell_upload(id, now).await),
        7 | 8 => {
            let step = known.checkpoint(0, wrong, d & 16 != 0);
            said(store.seal_upload(seal(step, b, lease_until), now).await)
        }
        9 | 10 => {
            let sealed = known.sealed().filter(|_| wrong.is_none()).unwrap_or_else(|| digest(b));
            said(store.commit_upload(id, &sealed, lease_until, now).await)
        }
        // A whole push.
        11..=13 => {
            let id = fresh(known.step);
            let target = if intention == 13 { version_target(a, d) } else { blob_target(a) };
            let new = NewUpload { id, target, start: checkpoint(0), writing: true };
            let created = said(store.create_upload(new, now).await);
            let step = CheckpointStep { id, epoch: Epoch(1), from: 0, to: checkpoint(0), tell: true };
            let sealed = said(store.seal_upload(seal(step, b, lease_until), now).await);
            let committed = said(store.commit_upload(id, &digest(b), lease_until, now).await);
            format!("pushed {committed} {sealed} {created}")
        }
        14 => match a & 1 {
            0 => said(store.end_upload(id, (d & 1 == 0).then(|| back(b % 64)), now).await),
            _ => said(store.remove_upload(id).await),
        },
        15 => {
            let grace = Duration::from_secs(u64::from(c));
            said(store.find_blob_for_push(&repository(a), &digest(b), grace, now).await)
        }
        16 => said(store.mount_blob(&repository(a), &repository(d), &digest(b), lease_until, now).await),
        17 => said(store.delete_blob(&repository(a), &digest(b), now).await),
        18 | 19 => {
            let (digest, content, facts) = manifest(b);
            let tags = TAGS.iter().enumerate().filter(|(bit, _)| c >> bit & 1 == 1);
            let new = NewManifest {
                repository: repository(a),
                digest,
                content,
                facts,
                tags: tags.map(|(_, tag)| tag.parse().unwrap()).collect(),
                references: if d & 1 == 0 { References::Strict } else { References::Lenient },
                condition: None,
            };
            said(store.put_manifest(new, now).await)
        }
        20 => said(store.delete_manifest(&repository(a), &manifest(b).0, lease_until, now).await),
        21 => match a & 1 {
            0 => said(store.delete_tag(&repository(b), &pick(&TAGS, c).parse().unwrap(), &Precondition::NONE).await),
            _ => {
                let (package, version) = (pick(&PACKAGES, b).parse().unwrap(), pick(&VERSIONS, c).parse().unwrap());
                said(store.delete_artifact(RegistryId(2), &package, &version, &Precondition::NONE, now).await)
            }
        },
        22 => collect(store, back(a % 20), usize::from(b % 4) + 1, now).await,
        23 => match a % 4 {
            0 => said(store.forget_blob(&known.seen(&digest(b), c & 1 == 0), now).await),
            1 => said(store.doom_orphan(&candidates(&digest(b)).nth(u32::from(c % 3)), now).await),
            _ => {
                let key = known.doomed.get(usize::from(b) % known.doomed.len().max(1));
                said(store.clear_doomed(key.unwrap_or(&candidates(&digest(b)).nth(0))).await)
            }
        },
        _ => match a % 5 {
            0 => {
                let expires_at = (c & 1 == 0).then(|| at(u64::from(c)));
                let (id, name) = (TokenId(format!("{:x}", b % 6)), "t".to_owned());
                let (hash, scopes) = (TokenHash([c; 32]), Vec::new());
                said(store.insert_token(TokenRecord { id, name, hash, scopes, created_at: now, expires_at }).await)
            }
            1 => said(store.delete_token(&TokenId(format!("{:x}", b % 6))).await),
            2 | 3 => {
                let new = SigningKey { id: format!("{:x}", b % 6), secret: vec![b], created_at: now };
                said(store.rotate_signing_keys(new, back(c % 32), back(d % 64)).await)
            }
            _ => said(store.set_job_cursor(pick(&["gc", "check"], b), pick(&[Some("here"), None], c)).await),
        },
    }
}

/// A collection, in batches; which membership comes first is the store's business.
async fn collect(store: &dyn Metadata, due: Timestamp, limit: usize, now: Timestamp) -> String {
    let mut report = said(store.preview_garbage(due).await);
    let (mut reviewed, mut dropped) = (0, 0);
    loop {
        let batch = store.review_memberships(due, limit).await.unwrap();
        (reviewed, dropped) = (reviewed + batch.reviewed, dropped + batch.dropped);
        if batch.reviewed < limit as u64 {
            break;
        }
    }
    write!(report, " {reviewed} {dropped}").unwrap();
    for digest in store.garbage_candidates(1000).await.unwrap() {
        write!(report, " {}", said(store.collect_blob(&digest, now).await)).unwrap();
    }
    report
}

/// All that the store will tell, in small pages.
async fn content(store: &dyn Metadata) -> Vec<String> {
    let all = NameRange::default();
    let mut lines = vec![said(store.registries().await), said(store.garbage_candidates(1000).await)];
    for id in store.idle_uploads(at(1_000_000), 1_000).await.unwrap() {
        lines.push(said(store.find_upload(id).await));
    }
    for seconds in [0, 20, 60, 150, 400, 100_000] {
        lines.push(said(store.preview_garbage(at(seconds)).await));
        lines.push(said(store.idle_uploads(at(seconds), 5).await));
    }
    let mut after = None;
    while let Some(entry) = store.ledger_page(after.as_ref(), 1).await.unwrap().pop() {
        lines.push(format!("{entry:?} {}", said(store.ledger_entry(&entry.key).await)));
        lines.push(said(store.doomed_objects(after.as_ref(), 2).await));
        after = Some(entry.key);
    }
    for registry in [RegistryId(1), RegistryId(3)] {
        lines.push(said(store.repositories(registry, &all, 100).await));
        let range = NameRange { start: "solo".into(), end: Some("team/lib".into()), after: Some("solo".into()) };
        lines.push(said(store.repositories(registry, &range, 2).await));
        lines.push(said(store.all_tags(registry, &all, None, 100).await));
        lines.push(said(store.all_tags(registry, &range, Some(("team/app", "1.0")), 2).await));
    }
    for (index, _) in (0..).zip(REPOSITORIES) {
        let repository = repository(index);
        lines.push(said(store.tags(&repository, None, 100).await));
        lines.push(said(store.tags(&repository, Some("L"), 2).await));
        for tag in TAGS {
            let tag = Reference::Tag(tag.parse().unwrap());
            lines.push(said(store.find_manifest(&repository, &tag).await));
            lines.push(said(store.describe_manifest(&repository, &tag).await));
        }
        for by in 0..MANIFESTS {
            let subject = manifest(by).0;
            lines.push(said(store.describe_manifest(&repository, &Reference::Digest(subject.clone())).await));
            lines.push(said(store.referrers(&repository, &subject, None, None, 100).await));
            lines.push(said(store.referrers(&repository, &subject, Some("a/b"), Some("sha256:8"), 2).await));
        }
        for (by, _) in (0..).zip(CONTENTS) {
            lines.push(said(store.find_blob(&repository, &digest(by)).await));
        }
    }
    for (by, _) in (0..).zip(CONTENTS) {
        let mut having = store.repositories_with_blob(&digest(by), 100).await.unwrap();
        having.sort();
        lines.push(format!("{having:?}"));
    }
    for (search, limit) in [(None, 100), (Some(""), 1), (Some("mod"), 100), (Some("OD-E"), 100), (Some("x"), 100)] {
        lines.push(said(store.packages(RegistryId(2), &all, search, limit).await));
    }
    for package in PACKAGES {
        let package = package.parse().unwrap();
        lines.push(said(store.versions(RegistryId(2), &package, None, 100).await));
        for version in VERSIONS {
            let version = version.parse().unwrap();
            lines.push(said(store.versions(RegistryId(2), &package, Some(&version), 2).await));
            lines.push(said(store.find_artifact(RegistryId(2), &package, &version).await));
        }
    }
    lines.push(said(store.tokens(None, 100).await));
    lines.push(said(store.tokens(Some(&TokenId("2".into())), 2).await));
    lines.push(said(store.signing_keys().await));
    for job in ["gc", "check"] {
        lines.push(said(store.job_cursor(job).await));
    }
    lines
}

async fn compare(database: &SqlMetadata, story: &[Step]) -> Result<(), TestCaseError> {
    let model = MemoryMetadata::default();
    // Every story begins with the registries that nearly every intention needs.
    let beginning = [(0, [0; 4]), (0, [1, 0, 0, 0]), (0, [2, 0, 0, 0])];
    let mut seconds = 0;
    for (number, step) in (0..).zip(beginning.iter().chain(story)) {
        seconds += u64::from(step.1[3] % 16);
        let known = Knowledge::of(&model, number, seconds, step.1[0]).await;
        let expected = tell(&model, *step, &known).await;
        let actual = tell(database, *step, &known).await;
        prop_assert_eq!(actual, expected, "step {} {:?} at {}", number, step, seconds);
    }
    for (actual, expected) in content(database).await.into_iter().zip(content(&model).await) {
        prop_assert_eq!(actual, expected);
    }
    database.close().await;
    Ok(())
}

/// Tells stories to databases that `open` opens, each of which is empty and has its `Place` to itself.
fn tell_stories<Place>(cases: u32, open: impl AsyncFn() -> (SqlMetadata, Place)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let story = vec((0..INTENTIONS, any::<[u8; 4]>()), 1..150);
    let compared = runner.run(&story, |story| {
        runtime.block_on(async {
            let (database, _place) = open().await;
            compare(&database, &story).await
        })
    });
    compared.unwrap();
}

#[test]
fn sqlite_and_the_model_say_the_same() {
    tell_stories(96, async || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.sqlite");
        (SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.unwrap(), folder)
    });
}

#[test]
fn postgres_and_the_model_say_the_same() {
    let Some(server) = registry_test_postgres::server("the stories told to Postgres") else { return };
    tell_stories(48, async || {
        let database = server.copy(support::migrate);
        (support::open(&database.url()).await.unwrap(), database)
    });
}
