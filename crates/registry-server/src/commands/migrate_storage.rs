//! From files and SQLite to a bucket and Postgres, while the old server serves.
//!
//! # Why the copy is right
//! 1. A snapshot of the old metadata is taken, in one transaction: its rows agree with each other.
//! 2. Every blob that it knows, and that the target has not, is copied and hashed on the way. Blobs never change, so one
//!    that was copied in an earlier run counts. One that is gone from the old folder was collected since the snapshot:
//!    then another one is taken, and it goes on from there; one that is still known then, and still not there, is damage,
//!    and is reported.
//! 3. The rows of the target are made those of the snapshot: only what differs is written.
//!
//! Any number of runs may do this. The last one (`--finish`) does it while nobody has the old metadata open, compares
//! every row, and only then lets servers use the target. `docs/adr/0010-migrating-by-making-equal.md` has the reasons.

mod blobs;
mod report;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_adapters::blob::filesystem::FilesystemBlobStore;
use registry_adapters::sql::{SqlMetadata, TransferError, TransferMark, TransferRefusal};
use registry_core::digest::{Digest, hex};
use registry_core::error::StoreError;
use registry_core::ports::steps;
use registry_core::services::{CheckOptions, UploadError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use self::blobs::CopyBlobs;
use self::report::Report;
use super::CommandError;
use crate::arguments::MigrateStorageArguments;
use crate::compose::{self, Composition, METADATA_FILE};
use crate::config::backend::{self, BlobBackend, MetadataBackend};
use crate::config::{self, Configuration, ConfigurationError, Sources};
use crate::data_folder::{self, DataFolderError};
use crate::first_start::TOKEN_FILE;

/// The folder of the snapshot below the data folder of the target.
const WORK: &str = "migration";
/// The file in it that a run holds locked.
const LOCK: &str = "lock";
/// How often a snapshot is taken before somebody deletes faster than this copies.
const ROUNDS: usize = 100;

/// The data cannot be carried over.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The target is not what this command copies to.
    #[error(
        "this configuration keeps {0} in the data folder: migrate-storage copies to an S3 bucket and Postgres, so set \
         both (S3_BUCKET, and DATABASE_URL or DB_HOST, …)"
    )]
    Target(&'static str),
    /// The source is not what this command copies from.
    #[error(
        "the configuration in {0} keeps its data elsewhere than in files and SQLite: there is nothing to copy from"
    )]
    Source(PathBuf),
    /// Its configuration is wrong.
    #[error("{0}")]
    SourceConfiguration(#[from] ConfigurationError),
    /// No server has ever used it.
    #[error("no server has ever used the registry in {0}: there is nothing to copy")]
    Unused(PathBuf),
    /// Somebody has it open.
    #[error("a server still uses the registry in {0}: stop it, and run this again. Nothing was finished")]
    InUse(PathBuf),
    /// Whether somebody has it open cannot be found out.
    #[error("cannot look at {path}: {source}")]
    Look {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The target holds something else.
    #[error("{0}: give this one a database of its own")]
    Refused(#[from] TransferRefusal),
    /// The bucket holds something else.
    #[error("the bucket holds blobs below this prefix already: give this one another (storage.s3.prefix)")]
    BucketOccupied,
    /// The target does not take a blob.
    #[error("cannot store {digest}: {}", describe(.source))]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        source: UploadError,
    },
    /// Rows cannot be carried over.
    #[error(transparent)]
    Transfer(TransferError),
    /// The target has other rows than the source, after all.
    #[error("the target differs from the source in rows of {0}: nothing was finished")]
    Differs(String),
    /// Every snapshot was out of date before its blobs were copied.
    #[error("blobs are deleted faster than they can be copied; try again when less is going on")]
    Overtaken,
    /// Another one is at work.
    #[error("another migrate-storage works in {0}")]
    Running(PathBuf),
    /// The folder of the snapshot cannot be used.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
}

impl MigrateError {
    /// Whether the command line or the configurations are to blame.
    pub fn is_misuse(&self) -> bool {
        matches!(self, MigrateError::Target(_) | MigrateError::Source(_) | MigrateError::SourceConfiguration(_))
    }
}

impl From<TransferError> for CommandError {
    fn from(error: TransferError) -> Self {
        MigrateError::Transfer(error).into()
    }
}

/// Copies, and prints what was done. Returns whether all of it could be: false means that blobs are damaged, and that
/// nothing is finished.
///
/// # Errors
/// [`CommandError`].
pub async fn run(configuration: &Configuration, arguments: &MigrateStorageArguments) -> Result<bool, CommandError> {
    let folder = source_folder(configuration, arguments)?;
    let metadata = folder.join(METADATA_FILE);
    if !metadata.exists() {
        return Err(CommandError::NoData(folder));
    }
    if arguments.finish {
        refuse_if_in_use(&folder, &metadata)?;
    }
    let target = Composition::open(configuration).await?;
    let work = configuration.storage.data_dir.join(WORK);
    let outcome = async {
        let _alone = lock(&work)?;
        let source = compose::open_blobs(&folder)?;
        let migration = Migration { target: &target, folder: &folder, metadata: &metadata, work: &work, arguments };
        let outcome = migration.run(Arc::new(source)).await;
        // It holds secrets, and is of no more use. An error here is less than the one that is reported.
        let _ = std::fs::remove_dir_all(&work);
        outcome
    };
    let outcome = outcome.await;
    target.close().await;
    let Some(report) = outcome? else { return Ok(false) };
    if report.finished && configuration.storage.data_dir != folder {
        keep_admin_token(&folder, &compose::token_file(configuration)).map_err(MigrateError::from)?;
    }
    let text = if arguments.json { report.as_json() } else { report.as_text() };
    writeln!(io::stdout(), "{text}")?;
    Ok(true)
}

/// The data folder of the old server.
fn source_folder(configuration: &Configuration, arguments: &MigrateStorageArguments) -> Result<PathBuf, MigrateError> {
    if backend::blobs(configuration) != BlobBackend::S3 {
        return Err(MigrateError::Target("blobs"));
    }
    if backend::metadata(configuration) != MetadataBackend::Postgres {
        return Err(MigrateError::Target("metadata"));
    }
    if let Some(folder) = &arguments.from_data_dir {
        return Ok(folder.clone());
    }
    let Some(file) = &arguments.from else { return Ok(configuration.storage.data_dir.clone()) };
    // The environment and the flags are those of the target.
    let sources =
        Sources { file: Some(file.clone()), folder: PathBuf::from("."), variables: Vec::new(), flags: Vec::new() };
    let source = config::load(&sources)?.configuration;
    let is_local =
        backend::blobs(&source) == BlobBackend::Files && backend::metadata(&source) == MetadataBackend::Sqlite;
    if is_local { Ok(source.storage.data_dir) } else { Err(MigrateError::Source(file.clone())) }
}

/// Makes the folder of the snapshot, and keeps other runs out of it while the file is open.
fn lock(work: &Path) -> Result<File, MigrateError> {
    data_folder::prepare(work)?;
    let path = work.join(LOCK);
    let locked = || -> io::Result<Option<File>> {
        let file = File::create(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    match locked() {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(MigrateError::Running(work.to_owned())),
        Err(source) => Err(MigrateError::Look { path, source }),
    }
}

/// This process must not have the metadata open.
fn refuse_if_in_use(folder: &Path, metadata: &Path) -> Result<(), MigrateError> {
    match SqlMetadata::is_sqlite_in_use(metadata) {
        Ok(false) => Ok(()),
        Ok(true) => Err(MigrateError::InUse(folder.to_owned())),
        Err(source) => Err(MigrateError::Look { path: metadata.to_owned(), source }),
    }
}

/// The administrator's token of the old server opens the new one: its file goes along, unless there is one.
fn keep_admin_token(folder: &Path, file: &Path) -> Result<(), DataFolderError> {
    match std::fs::read_to_string(folder.join(TOKEN_FILE)) {
        Ok(token) => data_folder::write_secret_once(file, &token).map(drop),
        // There is none: the tokens are in the configuration.
        Err(_) => Ok(()),
    }
}

struct Migration<'a> {
    target: &'a Composition,
    folder: &'a Path,
    metadata: &'a Path,
    work: &'a Path,
    arguments: &'a MigrateStorageArguments,
}

impl Migration<'_> {
    /// `None` when blobs are damaged.
    async fn run(&self, source: Arc<FilesystemBlobStore>) -> Result<Option<Report>, CommandError> {
        let mut report = Report::default();
        let mut snapshot = self.snapshot().await?;
        let mark = match self.begin(&snapshot).await {
            Ok(mark) => mark,
            Err(error) => {
                snapshot.close().await;
                return Err(error);
            }
        };
        self.target.steps.reached(steps::MIGRATE_BEGUN);
        let mut problems = None;
        for _ in 0..ROUNDS {
            let copying = CopyBlobs { snapshot: &snapshot, source: Arc::clone(&source), target: self.target };
            if let Some(problems) = problems.take() {
                let again = copying.again(problems).await?;
                report.add(&again);
                if !again.problems.is_empty() {
                    snapshot.close().await;
                    report::damaged_blobs(&again.problems, self.arguments.json)?;
                    return Ok(None);
                }
            }
            let copied = copying.run(&mark).await?;
            report.add(&copied);
            if copied.problems.is_empty() {
                self.target.steps.reached(steps::MIGRATE_BLOBS_COPIED);
                let outcome = self.rows(&snapshot, &mark, &mut report).await;
                snapshot.close().await;
                return outcome.map(|all_well| all_well.then_some(report));
            }
            problems = Some(copied.problems);
            snapshot.close().await;
            snapshot = self.snapshot().await?;
        }
        Err(MigrateError::Overtaken.into())
    }

    /// The metadata of the source as they are now, brought up to date for this release.
    async fn snapshot(&self) -> Result<SqlMetadata, CommandError> {
        let file = self.work.join(METADATA_FILE);
        // What an interrupted run left.
        for name in [METADATA_FILE.to_owned(), format!("{METADATA_FILE}-wal"), format!("{METADATA_FILE}-shm")] {
            match std::fs::remove_file(self.work.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(MigrateError::Look { path: file, source: error }.into());
                }
                _ => {}
            }
        }
        SqlMetadata::snapshot_sqlite(self.metadata, &file).await?;
        Ok(compose::open_metadata(&file).await?)
    }

    /// Takes the target.
    async fn begin(&self, snapshot: &SqlMetadata) -> Result<TransferMark, CommandError> {
        let Some(installation) = snapshot.installation().await? else {
            return Err(MigrateError::Unused(self.folder.to_owned()).into());
        };
        let mut run = [0; 16];
        self.target.entropy.fill(&mut run);
        let mark = TransferMark { installation, run: hex(&run) };
        let is_first = !self.target.metadata.is_transfer_target().await?;
        if is_first && !self.target.blobs.list_objects(None, 1).await?.is_empty() {
            // A server's own database is the more telling refusal.
            self.target.metadata.begin_transfer(&mark).await?.map_err(MigrateError::from)?;
            self.target.metadata.abandon_transfer(&mark).await?;
            return Err(MigrateError::BucketOccupied.into());
        }
        self.target.metadata.begin_transfer(&mark).await?.map_err(MigrateError::from)?;
        Ok(mark)
    }

    /// Makes the rows the same, and finishes, if it is to. False when manifests are damaged, or what was read back is.
    async fn rows(
        &self,
        snapshot: &SqlMetadata,
        mark: &TransferMark,
        report: &mut Report,
    ) -> Result<bool, CommandError> {
        let target = &self.target.metadata;
        match target.transfer_rows(snapshot, mark, self.target.steps.as_ref()).await {
            Ok(tables) => report.tables = tables,
            Err(TransferError::Damaged(digests)) => {
                report::damaged_manifests(&digests, self.arguments.json)?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        if !self.arguments.finish {
            return Ok(true);
        }
        let differing = target.compare_rows(snapshot).await?;
        if !differing.is_empty() {
            let tables: Vec<_> = differing.keys().copied().collect();
            return Err(MigrateError::Differs(tables.join(", ")).into());
        }
        if self.arguments.verify && !self.verify(report).await? {
            return Ok(false);
        }
        self.target.steps.reached(steps::MIGRATE_COMPARED);
        // Somebody may have started it again meanwhile.
        refuse_if_in_use(self.folder, self.metadata)?;
        target.finish_transfer(mark).await?;
        report.finished = true;
        Ok(true)
    }

    /// Reads everything back. Whether all of it is as it should be.
    async fn verify(&self, report: &mut Report) -> Result<bool, CommandError> {
        let at_once = super::check::at_once(BlobBackend::S3);
        let options = CheckOptions { deep: true, repair: false, restart: true, at_once };
        let checked = self.target.services.check_storage(options, |_| {}).await?;
        let manifests = self.target.metadata.damaged_manifests().await?;
        report::damaged_target(&checked.findings, self.arguments.json)?;
        report::damaged_manifests(&manifests, self.arguments.json)?;
        report.verified = Some((checked.objects, checked.bytes));
        Ok(checked.findings.is_empty() && manifests.is_empty())
    }
}

fn describe(error: &UploadError) -> String {
    match error {
        UploadError::Store(error) => error.chain(),
        other => other.to_string(),
    }
}

/// A store's failure.
type StoreResult<T> = Result<T, StoreError>;
