//! Every rule of precedence, and every way to be wrong.

use std::path::PathBuf;

use super::backend::{self, BlobBackend, MetadataBackend};
use super::*;

/// A folder for files, and sources to load.
struct Case {
    folder: tempfile::TempDir,
    sources: Sources,
}

fn case() -> Case {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources { folder: folder.path().to_owned(), ..Sources::default() };
    Case { folder, sources }
}

impl Case {
    /// Writes `text` where it is found without being named.
    fn found(self, text: &str) -> Self {
        std::fs::write(self.folder.path().join(DEFAULT_FILE), text).unwrap();
        self
    }

    /// Writes `text` into another file and names that one.
    fn named(mut self, text: &str) -> Self {
        let file = self.folder.path().join("named.yaml");
        std::fs::write(&file, text).unwrap();
        self.sources.file = Some(file);
        self
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.sources.variables.push((name.to_owned(), text.to_owned()));
        self
    }

    fn flag(mut self, flag: &'static str, key: &'static str, text: &str) -> Self {
        self.sources.flags.push(FlagValue { flag, key, text: text.to_owned() });
        self
    }

    fn load(&self) -> Result<Loaded, ConfigurationError> {
        super::load(&self.sources)
    }

    fn port(&self) -> u16 {
        self.load().unwrap().configuration.server.port
    }

    fn error(&self) -> String {
        self.load().expect_err("the configuration is wrong").to_string()
    }

    fn backend_error(&self) -> String {
        backend::check(&self.sources.variables).expect_err("not in this build").to_string()
    }
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let loaded = case().load().unwrap();
    let Configuration { server, storage, auth, limits, gc, registries, log, .. } = loaded.configuration.clone();
    assert_eq!((server.host.to_string().as_str(), server.port), ("127.0.0.1", 8080));
    assert_eq!((server.base_url, server.tls.certificate, server.trusted_proxies.len()), (None, None, 0));
    assert_eq!(storage.data_dir, PathBuf::from("./data"));
    assert_eq!((auth.anonymous, auth.tokens.len()), (AnonymousAccess::None, 0));
    assert_eq!(auth.token_lifetime.0.as_secs(), 300);
    assert_eq!((limits.max_manifest_bytes.0, limits.max_blob_bytes, limits.max_artifact_bytes), (4 << 20, None, None));
    assert_eq!([gc.interval, gc.grace, gc.upload_idle].map(|it| it.0.as_secs()), [3600, 86_400, 86_400]);
    assert!(registries.is_empty());
    assert_eq!((log.level.directives(), log.format), ("info", LogFormat::Json));
    assert!(loaded.file.is_none() && loaded.set_keys().next().is_none());
}

#[test]
fn each_source_beats_the_ones_before_it() {
    let by_file = case().found("server: {port: 1001}");
    assert_eq!(by_file.port(), 1001);
    let by_variable = by_file.variable("PORT", "1002");
    assert_eq!(by_variable.port(), 1002);
    let by_specific_variable = by_variable.variable("HTTP_PORT", "1003");
    assert_eq!(by_specific_variable.port(), 1003);
    let by_systematic_variable = by_specific_variable.variable("FOUNDRY_SERVER__PORT", "1004");
    assert_eq!(by_systematic_variable.port(), 1004);
    let by_flag = by_systematic_variable.flag("--port", "server.port", "1005");
    assert_eq!(by_flag.port(), 1005);
}

#[test]
fn a_source_replaces_values_and_not_their_section() {
    let case = case().found("server: {port: 1001, host: 0.0.0.0}").variable("PORT", "1002");
    let server = case.load().unwrap().configuration.server;
    assert_eq!((server.host.to_string().as_str(), server.port), ("0.0.0.0", 1002));
}

#[test]
fn an_address_is_read_as_people_write_it() {
    for (text, address) in [("localhost", "127.0.0.1"), ("LOCALHOST", "127.0.0.1"), ("[::]", "::"), ("::1", "::1")] {
        let loaded = case().variable("HTTP_HOST", text).variable("GRPC_HOST", text).load().unwrap().configuration;
        assert_eq!((loaded.server.host.to_string(), loaded.grpc.host.to_string()), (address.into(), address.into()));
    }
    for text in ["", "local host", "[::", "example.com"] {
        assert!(case().found(&format!("server: {{host: '{text}'}}")).load().is_err(), "{text}");
    }
}

#[test]
fn the_named_file_is_read_instead_of_the_one_in_the_folder() {
    let case = case().found("server: {port: 1001}").named("server: {host: 0.0.0.0}");
    assert_eq!(case.port(), 8080);
    let mut missing = case;
    missing.sources.file = Some(PathBuf::from("/nowhere/config.yaml"));
    let error = missing.error();
    assert!(error.starts_with("cannot read the configuration file /nowhere/config.yaml: No such file"), "{error}");
}

#[test]
fn what_people_bring_along_works_as_it_is() {
    let case =
        case().named("server:\n  port: 5000\nstorage:\n  dataDir: /srv/foundry\nauth:\n  tokens:\n    - secret-one\n");
    let configuration = case.load().unwrap().configuration;
    assert_eq!((configuration.server.port, configuration.storage.data_dir), (5000, PathBuf::from("/srv/foundry")));
    assert_eq!(configuration.auth.tokens.len(), 1);
}

#[test]
fn variables_have_the_types_of_their_keys() {
    let case = case()
        .variable("NPM_FALLBACK", "false")
        .variable("FOUNDRY_LOG__ACCESS", "0")
        .variable("FOUNDRY_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.1")
        .variable("FOUNDRY_AUTH__TOKENS", "12345,second")
        .variable("FOUNDRY_GC__INTERVAL", "10m")
        .variable("FOUNDRY_LIMITS__MAX_BLOB_BYTES", "10GB")
        .variable("FOUNDRY_REGISTRIES__OCI__REFERENCES", "lenient");
    let configuration = case.load().unwrap().configuration;
    assert!(!configuration.npm.fallback && !configuration.log.access);
    assert_eq!(configuration.server.trusted_proxies.len(), 2);
    assert_eq!(configuration.auth.tokens.len(), 2, "a token of digits stays text");
    assert_eq!(configuration.gc.interval.0.as_secs(), 600);
    assert_eq!(configuration.limits.max_blob_bytes, Some(ByteSize(10_000_000_000)));
    assert_eq!(configuration.registries[&RegistryName::default_oci()].references, Some(References::Lenient));
}

#[test]
fn an_unknown_key_stops_the_start_and_is_named_with_its_file_and_the_nearest() {
    let case = case().named("server: {prot: 1}\nstorage: {data_dir: x}\nlog: {zzz: 1}\n");
    let file = case.sources.file.as_ref().unwrap().display().to_string();
    let error = case.error();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert!(lines.contains(&format!("{file}: server.prot: unknown key; did you mean `server.port`?").as_str()));
    assert!(
        lines.contains(&format!("{file}: storage.data_dir: unknown key; did you mean `storage.dataDir`?").as_str())
    );
    assert!(error.contains("log.zzz: unknown key; known here: log.level, log.format, log.access"));
}

#[test]
fn an_unknown_variable_stops_the_start() {
    let error = case().variable("FOUNDRY_SERVER__PROT", "1").error();
    assert_eq!(error, "environment variable FOUNDRY_SERVER__PROT: names no key; did you mean FOUNDRY_SERVER__PORT?");
}

#[test]
fn a_wrong_value_is_shown_with_where_it_came_from() {
    let by_file = case().named("server: {port: many}");
    let file = by_file.sources.file.as_ref().unwrap().display().to_string();
    assert_eq!(by_file.error(), format!("{file}: server.port: expected u16, found \"many\""));
    assert_eq!(
        case().variable("HTTP_PORT", "70000").error(),
        "environment variable HTTP_PORT: server.port: invalid value unsigned int `70000`, expected u16"
    );
    assert_eq!(
        case().flag("--host", "server.host", "everywhere").error(),
        "flag --host: server.host: invalid IP address syntax"
    );
    let words = case().named("auth: {anonymous: pul}").error();
    assert!(words.contains("found `pul`; did you mean `pull`?"), "{words}");
    let section = case().named("server: 8080").error();
    assert!(section.contains("server: ") && section.contains("found"), "{section}");
    let null = case().named("server: {port: null}").error();
    assert!(null.contains("server.port: expected u16, found nothing"), "{null}");
    let unit = case().named("gc: {interval: 3600}").error();
    assert!(unit.contains("gc.interval") && unit.contains("a duration with its unit, e.g. 30s"), "{unit}");
}

#[test]
fn a_mistake_of_syntax_names_its_line() {
    let error = case().named("server:\n  port: 1\n bad").error();
    assert!(error.contains("named.yaml: ") && error.contains("line 3"), "{error}");
    assert!(case().named("- a\n").error().contains("named.yaml"));
}

#[test]
fn no_error_repeats_a_secret() {
    for text in [
        "auth: {tokens: [hunter2, 424242]}",
        "auth: {tokens: [{token: 424242}]}",
        "auth: {tokens: hunter2}",
        "auth: {tokens: [{token: hunter2, hash: hunter2}]}",
        "auth: {tokens: [{hash: hunter2}]}",
        "auth: {tokens: [{token: 'hunter2 hunter2'}]}",
        "database: {password: 424242}",
        "storage: {s3: {secret_access_key: [hunter2]}}",
        "server: {base_url: 'http://user:hunter2@host'}",
    ] {
        let error = case().named(text).error();
        assert!(!error.contains("hunter2") && !error.contains("424242"), "{text}: {error}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (text, expected) in [
        ("server: {tls: {certificate: c.pem}}", "server.tls.certificate: needs `server.tls.key`"),
        ("server: {tls: {key: k.pem}}", "server.tls.key: needs `server.tls.certificate`"),
        ("server: {max_connections: 0}", "server.max_connections: must be at least 1"),
        ("limits: {max_manifest_bytes: 5MiB}", "limits.max_manifest_bytes: must be at most 4MiB"),
        ("gc: {grace: 0s}", "gc.grace: must be longer than 0s"),
        ("registries: {team: {references: lenient}}", "registries.team: is a new registry and needs a `format`"),
        ("registries: {oci: {format: generic}}", "registries.oci.format: the registry `oci` is there from the start"),
        ("registries: {Team: {format: oci}}", "a registry's name must match"),
        ("registries: {team: {format: npm}}", "registries.team.format: expected"),
        ("auth: {tokens: ['']}", "auth.tokens[0]: a token is one or more visible ASCII characters"),
        ("auth: {tokens: [good, {token: t, scopes: [x]}]}", "auth.tokens[1].scopes[0]: a scope is"),
        (
            "auth: {tokens: [{token: t, nmae: x}]}",
            "auth.tokens[0].nmae: unknown key; did you mean `auth.tokens[0].name`?",
        ),
    ] {
        let error = case().named(text).error();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("named.yaml"), "{text}: {error}");
    }
}

#[test]
fn every_value_knows_where_it_came_from() {
    let case = case().found("server: {port: 1001, host: 0.0.0.0, shutdown_grace: 1s}").variable("PORT", "1002").flag(
        "--host",
        "server.host",
        "127.0.0.2",
    );
    let loaded = case.load().unwrap();
    let file = case.folder.path().join(DEFAULT_FILE).display().to_string();
    for (key, origin) in [
        ("server.port", Some("environment variable PORT")),
        ("server.host", Some("flag --host")),
        ("server.shutdown_grace", Some(file.as_str())),
        ("server.base_url", None),
        ("gc.grace", None),
    ] {
        let expected = origin.map_or(Origin::Default, |origin| Origin::Set(origin.to_owned()));
        assert_eq!(loaded.origin(key), expected, "{key}");
    }
}

#[test]
fn the_report_shows_everything_but_secrets_and_reads_back() {
    let case = case()
        .found(
            "auth:\n  tokens:\n    - hunter2hunter2hunter2\n    - {name: ci, token: hunter2, scopes: ['oci:a/*:pull']}\n\
             server: {trusted_proxies: ['10.0.0.0/8']}\nregistries: {team: {format: oci, references: lenient}}\n\
             storage: {dataDir: '/srv/a b'}\n",
        )
        .variable("AWS_ACCESS_KEY_ID", "AKIA")
        .variable("AWS_SECRET_ACCESS_KEY", "hunter2")
        .variable("DATABASE_URL", "postgres://me:hunter2@db/artifacts")
        .variable("PORT", "1002");
    let loaded = case.load().unwrap();
    let report = loaded.report();
    assert!(!report.contains("hunter2"), "{report}");
    let file = case.folder.path().join(DEFAULT_FILE).display().to_string();
    for line in [
        "server:".to_owned(),
        "  host: \"127.0.0.1\" # default".to_owned(),
        "  port: 1002 # environment variable PORT".to_owned(),
        "  base_url: null # default".to_owned(),
        format!("  trusted_proxies: # {file}"),
        format!("  dataDir: \"/srv/a b\" # {file}"),
        "    secret_access_key: \"********\" # environment variable AWS_SECRET_ACCESS_KEY".to_owned(),
        "  url: \"postgres://me:********@db/artifacts\" # environment variable DATABASE_URL".to_owned(),
        "  password: \"********\" # default".to_owned(),
        format!("  tokens: # {file}"),
        "    - \"********\"".to_owned(),
        "    - {name: ci, scopes: [\"oci:a/*:pull\"], token: \"********\"}".to_owned(),
        "  team:".to_owned(),
        format!("    references: lenient # {file}"),
    ] {
        assert!(report.lines().any(|own| own == line), "{line}\n{report}");
    }
    // What stands for a secret is not a secret that opens the door.
    let pasted = self::case().named(&report).error();
    assert!(pasted.contains("auth.tokens[0]: `********` stands for a hidden value"), "{pasted}");
    assert_eq!(pasted.lines().count(), 2, "all else reads back: {pasted}");
}

#[test]
fn the_report_of_the_defaults_is_the_defaults() {
    let report = case().load().unwrap().report();
    assert!(report.lines().all(|line| line.ends_with(':') || line.ends_with("# default")), "{report}");
    let again = case().named(&report).load().unwrap();
    assert_eq!(again.configuration.server.port, 8080);
    for key in KEYS.iter().filter(|key| !key.path.contains('*')) {
        assert!(report.contains(&format!("{}:", key.path.rsplit('.').next().unwrap())), "{}", key.path);
    }
}

#[test]
fn the_backend_follows_from_what_is_set() {
    let choice = |case: Case| {
        let configuration = case.load().unwrap().configuration;
        (backend::metadata(&configuration), backend::blobs(&configuration))
    };
    let (sqlite, postgres) = (MetadataBackend::Sqlite, MetadataBackend::Postgres);
    let (files, s3) = (BlobBackend::Files, BlobBackend::S3);
    assert_eq!(choice(case()), (sqlite, files));
    for name in ["DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME", "DB_SSLMODE", "DB_TIMEZONE", "FOUNDRY_DATABASE__HOST"]
    {
        let text = if name == "DB_SSLMODE" { "require" } else { "x" };
        assert_eq!(choice(case().variable(name, text)), (postgres, files), "{name}");
    }
    assert_eq!(choice(case().variable("DB_PORT", "5432")), (postgres, files), "a default that is set counts");
    assert_eq!(choice(case().variable("DATABASE_URL", "postgres://h/d")), (postgres, files));
    assert_eq!(choice(case().found("database: {host: db}")), (postgres, files));
    assert_eq!(choice(case().variable("S3_BUCKET", "artifacts")), (sqlite, s3));
    assert_eq!(choice(case().variable("S3_BUCKET", "local")), (sqlite, files));
    assert_eq!(choice(case().variable("S3_BUCKET", "")), (sqlite, files));
    assert_eq!(
        choice(case().variable("AWS_REGION", "eu-central-1")),
        (sqlite, files),
        "credentials alone choose nothing"
    );
}

#[test]
fn the_parts_of_a_database_that_are_not_set_have_their_defaults() {
    let database = case().variable("DB_HOST", "db").load().unwrap().configuration.database;
    assert_eq!((database.host.as_str(), database.port, database.user.as_str()), ("db", 5432, "postgres"));
    assert_eq!((database.password.0.as_str(), database.name.as_str()), ("password", "artifact_db"));
    assert_eq!((database.sslmode, database.timezone.as_str()), (SslMode::Disable, "UTC"));
}

#[test]
fn what_this_build_does_not_have_stops_the_start() {
    let dynamo = case().variable("DYNAMODB_TABLE", "artifacts").backend_error();
    assert!(dynamo.contains("docs/adr/0007-postgres-not-dynamodb.md"), "{dynamo}");
    for table in ["local", ""] {
        let case = case().variable("DYNAMODB_TABLE", table);
        backend::check(&case.sources.variables).unwrap();
    }
    backend::check(&[]).unwrap();
}

#[test]
fn the_example_is_a_configuration_that_names_every_key() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config.example.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    case().named(&text).load().unwrap();
    for key in KEYS {
        let leaf = key.path.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{leaf}:")), "{} is not in the example", key.path);
    }
    // What is commented out there must be right as well: `#   key: value` and `# key: value`, not prose.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("#:") {
            Some(rest) => format!("{rest}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let error = case().named(&uncommented).load().map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(error, Ok(()), "{uncommented}");
}

/// The table of keys in the documentation; `UPDATE_DOCS=1 cargo test -p registry-server` writes it.
#[test]
fn the_documentation_lists_every_key() {
    let mut table = String::from("| key | default | in the environment | what it decides |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() { "–".to_owned() } else { format!("`{}`", key.default) };
        let names: Vec<_> = std::iter::once(key.systematic_name())
            .chain(key.environment.iter().rev().map(|name| (*name).to_owned()))
            .map(|name| format!("`{name}`"))
            .collect();
        let reserved = if key.reserved { " *(checked, without effect yet)*" } else { "" };
        table += &format!("| `{}` | {default} | {} | {}{reserved} |\n", key.path, names.join(", "), key.meaning);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- keys: begin -->\n", "<!-- keys: end -->");
    let (before, rest) = text.split_once(begin).expect("the table has a beginning");
    let (written, after) = rest.split_once(end).expect("the table has an end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "docs/configuration.md is not up to date");
    }
}
