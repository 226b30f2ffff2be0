//! The ports of the domain, implemented on files, databases and the operating system.

pub mod blob;
pub mod clock;
pub mod entropy;
pub mod sql;
