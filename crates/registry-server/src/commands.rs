//! What the program can do: one command a file.

pub mod backup;
pub mod check;
pub mod gc;
pub mod healthcheck;
pub mod migrate_storage;
pub mod serve;

use std::path::PathBuf;

use registry_adapters::sql::SqlMetadata;
use registry_core::error::StoreError;
use registry_core::services::StoreLikeness;

use crate::compose::{Composition, METADATA_FILE};
use crate::config::Configuration;
use crate::config::backend::{self, MetadataBackend};

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The stores cannot be had.
    #[error(transparent)]
    Compose(#[from] crate::compose::ComposeError),
    /// A store failed.
    #[error("{}", .0.chain())]
    Store(#[from] StoreError),
    /// There is no data to work on.
    #[error("there is no registry in {0} (key storage.dataDir): nothing was done")]
    NoData(PathBuf),
    /// The store is rather another one than the metadata is about.
    #[error("nothing was repaired, as this seems to be another store than the metadata is about: {}", check::differences(.0))]
    StrangeStore(StoreLikeness),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The backup cannot be made.
    #[error(transparent)]
    Backup(#[from] backup::BackupError),
    /// The data cannot be carried over.
    #[error(transparent)]
    Migrate(#[from] migrate_storage::MigrateError),
}

/// Opens the stores of a data folder that is there already: a command that looks at data must not make an empty
/// registry because of a mistyped folder.
async fn open_existing(configuration: &Configuration) -> Result<Composition, CommandError> {
    let folder = &configuration.storage.data_dir;
    // A Postgres database has a name of its own, and is not made when it is missing.
    let in_folder = backend::metadata(configuration) == MetadataBackend::Sqlite;
    if in_folder && !folder.join(METADATA_FILE).exists() {
        return Err(CommandError::NoData(folder.clone()));
    }
    Ok(Composition::open(configuration).await?)
}

/// Every row of a ledger, in pages.
async fn next_page(
    metadata: &SqlMetadata,
    after: Option<&registry_core::ports::blob_store::ObjectKey>,
) -> Result<Vec<registry_core::ports::metadata::ledger::LedgerEntry>, StoreError> {
    use registry_core::ports::metadata::ObjectLedger as _;
    const PAGE: usize = 1000;
    metadata.ledger_page(after, PAGE).await
}
