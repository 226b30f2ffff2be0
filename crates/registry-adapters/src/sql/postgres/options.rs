//! Where a Postgres server is, and how it is used.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use registry_core::error::{StoreError, StoreErrorKind};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Where a server is and who connects to it. Its password is in no output.
#[derive(Clone)]
pub struct PostgresServer(PgConnectOptions);

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("host", &self.0.get_host())
            .field("port", &self.0.get_port())
            .field("database", &self.0.get_database())
            .finish_non_exhaustive()
    }
}

/// Whether the connection is encrypted, and how far the server must prove who it is: libpq's modes
/// (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can. Nothing is checked.
    Prefer,
    /// Encrypted. Nothing is checked.
    Require,
    /// The server's certificate must come from an authority that this machine trusts.
    VerifyCa,
    /// And must be for its host name.
    VerifyFull,
}

/// A server, part by part.
#[derive(Clone, Debug)]
pub struct PostgresParts<'a> {
    /// A name, an address, or the folder of a socket.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Who connects.
    pub user: &'a str,
    /// Their password.
    pub password: &'a str,
    /// The database, which must exist.
    pub database: &'a str,
    /// Whether the connection is encrypted.
    pub tls: TlsMode,
}

impl PostgresServer {
    /// From a URL, `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`, with libpq's defaults for
    /// what it does not say.
    ///
    /// # Errors
    /// [`StoreError`] for a text that is no such URL; it does not repeat the text, which may hold a password.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let refusal = |context: &str| StoreError { kind: StoreErrorKind::Other, context: context.into(), source: None };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(refusal("the database's URL does not begin with postgres://"));
        }
        // The driver's errors say what is wrong with a part and may repeat it.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            refusal("the database's URL is not of the form postgres://user:password@host:port/database")
        })?;
        Ok(Self(options))
    }

    /// From its parts.
    pub fn from_parts(parts: &PostgresParts<'_>) -> Self {
        let mode = match parts.tls {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(parts.host)
            .port(parts.port)
            .username(parts.user)
            .password(parts.password)
            .database(parts.database)
            .ssl_mode(mode);
        Self(options)
    }

    /// As the driver takes it.
    pub(super) fn into_connect_options(self) -> PgConnectOptions {
        /// There are some hundred statements; none is prepared twice on a connection.
        const STATEMENTS: usize = 512;
        let options = self.0.statement_cache_capacity(STATEMENTS).disable_statement_logging();
        match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("foundry"),
        }
    }
}

/// How a server is used.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The most connections at the same time, of this instance.
    pub connections: u32,
    /// How long a request waits for one of them, and for a server that is starting or cannot be reached.
    pub acquire_timeout: Duration,
    /// How long a statement may take, its waits for locks included.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// How long a transaction may stand still before the server ends it: a replica that was stopped in the middle of one
    /// must not hold its locks. Shorter than `lock_timeout`, so that who waits for one of them gets it.
    pub idle_in_transaction_timeout: Duration,
    /// The time zone of the sessions. Nothing that is kept depends on it.
    pub timezone: String,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            connections: 16,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(5),
            timezone: "UTC".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_it_all_and_no_error_repeats_it() {
        let server =
            PostgresServer::from_url("postgres://me:hunter2@db.example:6432/artifacts?sslmode=require").unwrap();
        let shown = format!("{server:?}");
        for part in ["db.example", "6432", "artifacts"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains("hunter2"));
        for wrong in [
            "",
            "hunter2",
            "mysql://me:hunter2@db/artifacts",
            "postgres://me:hunter2@db:port/artifacts",
            "postgres://me@db/artifacts?sslmode=hunter2",
        ] {
            let refused = PostgresServer::from_url(wrong).unwrap_err().chain();
            assert!(refused.contains("postgres://") && !refused.contains("hunter2"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn parts_stand_where_they_belong() {
        for (tls, mode) in [
            (TlsMode::Disable, "Disable"),
            (TlsMode::Prefer, "Prefer"),
            (TlsMode::Require, "Require"),
            (TlsMode::VerifyCa, "VerifyCa"),
            (TlsMode::VerifyFull, "VerifyFull"),
        ] {
            let parts = PostgresParts { host: "h", port: 7, user: "u", password: "p", database: "d", tls };
            let options = PostgresServer::from_parts(&parts).into_connect_options();
            assert_eq!((options.get_host(), options.get_port()), ("h", 7));
            assert_eq!((options.get_username(), options.get_database()), ("u", Some("d")));
            assert_eq!(format!("{:?}", options.get_ssl_mode()), mode);
            assert_eq!(options.get_application_name(), Some("foundry"));
        }
    }
}
