//! What the adapter says to the databases, remembered, so that each statement's plan can be looked at.

mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::statement::{Text, Value};

/// The statements that the adapter made, with the types of their arguments where they went to Postgres.
static MADE: Mutex<BTreeMap<Text, Option<Vec<&'static str>>>> = Mutex::new(BTreeMap::new());

fn lock() -> MutexGuard<'static, BTreeMap<Text, Option<Vec<&'static str>>>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn made() -> BTreeMap<Text, Option<Vec<&'static str>>> {
    lock().clone()
}

/// Remembers that the adapter made a statement.
#[track_caller]
pub(super) fn note(text: Text) {
    let file = std::panic::Location::caller().file();
    if !file.ends_with("tests.rs") && !file.contains("plans/") {
        lock().entry(text).or_default();
    }
}

/// Remembers the types of a statement's arguments, as Postgres calls them.
pub(super) fn note_types(text: Text, arguments: &[Value]) {
    let types = arguments.iter().map(|argument| match argument {
        Value::Integer(_) => "bigint",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytea",
        Value::Texts(_) => "text[]",
    });
    if let Some(noted) = lock().get_mut(&text) {
        *noted = Some(types.collect());
    }
}
