//! Asking the server of this configuration whether it is alive, for container engines that run a program to find out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::arguments::HealthcheckArguments;
use crate::config::Configuration;
use crate::first_start::loopback;
use crate::tls::{TlsError, read_certificates};

/// The server is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It cannot be reached.
    #[error("{address}: {source}")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// It did not answer in time.
    #[error("{address}: no answer within {}", humantime::format_duration(*.after))]
    Late {
        /// Where it should be.
        address: SocketAddr,
        /// How long it had.
        after: Duration,
    },
    /// It says that it is not.
    #[error("{address}: {answer}")]
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// The first line of its answer.
        answer: String,
    },
    /// The certificate that it should show cannot be read.
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// Returns when `/healthz` says that all is well.
///
/// # Errors
/// [`Unhealthy`].
pub async fn run(configuration: &Configuration, arguments: HealthcheckArguments) -> Result<(), Unhealthy> {
    let server = &configuration.server;
    let address = loopback(SocketAddr::new(server.host, server.port));
    let connector = server.tls.certificate.as_deref().map(connector).transpose()?;
    let asking = async {
        let socket = TcpStream::connect(address).await?;
        match connector {
            None => ask(socket, address).await,
            Some(connector) => ask(connector.connect(address.ip().into(), socket).await?, address).await,
        }
    };
    let answer = tokio::time::timeout(arguments.timeout, asking)
        .await
        .map_err(|_| Unhealthy::Late { address, after: arguments.timeout })?
        .map_err(|source| Unhealthy::Unreachable { address, source })?;
    if answer.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(Unhealthy::Refused { address, answer }) }
}

/// The first line of the answer to `GET /healthz`.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> std::io::Result<String> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A server that answers without an end is not worth waiting for.
    stream.take(4096).read_to_end(&mut answer).await?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn connector(certificate: &Path) -> Result<TlsConnector, TlsError> {
    let expected = read_certificates(certificate)?.swap_remove(0);
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Exactly { expected, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts the one certificate that is configured, whatever names it is for: it is asked for by a loopback address.
#[derive(Debug)]
struct Exactly {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the server shows another certificate than the configured one".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
