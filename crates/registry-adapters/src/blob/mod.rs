//! Where the bytes of blobs are.

pub mod filesystem;
pub mod object_store;
