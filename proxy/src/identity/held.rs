//! Certificates and keys of TLS listeners, read from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::model::resource::TlsServer;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Files that make no TLS server.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{} cannot be read as PEM", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds what is no authority's certificate", path.display())]
    ClientCa { path: PathBuf, source: rustls::Error },
    #[error("clients cannot be verified by {}", path.display())]
    Verifier { path: PathBuf, source: VerifierBuilderError },
    #[error("{} and {} make no TLS server", certificate.display(), key.display())]
    Server { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// What a TLS listener serves with. With `offers_http`, clients may settle the version of HTTP in the handshake.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load(tls: &TlsServer, offers_http: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = certificates(&tls.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| TlsError::Pem { path: tls.key.clone(), source })?;
    let server = |source| TlsError::Server { certificate: tls.certificate.clone(), key: tls.key.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(server)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|source| TlsError::Verifier { path: path.clone(), source })?,
            )
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(server)?;
    if offers_http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}
