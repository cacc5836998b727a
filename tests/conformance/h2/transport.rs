//! What frames go through: a socket, or TLS 1.3 over it with `h2` agreed on (RFC 7301, RFC 9113 section 3.2).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

/// What a proxy shows: made for this run, and trusted by [`Transport::tls`].
pub struct Identity {
    certificate: CertificateDer<'static>,
    folder: TempDir,
}

pub static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("k.pem"), made.signing_key.serialize_pem()).unwrap();
    Identity { certificate: made.cert.der().clone(), folder }
});

const NAME: &str = "localhost";

impl Identity {
    /// For a listener.
    pub fn settings(&self) -> String {
        let at = self.folder.path().display();
        format!("tls: {{ certificate: {at}/c.pem, key: {at}/k.pem }}")
    }
}

#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    pub fn tls(socket: TcpStream) -> Self {
        static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
            let mut roots = RootCertStore::empty();
            roots.add(IDENTITY.certificate.clone()).unwrap();
            let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            let mut config = builder.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec()];
            config.into()
        });
        let mut tls =
            StreamOwned::new(ClientConnection::new(CONFIG.clone(), NAME.try_into().unwrap()).unwrap(), socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
        Self::Tls(Box::new(tls))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
