//! A Postgres server for the tests of this crate.

use registry_adapters::sql::{PostgresOptions, PostgresServer, SqlMetadata};
use registry_core::error::StoreError;

/// Opens a database as a replica does.
pub async fn open(url: &str) -> Result<SqlMetadata, StoreError> {
    SqlMetadata::open_postgres(PostgresServer::from_url(url)?, PostgresOptions::default()).await
}

/// Brings the schema of a database up to date, on a thread and a runtime of its own.
pub fn migrate(url: &str) {
    let url = url.to_owned();
    let migrated = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { open(&url).await.unwrap_or_else(|error| panic!("{}", error.chain())).close().await });
    });
    migrated.join().expect("it can be migrated");
}
