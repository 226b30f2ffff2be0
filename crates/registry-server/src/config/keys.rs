//! The table of every configuration key: the one place that knows paths, defaults, names in the environment and which
//! values are secret. Loading, unknown-key checks, `registry-server config` and the documentation all read it.

/// How the text of an environment variable or a flag becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text as it stands.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false` (also `1`/`0`, `yes`/`no`, `on`/`off` where the source is text).
    Boolean,
    /// A duration with its unit, e.g. `30s`.
    Duration,
    /// A number of bytes with a unit, e.g. `4MiB`.
    Size,
    /// A list of texts; separated by commas where the source is text.
    List,
    /// The access tokens: a list of texts or of objects.
    Tokens,
}

/// A configuration key.
#[derive(Debug)]
pub struct Key {
    /// Its path, with `.` between segments; a `*` stands for a segment that the user chooses.
    pub path: &'static str,
    /// How text becomes its value.
    pub kind: Kind,
    /// Its default as YAML; empty where there is none.
    pub default: &'static str,
    /// The names in the environment that people bring along, weakest first. The systematic one comes on top.
    pub environment: &'static [&'static str],
    /// Whether its value never appears in an output.
    pub secret: bool,
    /// Whether this release reads and checks it, and does nothing with it yet.
    pub reserved: bool,
    /// What it decides, for the documentation.
    pub meaning: &'static str,
}

/// The start of every systematic name in the environment.
pub const PREFIX: &str = "FOUNDRY_";
/// What separates segments in a systematic name.
pub const SEPARATOR: &str = "__";

impl Key {
    /// The name in the environment that every key has: `FOUNDRY_<SECTION>__<KEY>`, e.g. `FOUNDRY_SERVER__PORT`.
    pub fn systematic_name(&self) -> String {
        let segments: Vec<_> = self.path.split('.').map(screaming).collect();
        format!("{PREFIX}{}", segments.join(SEPARATOR))
    }

    /// Whether `path` is this key: equal segment by segment, where `*` equals anything.
    pub fn is(&self, path: &[String]) -> bool {
        let mut segments = self.path.split('.');
        path.iter().all(|segment| segments.next().is_some_and(|own| own == "*" || own == segment))
            && segments.next().is_none()
    }

    /// Whether `path` is a section that holds this key.
    pub fn lies_in(&self, path: &[String]) -> bool {
        let own: Vec<_> = self.path.split('.').collect();
        path.len() < own.len() && path.iter().zip(&own).all(|(segment, own)| *own == "*" || own == segment)
    }
}

/// `dataDir` → `DATA_DIR`, `base_url` → `BASE_URL`, `*` → `<NAME>`.
fn screaming(segment: &str) -> String {
    if segment == "*" {
        return "<NAME>".to_owned();
    }
    let mut name = String::with_capacity(segment.len() + 2);
    for character in segment.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

/// The key at `path`.
pub fn find(path: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.is(path))
}

const fn key(path: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default, environment: &[], secret: false, reserved: false, meaning }
}

impl Key {
    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.environment = names;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn reserved(mut self) -> Self {
        self.reserved = true;
        self
    }
}

use Kind::{Boolean, Duration, Integer, List, Size, Text, Tokens};

/// Every key, in the order in which documents and `registry-server config` show them.
pub static KEYS: &[Key] = &[
    key("server.host", Text, "127.0.0.1", "The address to listen on, or `localhost`; `0.0.0.0` or `::` for all.")
        .env(&["HTTP_HOST"]),
    key("server.port", Integer, "8080", "The TCP port to listen on; `0` lets the system choose.")
        .env(&["PORT", "HTTP_PORT"]),
    key("server.base_url", Text, "", "The URL that clients reach this server by; without it, the Host header says.")
        .env(&["BASE_URL"]),
    key("server.trusted_proxies", List, "[]", "Addresses and networks whose `X-Forwarded-*` headers are believed."),
    key("server.tls.certificate", Text, "", "A PEM file: the certificate, then its chain. With `key`: serve TLS."),
    key("server.tls.key", Text, "", "A PEM file: the certificate's private key."),
    key(
        "server.shutdown_delay",
        Duration,
        "0s",
        "How long to serve on after SIGTERM, not ready any more, so that a load balancer notices first.",
    ),
    key("server.shutdown_grace", Duration, "30s", "How long requests under way may take to finish after SIGTERM."),
    key("server.max_connections", Integer, "10000", "How many connections are served at once; others wait."),
    key("server.header_timeout", Duration, "30s", "How long a client may take to send a request's headers."),
    key("server.idle_timeout", Duration, "90s", "How long a connection may rest between requests."),
    key("server.body_idle_timeout", Duration, "5m", "How long a request's body may stand still."),
    key(
        "server.write_idle_timeout",
        Duration,
        "60s",
        "How long a client may take none of its answer; over HTTP/2 the stream ends, and nothing else.",
    ),
    key("storage.dataDir", Text, "./data", "The folder of the metadata, the blobs and the administrator's token."),
    key("storage.s3.bucket", Text, "local", "An S3 bucket for the blobs; `local` keeps them in files.")
        .env(&["S3_BUCKET"]),
    key("storage.s3.region", Text, "", "The bucket's region.").env(&["AWS_DEFAULT_REGION", "AWS_REGION", "S3_REGION"]),
    key("storage.s3.endpoint", Text, "", "The URL of an S3-compatible store other than AWS.")
        .env(&["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]),
    key("storage.s3.allow_http", Boolean, "false", "Whether the endpoint may be plain HTTP.").env(&["AWS_ALLOW_HTTP"]),
    key(
        "storage.s3.path_style",
        Boolean,
        "",
        "Whether URLs name the bucket in their path; `true` where `endpoint` is set.",
    ),
    key("storage.s3.prefix", Text, "''", "A folder in the bucket for everything that this registry keeps there."),
    key("storage.s3.part_size", Size, "8MiB", "The length of an upload's parts; a blob has 10,000 of them at most."),
    key(
        "storage.s3.upload_memory",
        Size,
        "192MiB",
        "The memory for the parts of all uploads; they wait for each other. A client that takes more than 2 s to fill a part lets those that wait go first: what it has sent lies in the bucket meanwhile.",
    ),
    key("storage.s3.read_timeout", Duration, "30s", "How long the bucket may say nothing in the middle of a request."),
    key("storage.s3.retry_timeout", Duration, "1m", "How long a request that fails is tried again, before a 503."),
    key("storage.s3.access_key_id", Text, "", "The access key's identifier.").env(&["AWS_ACCESS_KEY_ID"]),
    key("storage.s3.secret_access_key", Text, "", "The access key's secret.").env(&["AWS_SECRET_ACCESS_KEY"]).secret(),
    key("storage.s3.session_token", Text, "", "The token of temporary credentials.")
        .env(&["AWS_SESSION_TOKEN"])
        .secret(),
    key("database.url", Text, "", "A Postgres URL; it stands instead of the parts below.")
        .env(&["DATABASE_URL"])
        .secret(),
    key("database.host", Text, "localhost", "The Postgres server. Any `database` key that is set chooses Postgres.")
        .env(&["DB_HOST"]),
    key("database.port", Integer, "5432", "Its port.").env(&["DB_PORT"]),
    key("database.user", Text, "postgres", "The user.").env(&["DB_USER"]),
    key("database.password", Text, "password", "The user's password.").env(&["DB_PASSWORD"]).secret(),
    key("database.name", Text, "artifact_db", "The database.").env(&["DB_NAME"]),
    key("database.sslmode", Text, "disable", "As libpq's: `disable`, `prefer`, `require`, `verify-ca`, `verify-full`.")
        .env(&["DB_SSL_MODE", "DB_SSLMODE"]),
    key("database.timezone", Text, "UTC", "The session's time zone.").env(&["DB_TIMEZONE"]),
    key("database.max_connections", Integer, "16", "How many connections to Postgres this process has at most."),
    key("database.acquire_timeout", Duration, "10s", "How long a request waits for a connection to Postgres."),
    key("database.statement_timeout", Duration, "30s", "How long Postgres may take for a statement."),
    key("auth.tokens", Tokens, "[]", "Access tokens: texts (administrators) or objects; see *Tokens* below.").secret(),
    key("auth.anonymous", Text, "none", "What requests without credentials may do: `none`, `pull`, `push`, `admin`."),
    key("auth.token_lifetime", Duration, "5m", "How long the signed tokens of `/auth/token` are valid."),
    key(
        "auth.failed_attempts_per_minute",
        Integer,
        "20",
        "How many failed attempts one client has in a minute: an IPv4 address, or the first 64 bits of an IPv6 address.",
    ),
    key("limits.max_manifest_bytes", Size, "4MiB", "The largest manifest; at most 4MiB."),
    key("limits.max_blob_bytes", Size, "", "The largest blob of an `oci` registry; none by default."),
    key("limits.max_artifact_bytes", Size, "", "The largest file of a `generic` registry; none by default."),
    key("gc.interval", Duration, "1h", "The time between two background collections; `0s` switches them off."),
    key("gc.grace", Duration, "24h", "How long bytes stay after an upload or the loss of their last reference."),
    key("gc.upload_idle", Duration, "24h", "How long an upload session may stand still before it is ended."),
    key("registries.*.format", Text, "", "What the registry `*` holds: `oci` or `generic`."),
    key("registries.*.mode", Text, "", "Where its content comes from: `local`."),
    key("registries.*.references", Text, "", "Whether manifests may name what is not there: `strict` or `lenient`."),
    key("registries.*.anonymous", Text, "", "As `auth.anonymous`, for this registry alone."),
    key(
        "registries.*.redirect",
        Boolean,
        "",
        "Whether blobs in a bucket are fetched from there, by a URL valid for minutes.",
    ),
    key("log.level", Text, "info", "`error`, `warn`, `info`, `debug`, `trace`, `off`, or tracing's filter directives.")
        .env(&["LOG_LEVEL"]),
    key("log.format", Text, "json", "`json`: one object a line; `text`: for people."),
    key("log.access", Boolean, "true", "Whether each request is logged."),
    key("metrics.enabled", Boolean, "true", "Whether `/metrics` is served."),
    key(
        "metrics.access",
        Text,
        "open",
        "Who may read `/metrics`: `open`: everybody who reaches it; `token`: the holder of any valid token.",
    ),
    key("grpc.host", Text, "127.0.0.1", "The address of the gRPC service.").env(&["GRPC_HOST"]).reserved(),
    key("grpc.port", Integer, "9090", "The port of the gRPC service.").env(&["GRPC_PORT"]).reserved(),
    key("npm.fallback", Boolean, "true", "Whether `npm` also answers from the public registry.")
        .env(&["NPM_FALLBACK"])
        .reserved(),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn systematic_names_follow_the_path() {
        for (key, name) in [
            ("server.port", "FOUNDRY_SERVER__PORT"),
            ("storage.dataDir", "FOUNDRY_STORAGE__DATA_DIR"),
            ("server.tls.key", "FOUNDRY_SERVER__TLS__KEY"),
            ("storage.s3.access_key_id", "FOUNDRY_STORAGE__S3__ACCESS_KEY_ID"),
        ] {
            assert_eq!(find(&path(key)).unwrap().systematic_name(), name);
        }
    }

    #[test]
    fn no_two_keys_share_a_path_or_a_name_in_the_environment() {
        let mut paths = std::collections::BTreeSet::new();
        let mut names = std::collections::BTreeSet::new();
        for key in KEYS {
            assert!(paths.insert(key.path), "{}", key.path);
            assert!(names.insert(key.systematic_name()), "{}", key.path);
            for name in key.environment {
                assert!(names.insert((*name).to_owned()), "{name}");
            }
        }
    }

    #[test]
    fn a_star_stands_for_any_one_segment() {
        assert_eq!(find(&path("registries.team.references")).unwrap().path, "registries.*.references");
        assert!(find(&path("registries.references")).is_none());
        assert!(find(&path("registries.a.b.references")).is_none());
        assert!(KEYS.iter().any(|key| key.lies_in(&path("registries.team"))));
        assert!(!KEYS.iter().any(|key| key.lies_in(&path("registries.team.references"))));
    }
}
