//! Which stores the configuration chooses.

use super::{Configuration, ConfigurationError};

/// Where metadata is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataBackend {
    /// One file in the data folder.
    Sqlite,
    /// A Postgres server.
    Postgres,
}

/// Where the bytes of blobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobBackend {
    /// Files in the data folder.
    Files,
    /// An S3 bucket.
    S3,
}

/// Where blobs are kept: a bucket other than `local` means S3.
pub fn blobs(configuration: &Configuration) -> BlobBackend {
    match configuration.storage.s3.bucket.as_str() {
        "" | "local" => BlobBackend::Files,
        _ => BlobBackend::S3,
    }
}

/// Where metadata is kept: any `database` key that somebody set (so any `DB_*` variable, or a database URL) means
/// Postgres.
pub fn metadata(configuration: &Configuration) -> MetadataBackend {
    if configuration.database.chosen { MetadataBackend::Postgres } else { MetadataBackend::Sqlite }
}

/// Refuses what this build does not have, instead of keeping data where nobody expects it.
///
/// # Errors
/// [`ConfigurationError::Unsupported`] says what chose it and how to go on.
pub fn check(variables: &[(String, String)]) -> Result<(), ConfigurationError> {
    let dynamo = variables.iter().find(|(name, text)| name == "DYNAMODB_TABLE" && !text.is_empty() && text != "local");
    if let Some((_, table)) = dynamo {
        return Err(ConfigurationError::Unsupported(format!(
            "environment variable DYNAMODB_TABLE: `{table}` asks for DynamoDB, which this server does not use: \
             docs/adr/0007-postgres-not-dynamodb.md says why. Use Postgres (DB_HOST, … or DATABASE_URL), or leave \
             DYNAMODB_TABLE unset or `local`"
        )));
    }
    Ok(())
}
