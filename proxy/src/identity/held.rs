//! Certificates, keys and authorities of TLS listeners, read from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::model::resource::{ClientCertificate, TlsCertificate, TlsServer, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::by_name::ByName;
use super::remembered::remembering;

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
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    OtherKey { certificate: PathBuf, key: PathBuf },
    #[error("{} and {} make no TLS server", certificate.display(), key.display())]
    Server { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the TLS library refuses what is wanted of it")]
    Library { source: rustls::Error },
}

/// A certificate with its key, and the names that it is shown for.
#[derive(Debug, Clone)]
pub struct Identity {
    pub key: Arc<CertifiedKey>,
    /// In lower case, exact or `*.` in front of one.
    pub names: Vec<Arc<str>>,
}

/// Key exchange is offered in this order: X25519MLKEM768, X25519, P-256, P-384; a client's own order wins among those.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads one certificate and its key.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn identity(wanted: &TlsCertificate) -> Result<Identity, TlsError> {
    let TlsCertificate { certificate, key, server_names } = wanted;
    let chain = certificates(certificate)?;
    let names = if server_names.is_empty() { names_in(&chain) } else { server_names.clone() };
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem { path: key.clone(), source })?;
    let paired = CertifiedKey::from_der(chain, secret, &provider()).map_err(|source| {
        let (certificate, key) = (certificate.clone(), key.clone());
        match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::OtherKey { certificate, key },
            source => TlsError::Server { certificate, key, source },
        }
    })?;
    Ok(Identity { key: Arc::new(paired), names })
}

/// Reads the authorities that sign clients' certificates.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|source| TlsError::ClientCa { path: path.to_owned(), source })?;
    }
    Ok(Arc::new(roots))
}

/// What keeps sessions for clients to take up again. Clients keep them themselves, sealed, so that neither memory nor a lock is
/// shared by those who come and go. Sessions end with their tickets' keys.
///
/// # Errors
/// When there is no randomness.
pub fn tickets() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    aws_lc_rs::Ticketer::new().map_err(|source| TlsError::Library { source })
}

/// What a listener serves with, of what was read for it: one identity for each certificate that `tls` names, in that order. With
/// `offers_http`, clients may settle the version of HTTP in the handshake.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server(
    tls: &TlsServer,
    offers_http: bool,
    identities: Vec<Identity>,
    authorities: Option<Arc<RootCertStore>>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    let builder = builder.map_err(|source| TlsError::Library { source })?;
    let builder = match (tls.client_certificate.ca(), authorities) {
        (Some(path), Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, remembering(&provider()));
            let verifier = match tls.client_certificate {
                ClientCertificate::Required { .. } => verifier,
                ClientCertificate::Optional { .. } | ClientCertificate::None => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|source| TlsError::Verifier { path: path.to_owned(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(identities)));
    config.ticketer = tickets;
    // A client that takes its session up again is given the next one (RFC 8446 section 4.6.1).
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if offers_http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

/// All of it at once.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load(tls: &TlsServer, offers_http: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let identities = tls.certificates.iter().map(identity).collect::<Result<_, _>>()?;
    let roots = tls.client_certificate.ca().map(authorities).transpose()?;
    server(tls, offers_http, identities, roots, tickets()?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// The host names in a certificate. One that cannot be read has none, and fails where it is paired with its key.
fn names_in(chain: &[CertificateDer<'static>]) -> Vec<Arc<str>> {
    let Some(Ok(first)) = chain.first().map(webpki::EndEntityCert::try_from) else { return Vec::new() };
    first.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect()
}
