//! The client and its settings.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::{Error, Result, ServerUrl, Token, tls};

/// How long the client waits for a silent server. Nothing limits how long a whole transfer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands, TLS included. 10 s by default.
    pub connect: Duration,
    /// Without a byte in either direction. 60 s by default.
    pub idle: Duration,
    /// For the answer to what the server completes before it answers: the end of a push, which it makes durable, and
    /// garbage collection. 10 minutes by default.
    pub completion: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(60), completion: Duration::from_secs(600) }
    }
}

/// A client of one server. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) http: reqwest::Client,
    pub(crate) server: ServerUrl,
    pub(crate) token: Option<Token>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries: u32,
    pub(crate) retry_delay: Duration,
}

impl Client {
    /// The settings of a client of `server`.
    #[must_use]
    pub fn builder(server: ServerUrl) -> ClientBuilder {
        ClientBuilder {
            server,
            token: None,
            extra_roots: Vec::new(),
            timeouts: Timeouts::default(),
            retries: 5,
            retry_delay: Duration::from_millis(250),
            user_agent: concat!("registry-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The server this client talks to.
    #[must_use]
    pub fn server(&self) -> &ServerUrl {
        &self.inner.server
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.inner.server)
            .field("token", &self.inner.token)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    server: ServerUrl,
    token: Option<Token>,
    extra_roots: Vec<CertificateDer<'static>>,
    timeouts: Timeouts,
    retries: u32,
    retry_delay: Duration,
    user_agent: String,
}

impl ClientBuilder {
    /// Sends `token` with every request. Without one the server treats the client as anonymous.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Trusts the certificate authorities in `pem`, besides the platform's.
    ///
    /// # Errors
    /// [`Error::Tls`] if it holds no certificate, or one that cannot be read.
    pub fn extra_roots(mut self, pem: &[u8]) -> Result<Self> {
        self.extra_roots.extend(tls::certificates(pem)?);
        Ok(self)
    }

    /// How long to wait for a silent server.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How often in a row something that is safe to repeat is tried again; progress starts the count anew. 5 by
    /// default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long to wait before the first retry; each further one waits twice as long, at most 5 s. 250 ms by default.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// The `User-Agent` header, `registry-client/<version>` by default.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Tls`] if the server is an `https` one and no certificate authority is found on this machine.
    pub fn build(self) -> Result<Client> {
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(self.server.is_https(), self.extra_roots)?)
            // One request at a time moves most bytes over HTTP/1.1: no flow-control window to wait for.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.timeouts.connect)
            .tcp_nodelay(true)
            .user_agent(self.user_agent);
        if self.server.is_loopback() {
            // A proxy from the environment would look for the server on its own machine.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::Tls(crate::error::innermost(&error)))?;
        Ok(Client {
            inner: Arc::new(Inner {
                http,
                server: self.server,
                token: self.token,
                timeouts: self.timeouts,
                retries: self.retries,
                retry_delay: self.retry_delay,
            }),
        })
    }
}
