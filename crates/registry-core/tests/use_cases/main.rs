//! What the use cases promise, over the in-memory ports: a clock that the test moves, seeded randomness, and named
//! moments at which a test lets something else happen.

mod activity;
mod artifacts;
mod check;
mod check_at_once;
mod copying;
mod credentials;
mod finishing;
mod garbage;
mod lists;
mod manifests;
mod reading;
mod recognising;
mod registries;
mod staging;
mod uploads;
mod world;
mod writing;
