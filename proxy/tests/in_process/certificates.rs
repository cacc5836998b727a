//! Authorities, certificates, files of them, and clients that trust them.

use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{
    ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::*;

pub const NAME: &str = "web.test";

/// Who signs certificates.
pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self, name: &str) -> Pair {
        self.issue_for(&[name], |_| {})
    }

    pub fn issue_for(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority, shows `shown` if the server asks, and offers `alpn`.
    pub fn client(&self, shown: Option<&Pair>, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = self.config(default_provider(), DEFAULT_VERSIONS, shown);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client of those versions.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        self.shown_by(versions, None)
    }

    /// A client of those versions that shows a certificate.
    pub fn shown_by(&self, versions: &[&'static SupportedProtocolVersion], shown: Option<&Pair>) -> Arc<ClientConfig> {
        Arc::new(self.config(default_provider(), versions, shown))
    }

    /// A client that can do no more than that.
    pub fn client_with(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        Arc::new(self.config(provider, versions, None))
    }

    fn config(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.der()], key).unwrap()
            }
        }
    }
}

/// A client that takes any certificate.
pub fn anybody(alpn: &[&str]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(DEFAULT_VERSIONS).unwrap().dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Anything)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Pair {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// Where a listener's files lie.
pub struct Files(pub TempDir);

impl Files {
    pub fn of(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.put("certificate", &pair.certificate);
        files.put("key", &pair.key);
        files
    }

    /// As a careful operator does it: written beside it, then renamed over it.
    pub fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join("new"), text).unwrap();
        std::fs::rename(self.0.path().join("new"), self.0.path().join(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Every file that is there, as keys of `tls`.
    pub fn keys(&self) -> String {
        let keys = ["certificate", "key", "client_ca"].into_iter().filter(|key| Path::new(&self.path(key)).exists());
        keys.map(|key| format!("{key}: \"{}\"", self.path(key))).collect::<Vec<_>>().join(", ")
    }

    /// One of several certificates.
    pub fn certificate(&self) -> String {
        format!("{{ {} }}", self.keys())
    }

    /// The listener's key `tls`.
    pub fn yaml(&self) -> String {
        format!("tls: {{ {} }}", self.keys())
    }

    /// A listener with these files in front of one backend.
    pub async fn listen(&self, protocol: &str, backend: &Backend) -> Mesh {
        let listener = format!("protocol: {protocol}, {}, limits: {{ handshake_timeout: 1s }}", self.yaml());
        Mesh::start(&yaml(&listener, &endpoints(&[backend.address]))).await
    }
}

pub type Secured = TlsStream<TcpStream>;

pub async fn connect(mesh: &Mesh, client: &Arc<ClientConfig>) -> std::io::Result<Secured> {
    let stream = TcpStream::connect(mesh.proxy).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let handshake = TlsConnector::from(Arc::clone(client)).connect(name, stream);
    tokio::time::timeout(PATIENCE, handshake).await.expect("a handshake that ends")
}

/// The certificate that the proxy showed.
pub fn shown_by_proxy(stream: &Secured) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

pub async fn h1_over(stream: Secured) -> Result<http1::SendRequest<BoxedBody>, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The answer to a GET over a connection of its own.
pub async fn try_get(mesh: &Mesh, client: &Arc<ClientConfig>) -> Result<Answer, String> {
    let stream = connect(mesh, client).await.map_err(|error| error.to_string())?;
    let asked = async { h1_over(stream).await?.send_request(request("GET", NAME, "/", "")).await };
    let answered = tokio::time::timeout(PATIENCE, asked).await.expect("an answer or an end");
    whole(answered.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())
}

/// Answers with the scheme that the client used, as far as the proxy tells.
pub async fn scheme() -> Backend {
    Backend::answering(async |request: Request<hyper::body::Incoming>| {
        Response::new(full(request.headers()["x-forwarded-proto"].as_bytes().to_vec()))
    })
    .await
}
