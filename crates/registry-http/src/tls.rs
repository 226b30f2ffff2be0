//! A TLS configuration from a certificate and its key.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig, crypto};

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates are not PEM.
    #[error("the certificate file is not in PEM format")]
    Certificates(#[source] pem::Error),
    /// There is no certificate among them.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// The key is not PEM, or there is none.
    #[error("the key file holds no private key in PEM format")]
    Key(#[source] pem::Error),
    /// The key is of a kind that cannot be used, or not the certificate's.
    #[error("the certificate and the key do not go together")]
    Mismatch(#[source] rustls::Error),
}

/// TLS 1.2 and 1.3 with the certificate chain (the server's own first) and the private key, both PEM, offering
/// HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(certificates_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificates_pem).collect::<Result<_, _>>().map_err(TlsError::Certificates)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Mismatch)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
