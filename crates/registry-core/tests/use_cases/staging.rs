//! What the use cases make of a store that stages in objects, as buckets do, and of writers that fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use registry_core::digest::Digest;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{
    AppendError, BlobReader, BlobStore, DeletionClaim, KeyCandidates, ObjectKey, Published, StagingWriter,
};
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::metadata::uploads::WriteStart;
use registry_core::services::{Ports, Services, Settings, UploadError};
use registry_core::testing::memory::MemoryBlobStore;
use registry_core::upload::{StagingState, UploadId, UploadState};

use crate::world::{World, at_once, body, sha256};

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Write,
    Checkpoint,
    RemoveStaged,
}

type Fault = Option<(Call, StoreErrorKind)>;

/// What happens before the next call that fails.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

fn check(fault: Fault, call: Call) -> Result<(), StoreError> {
    match fault {
        Some((failing, kind)) if failing == call => Err(StoreError::new(kind, "the test wants it", "so")),
        _ => Ok(()),
    }
}

/// The in-memory store with staged objects that are only names: each checkpoint supersedes one.
struct Bucket {
    bytes: MemoryBlobStore,
    fault: Fault,
    meanwhile: Meanwhile,
    checkpoints: Arc<AtomicUsize>,
    /// What an upload has made, whichever it is.
    made: Mutex<Vec<ObjectKey>>,
    removed: Mutex<Vec<String>>,
}

impl Bucket {
    /// Does `action` while a writer has the staged bytes, before the call that fails.
    fn meanwhile(&self, action: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(action));
    }

    /// What was removed since this was last asked.
    fn removed(&self) -> Vec<String> {
        std::mem::take(&mut *self.removed.lock().unwrap())
    }
}

/// A world whose store is a bucket.
async fn world(fault: Fault) -> (World, Arc<Bucket>) {
    let mut world = World::new().await;
    let bytes = world.blobs.clone();
    let (meanwhile, checkpoints) = (Arc::default(), Arc::default());
    let bucket = Bucket { bytes, fault, meanwhile, checkpoints, made: Mutex::default(), removed: Mutex::default() };
    let bucket = Arc::new(bucket);
    let ports = Ports { blobs: bucket.clone(), ..world.services.ports().clone() };
    world.services = Services::new(ports, Settings::default());
    (world, bucket)
}

#[async_trait]
impl BlobStore for Bucket {
    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError> {
        let bytes = self.bytes.append(id, offset, staging).await?;
        let (fault, meanwhile, checkpoints) = (self.fault, self.meanwhile.clone(), self.checkpoints.clone());
        Ok(Box::new(Writer { bytes, fault, meanwhile, checkpoints }))
    }

    async fn upload_objects(&self, _id: UploadId) -> Result<Vec<ObjectKey>, StoreError> {
        Ok(self.made.lock().unwrap().clone())
    }

    fn superseded_objects(&self, id: UploadId, staging: &StagingState, object: Option<&ObjectKey>) -> Vec<ObjectKey> {
        let what = match object {
            None => format!("{id} before {}", staging.0),
            Some(object) => format!("{id} at {} but {object}", staging.0),
        };
        vec![ObjectKey(what)]
    }

    async fn remove_staged_object(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.removed.lock().unwrap().push(key.to_string());
        check(self.fault, Call::RemoveStaged)
    }

    // The rest is as in memory.
    fn key_candidates(&self, id: UploadId, digest: &Digest, staging: &StagingState) -> KeyCandidates {
        self.bytes.key_candidates(id, digest, staging)
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

    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.bytes.open(key).await
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.bytes.size_of(key).await
    }

    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError> {
        self.bytes.claim_deletion(key).await
    }

    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError> {
        self.bytes.delete(claim, key).await
    }

    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError> {
        self.bytes.list_objects(after, limit).await
    }

    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError> {
        self.bytes.list_staged().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.bytes.probe().await
    }
}

/// Numbers its bucket's checkpoints.
struct Writer {
    bytes: Box<dyn StagingWriter>,
    fault: Fault,
    meanwhile: Meanwhile,
    checkpoints: Arc<AtomicUsize>,
}

impl Writer {
    fn check(&self, call: Call) -> Result<(), StoreError> {
        let failed = check(self.fault, call);
        if failed.is_err()
            && let Some(action) = self.meanwhile.lock().unwrap().take()
        {
            action();
        }
        failed
    }
}

#[async_trait]
impl StagingWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.check(Call::Write)?;
        self.bytes.write(bytes).await
    }

    async fn checkpoint(&mut self) -> Result<StagingState, StoreError> {
        self.check(Call::Checkpoint)?;
        self.bytes.checkpoint().await?;
        Ok(StagingState((self.checkpoints.fetch_add(1, Ordering::SeqCst) + 1).to_string()))
    }
}

#[tokio::test]
async fn what_a_checkpoint_or_the_blob_supersedes_is_removed_as_soon_as_that_is_recorded() {
    for fault in [None, Some((Call::RemoveStaged, StoreErrorKind::Unavailable))] {
        let (world, bucket) = world(fault).await;
        let id = world.start("app").await.id;
        for (piece, number) in [("abc", 1), ("def", 2)] {
            world.write(id, None, &mut *body(&[piece])).await.unwrap();
            assert_eq!(bucket.removed(), [format!("{id} before {number}")]);
        }
        let digest = sha256("abcdefghi");
        world.finish(id, &digest, &mut *body(&["ghi"])).await.unwrap();
        let [blob] = &world.objects().await[..] else { panic!("one blob") };
        assert_eq!(bucket.removed(), [format!("{id} at 3 but {blob}")]);
        assert_eq!(world.blob("app", &digest).await.as_deref(), Some("abcdefghi"), "even if nothing can be removed");
    }
}

#[tokio::test]
async fn an_upload_that_ends_takes_along_what_it_made_but_what_the_ledger_has() {
    let (world, bucket) = world(None).await;
    world.push("app", "a blob").await;
    let [blob] = &world.objects().await[..] else { panic!("one blob") };
    let id = world.start("app").await.id;
    *bucket.made.lock().unwrap() = vec![blob.clone(), ObjectKey("a tail".to_owned())];
    bucket.removed();
    world.services.cancel_upload(id, |_| true).await.unwrap();
    assert_eq!(bucket.removed(), ["a tail"]);
}

#[tokio::test]
async fn a_writer_that_fails_keeps_the_upload_unless_its_bytes_are_gone() {
    for call in [Call::Write, Call::Checkpoint] {
        for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Full, StoreErrorKind::Other] {
            let (world, _) = world(Some((call, kind))).await;
            let session = world.start("app").await;
            let refused = world.write(session.id, None, &mut *body(&["abc"])).await;
            assert!(matches!(&refused, Err(UploadError::Store(error)) if error.kind == kind), "{call:?} {refused:?}");
            let kept = world.session(session.id).await.unwrap();
            assert_eq!((kept.state, kept.durable), (UploadState::Open, session.durable), "{call:?} {kind:?}");
        }
        let (world, _) = world(Some((call, StoreErrorKind::Corrupt))).await;
        let id = world.start("app").await.id;
        let refused = world.write(id, None, &mut *body(&["abc"])).await;
        assert!(matches!(refused, Err(UploadError::Unknown)), "{call:?} {refused:?}");
        world.assert_empty().await;
    }
}

#[tokio::test]
async fn a_writer_that_finds_its_bytes_gone_because_it_was_overtaken_leaves_the_upload_alone() {
    for call in [Call::Write, Call::Checkpoint] {
        for kind in [StoreErrorKind::Corrupt, StoreErrorKind::Other] {
            // Another replica has begun to write.
            let (world, bucket) = world(Some((call, kind))).await;
            let id = world.start("app").await.id;
            let (metadata, now) = (world.metadata.clone(), world.clock.now());
            bucket.meanwhile(move || {
                at_once(metadata.begin_write(id, WriteStart::AtTold, now)).unwrap();
            });
            let refused = world.write(id, None, &mut *body(&["abc"])).await;
            assert!(matches!(refused, Err(UploadError::Superseded)), "{call:?} {kind:?} {refused:?}");
            assert_eq!(world.session(id).await.unwrap().state, UploadState::Open);

            // The upload has ended, or is gone altogether.
            for gone in [false, true] {
                let id = world.start("app").await.id;
                let (metadata, now) = (world.metadata.clone(), world.clock.now());
                bucket.meanwhile(move || {
                    at_once(metadata.end_upload(id, None, now)).unwrap();
                    if gone {
                        at_once(metadata.remove_upload(id)).unwrap();
                    }
                });
                let refused = world.write(id, None, &mut *body(&["abc"])).await;
                assert!(matches!(refused, Err(UploadError::Superseded)), "{call:?} {kind:?} {refused:?}");
                assert_eq!(world.session(id).await.map(|session| session.state), (!gone).then_some(UploadState::Ended));
            }
        }
    }
}
