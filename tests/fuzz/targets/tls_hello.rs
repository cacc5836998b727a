//! What a client sends first on a TLS listener, up to its hello and past it. It is never let in by what a fuzzer can say, it is told
//! why in words, and whatever is heard as a hello is detected as TLS.
#![no_main]

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh_core::model::resource::{ClientCertificate, TlsCertificate, TlsServer, TlsVersion};
use mesh_proxy::detect::verdict::{Detected, Verdict, detect};
use mesh_proxy::identity::handshake::{Why, accept};
use mesh_proxy::identity::held;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client that sends that, and closes.
struct Client<'b> {
    sends: &'b [u8],
    heard: usize,
}

impl AsyncRead for Client<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.sends.split_at(self.sends.len().min(buf.remaining()));
        buf.put_slice(now);
        self.sends = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.heard += buf.len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tls").join(name);
        let certificate = path("certificate.pem");
        let server = TlsServer {
            certificates: vec![TlsCertificate { certificate, key: path("key.pem"), server_names: Vec::new() }],
            client_certificate: ClientCertificate::Required { ca: path("certificate.pem") },
            min_version: TlsVersion::V1_2,
        };
        held::load(&server, true).expect("the files beside the targets make a server")
    };
    Arc::clone(CONFIG.get_or_init(make))
}

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let client = Client { sends: bytes, heard: 0 };
    let shaken = runtime.block_on(accept(client, config(), Duration::from_secs(60)));
    let Err(error) = shaken else { panic!("it came in") };
    assert!(!error.to_string().is_empty() && error.why != Why::NoConfig && error.why != Why::Timeout);
    if let Some(name) = &error.server_name {
        assert!(!name.is_empty() && name.len() < 256);
    }
    if error.server_name.is_some() || matches!(error.why, Why::Version | Why::Algorithm | Why::Alpn) {
        assert_eq!(detect(bytes), Verdict::Known(Detected::Tls), "{error}");
    }
});
