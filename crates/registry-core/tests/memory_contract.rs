//! The in-memory ports keep the contracts that the real ones keep.

use std::sync::Arc;
use std::time::Duration;

use registry_core::ports::blob_store::BlobStore;
use registry_core::ports::metadata::Metadata;
use registry_core::testing::memory::{MemoryBlobStore, MemoryMetadata};
use registry_core::testing::{blob_store_suite, metadata_suite};

struct Blobs(MemoryBlobStore);

impl blob_store_suite::Subject for Blobs {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(self.0.clone())
    }
}

fn blobs() -> Blobs {
    Blobs(MemoryBlobStore::new(Duration::from_millis(50)))
}

#[derive(Default)]
struct Rows(MemoryMetadata);

impl metadata_suite::Subject for Rows {
    fn store(&self) -> Arc<dyn Metadata> {
        Arc::new(self.0.clone())
    }
}

mod blob_store {
    use super::*;
    registry_core::blob_store_suite!(blobs());
}

mod metadata {
    use super::*;
    registry_core::metadata_suite!(Rows::default());
}
