//! The HTTP client of the bucket: TLS by ring and the platform's authorities, and no limit on the whole of a request.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes clients for `object_store`.
#[derive(Debug)]
pub(super) struct Connector {
    /// How long the store may say nothing: while it takes a part, before it answers, and between two pieces of an answer.
    pub(super) read_timeout: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        Ok(HttpClient::new(Service(client(allow_http, self.read_timeout)?)))
    }
}

/// A client that speaks plain HTTP only where that is allowed.
pub(super) fn client(allow_http: bool, read_timeout: Duration) -> object_store::Result<reqwest::Client> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(allow_http).map_err(|error| failed(error.into()))?)
        .https_only(!allow_http)
        // Many connections carry more than many streams of one.
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(read_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("foundry/", env!("CARGO_PKG_VERSION")))
        .build();
    client.map_err(|error| failed(error.into()))
}

fn tls(allow_http: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    match Verifier::new(provider) {
        Ok(verifier) => {
            Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
        }
        // A machine without certificates reaches a store in its own network.
        Err(_) if allow_http => Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct Service(reqwest::Client);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut response = self.0.call(request).await?;
        // Every status above 499 is tried again for a minute. A store that is full stays so, and the client is to hear
        // of it now.
        if response.status() == StatusCode::INSUFFICIENT_STORAGE {
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        }
        Ok(response)
    }
}
