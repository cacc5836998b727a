use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::resource::{ClientCertificate, TlsCertificate, TlsServer, TlsVersion};
use mesh_proxy::identity::handshake::{self, Why};
use mesh_proxy::identity::held;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, version};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::certificates::*;
use super::support::*;

/// A client that asks for that name.
async fn ask_for(mesh: &Mesh, client: &Arc<ClientConfig>, name: &str) -> Secured {
    let stream = TcpStream::connect(mesh.proxy).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(client)).connect(name, stream).await.unwrap()
}

/// A listener with these keys of `tls`, in front of a backend that tells the scheme.
async fn listening(tls: &str) -> Mesh {
    Mesh::start(&yaml(&format!("protocol: http, tls: {{ {tls} }}"), &endpoints(&[scheme().await.address]))).await
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let authority = Authority::new("authority");
    let pairs = [
        authority.issue_for(&["first.test", "127.0.0.1"], |_| {}),
        authority.issue_for(&["*.shop.test", "shop.test"], |_| {}),
        authority.issue("api.shop.test"),
        authority.issue_for(&["127.0.0.9"], |_| {}),
    ];
    let files: Vec<Files> = pairs.iter().map(Files::of).collect();
    let listed: Vec<_> = files.iter().map(|files| files.certificate()).collect();
    let [first, wild, exact, named] = &listed[..] else { panic!() };
    let named = named.replace(" }", ", server_names: [Other.test] }");
    let mesh = listening(&format!("certificates: [{first}, {wild}, {exact}, {named}]")).await;
    // A client that looks at no certificate, so that all are shown.
    let client = anybody(&[]);
    for (name, expected) in [
        ("first.test", 0),
        ("web.shop.test", 1),
        ("shop.test", 1),
        ("API.shop.test", 2),
        ("other.test", 3),
        ("nobody.test", 0),
        ("a.web.shop.test", 0),
        ("127.0.0.1", 0),
    ] {
        assert!(shown_by_proxy(&ask_for(&mesh, &client, name).await) == pairs[expected].der(), "{name}");
    }
    // Each is read again by itself: one that is of no use holds up none of the others.
    let newer = authority.issue("api.shop.test");
    files[1].put("certificate", "of no use");
    files[2].put("key", &newer.key);
    files[2].put("certificate", &newer.certificate);
    eventually("the new one is shown", async || {
        shown_by_proxy(&ask_for(&mesh, &client, "api.shop.test").await) == newer.der()
    })
    .await;
    assert!(shown_by_proxy(&ask_for(&mesh, &client, "web.shop.test").await) == pairs[1].der());
}

#[tokio::test]
async fn clients_of_both_versions_come_in_unless_one_is_too_old() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    for (min, old, new) in [("1.2", true, true), ("1.3", false, true)] {
        let mesh = listening(&format!("{}, min_version: {min}", files.keys())).await;
        for (version, expected) in [(&version::TLS12, old), (&version::TLS13, new)] {
            let came = connect(&mesh, &authority.client_of(&[version])).await;
            assert_eq!(came.is_ok(), expected, "{version:?} where {min} is the least");
            if let Ok(stream) = came {
                assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
            }
        }
    }
}

#[tokio::test]
async fn an_optional_certificate_must_be_good_if_it_is_shown() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let files = Files::of(&authority.issue(NAME));
    files.put("client_ca", &authority.0.pem());
    let mesh = listening(&format!("{}, client_certificate: optional", files.keys())).await;
    let (ours, theirs) = (authority.issue("client"), stranger.issue("client"));
    for (who, shown, expected) in
        [("nobody", None, true), ("ours", Some(&ours), true), ("a stranger's", Some(&theirs), false)]
    {
        assert_eq!(try_get(&mesh, &authority.client(shown, &[])).await.is_ok(), expected, "{who}");
    }
    eventually("it is counted by why", async || {
        mesh.metric("mesh_tls_handshake_failures_total", &["bad_client_certificate"]).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_client_takes_up_its_session_again() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    files.put("client_ca", &authority.0.pem());
    let mesh = listening(&files.keys()).await;
    let ours = authority.issue("client");
    for version in [&version::TLS12, &version::TLS13] {
        let client = authority.shown_by(&[version], Some(&ours));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(&mesh, &client).await.unwrap();
            // Tickets come with the first answer.
            stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text).await;
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)], "{version:?}");
    }
}

#[tokio::test]
async fn the_group_that_no_quantum_computer_breaks_is_taken_first() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    let mesh = listening(&files.keys()).await;
    for (offered, agreed) in [
        (vec![kx_group::X25519MLKEM768, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519, kx_group::SECP256R1], NamedGroup::X25519),
        (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
    ] {
        let mut provider = default_provider();
        provider.kx_groups = offered;
        let stream = connect(&mesh, &authority.client_with(provider, &[&version::TLS13])).await.unwrap();
        assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), agreed);
    }
}

/// What the proxy says of a client that does that to its end of a connection.
async fn said_of<F>(server: &TlsServer, client: impl FnOnce(TcpStream) -> F) -> handshake::HandshakeError
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = held::load(server, true).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let acting = tokio::spawn(client(connected));
    let shaken = handshake::accept(accepted, config, Duration::from_millis(500)).await;
    acting.abort();
    shaken.map(|_| ()).expect_err("it came in")
}

#[tokio::test]
async fn every_failure_is_told_in_words() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let files = Files::of(&authority.issue(NAME));
    files.put("client_ca", &authority.0.pem());
    let path = |name: &str| files.0.path().join(name);
    let certificate = TlsCertificate { certificate: path("certificate"), key: path("key"), server_names: Vec::new() };
    let server = TlsServer {
        certificates: vec![certificate],
        client_certificate: ClientCertificate::Required { ca: path("client_ca") },
        min_version: TlsVersion::V1_3,
    };
    let sending = |bytes: &'static [u8], end: bool| {
        async move |mut stream: TcpStream| {
            stream.write_all(bytes).await.unwrap();
            if !end {
                std::future::pending::<()>().await;
            }
        }
    };
    let shaking = |client: Arc<ClientConfig>| {
        async move |stream: TcpStream| {
            let name = ServerName::try_from(NAME).unwrap();
            if let Ok(mut stream) = TlsConnector::from(client).connect(name, stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        }
    };
    let pair = |change: fn(&mut rcgen::CertificateParams)| authority.issue_for(&["client"], change);
    let expired = pair(|params| params.not_after = date_time_ymd(2001, 1, 1));
    let purpose = pair(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let mut few = default_provider();
    few.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    few.kx_groups = vec![kx_group::MLKEM768];

    let said = |error: handshake::HandshakeError, why: Why, name: Option<&str>, words: &str| {
        assert!(error.to_string().contains(words), "{words:?} is not in {error}");
        assert_eq!((error.why, error.server_name.as_deref()), (why, name), "{error}");
    };
    said(
        said_of(&server, sending(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", false)).await,
        Why::NotTls,
        None,
        "plain HTTP?",
    );
    said(said_of(&server, sending(b"", false)).await, Why::Timeout, None, "no whole hello came");
    said(said_of(&server, sending(b"\x16\x03\x01\x02", true)).await, Why::Closed, None, "before its hello was whole");
    let named = Some(NAME);
    let of = |shown: Option<&Pair>| shaking(authority.client(shown, &[]));
    said(said_of(&server, of(None)).await, Why::NoClientCertificate, named, "showed no certificate");
    let theirs = stranger.issue("client");
    let bad = Why::BadClientCertificate;
    said(said_of(&server, of(Some(&theirs))).await, bad, named, "none of the authorities in client_ca signed it");
    said(said_of(&server, of(Some(&expired))).await, bad, named, "it has expired");
    said(said_of(&server, of(Some(&purpose))).await, bad, named, "not made for clients");
    let old = shaking(authority.client_of(&[&version::TLS12]));
    said(said_of(&server, old).await, Why::Version, named, "no version of TLS that the listener takes");
    let misfit = shaking(authority.client_with(few, &[&version::TLS13]));
    said(said_of(&server, misfit).await, Why::Algorithm, named, "no key-exchange group in common");
    let other = shaking(authority.client(None, &["imap", "h3"]));
    said(said_of(&server, other).await, Why::Alpn, named, "would speak imap, h3 (ALPN)");
    let distrusting = shaking(stranger.client(None, &[]));
    said(said_of(&server, distrusting).await, Why::Alert, named, "does not know the authority of our certificate");
}
