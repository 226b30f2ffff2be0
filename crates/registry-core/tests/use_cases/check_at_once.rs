//! Checking several objects at once: in which order, how many, and what of it is known after an interruption.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::future::BoxFuture;
use registry_core::digest::Digest;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{
    AppendError, BlobReader, BlobStore, DeletionClaim, KeyCandidates, ObjectKey, Published, StagingWriter,
};
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::ObjectLedger;
use registry_core::ports::metadata::ledger::ObjectState;
use registry_core::services::{CheckFinding, CheckOptions, CheckReport, Ports, Services, Settings};
use registry_core::testing::memory::MemoryBlobStore;
use registry_core::upload::{StagingState, UploadId};
use tokio::sync::{Barrier, Semaphore};

use crate::world::{World, sha256, soon};

const SHALLOW: CheckOptions = CheckOptions { deep: false, repair: false, restart: false, at_once: 4 };
const DEEP: CheckOptions = CheckOptions { deep: true, ..SHALLOW };

type Moment = dyn Fn(ObjectKey) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// A store that lets something happen before it says how large an object is or opens it.
struct Store {
    bytes: MemoryBlobStore,
    before_look: Box<Moment>,
    before_row: Box<dyn Fn() + Send + Sync>,
    is_away: bool,
}

/// The world's use cases over a store at which `before_look` happens.
pub fn with<F>(world: &World, before_look: impl Fn(ObjectKey) -> F + Send + Sync + 'static) -> Services
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let before_look: Box<Moment> = Box::new(move |key| Box::pin(before_look(key)));
    over(world, Store { bytes: world.blobs.clone(), before_look, before_row: Box::new(|| ()), is_away: false })
}

fn over(world: &World, store: Store) -> Services {
    Services::new(Ports { blobs: Arc::new(store), ..world.services.ports().clone() }, Settings::default())
}

pub fn failure(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "read it", "the disk says no")
}

/// Blobs, and their keys and digests in the order of keys.
pub async fn filled(count: usize) -> (World, Vec<(ObjectKey, Digest)>) {
    let world = World::new().await;
    for number in 0..count {
        world.push("app", &number.to_string()).await;
    }
    let ledger = world.metadata.ledger_page(None, count).await.unwrap();
    let blobs: Vec<_> = ledger.into_iter().map(|entry| (entry.key, entry.blob.unwrap().0)).collect();
    assert_eq!(blobs.len(), count);
    (world, blobs)
}

/// What was told, and how it ended.
async fn check(services: &Services, options: CheckOptions) -> (Vec<CheckFinding>, Result<CheckReport, StoreError>) {
    let mut told = Vec::new();
    let report = soon(services.check_storage(options, |finding| told.push(finding.clone()))).await;
    (told, report)
}

fn missing((key, digest): &(ObjectKey, Digest)) -> CheckFinding {
    CheckFinding::Missing { digest: digest.clone(), key: key.clone() }
}

#[tokio::test]
async fn as_many_objects_as_wanted_are_looked_at_at_once_and_no_more() {
    for options in [SHALLOW, DEEP] {
        let (world, _) = filled(12).await;
        // Nobody goes on before four are there.
        let (all, now, most) =
            (Arc::new(Barrier::new(4)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&most);
        let services = with(&world, move |_| {
            let (all, now, most) = (Arc::clone(&all), Arc::clone(&now), Arc::clone(&counted));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        let (told, report) = check(&services, options).await;
        assert_eq!((told, report.unwrap().objects), (vec![], 12));
        assert_eq!(most.load(Ordering::SeqCst), 4, "{options:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn rows_are_looked_for_at_once_too() {
    let (world, _) = filled(3).await;
    let (met, alone) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&alone);
    let before_row = Box::new(move || {
        let (here, changed) = &*met;
        let mut here = here.lock().unwrap();
        *here += 1;
        changed.notify_all();
        let (_here, waited) = changed.wait_timeout_while(here, Duration::from_secs(20), |here| *here < 3).unwrap();
        counted.fetch_add(usize::from(waited.timed_out()), Ordering::SeqCst);
    });
    let before_look: Box<Moment> = Box::new(|_| Box::pin(async { Ok(()) }));
    let services = over(&world, Store { bytes: world.blobs.clone(), before_look, before_row, is_away: false });
    assert_eq!(services.check_storage(SHALLOW, |_| {}).await.unwrap().objects, 3);
    assert_eq!(alone.load(Ordering::SeqCst), 0, "waited for the others in vain");
}

#[tokio::test]
async fn findings_are_told_in_the_order_of_keys_whatever_ends_first() {
    let (world, blobs) = filled(8).await;
    for (key, _) in &blobs {
        world.blobs.damage(key, None);
    }
    for options in [SHALLOW, DEEP] {
        // The first look ends when the last one begins.
        let (first, last, last_begun) = (blobs[0].0.clone(), blobs[7].0.clone(), Arc::new(Semaphore::new(0)));
        let services = with(&world, move |key| {
            let (is_first, is_last, last_begun) = (key == first, key == last, Arc::clone(&last_begun));
            async move {
                if is_last {
                    last_begun.add_permits(1);
                }
                if is_first {
                    drop(last_begun.acquire().await.unwrap());
                }
                Ok(())
            }
        });
        let (told, report) = check(&services, options).await;
        assert_eq!(told, blobs.iter().map(missing).collect::<Vec<_>>());
        assert_eq!(report.unwrap().findings, told);
    }
}

#[tokio::test]
async fn an_interruption_passes_nothing_by_that_was_under_way() {
    // A page is of 500.
    let (world, blobs) = filled(600).await;
    world.blobs.damage(&blobs[20].0, None);
    world.blobs.damage(&blobs[510].0, None);
    for (held, done, stands_at, rest) in [(10, 499, None, 600), (505, 599, Some(blobs[499].0.clone()), 100)] {
        let (held, done, reached) = (blobs[held].0.clone(), blobs[done].0.clone(), Arc::new(Semaphore::new(0)));
        let is_reached = Arc::clone(&reached);
        let services = with(&world, move |key| {
            let (is_held, is_done, reached) = (key == held, key == done, Arc::clone(&reached));
            async move {
                if is_done {
                    reached.add_permits(1);
                }
                if is_held {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        // Killed when all of the page but one object has been looked at.
        let mut checked = Box::pin(services.check_storage(DEEP, |_| {}));
        soon(async {
            tokio::select! {
                _ = &mut checked => panic!("it waits for an object"),
                permit = is_reached.acquire() => permit.unwrap().forget(),
            }
        })
        .await;
        drop(checked);
        let interrupted = world.services.interrupted_check(DEEP).await.unwrap();
        assert_eq!(interrupted.and_then(|check| check.after), stands_at);
        let (told, report) = check(&world.services, DEEP).await;
        let report = report.unwrap();
        assert_eq!(report.objects, rest);
        assert_eq!((report.sum().objects, report.sum().findings), (600, 2));
        let all = [missing(&blobs[20]), missing(&blobs[510])];
        assert_eq!(told, all[if rest == 600 { 0 } else { 1 }..]);
    }
}

/// The second of two blobs is seen to be missing; before the answer is taken up, it is collected and pushed again.
#[tokio::test]
async fn what_is_pushed_again_while_it_looks_is_left_alone() {
    for (options, is_lost_again) in [(SHALLOW, false), (SHALLOW, true), (DEEP, false), (DEEP, true)] {
        let (world, blobs) = filled(2).await;
        let (key, digest) = blobs[1].clone();
        let content = if digest == sha256("0") { "0" } else { "1" };
        world.blobs.damage(&key, None);
        let before = world.metadata.ledger_entry(&key).await.unwrap();

        let (world, looked, looks) = (Arc::new(world), Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (pushing, looked_at) = (Arc::clone(&world), key.clone());
        let services = with(&world, move |key| {
            let (world, looked, is_it) = (Arc::clone(&pushing), Arc::clone(&looked), key == looked_at);
            let is_second_look = is_it && looks.fetch_add(1, Ordering::SeqCst) > 0;
            let looked_at = looked_at.clone();
            async move {
                if is_second_look && is_lost_again {
                    world.blobs.damage(&looked_at, None);
                }
                if is_it {
                    looked.add_permits(1);
                } else {
                    looked.acquire().await.unwrap().forget();
                    let seen = world.metadata.ledger_entry(&looked_at).await?.unwrap();
                    world.metadata.forget_blob(&seen, world.clock.now()).await?;
                    world.metadata.clear_doomed(&looked_at).await?;
                    world.clock.advance(Duration::from_secs(1));
                    world.push("app", content).await;
                }
                Ok(())
            }
        });
        let (told, report) = check(&services, CheckOptions { repair: true, ..options }).await;
        assert_eq!((told, report.unwrap().repaired), (vec![], 0), "{options:?} {is_lost_again}");
        let after = world.metadata.ledger_entry(&key).await.unwrap().unwrap();
        assert_eq!((after.state, after.blob), (ObjectState::Live, Some((digest.clone(), 1))));
        assert_ne!(Some(after.since), before.map(|row| row.since), "it is another life of the same key");
        if !is_lost_again {
            assert_eq!(world.blob("app", &digest).await.as_deref(), Some(content));
        }
    }
}

#[tokio::test]
async fn what_is_missing_only_at_the_first_look_is_no_finding() {
    for options in [SHALLOW, DEEP] {
        let (world, blobs) = filled(3).await;
        let (away, bytes) = (blobs[1].0.clone(), world.blobs.clone());
        let content = Mutex::new(None);
        let services = with(&world, move |key| {
            if key == away {
                let mut content = content.lock().unwrap();
                let back = content.take();
                *content = bytes.damage(&key, back);
            }
            async { Ok(()) }
        });
        let (told, report) = check(&services, CheckOptions { repair: true, ..options }).await;
        assert_eq!((told, report.unwrap().repaired), (vec![], 0), "{options:?}");
        assert_eq!(world.objects().await.len(), 3);
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_a_finding_among_others_and_is_left_alone() {
    for options in [SHALLOW, DEEP, CheckOptions { repair: true, ..DEEP }] {
        let (world, blobs) = filled(9).await;
        let (before, bad, after) = (&blobs[2], blobs[4].clone(), &blobs[6]);
        world.blobs.damage(&before.0, None);
        world.blobs.damage(&after.0, None);
        let key_of_bad = bad.0.clone();
        let services = with(&world, move |key| {
            let fails = key == key_of_bad;
            async move { if fails { Err(failure(StoreErrorKind::Other)) } else { Ok(()) } }
        });
        let (told, report) = check(&services, options).await;
        let report = report.unwrap();
        let (key, digest) = bad;
        let why = "read it: the disk says no".to_owned();
        let unreadable = CheckFinding::Unreadable { digest: digest.clone(), key: key.clone(), why };
        assert_eq!(told, [missing(before), unreadable, missing(after)]);
        assert_eq!((report.objects, report.repaired), (9, if options.repair { 2 } else { 0 }));
        assert!(world.objects().await.contains(&key));
        assert!(world.blob("app", &digest).await.is_some(), "it may be read again one day");
    }
}

#[tokio::test]
async fn a_store_that_goes_away_ends_the_check_and_the_next_goes_on() {
    let (world, blobs) = filled(600).await;
    for damaged in [3, 504, 520] {
        world.blobs.damage(&blobs[damaged].0, None);
    }
    let gone_at = blobs[510].0.clone();
    let services = with(&world, move |key| {
        let fails = key == gone_at;
        async move { if fails { Err(failure(StoreErrorKind::Unavailable)) } else { Ok(()) } }
    });
    let (told, report) = check(&services, DEEP).await;
    assert_eq!(report.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(told, [missing(&blobs[3]), missing(&blobs[504])], "what comes before is told");
    let (told, report) = check(&world.services, DEEP).await;
    assert_eq!(report.unwrap().objects, 100);
    assert_eq!(told, [missing(&blobs[504]), missing(&blobs[520])]);
}

#[tokio::test]
async fn a_store_that_refuses_everything_is_no_damage() {
    let (world, _) = filled(3).await;
    let before_look: Box<Moment> = Box::new(|_| Box::pin(async { Err(failure(StoreErrorKind::Other)) }));
    let bytes = world.blobs.clone();
    let services = over(&world, Store { bytes, before_look, before_row: Box::new(|| ()), is_away: true });
    let (told, report) = check(&services, SHALLOW).await;
    assert_eq!(told, []);
    assert_eq!(report.unwrap_err().kind, StoreErrorKind::Other);
}

#[async_trait]
impl BlobStore for Store {
    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        (self.before_look)(key.clone()).await?;
        self.bytes.open(key).await
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        (self.before_look)(key.clone()).await?;
        self.bytes.size_of(key).await
    }

    fn upload_of(&self, key: &ObjectKey) -> Option<UploadId> {
        (self.before_row)();
        self.bytes.upload_of(key)
    }

    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError> {
        if self.is_away {
            return Err(failure(StoreErrorKind::Other));
        }
        self.bytes.list_objects(after, limit).await
    }

    // The rest is as in memory.
    fn key_candidates(&self, id: UploadId, digest: &Digest, staging: &StagingState) -> KeyCandidates {
        self.bytes.key_candidates(id, digest, staging)
    }

    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError> {
        self.bytes.append(id, offset, staging).await
    }

    async fn read_staged(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, AppendError> {
        self.bytes.read_staged(id, size, staging).await
    }

    async fn publish(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
        key: &ObjectKey,
    ) -> Result<Published, StoreError> {
        self.bytes.publish(id, size, staging, key).await
    }

    async fn discard(&self, id: UploadId, staging: &StagingState) -> Result<(), StoreError> {
        self.bytes.discard(id, staging).await
    }

    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError> {
        self.bytes.claim_deletion(key).await
    }

    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError> {
        self.bytes.delete(claim, key).await
    }

    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError> {
        self.bytes.list_staged().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.bytes.probe().await
    }
}
