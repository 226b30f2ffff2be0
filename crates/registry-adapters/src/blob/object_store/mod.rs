//! Blobs in a bucket, by the crate `object_store`: S3 and what speaks like it.
//!
//! Any number of processes may work on one bucket. Nothing in it is locked and nothing is ever overwritten with other
//! bytes: every object has a name that is used once, below the identity of its upload. What counts is what the session's
//! row says, and the row is compared-and-swapped. `docs/adr/0009-uploads-on-an-object-store.md` has the reasons.

mod acknowledged;
mod connector;
mod credentials_file;
mod errors;
mod memory;
mod publish;
mod reader;
mod s3;
mod staged;
#[cfg(feature = "faults")]
mod steps;
mod unfinished;
mod writer;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use registry_core::digest::Digest;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{
    AppendError, BlobReader, BlobStore, DeletionClaim, KeyCandidates, ObjectKey, Published, StagingWriter,
};
use registry_core::upload::{StagingState, UploadId};
use tokio::time::Instant;

use acknowledged::Acknowledged;
use errors::{failure, is_absent};
use memory::Memory;
use reader::Reader;
pub use s3::{S3Keys, S3Options, S3Patience};
use staged::{Staged, Tail, key, nothing, upload_of};
pub use unfinished::UnfinishedUploads;
use writer::{MAX_PARTS, Writer};

/// The folder of all objects of uploads.
const BLOBS: &str = "blobs";
/// What the probe writes, outside of that folder.
const PROBE: &str = "probe";
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a good probe holds: replicas are asked for their readiness far more often.
const PROBE_HOLDS: Duration = Duration::from_secs(10);

/// What can be chosen for an [`ObjectBlobStore`].
#[derive(Clone, Debug)]
pub struct ObjectStoreOptions {
    /// A folder in the bucket for everything; empty for none.
    pub prefix: String,
    /// The length in bytes of the parts of an upload; S3 takes 5 MiB to 5 GiB, and 10,000 of them.
    pub part_bytes: u64,
    /// How many bytes of parts are in memory at once, over all uploads; at least one part.
    pub upload_memory_bytes: u64,
}

impl Default for ObjectStoreOptions {
    fn default() -> Self {
        Self { prefix: String::new(), part_bytes: 8 * 1024 * 1024, upload_memory_bytes: 192 * 1024 * 1024 }
    }
}

/// The interfaces of one bucket.
#[derive(Clone)]
pub struct Backend {
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Multipart uploads.
    pub multipart: Arc<dyn MultipartStore>,
    /// Lists in pages, where there are such.
    pub pages: Option<Arc<dyn PaginatedListStore>>,
    /// URLs that anyone may use for a while, where there are such.
    pub signer: Option<Arc<dyn Signer>>,
    /// The list of unfinished multipart uploads, where there is one.
    pub unfinished: Option<Arc<dyn UnfinishedUploads>>,
}

/// Keeps blobs in a bucket.
pub struct ObjectBlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    /// The folder of all objects of uploads, without a `/` at its end.
    folder: String,
    probe: Path,
    part_bytes: u64,
    memory: Memory,
    acknowledged: Mutex<Acknowledged>,
    probed_at: Mutex<Option<Instant>>,
}

impl ObjectBlobStore {
    /// A store over `backend`. Asks it nothing.
    pub fn new(backend: Backend, options: &ObjectStoreOptions) -> Self {
        let prefix = options.prefix.trim_matches('/');
        let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let inner = Inner {
            backend,
            folder: below(BLOBS),
            probe: Path::from(below(PROBE)),
            part_bytes: options.part_bytes,
            memory: Memory::of(options.upload_memory_bytes / options.part_bytes),
            acknowledged: Mutex::default(),
            probed_at: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Where `key` is in the bucket.
    ///
    /// # Errors
    /// When it is no key of ours: then the row that has it is damaged.
    fn path(&self, key: &ObjectKey) -> Result<Path, StoreError> {
        upload_of(key.as_str())
            .and_then(|_| Path::parse(format!("{}/{key}", self.folder)).ok())
            .ok_or_else(|| StoreError::corrupt(format!("{key:?} is no key of this store")))
    }

    /// The key of an object in the bucket; `None` when it is not one of ours.
    fn key(&self, path: &Path) -> Option<ObjectKey> {
        let key = path.as_ref().strip_prefix(&self.folder)?.strip_prefix('/')?;
        upload_of(key).map(|_| ObjectKey(key.to_owned()))
    }

    fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        match self.backend.objects.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failure(format!("look at {key}"))(error)),
        }
    }

    /// The bytes of a tail; `None` when it is not there, or of another length.
    async fn read_tail(&self, id: UploadId, tail: &Tail) -> Result<Option<Bytes>, StoreError> {
        if tail.size == 0 {
            return Ok(Some(Bytes::new()));
        }
        let key = key(id, &tail.name);
        let context = format!("read the tail {key}");
        let opened = match self.backend.objects.get_opts(&self.path(&key)?, GetOptions::default()).await {
            Err(error) if is_absent(&error) => {
                self.acknowledged().remove(&key);
                return Ok(None);
            }
            other => other.map_err(failure(context.clone()))?,
        };
        if opened.meta.size != tail.size {
            return Ok(None);
        }
        opened.bytes().await.map(Some).map_err(failure(context))
    }

    /// Deletes an object; absent is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.acknowledged().remove(key);
        match self.backend.objects.delete(&self.path(key)?).await {
            Err(error) if !is_absent(&error) => Err(failure(format!("delete {key}"))(error)),
            _ => Ok(()),
        }
    }

    async fn abort(&self, path: &Path, multipart: &str) -> Result<(), StoreError> {
        match self.backend.multipart.abort_multipart(path, &multipart.to_owned()).await {
            Err(error) if !is_absent(&error) => Err(failure(format!("abort the parts of {path}"))(error)),
            _ => Ok(()),
        }
    }

    /// The bytes `range` of an object; `None` when it is not there.
    async fn part_of(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        if range.is_empty() {
            return Ok(self.size_of(key).await?.map(|_| futures_util::stream::empty().boxed()));
        }
        let length = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.backend.objects.get_opts(&self.path(key)?, options).await {
            Ok(opened) => Ok(Some(reader::exactly(opened.into_stream(), length, key.to_string()))),
            Err(error) if is_absent(&error) => {
                self.acknowledged().remove(key);
                Ok(None)
            }
            Err(error) => Err(failure(format!("read {key}"))(error)),
        }
    }

    async fn upload_objects(&self, id: UploadId) -> Result<Vec<ObjectKey>, StoreError> {
        let folder = Path::from(format!("{}/{id}", self.folder));
        let list = self.backend.objects.list(Some(&folder));
        let metas: Vec<_> = list.try_collect().await.map_err(failure(format!("list objects in {folder}")))?;
        Ok(metas.into_iter().filter_map(|meta| self.key(&meta.location)).collect())
    }

    /// The objects after `after`, in the order of keys, of one page. An object that is not ours is `None`.
    async fn page(&self, after: &str, limit: usize) -> Result<Vec<(String, Option<(ObjectKey, u64)>)>, StoreError> {
        let context = || format!("list objects in {}", self.folder);
        let prefix = format!("{}/", self.folder);
        let metas = match &self.backend.pages {
            Some(pages) => {
                let options = PaginatedListOptions {
                    offset: Some(after.to_owned()),
                    max_keys: Some(limit),
                    ..PaginatedListOptions::default()
                };
                let page = pages.list_paginated(Some(&prefix), options).await.map_err(failure(context()))?;
                page.result.objects
            }
            None => {
                let folder = Path::from(self.folder.as_str());
                let offset = Path::parse(after).unwrap_or_else(|_| Path::from(after));
                let list = self.backend.objects.list_with_offset(Some(&folder), &offset);
                let mut metas: Vec<_> = list.try_collect().await.map_err(failure(context()))?;
                metas.sort_by(|one, other| one.location.cmp(&other.location));
                metas.truncate(limit);
                metas
            }
        };
        let entry = |meta: object_store::ObjectMeta| {
            let key = self.key(&meta.location).map(|key| (key, meta.size));
            (meta.location.as_ref().to_owned(), key)
        };
        Ok(metas.into_iter().map(entry).collect())
    }
}

#[async_trait]
impl BlobStore for ObjectBlobStore {
    fn key_candidates(&self, id: UploadId, _digest: &Digest, staging: &StagingState) -> KeyCandidates {
        // What cannot be read is refused when it is published.
        let object =
            Staged::read(staging, self.inner.part_bytes).map_or_else(|_| nothing(id), |staged| staged.object(id));
        KeyCandidates::new(object.as_str())
    }

    fn max_upload_bytes(&self) -> Option<u64> {
        Some(self.inner.part_bytes.saturating_mul(MAX_PARTS))
    }

    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError> {
        let staged = Staged::read(staging, self.inner.part_bytes)?;
        if staged.size() != offset {
            return Err(AppendError::Lost);
        }
        Ok(Box::new(Writer::open(Arc::clone(&self.inner), id, staged).await?))
    }

    async fn read_staged(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, AppendError> {
        let staged = Staged::read(staging, self.inner.part_bytes)?;
        if staged.size() < size {
            return Err(AppendError::Lost);
        }
        // Nobody can read the parts of a multipart upload before it is complete. Then it takes no more of them: the
        // upload goes on from here only if it ends here.
        if staged.multipart.is_some() && self.inner.publish_to_read(id, &staged).await? != Published::Yes {
            return Err(AppendError::Lost);
        }
        self.inner.part_of(&staged.object(id), 0..size).await?.ok_or(AppendError::Lost)
    }

    async fn publish(
        &self,
        id: UploadId,
        size: u64,
        staging: &StagingState,
        key: &ObjectKey,
    ) -> Result<Published, StoreError> {
        let staged = Staged::read(staging, self.inner.part_bytes)?;
        if staged.size() != size {
            return Ok(Published::Lost);
        }
        if staged.object(id) != *key {
            return Err(StoreError::corrupt(format!("the upload {id} becomes {}, not {key}", staged.object(id))));
        }
        self.inner.publish(id, &staged).await
    }

    async fn discard(&self, id: UploadId, staging: &StagingState) -> Result<(), StoreError> {
        // One that cannot be read does not keep the rest from going.
        let staged = Staged::read(staging, self.inner.part_bytes).ok();
        if let Some(multipart) = staged.and_then(|staged| staged.multipart) {
            self.inner.abort(&self.inner.path(&key(id, &multipart.name))?, &multipart.id).await?;
        }
        // Those of writers that were overtaken, or died before their first checkpoint.
        if let Some(unfinished) = &self.inner.backend.unfinished {
            for (path, multipart) in unfinished.list(&format!("{}/{id}/", self.inner.folder)).await? {
                if self.inner.key(&path).is_some_and(|key| upload_of(key.as_str()) == Some(id)) {
                    self.inner.abort(&path, &multipart).await?;
                }
            }
        }
        Ok(())
    }

    async fn upload_objects(&self, id: UploadId) -> Result<Vec<ObjectKey>, StoreError> {
        self.inner.upload_objects(id).await
    }

    fn superseded_objects(&self, id: UploadId, staging: &StagingState, object: Option<&ObjectKey>) -> Vec<ObjectKey> {
        let Ok(staged) = Staged::read(staging, self.inner.part_bytes) else { return Vec::new() };
        let mut keys: Vec<_> = staged.superseded(id).collect();
        if object.is_some() {
            keys.extend(staged.tail.as_ref().map(|tail| key(id, &tail.name)));
        }
        keys.retain(|key| Some(key) != object);
        keys
    }

    async fn remove_staged_object(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn upload_of(&self, key: &ObjectKey) -> Option<UploadId> {
        upload_of(key.as_str())
    }

    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let opened = Reader::open(&self.inner.backend.objects, self.inner.path(key)?).await?;
        Ok(opened.map(|reader| Arc::new(reader) as Arc<dyn BlobReader>))
    }

    async fn signed_url(&self, key: &ObjectKey, valid_for: Duration) -> Result<Option<String>, StoreError> {
        let Some(signer) = &self.inner.backend.signer else { return Ok(None) };
        let signed = signer.signed_url(http::Method::GET, &self.inner.path(key)?, valid_for).await;
        signed.map(|url| Some(url.into())).map_err(failure(format!("sign a URL of {key}")))
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.inner.size_of(key).await
    }

    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError> {
        // No key is used twice, so whoever deletes one late deletes nothing.
        self.inner.path(key)?;
        Ok(Some(Box::new(Claim(key.clone()))))
    }

    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError> {
        if claim.key() != key {
            let context = format!("the claim for {} does not permit to delete {key}", claim.key());
            return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
        }
        self.inner.delete(key).await
    }

    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError> {
        let mut objects = Vec::new();
        let mut after = format!("{}/{}", self.inner.folder, after.map_or("", ObjectKey::as_str));
        while objects.len() < limit {
            // Strangers' objects take places in a page, so there may be more behind one without any of ours.
            let page = self.inner.page(&after, limit - objects.len()).await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            objects.extend(page.into_iter().filter_map(|(_, object)| object));
        }
        Ok(objects)
    }

    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError> {
        let Some(unfinished) = &self.inner.backend.unfinished else { return Ok(Vec::new()) };
        let listed = unfinished.list(&format!("{}/", self.inner.folder)).await?;
        let keys = listed.into_iter().filter_map(|(path, _)| self.inner.key(&path));
        let mut ids: Vec<_> = keys.filter_map(|key| upload_of(key.as_str())).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let probed_at = || self.inner.probed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if probed_at().is_some_and(|at| at.elapsed() < PROBE_HOLDS) {
            return Ok(());
        }
        let context = || "write to the bucket".to_owned();
        let put = self.inner.backend.objects.put(&self.inner.probe, Bytes::from_static(b".").into());
        match tokio::time::timeout(PROBE_TIMEOUT, put).await {
            Ok(put) => put.map_err(failure(context()))?,
            Err(elapsed) => return Err(StoreError::new(StoreErrorKind::Unavailable, context(), elapsed)),
        };
        *probed_at() = Some(Instant::now());
        Ok(())
    }
}

/// The right to delete one object, which everyone has.
struct Claim(ObjectKey);

impl DeletionClaim for Claim {
    fn key(&self) -> &ObjectKey {
        &self.0
    }
}
