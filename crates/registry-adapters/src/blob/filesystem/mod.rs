//! Blobs as files of this machine.
//!
//! Bytes are written to a staging file, made durable (fdatasync), renamed to their place, and the folder is made
//! durable: an acknowledged blob survives power loss. Any number of stores, in one process or several, may stand on one
//! folder; what they must exclude each other from, they exclude by locks that end with the process. The folder must be
//! on a local file system: the locks of network file systems promise less.

mod batch;
mod buffers;
mod errors;
mod layout;
mod listing;
mod lock;
mod publish;
mod reader;
mod slots;
mod staging;
mod system;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use registry_core::digest::Digest;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{
    AppendError, BlobReader, BlobStore, DeletionClaim, KeyCandidates, ObjectKey, Published, StagingWriter,
};
use registry_core::upload::{StagingState, UploadId};

use errors::{blocking, failure};
use layout::{Layout, RelativeKey};
use lock::Retry;
use publish::DurableShards;
use reader::{Pieces, Reading};
use slots::SharedSlots;

/// What can be chosen for a [`FilesystemBlobStore`].
#[derive(Clone, Debug)]
pub struct FilesystemOptions {
    /// How long a writer, or whoever publishes, waits for the writer before it to let go.
    pub lock_wait: Duration,
    /// How many bytes uploads leave free, for the metadata beside them; with fewer, [`BlobStore::probe`] fails too.
    pub min_free_bytes: u64,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        Self { lock_wait: Duration::from_secs(5), min_free_bytes: 16 * 1024 * 1024 }
    }
}

/// Keeps blobs in `<data>/blobs` and what is staged in `<data>/uploads`.
#[derive(Debug)]
pub struct FilesystemBlobStore {
    inner: Arc<Inner>,
    reading: Arc<Reading>,
    slots: SharedSlots,
    options: FilesystemOptions,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    shards: DurableShards,
}

impl FilesystemBlobStore {
    /// Opens the store below the folder `data`; makes what is not there, for this user alone. Blocks for a moment.
    ///
    /// # Errors
    /// When the folders cannot be made or read.
    pub fn open(data: impl Into<PathBuf>, options: FilesystemOptions) -> Result<Self, StoreError> {
        let data = data.into();
        let open = || {
            let layout = Layout::create(&data)?;
            let reading = Arc::new(Reading::new(File::open(layout.blobs())?));
            let inner = Arc::new(Inner { layout, shards: DurableShards::default() });
            Ok(Self { inner, reading, slots: SharedSlots::default(), options })
        };
        open().map_err(failure(format!("open the blob store in {}", data.display())))
    }

    /// Runs `work` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        context: String,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await?.map_err(failure(context))
    }
}

#[async_trait]
impl BlobStore for FilesystemBlobStore {
    fn key_candidates(&self, _id: UploadId, digest: &Digest, _staging: &StagingState) -> KeyCandidates {
        layout::key_candidates(digest)
    }

    async fn append(
        &self,
        id: UploadId,
        offset: u64,
        _staging: &StagingState,
    ) -> Result<Box<dyn StagingWriter>, AppendError> {
        let path = self.inner.layout.staged(id);
        let FilesystemOptions { lock_wait, min_free_bytes } = self.options;
        Ok(Box::new(staging::append(path, offset, lock_wait, min_free_bytes, &self.slots).await?))
    }

    async fn read_staged(
        &self,
        id: UploadId,
        size: u64,
        _staging: &StagingState,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, AppendError> {
        let opened =
            self.run(format!("read the upload {id}"), move |inner| match File::open(inner.layout.staged(id)) {
                Ok(file) => Ok(Some((file.metadata()?.len(), file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            });
        match opened.await? {
            Some((length, file)) if length >= size => {
                Ok(Box::pin(Pieces::new(format!("the upload {id}"), &Arc::new(file), &self.reading, 0..size)))
            }
            _ => Err(AppendError::Lost),
        }
    }

    async fn publish(
        &self,
        id: UploadId,
        size: u64,
        _staging: &StagingState,
        key: &ObjectKey,
    ) -> Result<Published, StoreError> {
        let relative = RelativeKey::new(key)?;
        let mut retry = Retry::new(self.options.lock_wait);
        loop {
            let relative = relative.clone();
            let published = self
                .run(format!("publish the upload {id} as {key}"), move |inner| {
                    publish::publish(&inner.layout, &inner.shards, &inner.layout.staged(id), size, &relative)
                })
                .await?;
            if published != Published::Busy || !retry.again().await {
                return Ok(published);
            }
        }
    }

    async fn discard(&self, id: UploadId, _staging: &StagingState) -> Result<(), StoreError> {
        let context = format!("discard the upload {id}");
        self.run(context, move |inner| publish::remove_if_there(&inner.layout.staged(id))).await
    }

    async fn open(&self, key: &ObjectKey) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let relative = RelativeKey::new(key)?;
        let path = self.inner.layout.object(&relative);
        let reader = self.reading.open(relative, &path).await?;
        Ok(reader.map(|reader| Arc::new(reader) as Arc<dyn BlobReader>))
    }

    async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        let relative = RelativeKey::new(key)?;
        self.run(format!("look at {key}"), move |inner| publish::object_length(&inner.layout.object(&relative))).await
    }

    async fn claim_deletion(&self, key: &ObjectKey) -> Result<Option<Box<dyn DeletionClaim>>, StoreError> {
        RelativeKey::new(key)?;
        let claimed = key.clone();
        let lock = self.run(format!("claim the deletion of {key}"), move |inner| {
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            let file = options.open(inner.layout.deletion_locks())?;
            Ok(system::try_lock_byte(&file, lock_offset(&claimed))?.then_some(file))
        });
        let claim = lock.await?.map(|lock| Claim { key: key.clone(), _lock: lock });
        Ok(claim.map(|claim| Box::new(claim) as Box<dyn DeletionClaim>))
    }

    async fn delete(&self, claim: &dyn DeletionClaim, key: &ObjectKey) -> Result<(), StoreError> {
        let relative = RelativeKey::new(key)?;
        if claim.key() != key {
            let context = format!("the claim for {} does not permit to delete {key}", claim.key());
            return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
        }
        self.run(format!("delete {key}"), move |inner| publish::delete(&inner.layout.object(&relative))).await
    }

    async fn list_objects(&self, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<(ObjectKey, u64)>, StoreError> {
        let after = after.cloned();
        self.run("list objects".into(), move |inner| listing::objects(&inner.layout, after.as_ref(), limit)).await
    }

    async fn list_staged(&self) -> Result<Vec<UploadId>, StoreError> {
        self.run("list uploads".into(), |inner| listing::staged(&inner.layout)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let min_free = self.options.min_free_bytes;
        self.run("write to the blob store".into(), move |inner| {
            // One name for all: two at once do no harm, and a crash leaves no more than one empty file.
            let path = inner.layout.uploads().join(".probe");
            let outcome = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
            let outcome = outcome.and_then(|mut file| file.write_all(b"."));
            publish::remove_if_there(&path)?;
            outcome?;
            let space = rustix::fs::statvfs(inner.layout.uploads())?;
            if space.f_bavail.saturating_mul(space.f_frsize) < min_free {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            Ok(())
        })
        .await
    }
}

/// The right to delete one object: a lock on one byte of a file, which ends when the file is closed.
#[derive(Debug)]
struct Claim {
    key: ObjectKey,
    _lock: File,
}

impl DeletionClaim for Claim {
    fn key(&self) -> &ObjectKey {
        &self.key
    }
}

/// Which byte stands for a key. Two keys that share one would only exclude each other for a while.
fn lock_offset(key: &ObjectKey) -> u64 {
    let digest = Digest::sha256(key.as_str().as_bytes());
    // 15 hexadecimal digits are 60 bits: a file's offset has 63.
    u64::from_str_radix(&digest.encoded()[..15], 16).expect("a digest is hexadecimal")
}
