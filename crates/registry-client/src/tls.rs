//! How an `https` server proves who it is.
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use crate::{Error, Result};

/// TLS by rustls and ring, trusting the platform's certificate authorities and `extra_roots`.
///
/// For an `http` server nothing is read from the platform, so that a machine without certificates reaches it too.
///
/// # Errors
/// [`Error::Tls`] if no authority at all is found, or an extra one cannot be read.
pub(crate) fn config(https: bool, extra_roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?;
    let mut config = if https {
        let verifier =
            Verifier::new_with_extra_roots(extra_roots, provider).map_err(|error| Error::Tls(error.to_string()))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates in a PEM document.
///
/// # Errors
/// [`Error::Tls`] if it holds none, or one that cannot be read.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| Error::Tls(format!("the certificate file cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(Error::Tls("the certificate file holds no PEM certificate".to_owned()));
    }
    Ok(certificates)
}
