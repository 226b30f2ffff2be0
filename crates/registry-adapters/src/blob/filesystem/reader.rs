//! Reading objects.
//!
//! What is in the page cache is read at once where the request runs: that takes less than handing it to another thread.
//! A thread that may block is asked only for what has to come from a disk.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use registry_core::error::StoreError;
use registry_core::ports::blob_store::{BlobReader, ObjectKey};
use tokio::task::JoinHandle;

use super::buffers::{Buffer, Buffers, PIECE_BYTES};
use super::errors::{blocking, failure, stopped};
use super::layout::RelativeKey;
use super::system::{self, Cached};

/// How far ahead of a read that had to wait for the disk the kernel is asked to read.
/// On a busy virtual disk 1 GiB came at 750-1,100 MB/s so, at 350-780 with 2 MiB, and at 130-1,050 with none.
const READ_AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// What readers of one store share.
#[derive(Debug)]
pub(super) struct Reading {
    folder: File,
    buffers: Buffers,
    // Set once this system or file system was found not to have the call.
    no_cached_opens: AtomicBool,
    no_cached_reads: AtomicBool,
}

impl Reading {
    /// For the objects in `folder`.
    pub(super) fn new(folder: File) -> Self {
        Self {
            folder,
            buffers: Buffers::default(),
            no_cached_opens: AtomicBool::new(false),
            no_cached_reads: AtomicBool::new(false),
        }
    }

    /// Opens an object; `None` when it is not there.
    ///
    /// Names and inodes in memory are looked up here, in a few microseconds; others on a thread that may block.
    pub(super) async fn open(self: &Arc<Self>, key: RelativeKey, path: &Path) -> Result<Option<Reader>, StoreError> {
        let context = || format!("open {}", path.display());
        if !self.no_cached_opens.load(Ordering::Relaxed) {
            match system::open_cached(&self.folder, key.as_path()).map_err(failure(context()))? {
                Cached::Ready(file) => return self.reader(key, file).map_err(failure(context())),
                Cached::Blocks => {}
                Cached::Unsupported => self.no_cached_opens.store(true, Ordering::Relaxed),
            }
        }
        let (this, owned) = (Arc::clone(self), path.to_owned());
        let opened = blocking(move || match File::open(&owned) {
            Ok(file) => this.reader(key, Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        opened.await?.map_err(failure(context()))
    }

    fn reader(self: &Arc<Self>, key: RelativeKey, file: Option<File>) -> io::Result<Option<Reader>> {
        let Some(file) = file else { return Ok(None) };
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then(|| Reader {
            key: key.into_key(),
            size: metadata.len(),
            file: Arc::new(file),
            reading: Arc::clone(self),
        }))
    }
}

/// An open object.
#[derive(Debug)]
pub(super) struct Reader {
    key: ObjectKey,
    size: u64,
    file: Arc<File>,
    reading: Arc<Reading>,
}

impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        Box::pin(Pieces::new(format!("the object {}", self.key), &self.file, &self.reading, range))
    }

    fn file(&self) -> Option<Arc<File>> {
        Some(Arc::clone(&self.file))
    }
}

/// The bytes of a range of a file.
pub(super) struct Pieces {
    what: String,
    file: Arc<File>,
    reading: Arc<Reading>,
    position: u64,
    end: u64,
    /// A read on another thread.
    pending: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    /// The bytes `range` of `file`, which is called `what` in errors.
    pub(super) fn new(what: String, file: &Arc<File>, reading: &Arc<Reading>, range: Range<u64>) -> Self {
        Self {
            what,
            file: Arc::clone(file),
            reading: Arc::clone(reading),
            position: range.start,
            end: range.end,
            pending: None,
        }
    }

    fn buffer(&self, position: u64) -> Buffer {
        let length = usize::try_from(self.end - position).unwrap_or(PIECE_BYTES);
        self.reading.buffers.get(length.min(PIECE_BYTES))
    }

    /// The next bytes, if that takes no disk.
    fn read_cached(&self) -> io::Result<Option<Bytes>> {
        if self.reading.no_cached_reads.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut buffer = self.buffer(self.position);
        match system::read_cached(&self.file, buffer.space(), self.position)? {
            Cached::Ready(length) => return Ok(Some(buffer.into_bytes(length))),
            Cached::Blocks => {}
            Cached::Unsupported => self.reading.no_cached_reads.store(true, Ordering::Relaxed),
        }
        Ok(None)
    }

    fn read_elsewhere(&self, position: u64) -> JoinHandle<io::Result<Bytes>> {
        let (file, mut buffer) = (Arc::clone(&self.file), self.buffer(position));
        let ahead = (self.end - position).min(READ_AHEAD_BYTES);
        tokio::task::spawn_blocking(move || {
            system::read_ahead(&file, position, ahead);
            let length = loop {
                match file.read_at(buffer.space(), position) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
            Ok(buffer.into_bytes(length))
        })
    }

    fn take(&mut self, bytes: io::Result<Bytes>) -> Result<Bytes, StoreError> {
        match bytes.map_err(failure(format!("read {}", self.what))) {
            Ok(bytes) if bytes.is_empty() => {
                let context = format!("{} ends at byte {}, before byte {}", self.what, self.position, self.end);
                self.position = self.end;
                Err(StoreError::corrupt(context))
            }
            Ok(bytes) => {
                self.position += bytes.len() as u64;
                Ok(bytes)
            }
            Err(error) => {
                // After an error the stream is over.
                self.position = self.end;
                Err(error)
            }
        }
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.pending.is_none() {
            if self.position >= self.end {
                return Poll::Ready(None);
            }
            match self.read_cached().transpose() {
                Some(bytes) => return Poll::Ready(Some(self.take(bytes))),
                None => self.pending = Some(self.read_elsewhere(self.position)),
            }
        }
        let pending = self.pending.as_mut().expect("it was set above");
        let Poll::Ready(outcome) = Pin::new(pending).poll(context) else { return Poll::Pending };
        self.pending = None;
        let item = outcome.map_err(stopped).and_then(|bytes| self.take(bytes));
        // Where every read goes to another thread, the next one begins while this piece is being sent.
        if self.position < self.end && self.reading.no_cached_reads.load(Ordering::Relaxed) {
            self.pending = Some(self.read_elsewhere(self.position));
        }
        Poll::Ready(Some(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use registry_core::ports::blob_store::KeyCandidates;

    /// As on a system that has neither call.
    #[tokio::test]
    async fn without_cached_reads_and_opens_another_thread_does_both() {
        let folder = tempfile::tempdir().unwrap();
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let key = KeyCandidates::new(format!("e3/{hex}")).nth(0);
        let path = folder.path().join(key.as_str());
        let original: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &original).unwrap();

        let reading = Arc::new(Reading::new(File::open(folder.path()).unwrap()));
        reading.no_cached_opens.store(true, Ordering::Relaxed);
        reading.no_cached_reads.store(true, Ordering::Relaxed);
        let absent = RelativeKey::new(&KeyCandidates::new(format!("e3/{hex}")).nth(1)).unwrap();
        assert!(reading.open(absent, &path.with_extension("absent")).await.unwrap().is_none());
        let reader = Arc::new(reading.open(RelativeKey::new(&key).unwrap(), &path).await.unwrap().unwrap());
        for range in [0..1_000_000, 5..5, 262_143..262_146, 999_999..1_000_000] {
            let mut stream = Arc::clone(&reader).stream(range.clone());
            let mut read = Vec::new();
            while let Some(piece) = stream.next().await {
                read.extend_from_slice(&piece.unwrap());
            }
            assert!(read == original[range.start as usize..range.end as usize], "{range:?}");
        }
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300_000).unwrap();
        let pieces: Vec<_> = reader.stream(0..1_000_000).take(100).collect().await;
        let (last, before) = pieces.split_last().unwrap();
        assert_eq!(before.iter().map(|piece| piece.as_ref().unwrap().len()).sum::<usize>(), 300_000);
        assert!(last.is_err());
    }
}
