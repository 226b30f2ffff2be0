//! Serving.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_core::permission::AnonymousAccess;
use registry_core::services::PrepareRefusal;
use registry_http::activity_metrics;
use registry_http::application::Application;
use registry_http::metrics::Metrics;
use registry_http::operations::{MetricsAccess, Operations};
use registry_http::router::Router;
use registry_http::serve::{Server, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::compose::{self, Composition};
use crate::config::{self, Configuration, Loaded};
use crate::first_start::{self, AdminToken, FirstStartError, Reachable};
use crate::jobs::Jobs;
use crate::readiness::Stores;
use crate::tls::{Certificate, TlsError};

/// Serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address} (keys server.host and server.port): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The public URL or the proxies are not what they looked like.
    #[error("server.base_url or server.trusted_proxies: {0}")]
    Origin(#[from] registry_http::origin::InvalidOrigin),
    /// The stores cannot be had.
    #[error(transparent)]
    Compose(#[from] compose::ComposeError),
    /// A registry of the configuration cannot be had.
    #[error("registries: {0}")]
    Registries(#[from] PrepareRefusal),
    /// The store failed.
    #[error("{}", .0.chain())]
    Store(#[from] registry_core::error::StoreError),
    /// The database is the target of a migration that goes on.
    #[error(
        "the database is the target of a migration that is not finished: stop the old server, and run \
         `registry-server migrate-storage` with --finish"
    )]
    Unfinished,
    /// The administrator's token cannot be made.
    #[error(transparent)]
    FirstStart(#[from] FirstStartError),
}

impl ServeError {
    /// Whether the configuration is to blame, so that starting again without changing it is of no use.
    pub fn is_misuse(&self) -> bool {
        match self {
            ServeError::Tls(_) | ServeError::Origin(_) => true,
            ServeError::Registries(refusal) => !matches!(refusal, PrepareRefusal::Store(_)),
            _ => false,
        }
    }
}

/// Serves until a signal says otherwise.
///
/// The port is bound first, so that a second server on it fails at once; clients that connect now wait in the kernel's
/// backlog until the schema is up to date.
///
/// # Errors
/// [`ServeError`] when it could not begin.
pub async fn run(loaded: &Loaded) -> Result<(), ServeError> {
    let configuration = &loaded.configuration;
    announce(loaded);
    let certificate = certificate(configuration)?;
    let origin = compose::origin_policy(configuration)?;
    let signals = Signals::new().map_err(ServeError::Signals)?;
    let (listener, address) = listen(configuration).await?;

    let composition = Composition::open(configuration).await?;
    let services = &composition.services;
    admit(&composition).await?;
    services.prepare_registries(&compose::registries(configuration)).await?;
    // A migration that began in between has seen no registry; it sees these now, or is seen here.
    admit(&composition).await?;
    services.rotate_signing_keys().await?;
    let base_url = configuration.server.base_url.as_ref().map(|url| url.0.clone());
    let reachable = Reachable { base_url, address, tls: certificate.is_some() };
    if configuration.auth.tokens.is_empty() {
        make_admin_token(&composition, &compose::token_file(configuration), &reachable).await?;
    }

    let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
    let router = Arc::new(Router::new(Arc::clone(services)));
    let jobs = Jobs::start(
        Arc::clone(services),
        Arc::clone(router.authenticator()),
        Arc::clone(&composition.entropy),
        configuration.gc.interval.0,
        stop.clone(),
    );
    let metrics = Arc::new(Metrics::new());
    activity_metrics::register(&metrics, Arc::clone(services));
    let application = application(router, &composition, &leaving, Arc::clone(&metrics), &configuration.metrics);
    let mut server = Server::new(application, Arc::clone(&composition.entropy));
    server.limits = compose::limits(configuration);
    server.origin = origin;
    server.metrics = metrics;
    server.access_log = configuration.log.access;

    let tls = certificate.as_ref().map(Certificate::server_config);
    tracing::info!(%address, url = reachable.url(), version = env!("CARGO_PKG_VERSION"), "serving");
    let delay = configuration.server.shutdown_delay.0;
    let drained = tokio::select! {
        drained = serve(listener, tls, Arc::new(server), stop.clone()) => drained,
        never = signals.act(&leaving, delay, &stop, certificate.as_deref()) => match never {},
    };
    jobs.ended().await;
    composition.close().await;
    tracing::info!(abandoned = drained.abandoned, "stopped");
    Ok(())
}

async fn admit(composition: &Composition) -> Result<(), ServeError> {
    if composition.metadata.admit_server().await? { Ok(()) } else { Err(ServeError::Unfinished) }
}

/// What whoever reads the log should know about the configuration.
fn announce(loaded: &Loaded) {
    let configuration = &loaded.configuration;
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configuration read");
    }
    for (key, origin) in loaded.set_keys().filter(|(key, _)| key.reserved) {
        tracing::warn!(key = key.path, origin, "this key has no effect in this release");
    }
    let levels = configuration.registries.iter().filter_map(|(name, own)| Some((Some(name), own.anonymous?)));
    for (registry, level) in std::iter::once((None, configuration.auth.anonymous)).chain(levels) {
        if level > AnonymousAccess::Pull {
            let registry = registry.map_or("*", |name| name.as_str());
            tracing::warn!(registry, anonymous = %level, "anybody who reaches this server may write to it");
        }
    }
    for (index, entry) in configuration.auth.tokens.iter().enumerate() {
        if let Ok(resolved) = entry.resolve(index)
            && resolved.guessable
        {
            tracing::warn!(token = resolved.token.name, "a token of fewer than 16 characters can be guessed");
        }
    }
    let server = &configuration.server;
    if !server.host.is_loopback() && server.tls.certificate.is_none() && server.trusted_proxies.is_empty() {
        tracing::info!("other machines can connect without encryption: set server.tls, or put a proxy in front");
    }
}

fn certificate(configuration: &Configuration) -> Result<Option<Arc<Certificate>>, TlsError> {
    match (&configuration.server.tls.certificate, &configuration.server.tls.key) {
        (Some(certificate), Some(key)) => Certificate::load(certificate, key).map(Some),
        _ => Ok(None),
    }
}

async fn listen(configuration: &Configuration) -> Result<(TcpListener, SocketAddr), ServeError> {
    let address = SocketAddr::new(configuration.server.host, configuration.server.port);
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| ServeError::Listen { address, source })
}

async fn make_admin_token(
    composition: &Composition,
    file: &Path,
    reachable: &Reachable,
) -> Result<(), FirstStartError> {
    match first_start::ensure_admin_token(&composition.services, file).await? {
        AdminToken::Made(secret) => {
            tracing::info!(file = %file.display(), "the administrator's token was made");
            // A closed standard output loses nothing: the token is in its file.
            if let Err(error) = first_start::show(std::io::stdout().lock(), &secret, file, reachable) {
                tracing::warn!(%error, "the administrator's token could not be shown");
            }
        }
        AdminToken::Kept => {}
        AdminToken::Stale => tracing::warn!(
            file = %file.display(),
            "the token in this file opens nothing any more; remove the file and start again to get another"
        ),
    }
    Ok(())
}

fn application(
    router: Arc<Router>,
    composition: &Composition,
    leaving: &CancellationToken,
    metrics: Arc<Metrics>,
    setting: &config::Metrics,
) -> Arc<dyn Application> {
    let stores = Arc::new(Stores::new(Arc::clone(&composition.services), leaving.clone()));
    let access = match setting {
        config::Metrics { enabled: false, .. } => MetricsAccess::Off,
        config::Metrics { access: config::MetricsAccess::Open, .. } => MetricsAccess::Open,
        config::Metrics { access: config::MetricsAccess::Token, .. } => {
            MetricsAccess::Token(Arc::clone(router.authenticator()))
        }
    };
    Arc::new(Operations::new(router, stores, metrics, access))
}

/// The signals that mean something to a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The first SIGTERM or SIGINT lets the requests under way end: SIGTERM after a `delay` in which the process serves
    /// on, SIGINT, which a person sent, at once. The second ends the process. SIGHUP reads the certificate again.
    async fn act(
        mut self,
        leaving: &CancellationToken,
        delay: Duration,
        stop: &CancellationToken,
        certificate: Option<&Certificate>,
    ) -> Infallible {
        let mut delay = Box::pin(async move { tokio::time::sleep(delay).await });
        loop {
            let (name, number) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", 15),
                _ = self.interrupt.recv() => ("SIGINT", 2),
                _ = self.hangup.recv() => {
                    reload(certificate);
                    continue;
                }
                () = &mut delay, if leaving.is_cancelled() && !stop.is_cancelled() => {
                    tracing::info!("stopping: the requests under way may finish");
                    stop.cancel();
                    continue;
                }
            };
            if leaving.is_cancelled() {
                // What a shell reports for a process that a signal ended.
                std::process::exit(128 + number);
            }
            leaving.cancel();
            if number == 2 {
                tracing::info!(signal = name, "stopping: the requests under way may finish");
                stop.cancel();
            } else {
                tracing::info!(signal = name, "not ready any more");
            }
        }
    }
}

fn reload(certificate: Option<&Certificate>) {
    match certificate.map(Certificate::reload) {
        Some(Ok(())) => tracing::info!("certificate and key read again"),
        Some(Err(error)) => tracing::error!(%error, "certificate and key stay as they are"),
        None => tracing::info!("SIGHUP: there is no certificate to read again"),
    }
}
