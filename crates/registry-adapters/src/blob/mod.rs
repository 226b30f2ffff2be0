//! Where the bytes of blobs are.

pub mod filesystem;
