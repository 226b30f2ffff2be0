//! Ports that keep everything in memory, for tests: as strict as the real ones, and nothing survives.

pub mod blob_store;
pub mod metadata;

pub use self::blob_store::MemoryBlobStore;
pub use self::metadata::MemoryMetadata;
