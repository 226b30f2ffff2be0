//! A Postgres server, as all tests of this repository get one.

#[path = "../../../../tests/src/postgres.rs"]
#[allow(dead_code, reason = "each of the tests that include this needs another part")]
pub mod postgres;
#[path = "../../../../tests/src/tools.rs"]
#[expect(dead_code, reason = "only its way to skip is used here")]
mod tools;
