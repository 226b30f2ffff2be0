//! Blobs in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::{
    AppendError, BlobReader, BlobStore, DeletionClaim, KeyCandidates, ObjectKey, Published, StagingWriter,
};
use crate::upload::{StagingState, UploadId};

/// How many bytes one piece of a stream has at most: few, so that tests meet streams of several pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// Keeps blobs in memory. A clone is another replica over the same bytes.
///
/// Like files: what is written is there at once, checkpointed or not, and a writer that was passed by writes on into
/// bytes that nobody else sees.
#[derive(Clone, Debug)]
pub struct MemoryBlobStore {
    content: Arc<Mutex<Content>>,
    lock_wait: Duration,
}

#[derive(Debug, Default)]
struct Content {
    staged: BTreeMap<UploadId, Arc<Staged>>,
    objects: BTreeMap<ObjectKey, Bytes>,
    claimed: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Staged {
    /// One permit: whoever has it may write.
    lock: Arc<Semaphore>,
    bytes: Mutex<Vec<u8>>,
}

impl Staged {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Arc::new(Semaphore::new(1)), bytes: Mutex::default() })
    }
}

impl Default for MemoryBlobStore {
    /// An empty store, whose writers wait for each other as long as those of files do: 5 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panics elsewhere shall fail with its own message.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryBlobStore {
    /// An empty store, whose writers wait at most `lock_wait` for each other.
    pub fn new(lock_wait: Duration) -> Self {
        Self { content: Arc::default(), lock_wait }
    }

    /// Replaces the bytes of an object, or takes it away, as a damaged disk would; what was there before.
    pub fn damage(&self, key: &ObjectKey, bytes: Option<Bytes>) -> Option<Bytes> {
        let mut content = lock(&self.content);
        match bytes {
            Some(bytes) => content.objects.insert(key.clone(), bytes),
            None => content.objects.remove(key),
        }
    }

    fn find(&self, id: UploadId) -> Option<Arc<Staged>> {
        lock(&self.content).staged.get(&id).cloned()
    }

    /// The lock of what is staged; `None` when it was not to be had in time.
    async fn acquire(&self, staged: &Staged) -> Option<OwnedSemaphorePermit> {
        let permit = timeout(self.lock_wait, Arc::clone(&staged.lock).acquire_owned()).await.ok()?;
        Some(permit.expect("nobody closes the semaphore"))
    }

    fn is_current(&self, id: UploadId, staged: &Arc<Staged>) -> bool {
        self.find(id).is_some_and(|current| Arc::ptr_eq(&current, staged))
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    fn key_candidates(&self, _id: UploadId, digest: &Digest, _staging: &StagingState) -> KeyCandidates {
        KeyCandidates::new(digest.as_str().replace(':', "/"))
    }

    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        _staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError> {
        let staged = if offset == 0 {
            Arc::clone(lock(&self.content).staged.entry(id).or_insert_with(Staged::new))
        } else {
            self.find(id).ok_or(AppendError::Lost)?
        };
        let permit = self.acquire(&staged).await.ok_or(AppendError::Busy)?;
        let length = lock(&staged.bytes).len();
        let offset = usize::try_from(offset).map_err(|_| AppendError::Lost)?;
        if !self.is_current(id, &staged) || length < offset {
            return Err(AppendError::Lost);
        }
        Ok(Box::new(Writer { staged, cut: Some(offset), _permit: permit }))
    }

    async fn read_staged(
        &self,
        id: UploadId,
        size: u64,
        _staging: &StagingState,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, AppendError> {
        let staged = self.find(id).ok_or(AppendError::Lost)?;
        let size = usize::try_from(size).map_err(|_| AppendError::Lost)?;
        let bytes = lock(&staged.bytes).get(..size).map(Bytes::copy_from_slice).ok_or(AppendError::Lost)?;
        Ok(pieces(bytes))
    }

    async fn publish(
        &self,
        id: UploadId,
        size: u64,
        _staging: &StagingState,
        key: &ObjectKey,
    ) -> Result<Published, StoreError> {
        let staged = self.find(id);
        let permit = match &staged {
            Some(staged) => match self.acquire(staged).await {
                Some(permit) => Some(permit),
                None => return Ok(Published::Busy),
            },
            None => None,
        };
        let mut content = lock(&self.content);
        if content.objects.get(key).is_some_and(|object| object.len() as u64 == size) {
            // From an earlier call for this upload; what is staged now is younger, and nobody checked it.
            content.staged.remove(&id);
            return Ok(Published::Yes);
        }
        let current =
            content.staged.get(&id).filter(|current| staged.as_ref().is_some_and(|s| Arc::ptr_eq(s, current)));
        let Some(current) = current else { return Ok(Published::Lost) };
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let Some(bytes) = lock(&current.bytes).get(..length).map(Bytes::copy_from_slice) else {
            return Ok(Published::Lost);
        };
        content.staged.remove(&id);
        content.objects.insert(key.clone(), bytes);
        drop(permit);
        Ok(Published::Yes)
    }

    async fn discard(&self, id: UploadId, _staging: &StagingState) -> Result<(), StoreError> {
        lock(&self.content).staged.remove(&id);
        Ok(())
    }

    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let bytes = lock(&self.content).objects.get(key).cloned();
        Ok(bytes.map(|bytes| Arc::new(Reader(bytes)) as Arc<dyn BlobReader>))
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        Ok(lock(&self.content).objects.get(key).map(|bytes| bytes.len() as u64))
    }

    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError> {
        if !lock(&self.content).claimed.insert(key.clone()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Claim { key: key.clone(), content: Arc::clone(&self.content) })))
    }

    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError> {
        assert_eq!(claim.key(), key, "whoever deletes holds the claim for what it deletes");
        lock(&self.content).objects.remove(key);
        Ok(())
    }

    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let content = lock(&self.content);
        let objects = content.objects.range::<ObjectKey, _>((after, Bound::Unbounded));
        Ok(objects.take(limit).map(|(key, bytes)| (key.clone(), bytes.len() as u64)).collect())
    }

    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError> {
        Ok(lock(&self.content).staged.keys().copied().collect())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Writer {
    staged: Arc<Staged>,
    /// Where to cut before the first byte or checkpoint; until then nothing is changed.
    cut: Option<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Writer {
    fn bytes(&mut self) -> MutexGuard<'_, Vec<u8>> {
        let mut bytes = lock(&self.staged.bytes);
        if let Some(offset) = self.cut.take() {
            bytes.truncate(offset);
        }
        bytes
    }
}

#[async_trait]
impl StagingWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes().extend_from_slice(&bytes);
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<StagingState, StoreError> {
        drop(self.bytes());
        Ok(StagingState::default())
    }
}

#[derive(Debug)]
struct Claim {
    key: ObjectKey,
    content: Arc<Mutex<Content>>,
}

impl DeletionClaim for Claim {
    fn key(&self) -> &ObjectKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.content).claimed.remove(&self.key);
    }
}

#[derive(Debug)]
struct Reader(Bytes);

impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let index = |offset: u64| usize::try_from(offset).expect("a range lies inside the object");
        pieces(self.0.slice(index(range.start)..index(range.end)))
    }
}

fn pieces(mut rest: Bytes) -> BoxStream<'static, Result<Bytes, StoreError>> {
    Box::pin(stream::iter(std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some(Ok(piece))
    })))
}
