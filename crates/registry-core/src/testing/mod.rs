//! In-memory ports, and the contract suites that every adapter must pass.

pub mod blob_store_suite;
pub mod clock;
pub mod entropy;
pub mod memory;
pub mod metadata_suite;
