//! SQLite keeps the contract of the metadata store, and what only it can promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry_adapters::sql::{SqlMetadata, SqliteOptions};
use registry_core::ports::metadata::Metadata;
use registry_core::testing::metadata_suite::Subject;
use tempfile::TempDir;

/// A database in a folder of its own, opened twice, as two processes have it.
struct Sqlite {
    instances: [Arc<SqlMetadata>; 2],
    given: AtomicUsize,
    _folder: TempDir,
}

impl Sqlite {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metadata.sqlite");
        let open =
            async || Arc::new(SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.expect("it opens"));
        Self { instances: [open().await, open().await], given: AtomicUsize::new(0), _folder: folder }
    }
}

impl Subject for Sqlite {
    fn store(&self) -> Arc<dyn Metadata> {
        self.instances[self.given.fetch_add(1, Ordering::Relaxed) % 2].clone()
    }
}

registry_core::metadata_suite!(Sqlite::new().await);
