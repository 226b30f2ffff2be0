//! Copying everything while a server goes on.
//!
//! # Why the copy is consistent
//! Objects never change, and a row of the metadata is committed only after its object is durable. So a snapshot of the
//! metadata refers to objects that were all there when it was taken; what can go wrong is that a collection deletes one
//! of them before it is copied. Therefore:
//!
//! 1. Every object that is live now is linked (or copied) into the backup. What is linked stays, whatever is collected.
//! 2. The snapshot of the metadata is taken: in one transaction, beside readers and writers.
//! 3. The live objects of the snapshot that step 1 has not seen are linked as well. They are few: those committed in the
//!    meantime. If one of them is gone already, its last reference was deleted after the snapshot: the snapshot is
//!    dropped, and step 2 is done again. Each round has less to do than the one before.
//! 4. Objects that the snapshot does not know are removed from the backup.
//! 5. The snapshot gets its name. An interrupted backup has no metadata and cannot be taken for a whole one.
//!
//! No collection is held off, and nothing waits for the backup. Uploads that are not finished are not in it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use registry_adapters::sql::SqlMetadata;
use registry_core::digest::Digest;
use registry_core::ports::blob_store::{BlobStore as _, ObjectKey};
use registry_core::ports::metadata::ObjectLedger as _;
use registry_core::ports::metadata::ledger::{LedgerEntry, ObjectState};

use super::{CommandError, next_page, open_existing};
use crate::arguments::BackupArguments;
use crate::compose::{self, METADATA_FILE};
use crate::config::Configuration;
use crate::config::backend::{self, BlobBackend, MetadataBackend};
use crate::data_folder::{self, sync_folder};
use crate::first_start::TOKEN_FILE;

/// The folder of objects below a data folder.
const BLOBS: &str = "blobs";
/// The snapshot while it is not known to be whole.
const PARTIAL_METADATA: &str = "metadata.sqlite.partial";
/// How often the snapshot is taken before somebody deletes faster than this copies.
const ROUNDS: usize = 100;
/// How many objects of the store are listed at once.
const LIST_PAGE: usize = 1000;

/// The backup cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The blobs are not files.
    #[error(
        "the blobs are in a bucket, which this command does not copy: docs/operations.md says how to back up bucket \
         and metadata"
    )]
    Bucket,
    /// The folder holds something.
    #[error("{0} is not empty: a backup goes into an empty or absent folder")]
    NotEmpty(PathBuf),
    /// A file cannot be copied.
    #[error("cannot copy to {path}: {source}")]
    Copy {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The store has lost an object that the metadata still knows.
    #[error("the bytes of {0} are missing: `registry-server check` says more")]
    Missing(Digest),
    /// The metadata is in Postgres.
    #[error(
        "the metadata is in Postgres, which this command does not copy. Let no collection run (gc.interval: 0s), make \
         a copy of the database (pg_dump), and then one of the blobs: see docs/operations.md, Backup and restore"
    )]
    Postgres,
    /// Every snapshot was out of date before its objects were copied.
    #[error("objects are deleted faster than they can be copied; try again when less is going on")]
    Overtaken,
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes a backup and prints what it holds.
///
/// # Errors
/// [`CommandError`]; the folder then has no metadata file.
pub async fn run(configuration: &Configuration, arguments: &BackupArguments) -> Result<(), CommandError> {
    if backend::blobs(configuration) == BlobBackend::S3 {
        return Err(BackupError::Bucket.into());
    }
    if backend::metadata(configuration) == MetadataBackend::Postgres {
        return Err(BackupError::Postgres.into());
    }
    let composition = open_existing(configuration).await?;
    let backup = Backup {
        data: configuration.storage.data_dir.clone(),
        target: arguments.folder.clone(),
        copy: arguments.copy,
        shards: BTreeSet::new(),
    };
    let made = backup.make(&composition.metadata).await;
    composition.close().await;
    let BackupReport { objects, bytes } = made?;
    writeln!(
        io::stdout(),
        "Backed up {objects} objects of {bytes} bytes to {}. To restore: stop the server, copy that folder to \
         storage.dataDir, start it.",
        arguments.folder.display()
    )?;
    Ok(())
}

struct Backup {
    data: PathBuf,
    target: PathBuf,
    copy: bool,
    /// The folders that have new entries.
    shards: BTreeSet<PathBuf>,
}

/// What became of the wish to have an object in the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    /// It is not in the store (any more).
    Gone,
}

impl Backup {
    async fn make(mut self, live: &SqlMetadata) -> Result<BackupReport, CommandError> {
        self.prepare()?;
        self.take_all(live).await?;
        let report = self.take_snapshot(live).await?;
        self.finish()?;
        Ok(report)
    }

    fn prepare(&self) -> Result<(), BackupError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.target);
        let empty = made.and_then(|()| Ok(std::fs::read_dir(&self.target)?.next().is_none()));
        match empty.map_err(|source| self.wrong(&self.target, source))? {
            true => Ok(()),
            false => Err(BackupError::NotEmpty(self.target.clone())),
        }
    }

    /// Step 1. What is gone by the time it is reached is no loss: a later snapshot does not know it.
    async fn take_all(&mut self, live: &SqlMetadata) -> Result<(), CommandError> {
        let mut after = None;
        loop {
            let page = next_page(live, after.as_ref()).await?;
            let Some(last) = page.last() else { return Ok(()) };
            for (key, _) in page.iter().filter_map(live_object) {
                self.take(key)?;
            }
            after = Some(last.key.clone());
        }
    }

    /// Steps 2 to 4.
    async fn take_snapshot(&mut self, live: &SqlMetadata) -> Result<BackupReport, CommandError> {
        let partial = self.target.join(PARTIAL_METADATA);
        for _ in 0..ROUNDS {
            live.backup_to(&partial).await?;
            let snapshot = compose::open_metadata(&partial).await?;
            let outcome = self.complete(&snapshot, live).await;
            snapshot.close().await;
            if let Some(report) = outcome? {
                return Ok(report);
            }
            std::fs::remove_file(&partial).map_err(|source| self.wrong(&partial, source))?;
        }
        Err(BackupError::Overtaken.into())
    }

    /// Takes what `snapshot` knows and the backup has not; `None` when an object is gone already.
    async fn complete(
        &mut self,
        snapshot: &SqlMetadata,
        live: &SqlMetadata,
    ) -> Result<Option<BackupReport>, CommandError> {
        let mut report = BackupReport::default();
        let mut after = None;
        loop {
            let page = next_page(snapshot, after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            for (key, size) in page.iter().filter_map(live_object) {
                if self.take(key)? == Taken::Gone {
                    // Collected, or lost?
                    return match live.ledger_entry(key).await? {
                        Some(LedgerEntry { state: ObjectState::Live, blob: Some((digest, _)), .. }) => {
                            Err(BackupError::Missing(digest).into())
                        }
                        _ => Ok(None),
                    };
                }
                report.objects += 1;
                report.bytes += size;
            }
            after = Some(last.key.clone());
        }
        self.remove_unknown(snapshot).await?;
        Ok(Some(report))
    }

    /// Step 4: what was collected after step 1 had taken it.
    async fn remove_unknown(&self, snapshot: &SqlMetadata) -> Result<(), CommandError> {
        let copies = compose::open_blobs(&self.target)?;
        let mut after = None;
        loop {
            let page = copies.list_objects(after.as_ref(), LIST_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            for (key, _) in &page {
                let entry = snapshot.ledger_entry(key).await?;
                if entry.as_ref().and_then(live_object).is_none() {
                    let path = self.target.join(BLOBS).join(key.as_str());
                    std::fs::remove_file(&path).map_err(|source| self.wrong(&path, source))?;
                }
            }
            after = Some(last.clone());
        }
    }

    /// Step 5: everything is durable before the metadata gets its name.
    fn finish(&self) -> Result<(), BackupError> {
        let blobs = self.target.join(BLOBS);
        for folder in self.shards.iter().chain([&blobs]) {
            sync_folder(folder).map_err(|source| self.wrong(folder, source))?;
        }
        // Without it the restored server would make another administrator's token.
        let token = self.data.join(TOKEN_FILE);
        match std::fs::read_to_string(&token) {
            Ok(text) => {
                let copy = self.target.join(TOKEN_FILE);
                data_folder::write_secret_once(&copy, &text)
                    .map_err(|error| self.wrong(&copy, io::Error::other(error)))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(self.wrong(&token, source)),
        }
        let metadata = self.target.join(METADATA_FILE);
        std::fs::rename(self.target.join(PARTIAL_METADATA), &metadata)
            .and_then(|()| sync_folder(&self.target))
            .map_err(|source| self.wrong(&metadata, source))
    }

    /// Links an object into the backup, or copies it where a link cannot be; nothing when it is there already.
    fn take(&mut self, key: &ObjectKey) -> Result<Taken, BackupError> {
        let (from, to) = (self.data.join(BLOBS).join(key.as_str()), self.target.join(BLOBS).join(key.as_str()));
        let shard = to.parent().expect("an object lies in a folder").to_owned();
        if !self.shards.contains(&shard) {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&shard);
            made.map_err(|source| self.wrong(&shard, source))?;
            // A folder of its own lies in another for algorithms other than SHA-256.
            if let Some(parent) = shard.parent() {
                self.shards.insert(parent.to_owned());
            }
            self.shards.insert(shard);
        }
        let taken = if self.copy { copy(&from, &to) } else { link_or_copy(&from, &to) };
        match taken {
            Ok(()) => Ok(Taken::Yes),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Taken::Yes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Taken::Gone),
            Err(source) => Err(self.wrong(&to, source)),
        }
    }

    fn wrong(&self, path: &Path, source: io::Error) -> BackupError {
        BackupError::Copy { path: path.to_owned(), source }
    }
}

fn live_object(entry: &LedgerEntry) -> Option<(&ObjectKey, u64)> {
    match (entry.state, &entry.blob) {
        (ObjectState::Live, Some((_, size))) => Some((&entry.key, *size)),
        _ => None,
    }
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    match std::fs::hard_link(from, to) {
        Err(error) if matches!(error.kind(), CrossesDevices | TooManyLinks | Unsupported | PermissionDenied) => {
            copy(from, to)
        }
        other => other,
    }
}

/// Copies bytes durably; a file that is there under that name is whole, because a copy gets its name last.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.try_exists()? {
        return Ok(());
    }
    let mut source = File::open(from)?;
    let partial = to.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    io::copy(&mut source, &mut file)?;
    file.sync_all()?;
    std::fs::rename(&partial, to)
}

#[cfg(test)]
mod tests;
