//! The configuration: defaults ← file ← environment ← command line, checked before anything is opened.

pub mod backend;
mod contradictions;
pub mod environment;
mod error;
pub mod keys;
mod report;
pub mod tokens;
mod unknown;
pub mod values;
mod yaml;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use figment::providers::Format as _;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use registry_core::names::RegistryName;
use registry_core::permission::AnonymousAccess;
use registry_core::registry::{Format, Mode, References};
use serde::Deserialize;

pub use self::error::ConfigurationError;
use self::error::Problem;
use self::keys::{KEYS, Kind};
use self::tokens::TokenEntry;
use self::values::{BaseUrl, ByteSize, HumanDuration, LogFormat, LogLevel, Network, Secret};
use self::yaml::Yaml;

/// What stands for a secret in every output.
pub const MASK: &str = "********";

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "config.yaml";

/// The whole configuration. Each field is the key of the same path in [`KEYS`], where its meaning and default are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys says what each one means, once")]
pub struct Configuration {
    pub server: Server,
    pub storage: Storage,
    pub database: Database,
    pub auth: Auth,
    pub limits: Limits,
    pub gc: GarbageCollection,
    #[serde(default)]
    pub registries: BTreeMap<RegistryName, RegistryConfiguration>,
    pub log: Log,
    pub metrics: Metrics,
    pub grpc: Grpc,
    pub npm: Npm,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "the table of keys says what each one means, once")]
        pub struct $name { $($(#[$attribute])* pub $field: $type),* }
    };
}

section! {
    /// `server`
    Server {
        #[serde(deserialize_with = "address")]
        host: IpAddr,
        port: u16,
        base_url: Option<BaseUrl>,
        trusted_proxies: Vec<Network>,
        #[serde(default)]
        tls: Tls,
        shutdown_delay: HumanDuration,
        shutdown_grace: HumanDuration,
        max_connections: usize,
        header_timeout: HumanDuration,
        idle_timeout: HumanDuration,
        body_idle_timeout: HumanDuration,
        write_idle_timeout: HumanDuration,
    }
}

/// `server.tls`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the table of keys says what each one means, once")]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

section! {
    /// `storage`
    Storage {
        #[serde(rename = "dataDir")]
        data_dir: PathBuf,
        s3: S3,
    }
}
section! {
    /// `storage.s3`
    S3 {
        bucket: String,
        region: Option<String>,
        endpoint: Option<String>,
        allow_http: bool,
        path_style: Option<bool>,
        prefix: String,
        part_size: ByteSize,
        upload_memory: ByteSize,
        read_timeout: HumanDuration,
        retry_timeout: HumanDuration,
        access_key_id: Option<String>,
        secret_access_key: Option<Secret>,
        session_token: Option<Secret>,
    }
}
section! {
    /// `database`
    Database {
        url: Option<Secret>,
        host: String,
        port: u16,
        user: String,
        password: Secret,
        name: String,
        sslmode: SslMode,
        timezone: String,
        max_connections: u32,
        acquire_timeout: HumanDuration,
        statement_timeout: HumanDuration,
        #[serde(skip)]
        chosen: bool,
    }
}

/// `database.sslmode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "libpq's words")]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

section! {
    /// `auth`
    Auth {
        tokens: Vec<TokenEntry>,
        anonymous: AnonymousAccess,
        token_lifetime: HumanDuration,
        failed_attempts_per_minute: u32,
    }
}
section! {
    /// `limits`
    Limits {
        max_manifest_bytes: ByteSize,
        max_blob_bytes: Option<ByteSize>,
        max_artifact_bytes: Option<ByteSize>,
    }
}
section! {
    /// `gc`
    GarbageCollection { interval: HumanDuration, grace: HumanDuration, upload_idle: HumanDuration }
}
section! {
    /// One of `registries`
    RegistryConfiguration {
        format: Option<Format>,
        mode: Option<Mode>,
        references: Option<References>,
        anonymous: Option<AnonymousAccess>,
        redirect: Option<bool>,
    }
}
section! {
    /// `log`
    Log { level: LogLevel, format: LogFormat, access: bool }
}
section! {
    /// `metrics`
    Metrics { enabled: bool, access: MetricsAccess }
}

/// `metrics.access`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsAccess {
    /// Everybody who reaches the server.
    Open,
    /// The holder of any valid token.
    Token,
}
section! {
    /// `grpc`
    Grpc {
        #[serde(deserialize_with = "address")]
        host: IpAddr,
        port: u16,
    }
}
section! {
    /// `npm`
    Npm { fallback: bool }
}

/// An address to listen on, as people and other programs write it: also in brackets, and `localhost`.
fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    bare.parse().map_err(serde::de::Error::custom)
}

/// Where configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that the command line names; it must exist.
    pub file: Option<PathBuf>,
    /// The folder in which `config.yaml` is looked for when no file is named.
    pub folder: PathBuf,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// What the command line sets.
    pub flags: Vec<FlagValue>,
}

/// A value that the command line sets.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The flag as it is written, e.g. `--port`.
    pub flag: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// Its text.
    pub text: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A file, a variable or a flag, as people call it.
    Set(String),
}

/// A configuration, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub configuration: Configuration,
    /// The file that was read.
    pub file: Option<PathBuf>,
    figment: Figment,
}

/// One layer of values with one name.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

const DEFAULT_LAYER: &str = "default";

/// Reads, joins and checks everything.
///
/// # Errors
/// [`ConfigurationError`] with every problem that could be found at once.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigurationError> {
    let mut problems = Vec::new();
    let mut figment = defaults();

    let file = file_to_read(sources)?;
    if let Some(path) = &file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigurationError::Unreadable { path: path.clone(), source })?;
        let values: Dict = Yaml::from_str(&text)
            .map_err(|source| ConfigurationError::Syntax { path: path.clone(), message: source.to_string() })?;
        problems.extend(unknown::find(&values).into_iter().map(|key| Problem::unknown_key(key, path)));
        figment = figment.merge(Layer { metadata: Metadata::named(path.display().to_string()), values });
    }

    let environment = environment::read(sources.variables.iter().cloned());
    problems.extend(environment.unknown.into_iter().map(Problem::unknown_variable));
    for setting in environment.settings {
        let metadata = Metadata::named(format!("environment variable {}", setting.variable));
        figment = figment.merge(Layer { metadata, values: nested(&setting.path, value(setting.kind, &setting.text)) });
    }
    for FlagValue { flag, key, text } in &sources.flags {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        let kind = keys::find(&path).expect("flags set keys of the table").kind;
        let metadata = Metadata::named(format!("flag {flag}"));
        figment = figment.merge(Layer { metadata, values: nested(&path, value(kind, text)) });
    }

    if !problems.is_empty() {
        return Err(ConfigurationError::Problems(problems));
    }
    let configuration = figment.extract::<Configuration>().map_err(|error| {
        ConfigurationError::Problems(error.into_iter().map(|error| Problem::from_figment(&error)).collect())
    })?;
    let mut loaded = Loaded { configuration, file, figment };
    let chosen = loaded.set_keys().any(|(key, _)| key.path.starts_with("database."));
    loaded.configuration.database.chosen = chosen;
    let problems = contradictions::find(&loaded);
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigurationError::Problems(problems)) }
}

fn file_to_read(sources: &Sources) -> Result<Option<PathBuf>, ConfigurationError> {
    if let Some(named) = &sources.file {
        return Ok(Some(named.clone()));
    }
    let path = sources.folder.join(DEFAULT_FILE);
    match path.try_exists() {
        Ok(exists) => Ok(exists.then_some(path)),
        Err(source) => Err(ConfigurationError::Unreadable { path, source }),
    }
}

/// The defaults of the table, each a layer of the same name. A key without one is absent, and so are the sections that a
/// user names.
fn defaults() -> Figment {
    let with_default = KEYS.iter().filter(|key| !key.path.contains('*') && !key.default.is_empty());
    with_default.fold(Figment::new(), |figment, key| {
        let path: Vec<_> = key.path.split('.').map(str::to_owned).collect();
        let default: Value = serde_norway::from_str(key.default).expect("the table's defaults are YAML");
        figment.merge(Layer { metadata: Metadata::named(DEFAULT_LAYER), values: nested(&path, default) })
    })
}

/// `a.b.c = value` as sections in sections.
fn nested(path: &[String], value: Value) -> Dict {
    let (first, rest) = path.split_first().expect("a key has at least one segment");
    let value = if rest.is_empty() { value } else { Value::from(nested(rest, value)) };
    Dict::from([(first.clone(), value)])
}

/// Text from the environment or the command line as a value of `kind`. Text that does not fit stays text, so that the
/// error shows what was written.
fn value(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Text | Kind::Duration | Kind::Size => Value::from(text),
        Kind::Integer => text.trim().parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::from(true),
            "false" | "0" | "no" | "off" => Value::from(false),
            _ => Value::from(text),
        },
        Kind::List | Kind::Tokens => Value::from(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect::<Vec<_>>(),
        ),
    }
}

impl Loaded {
    /// Where the value at `path` came from; a list counts as one value.
    pub fn origin(&self, path: &str) -> Origin {
        match self.figment.find_metadata(path) {
            Some(metadata) if metadata.name != DEFAULT_LAYER => Origin::Set(metadata.name.clone().into_owned()),
            _ => Origin::Default,
        }
    }

    /// The keys of the table that somebody set, with where.
    pub fn set_keys(&self) -> impl Iterator<Item = (&'static keys::Key, String)> + '_ {
        KEYS.iter().filter_map(|key| match self.origin(key.path) {
            Origin::Set(origin) => Some((key, origin)),
            Origin::Default => None,
        })
    }

    /// The effective configuration as YAML, with where each value came from, secrets masked.
    pub fn report(&self) -> String {
        report::render(self)
    }

    fn raw(&self, path: &str) -> Option<Value> {
        self.figment.find_value(path).ok()
    }
}

#[cfg(test)]
mod tests;
