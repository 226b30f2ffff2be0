//! The environment as a source of configuration.

use super::keys::{self, KEYS, Key, Kind, PREFIX, SEPARATOR};

/// A value that a variable sets.
#[derive(Debug, PartialEq)]
pub struct Setting {
    /// The variable.
    pub variable: String,
    /// The key it sets, segment by segment.
    pub path: Vec<String>,
    /// Its text.
    pub text: String,
    /// The key's kind.
    pub kind: Kind,
}

/// What the environment says.
#[derive(Debug, Default)]
pub struct Environment {
    /// The values, weakest first: later ones win.
    pub settings: Vec<Setting>,
    /// Variables that can only be meant for this server and name no key.
    pub unknown: Vec<Unknown>,
}

/// A variable that names no key.
#[derive(Debug, PartialEq)]
pub struct Unknown {
    /// The variable.
    pub variable: String,
    /// The nearest that does name one.
    pub nearest: Option<String>,
}

/// Reads the variables that concern this server.
///
/// An empty variable counts as absent: compose files and charts pass on what is not set as empty. `FOUNDRY_…` names
/// without `__` are left alone, because Kubernetes makes such for a Service called `foundry` (`FOUNDRY_PORT`, …).
pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Environment {
    let variables: Vec<_> =
        variables.into_iter().filter(|(name, text)| !text.is_empty() && !is_service_link(name, text)).collect();
    let value_of = |name: &str| variables.iter().find(|(own, _)| own == name).map(|(_, text)| text.clone());
    let mut environment = Environment::default();
    for key in KEYS {
        let path: Vec<_> = key.path.split('.').map(str::to_owned).collect();
        let mut push = |variable: &str, text: String, path: Vec<String>| {
            environment.settings.push(Setting { variable: variable.to_owned(), path, text, kind: key.kind });
        };
        for name in key.environment {
            if let Some(text) = value_of(name) {
                push(name, text, path.clone());
            }
        }
        let systematic = key.systematic_name();
        if !key.path.contains('*') {
            if let Some(text) = value_of(&systematic) {
                push(&systematic, text, path);
            }
            continue;
        }
        for (name, text) in &variables {
            if let Some(path) = wildcard(key, name) {
                push(name, text.clone(), path);
            }
        }
    }
    environment.unknown = variables.iter().filter_map(|(name, _)| unknown(name, &environment.settings)).collect();
    environment
}

/// `FOUNDRY_REGISTRIES__TEAM__REFERENCES` is `registries.team.references`.
fn wildcard(key: &Key, name: &str) -> Option<Vec<String>> {
    let segments: Vec<_> = name.strip_prefix(PREFIX)?.split(SEPARATOR).collect();
    let own = key.systematic_name();
    let own: Vec<_> = own.strip_prefix(PREFIX)?.split(SEPARATOR).collect();
    if segments.len() != own.len() || segments.contains(&"") {
        return None;
    }
    let mut path = Vec::with_capacity(own.len());
    for ((segment, own), key) in segments.iter().zip(&own).zip(key.path.split('.')) {
        match key {
            "*" => path.push(segment.to_ascii_lowercase()),
            key if segment == own => path.push(key.to_owned()),
            _ => return None,
        }
    }
    Some(path)
}

/// Kubernetes sets such variables in every container for a Service called `db`, `http`, … of the same namespace.
fn is_service_link(name: &str, text: &str) -> bool {
    let port_detail = || name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (text.starts_with("tcp://") || text.starts_with("udp://")) && name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || port_detail()
}

fn unknown(name: &str, settings: &[Setting]) -> Option<Unknown> {
    let systematic = name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains(SEPARATOR));
    // Any `DB_*` variable means Postgres: one that is misspelt must not leave the server on another database.
    let database = name.starts_with("DB_");
    if !(systematic || database) || settings.iter().any(|setting| setting.variable == name) {
        return None;
    }
    let names: Vec<String> = KEYS
        .iter()
        .flat_map(|key| std::iter::once(key.systematic_name()).chain(key.environment.iter().map(|&name| name.into())))
        .collect();
    let nearest = super::unknown::nearest(name, names.iter().map(String::as_str)).map(str::to_owned);
    Some(Unknown { variable: name.to_owned(), nearest })
}

/// The names in the environment that set the key at `path`, strongest first.
pub fn names(path: &[String]) -> Vec<String> {
    let Some(key) = keys::find(path) else { return Vec::new() };
    let brought_along = key.environment.iter().rev().map(|name| (*name).to_owned());
    std::iter::once(key.systematic_name()).chain(brought_along).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        read(variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
    }

    fn last(variables: &[(&str, &str)], path: &str) -> Option<String> {
        let environment = environment(variables);
        environment.settings.into_iter().rfind(|setting| setting.path.join(".") == path).map(|setting| setting.text)
    }

    #[test]
    fn every_key_has_its_systematic_name() {
        for key in KEYS {
            let name = key.systematic_name().replace("<NAME>", "TEAM");
            assert_eq!(last(&[(&name, "x")], &key.path.replace('*', "team")).as_deref(), Some("x"), "{name}");
        }
    }

    #[test]
    fn names_that_people_bring_along() {
        for (name, path) in [
            ("PORT", "server.port"),
            ("HTTP_PORT", "server.port"),
            ("HTTP_HOST", "server.host"),
            ("BASE_URL", "server.base_url"),
            ("GRPC_HOST", "grpc.host"),
            ("GRPC_PORT", "grpc.port"),
            ("LOG_LEVEL", "log.level"),
            ("DB_HOST", "database.host"),
            ("DB_PORT", "database.port"),
            ("DB_USER", "database.user"),
            ("DB_PASSWORD", "database.password"),
            ("DB_NAME", "database.name"),
            ("DB_SSLMODE", "database.sslmode"),
            ("DB_SSL_MODE", "database.sslmode"),
            ("DB_TIMEZONE", "database.timezone"),
            ("DATABASE_URL", "database.url"),
            ("S3_BUCKET", "storage.s3.bucket"),
            ("S3_REGION", "storage.s3.region"),
            ("AWS_REGION", "storage.s3.region"),
            ("AWS_DEFAULT_REGION", "storage.s3.region"),
            ("AWS_ACCESS_KEY_ID", "storage.s3.access_key_id"),
            ("AWS_SECRET_ACCESS_KEY", "storage.s3.secret_access_key"),
            ("AWS_SESSION_TOKEN", "storage.s3.session_token"),
            ("AWS_ENDPOINT_URL", "storage.s3.endpoint"),
            ("AWS_ALLOW_HTTP", "storage.s3.allow_http"),
            ("NPM_FALLBACK", "npm.fallback"),
        ] {
            assert_eq!(last(&[(name, "1")], path).as_deref(), Some("1"), "{name}");
        }
    }

    #[test]
    fn the_more_specific_name_wins() {
        let all = [("FOUNDRY_SERVER__PORT", "3"), ("PORT", "1"), ("HTTP_PORT", "2")];
        assert_eq!(last(&all, "server.port").as_deref(), Some("3"));
        assert_eq!(last(&all[1..], "server.port").as_deref(), Some("2"));
        let regions = [("S3_REGION", "s3"), ("AWS_REGION", "aws"), ("AWS_DEFAULT_REGION", "default")];
        assert_eq!(last(&regions, "storage.s3.region").as_deref(), Some("s3"));
        assert_eq!(last(&regions[1..], "storage.s3.region").as_deref(), Some("aws"));
    }

    #[test]
    fn an_empty_variable_is_absent() {
        assert_eq!(last(&[("DB_HOST", ""), ("FOUNDRY_NO__KEY", "")], "database.host"), None);
        assert!(environment(&[("FOUNDRY_NO__KEY", "")]).unknown.is_empty());
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let unknown = environment(&[("FOUNDRY_SERVER__PROT", "1"), ("DB_USERNAME", "me"), ("PATH", "/bin")]).unknown;
        assert_eq!(unknown.len(), 2);
        assert_eq!(unknown[0].nearest.as_deref(), Some("FOUNDRY_SERVER__PORT"));
        assert_eq!(unknown[1].nearest.as_deref(), Some("DB_USER"));
    }

    #[test]
    fn kubernetes_service_links_are_not_settings() {
        let links = [
            ("DB_PORT", "tcp://10.0.0.1:5432"),
            ("DB_SERVICE_HOST", "10.0.0.1"),
            ("DB_SERVICE_PORT", "5432"),
            ("DB_SERVICE_PORT_POSTGRES", "5432"),
            ("DB_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
            ("DB_PORT_5432_TCP_ADDR", "10.0.0.1"),
            ("HTTP_PORT", "tcp://10.0.0.2:80"),
            ("FOUNDRY_PORT", "tcp://10.0.0.3:8080"),
            ("FOUNDRY_SERVICE_PORT", "8080"),
        ];
        let environment = environment(&links);
        assert!(environment.settings.is_empty() && environment.unknown.is_empty(), "{environment:?}");
    }

    #[test]
    fn names_are_listed_strongest_first() {
        let path = ["server".to_owned(), "port".to_owned()];
        assert_eq!(names(&path), ["FOUNDRY_SERVER__PORT", "HTTP_PORT", "PORT"]);
    }
}
