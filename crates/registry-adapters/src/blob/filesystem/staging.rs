//! Appending to staged bytes.
//!
//! The lock on the staging file orders writers; which of them is the right one is for the caller to decide, by the
//! session's row. So a writer that has just got the lock has changed nothing yet: what lies beyond its offset is cut
//! off together with its first bytes.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{AppendError, StagingWriter};
use registry_core::upload::StagingState;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::errors::{blocking, failure};
use super::layout::sync_folder;
use super::lock::{Locked, Retry, try_lock};
use super::slots::{SharedSlots, Slot, Slots};
use super::system;

const STAGED_MODE: u32 = 0o600;
/// How many bytes are written before the kernel is asked to begin writing them to disk, so that the fdatasync of a
/// checkpoint finds little left to do: 10-45 ms at the end of 1 GiB that came at 250 MB/s, and 300-390 ms without.
const WRITEBACK_BYTES: u64 = 8 * 1024 * 1024;
/// How long an upload is when the file's entry in its folder is made durable, too, and not only its bytes.
///
/// Common file systems write the entry of a new file together with its first bytes; on any other a loss of power may
/// take a shorter upload with it, which is then [`Lost`](AppendError::Lost) and sent again. For a blob of 4 KiB this
/// third flush would be 40 % of the time it takes. Publishing always makes the object's entry durable.
const DURABLE_ENTRY_BYTES: u64 = 8 * 1024 * 1024;

/// A staging file that was opened, and whether this opening made it.
struct Opened {
    file: File,
    is_new: bool,
    locked: Locked,
}

fn open(path: &Path, create: bool) -> io::Result<Option<Opened>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(STAGED_MODE);
    if create {
        match options.clone().create_new(true).open(path) {
            Ok(file) => return Ok(Some(Opened { locked: try_lock(&file, path)?, file, is_new: true })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    match options.open(path) {
        Ok(file) => Ok(Some(Opened { locked: try_lock(&file, path)?, file, is_new: false })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the staging file at `path` to append at `offset`, and takes its lock, for which it waits at most `lock_wait`.
/// The writer never takes the last `min_free_bytes` of the disk, and shares `slots` with the store's other writers.
pub(super) async fn append(
    path: PathBuf,
    offset: u64,
    lock_wait: Duration,
    min_free_bytes: u64,
    slots: &SharedSlots,
) -> Result<Writer, AppendError> {
    let context = || format!("append to {}", path.display());
    let opened = {
        let path = path.clone();
        blocking(move || open(&path, offset == 0)).await?.map_err(failure(context()))?
    };
    let Some(Opened { file, is_new, mut locked }) = opened else { return Err(AppendError::Lost) };
    let mut retry = Retry::new(lock_wait);
    loop {
        match locked {
            Locked::Yes => break,
            Locked::Moved => return Err(AppendError::Lost),
            Locked::Busy if !retry.again().await => return Err(AppendError::Busy),
            Locked::Busy => locked = try_lock(&file, &path).map_err(failure(context()))?,
        }
    }
    let length = file.metadata().map_err(failure(context()))?.len();
    if length < offset {
        return Err(AppendError::Lost);
    }
    let progress = Progress { offset, is_cut: length == offset, is_entry_durable: !is_new, unsynced: 0 };
    Ok(Writer::new(path, file, min_free_bytes, progress, slots.of_a_writer()))
}

/// Appends to a staging file, which it holds locked.
pub(super) struct Writer {
    staged: Arc<Staged>,
    batch: Batch,
    slots: Slots,
}

/// What the writer and the blocking thread that works for it share.
///
/// The lock belongs to `file` and ends when the last user of this drops it, never sooner. So while a write is still
/// under way for a writer that was dropped, no other can have the lock, and no late write can meet its bytes.
struct Staged {
    file: File,
    path: PathBuf,
    /// What uploads leave free, so that there is room to record deletions and to collect when the disk is full.
    min_free_bytes: u64,
    queue: Mutex<Queue>,
    /// Only whoever drains the queue has it, one at a time.
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Whether a blocking thread is at work on the jobs.
    is_draining: bool,
    /// The writer is gone: what is not written yet will never be asked for.
    is_abandoned: bool,
    failure: Option<StoreError>,
    has_failed: bool,
}

enum Job {
    /// Write the batch at the end; the slot, where it needed one, is given back when it is written.
    Write(Batch, Option<Slot>),
    /// Make everything durable, and tell.
    Sync(oneshot::Sender<()>),
}

struct Progress {
    /// Where the next batch goes.
    offset: u64,
    /// Whether what lay beyond the first offset is cut off.
    is_cut: bool,
    /// Whether the file's entry in its folder is durable.
    is_entry_durable: bool,
    /// How many bytes before `offset` the kernel was not yet asked to write to disk.
    unsynced: u64,
}

impl Writer {
    fn new(path: PathBuf, file: File, min_free_bytes: u64, progress: Progress, slots: Slots) -> Self {
        let staged = Staged { file, path, min_free_bytes, queue: Mutex::default(), progress: Mutex::new(progress) };
        Self { staged: Arc::new(staged), batch: Batch::default(), slots }
    }

    /// Hands over what was collected and then `last`, if any, with one thread for both.
    fn submit(&mut self, slot: Option<Slot>, last: Option<Job>) {
        let batch = std::mem::take(&mut self.batch);
        let mut queue = self.staged.queue();
        if batch.len() > 0 {
            queue.jobs.push_back(Job::Write(batch, slot));
        }
        queue.jobs.extend(last);
        if !queue.is_draining && !queue.jobs.is_empty() {
            queue.is_draining = true;
            let staged = Arc::clone(&self.staged);
            tokio::task::spawn_blocking(move || staged.drain());
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let mut queue = self.staged.queue();
        match queue.failure.take() {
            Some(failure) => Err(failure),
            None if queue.has_failed => Err(StoreError {
                kind: StoreErrorKind::Other,
                context: "this writer failed before".into(),
                source: None,
            }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl StagingWriter for Writer {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        self.check()?;
        while !bytes.is_empty() {
            // Dropping this future here loses no order: a full batch stays where it is.
            if self.batch.is_full() {
                let slot = self.slots.take().await;
                self.check()?;
                self.submit(Some(slot), None);
            }
            self.batch.take(&mut bytes);
        }
        if self.batch.is_full()
            && let Some(slot) = self.slots.try_take()
        {
            self.submit(Some(slot), None);
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<StagingState, StoreError> {
        self.check()?;
        let (done, is_done) = oneshot::channel();
        self.submit(None, Some(Job::Sync(done)));
        match is_done.await {
            Ok(()) => Ok(StagingState::default()),
            Err(_) => {
                self.check()?;
                // Only a runtime that is stopping drops a job without a word.
                Err(StoreError {
                    kind: StoreErrorKind::Unavailable,
                    context: "a checkpoint was not finished".into(),
                    source: None,
                })
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.staged.queue();
        queue.is_abandoned = true;
        queue.jobs.clear();
        if queue.is_draining {
            // The blocking thread closes the file after the write that it is at.
            return;
        }
        drop(queue);
        // Closing a file that was discarded meanwhile frees its blocks and cached pages, which takes long for a large
        // one: not here, where a runtime thread may be.
        let is_discarded = self.staged.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        if is_discarded && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let staged = Arc::clone(&self.staged);
            runtime.spawn_blocking(move || drop(staged));
        }
    }
}

impl Staged {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock, so what is inside is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all jobs that there are. Blocks.
    fn drain(self: Arc<Self>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let job = {
                let mut queue = self.queue();
                match queue.jobs.pop_front() {
                    Some(job) if !queue.is_abandoned => job,
                    _ => {
                        queue.is_draining = false;
                        return;
                    }
                }
            };
            let (outcome, done) = match job {
                Job::Write(batch, _slot) => (self.write(&mut progress, batch), None),
                Job::Sync(done) => (self.sync(&mut progress), Some(done)),
            };
            let mut queue = self.queue();
            if let Err(error) = outcome {
                queue.has_failed = true;
                queue.failure = Some(failure(format!("write {}", self.path.display()))(error));
                // Dropping their senders and slots wakes whoever waits.
                queue.jobs.clear();
            } else if let Some(done) = done {
                let is_last = queue.jobs.is_empty();
                queue.is_draining = !is_last;
                drop(queue);
                if is_last {
                    // Let go of the file before the writer is told, so that dropping the writer ends the lock at once.
                    drop(progress);
                    drop(self);
                    let _ = done.send(());
                    return;
                }
                let _ = done.send(());
            }
        }
    }

    fn write(&self, progress: &mut Progress, batch: Batch) -> io::Result<()> {
        self.cut(progress)?;
        let length = batch.len() as u64;
        let space = rustix::fs::fstatvfs(&self.file)?;
        if space.f_bavail.saturating_mul(space.f_frsize) < self.min_free_bytes.saturating_add(length) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        batch.write_at(&self.file, progress.offset)?;
        progress.offset += length;
        progress.unsynced += length;
        if progress.unsynced >= WRITEBACK_BYTES {
            system::start_writeback(&self.file, progress.offset - progress.unsynced, progress.unsynced);
            progress.unsynced = 0;
        }
        Ok(())
    }

    fn sync(&self, progress: &mut Progress) -> io::Result<()> {
        self.cut(progress)?;
        self.file.sync_data()?;
        progress.unsynced = 0;
        if !progress.is_entry_durable && progress.offset >= DURABLE_ENTRY_BYTES {
            sync_folder(self.path.parent().expect("a staging file lies in a folder"))?;
            progress.is_entry_durable = true;
        }
        Ok(())
    }

    fn cut(&self, progress: &mut Progress) -> io::Result<()> {
        if !progress.is_cut {
            self.file.set_len(progress.offset)?;
            progress.is_cut = true;
        }
        Ok(())
    }
}
