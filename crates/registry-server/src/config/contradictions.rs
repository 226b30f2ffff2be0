//! What no single value shows: keys that need each other, and limits that the design sets.

use registry_adapters::sql::PostgresServer;
use registry_core::names::RegistryName;

use super::backend::{BlobBackend, blobs};
use super::error::Problem;
use super::values::HumanDuration;
use super::{Configuration, Loaded};

/// The largest manifest that the design allows, in bytes: manifests are rows of the database and are read whole.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// The durations that mean nothing when they are zero.
const POSITIVE: [&str; 11] = [
    "storage.s3.read_timeout",
    "storage.s3.retry_timeout",
    "database.acquire_timeout",
    "database.statement_timeout",
    "server.header_timeout",
    "server.idle_timeout",
    "server.body_idle_timeout",
    "server.write_idle_timeout",
    "auth.token_lifetime",
    "gc.grace",
    "gc.upload_idle",
];

/// Everything in `loaded` that contradicts itself.
pub fn find(loaded: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    server(loaded, &mut problems);
    bucket(loaded, &mut problems);
    durations(loaded, &mut problems);
    registries(loaded, &mut problems);
    tokens(loaded, &mut problems);
    problems
}

fn problem(loaded: &Loaded, key: &str, message: impl Into<String>) -> Problem {
    Problem::at(key, loaded.origin(key), message.into())
}

fn server(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let Configuration { server, limits, database, .. } = &loaded.configuration;
    match (&server.tls.certificate, &server.tls.key) {
        (Some(_), None) => problems.push(problem(loaded, "server.tls.certificate", "needs `server.tls.key` beside it")),
        (None, Some(_)) => problems.push(problem(loaded, "server.tls.key", "needs `server.tls.certificate` beside it")),
        _ => {}
    }
    if server.max_connections == 0 {
        problems.push(problem(loaded, "server.max_connections", "must be at least 1"));
    }
    if database.max_connections == 0 {
        problems.push(problem(loaded, "database.max_connections", "must be at least 1"));
    }
    let url = database.url.as_ref().map(|url| url.0.as_str());
    if url.is_some_and(|url| PostgresServer::from_url(url).is_err()) {
        let message = "is not of the form postgres://user:password@host:port/database";
        problems.push(problem(loaded, "database.url", message));
    }
    if limits.max_manifest_bytes.0 > MANIFEST_LIMIT {
        problems.push(problem(loaded, "limits.max_manifest_bytes", "must be at most 4MiB"));
    }
}

/// What S3 takes as the length of a part, in bytes.
const PART_LENGTHS: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;

fn bucket(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let s3 = &loaded.configuration.storage.s3;
    if !PART_LENGTHS.contains(&s3.part_size.0) {
        problems.push(problem(loaded, "storage.s3.part_size", "must be from 5MiB to 5GiB"));
    }
    if s3.upload_memory.0 < s3.part_size.0 {
        problems.push(problem(loaded, "storage.s3.upload_memory", "must hold at least one part (`part_size`)"));
    }
    match (&s3.access_key_id, &s3.secret_access_key) {
        (Some(_), None) => {
            problems.push(problem(loaded, "storage.s3.access_key_id", "needs `secret_access_key` beside it"));
        }
        (None, Some(_)) => {
            problems.push(problem(loaded, "storage.s3.secret_access_key", "needs `access_key_id` beside it"));
        }
        _ => {}
    }
    if let Some(endpoint) = s3.endpoint.as_deref().filter(|_| blobs(&loaded.configuration) == BlobBackend::S3) {
        if endpoint.starts_with("http://") && !s3.allow_http {
            let message = "is plain HTTP, which `storage.s3.allow_http` (AWS_ALLOW_HTTP) has to permit";
            problems.push(problem(loaded, "storage.s3.endpoint", message));
        } else if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            problems.push(problem(loaded, "storage.s3.endpoint", "must be a URL that begins with http:// or https://"));
        }
    }
}

fn durations(loaded: &Loaded, problems: &mut Vec<Problem>) {
    for key in POSITIVE {
        let duration = loaded.raw(key).and_then(|value| value.deserialize::<HumanDuration>().ok());
        if duration.is_some_and(|duration| duration.0.is_zero()) {
            problems.push(problem(loaded, key, "must be longer than 0s"));
        }
    }
}

fn registries(loaded: &Loaded, problems: &mut Vec<Problem>) {
    for (name, registry) in &loaded.configuration.registries {
        let built_in = [RegistryName::default_oci(), RegistryName::default_generic()].contains(name);
        match registry.format {
            None if !built_in => {
                let message = "is a new registry and needs a `format`: oci or generic";
                problems.push(problem(loaded, &format!("registries.{name}"), message));
            }
            Some(format) if built_in && format.as_str() != name.as_str() => {
                let message = format!("the registry `{name}` is there from the start, and its format is {name}");
                problems.push(problem(loaded, &format!("registries.{name}.format"), message));
            }
            _ => {}
        }
    }
}

fn tokens(loaded: &Loaded, problems: &mut Vec<Problem>) {
    for (index, entry) in loaded.configuration.auth.tokens.iter().enumerate() {
        if let Err(error) = entry.resolve(index) {
            let origin = loaded.origin("auth.tokens");
            problems.push(Problem::at(&format!("auth.tokens[{index}]"), origin, error.to_string()));
        }
    }
}
