//! The ports of the domain, implemented on files, databases and the operating system.

pub mod blob;
pub mod clock;
pub mod entropy;
pub mod sql;

/// A Postgres server for the tests of what is private here.
#[cfg(test)]
#[path = "../tests/support/server.rs"]
mod test_server;
