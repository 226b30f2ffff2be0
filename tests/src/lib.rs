//! What the end-to-end tests share: a real server process, a plain HTTP client that can be torn anywhere, images made
//! from nothing, seeded randomness, and the finding of foreign tools.
//!
//! Everything blocks: a test is a sequence of sentences, and concurrency in it is threads.
#![forbid(unsafe_code)]

pub mod clients;
pub mod cluster;
pub mod http;
pub mod oci;
pub mod process;
pub mod random;
pub mod relay;
pub mod s3;
pub mod server;
pub mod store_proxy;
pub mod tools;
pub mod toxiproxy;
pub mod wait;

pub use registry_test_postgres as postgres;

pub use cluster::{Cluster, Stores};
pub use http::{Answer, Connection};
pub use oci::{Image, Repository};
pub use process::Process;
pub use random::Random;
pub use relay::Relay;
pub use s3::{S3, S3Server};
pub use server::{Server, ServerBuilder};
pub use store_proxy::StoreProxy;
pub use toxiproxy::Toxiproxy;
pub use wait::eventually;
