//! The registry's server: configuration, composition, commands and background jobs around the crates that do the work.

pub mod arguments;
pub mod commands;
pub mod compose;
pub mod config;
pub mod data_folder;
#[cfg(feature = "fail-points")]
pub mod fail_points;
pub mod first_start;
pub mod jobs;
pub mod logging;
pub mod program;
pub mod readiness;
pub mod tls;
