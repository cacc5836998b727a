use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, version};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientSide;

use super::*;

/// A server's configuration, and clients that trust it: one of each version.
fn configs() -> (Arc<ServerConfig>, [Arc<ClientConfig>; 2]) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let secret = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let server = server.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = |version| {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]);
        Arc::new(builder.unwrap().with_root_certificates(roots.clone()).with_no_client_auth())
    };
    (Arc::new(server.unwrap()), [client(&version::TLS12), client(&version::TLS13)])
}

/// Both ends of a connection whose pipe holds so many bytes.
async fn shaken(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    pipe: usize,
) -> (TlsStream<DuplexStream>, ClientSide<DuplexStream>) {
    let (ours, theirs) = duplex(pipe);
    let mut stream = TlsStream::new(ours, Arc::clone(server)).unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, theirs);
    let accepting = std::future::poll_fn(|cx| stream.poll_handshake(cx, &mut |_| {}));
    let (accepted, connected) = tokio::join!(accepting, connecting);
    accepted.unwrap();
    (stream, connected.unwrap())
}

/// Bytes that no two places have alike.
fn sample(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

#[tokio::test]
async fn bytes_come_through_whole_both_ways_whatever_holds_them_up() {
    let (server, clients) = configs();
    for client in &clients {
        for pipe in [1, 7, 300, 5_000, 1 << 20] {
            let length = if pipe < 1000 { 20_000 } else { 200_000 };
            let (stream, other) = shaken(&server, client, pipe).await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (mut their_reader, mut their_writer) = tokio::io::split(other);
            let (up, down) = (sample(length), sample(length + 1));
            let send = async {
                writer.write_all(&down).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let receive = async {
                let (mut all, mut piece) = (Vec::new(), [0; 10_000]);
                for size in [1, 10, 100, 1000, 10_000].iter().cycle() {
                    match reader.read(&mut piece[..*size]).await.unwrap() {
                        0 => return all,
                        read => all.extend_from_slice(&piece[..read]),
                    }
                }
                all
            };
            let theirs = async {
                let sending = async {
                    their_writer.write_all(&up).await.unwrap();
                    their_writer.shutdown().await.unwrap();
                };
                let mut all = Vec::new();
                let (_, read) = tokio::join!(sending, their_reader.read_to_end(&mut all));
                read.unwrap();
                all
            };
            let ((), received, theirs) = tokio::join!(send, receive, theirs);
            assert!(received == up, "{} of {} bytes up, pipe {pipe}", received.len(), up.len());
            assert!(theirs == down, "{} of {} bytes down, pipe {pipe}", theirs.len(), down.len());
        }
    }
}

#[tokio::test]
async fn an_idle_connection_holds_nothing() {
    let (server, clients) = configs();
    for client in &clients {
        let (mut stream, mut other) = shaken(&server, client, 1 << 16).await;
        for _ in 0..3 {
            other.write_all(&sample(20_000)).await.unwrap();
            stream.read_exact(&mut vec![0; 20_000]).await.unwrap();
            stream.write_all(&sample(20_000)).await.unwrap();
            other.read_exact(&mut vec![0; 20_000]).await.unwrap();
        }
        let idle = tokio::time::timeout(std::time::Duration::from_millis(1), stream.read(&mut [0])).await;
        assert!(idle.is_err());
        let TlsStream { part, plain, unsent, .. } = &stream;
        assert_eq!((part.capacity(), plain.capacity(), unsent.capacity()), (0, 0, 0));
    }
}

#[tokio::test]
async fn pieces_share_a_record() {
    let (server, clients) = configs();
    let (mut stream, mut other) = shaken(&server, &clients[1], 1 << 20).await;
    let pieces = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"body")];
    assert_eq!(stream.write_vectored(&pieces).await.unwrap(), 9);
    let mut text = [0; 9];
    // One read gives what one record holds.
    assert_eq!(other.read(&mut text).await.unwrap(), 9);
    assert_eq!(&text, b"head body");
    let long = sample(20_000);
    assert_eq!(stream.write_vectored(&[IoSlice::new(&long), IoSlice::new(b"x")]).await.unwrap(), 20_000);
}

#[tokio::test]
async fn an_end_without_a_word_is_a_cut() {
    let (server, clients) = configs();
    for client in &clients {
        let (mut stream, mut other) = shaken(&server, client, 1 << 16).await;
        other.write_all(b"half").await.unwrap();
        drop(other.into_inner().0);
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 4);
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn records_that_were_tampered_with_end_it_for_good() {
    let (server, clients) = configs();
    for client in &clients {
        for (seed, junk) in
            [b"\x17\x03\x03\x00\x20".as_slice(), b"\x16\x03\x03\x00\x04", b"GET / HTTP/1.1\r\n"].iter().enumerate()
        {
            let (mut stream, other) = shaken(&server, client, 1 << 16).await;
            let mut raw = other.into_inner().0;
            raw.write_all(&[junk, &sample(64 + seed)[..]].concat()).await.unwrap();
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
            assert_eq!(stream.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            stream.shutdown().await.unwrap();
            drop(stream);
            let mut alert = Vec::new();
            raw.read_to_end(&mut alert).await.unwrap();
            assert!(!alert.is_empty(), "nobody told the client why");
        }
    }
}
