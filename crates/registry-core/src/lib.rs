//! The domain of Foundry: values that cannot hold an invalid state, the use cases, and the ports they stand on.
//!
//! Nothing here does I/O, speaks HTTP or SQL, or reads the clock: what the domain needs from outside it asks a
//! [port](ports) for. The only wire format known here is the manifest document, which is the domain's own.
#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod manifest;
pub mod names;
pub mod package;
pub mod permission;
pub mod ports;
pub mod precondition;
pub mod registry;
pub mod services;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod token;
pub mod upload;
pub mod version_order;
