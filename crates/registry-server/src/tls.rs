//! The certificate and its key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of what it should.
    #[error("cannot read {what} from {path}: {source}")]
    File {
        /// A certificate or a key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file of certificates has none.
    #[error("{0} holds no certificate (expected PEM: -----BEGIN CERTIFICATE-----)")]
    Empty(PathBuf),
    /// The two do not belong together, or their kind is not supported.
    #[error("the certificate in {certificate} and the key in {key} cannot be used: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

/// A certificate and its key in two files, read again on request while connections are being accepted.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(read(certificate, key)?));
        Ok(Arc::new(Self { certificate: certificate.to_owned(), key: key.to_owned(), current }))
    }

    /// Reads both files again. New connections get what they hold; after an error they get what they got before.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// TLS 1.2 and 1.3 with this certificate, for HTTP/2 and HTTP/1.1.
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The certificates in a PEM file, the server's own first.
///
/// # Errors
/// [`TlsError`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if chain.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(chain) }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|source| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path) -> (PathBuf, PathBuf, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key, made.cert.der().to_vec())
    }

    fn presented(certificate: &Certificate) -> Vec<u8> {
        certificate.current.read().unwrap().end_entity_cert().unwrap().to_vec()
    }

    #[test]
    fn a_pair_is_served_for_both_protocols_and_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate_path, key_path, first) = write_pair(folder.path());
        let certificate = Certificate::load(&certificate_path, &key_path).unwrap();
        assert_eq!(certificate.server_config().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(presented(&certificate), first);
        let (.., second) = write_pair(folder.path());
        certificate.reload().unwrap();
        assert_eq!(presented(&certificate), second);
        std::fs::write(&certificate_path, "").unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("holds no certificate"));
        assert_eq!(presented(&certificate), second, "a broken file leaves the old certificate");
    }

    #[test]
    fn wrong_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, _) = write_pair(folder.path());
        let none = folder.path().join("none.pem");
        assert!(Certificate::load(&none, &key).unwrap_err().to_string().contains("none.pem"));
        assert!(Certificate::load(&certificate, &none).unwrap_err().to_string().contains("none.pem"));
        assert!(Certificate::load(&certificate, &certificate).is_err(), "a certificate is not a key");
        let other = tempfile::tempdir().unwrap();
        let (_, other_key, _) = write_pair(other.path());
        let error = Certificate::load(&certificate, &other_key).unwrap_err();
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
    }
}
