//! Certificates for one run: an authority, a server and a client, all on ECDSA P-256, and the client's side of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What the service is called.
pub const NAME: &str = "web.bench.test";

/// How the client and the proxy agree on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    P256,
    /// Holds against quantum computers.
    X25519MlKem768,
}

/// The files that proxies read.
#[derive(Debug, Clone)]
pub struct Files {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub both: PathBuf,
    client_certificate: PathBuf,
    client_key: PathBuf,
}

impl Files {
    /// Makes everything anew in `folder`.
    ///
    /// # Errors
    /// When a certificate cannot be made or a file not be written.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "bench authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        let issue = |name: &str, usage| -> anyhow::Result<(String, String)> {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            Ok((params.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = issue(NAME, ExtendedKeyUsagePurpose::ServerAuth)?;
        let (client_certificate, client_key) = issue("client.bench.test", ExtendedKeyUsagePurpose::ClientAuth)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string()).map(|()| path)
        };
        Ok(Self {
            authority: write("authority.pem", &authority.pem())?,
            certificate: write("certificate.pem", &certificate)?,
            key: write("key.pem", &key)?,
            both: write("both.pem", &format!("{certificate}{key}"))?,
            client_certificate: write("client_certificate.pem", &client_certificate)?,
            client_key: write("client_key.pem", &client_key)?,
        })
    }

    /// A client with a certificate that speaks TLS 1.3 with AES-128-GCM and this group alone, and resumes nothing: what is
    /// compared is the same work.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn client(&self, group: Group) -> anyhow::Result<Arc<ClientConfig>> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![match group {
            Group::P256 => kx_group::SECP256R1,
            Group::X25519MlKem768 => kx_group::X25519MLKEM768,
        }];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority)?)?;
        let chain = vec![CertificateDer::from_pem_file(&self.client_certificate)?];
        let key = PrivateKeyDer::from_pem_file(&self.client_key)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_root_certificates(roots);
        let mut config = builder.with_client_auth_cert(chain, key)?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_make_a_client_for_either_group() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::make(folder.path()).unwrap();
        for group in [Group::P256, Group::X25519MlKem768] {
            assert_eq!(files.client(group).unwrap().alpn_protocols, [b"http/1.1"]);
        }
        assert!(std::fs::read_to_string(files.both).unwrap().contains("PRIVATE KEY"));
    }
}
