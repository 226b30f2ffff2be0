//! What the domain needs from outside: stores, time, randomness. Adapters implement these.

pub mod blob_store;
pub mod clock;
pub mod entropy;
pub mod metadata;
pub mod steps;
