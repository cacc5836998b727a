use std::sync::Arc;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::model::resource::Resources;
use mesh_proxy::app::{App, AppError, Options};
use mesh_proxy::identity::rotate::{Rotation, SharedTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificates::*;
use super::support::*;

#[tokio::test]
async fn the_handshake_settles_the_version() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    let mesh = files.listen("http", &scheme().await).await;
    for (offered, agreed) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2", "http/1.1"], Some("h2")),
        (&[], None),
    ] {
        let stream = connect(&mesh, &authority.client(None, offered)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        let answer = if agreed == Some("h2") {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request("GET", NAME, &format!("https://{NAME}/"), "")).await
        } else {
            h1_over(stream).await.unwrap().send_request(request("GET", NAME, "/", "")).await
        };
        assert_eq!(whole(answer.unwrap()).await.unwrap().text(), "https", "{offered:?}");
    }
    assert_eq!(mesh.metric("mesh_tls_handshakes_total", &[]).await, 5.0);
    assert_eq!(mesh.metric("mesh_tls_handshake_failures_total", &[]).await, 0.0);
}

#[tokio::test]
async fn bytes_are_carried_with_half_close() {
    let backend = Backend::raw(async |mut stream| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        text.reverse();
        stream.write_all(&text).await.unwrap();
    })
    .await;
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    let mesh = files.listen("tcp", &backend).await;
    // Whatever is spoken in them is between the client and the service: nothing is settled, and nobody turned away.
    let mut stream = connect(&mesh, &authority.client(None, &["h2", "postgresql"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    // More than one record, and more than a socket buffer.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer.reverse();
    assert!(answer == sent, "{} bytes came back of {}", answer.len(), sent.len());
}

#[tokio::test]
async fn only_clients_of_the_authority_are_heard() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let files = Files::of(&authority.issue(NAME));
    files.put("client_ca", &authority.0.pem());
    let backend = scheme().await;
    let mesh = files.listen("http", &backend).await;
    let (ours, theirs) = (authority.issue("client"), stranger.issue("client"));
    for (refused, client) in [("nobody", None), ("a stranger's client", Some(&theirs))] {
        try_get(&mesh, &authority.client(client, &[])).await.expect_err(refused);
    }
    eventually("both are counted", async || mesh.metric("mesh_tls_handshake_failures_total", &[]).await == 2.0).await;
    assert_eq!(backend.count(), 0);
    assert_eq!(try_get(&mesh, &authority.client(Some(&ours), &[])).await.unwrap().text(), "https");
    // A client that does not trust our authority turns away by itself.
    let error = connect(&mesh, &stranger.client(Some(&ours), &[])).await.expect_err("our certificate is not theirs");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    eventually("that too", async || mesh.metric("mesh_tls_handshake_failures_total", &[]).await == 3.0).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.issue(NAME), authority.issue(NAME));
    let files = Files::of(&first);
    let mesh = files.listen("http", &scheme().await).await;
    let client = authority.client(None, &[]);
    let stream = connect(&mesh, &client).await.unwrap();
    assert_eq!(shown_by_proxy(&stream), first.der());
    let mut old = h1_over(stream).await.unwrap();
    let mut ask_old = async || {
        old.ready().await.unwrap();
        let answer = old.send_request(request("GET", NAME, "/", "")).await.unwrap();
        assert_eq!(whole(answer).await.unwrap().text(), "https");
    };
    ask_old().await;
    files.put("certificate", &second.certificate);
    // Between the two files nothing matches: whoever comes now is served all the same.
    assert_eq!(try_get(&mesh, &client).await.unwrap().text(), "https");
    files.put("key", &second.key);
    eventually("the new certificate", async || shown_by_proxy(&connect(&mesh, &client).await.unwrap()) == second.der())
        .await;
    ask_old().await;
    assert_eq!(mesh.metric("mesh_tls_handshake_failures_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_new_authority_of_clients_holds_for_new_connections() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::of(&before.issue(NAME));
    files.put("client_ca", &before.0.pem());
    let mesh = files.listen("http", &scheme().await).await;
    let [old, new] = [before.issue("client"), after.issue("client")].map(|pair| before.client(Some(&pair), &[]));
    assert_eq!(try_get(&mesh, &old).await.unwrap().text(), "https");
    try_get(&mesh, &new).await.expect_err("not yet known");
    // The same client, and so the session that it could take up again.
    files.put("client_ca", &after.0.pem());
    eventually("the new authority", async || try_get(&mesh, &new).await.is_ok()).await;
    try_get(&mesh, &old).await.expect_err("no longer known, not even by an earlier session");
}

/// The swap and who keeps it, for one listener.
fn followed(files: &Files) -> (SharedTls, Rotation) {
    let shared = SharedTls::default();
    let mut rotation = Rotation::new(Arc::clone(&shared));
    let yaml = yaml(&format!("protocol: http, {}", files.yaml()), "endpoints: []");
    rotation.follow(&resources(&yaml)).unwrap();
    (shared, rotation)
}

#[test]
fn what_cannot_be_used_never_replaces_the_last_good_certificate() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.issue(NAME), authority.issue(NAME));
    let files = Files::of(&first);
    let (shared, mut rotation) = followed(&files);
    let served = || Arc::clone(&shared.load()[0].1);
    let original = served();
    rotation.check();
    assert!(Arc::ptr_eq(&served(), &original), "nothing changed, so nothing is read");
    for broken in ["", "no PEM", &second.certificate, &second.key] {
        files.put("certificate", broken);
        rotation.check();
        assert!(Arc::ptr_eq(&served(), &original), "{broken:?}");
    }
    std::fs::remove_file(files.path("certificate")).unwrap();
    rotation.check();
    assert!(Arc::ptr_eq(&served(), &original), "a file that is gone");
    files.put("certificate", &second.certificate);
    rotation.check();
    assert!(Arc::ptr_eq(&served(), &original), "its key has not come yet");
    files.put("key", &second.key);
    rotation.check();
    assert!(!Arc::ptr_eq(&served(), &original));
    // A listener that goes away takes its certificate with it.
    rotation.follow(&Resources::default()).unwrap();
    assert!(shared.load().is_empty());
}

#[test]
fn a_change_is_seen_even_when_its_time_and_length_are_the_old_ones() {
    let authority = Authority::new("authority");
    // Two certificates of one length: signatures vary by a byte or two.
    let first = authority.issue(NAME);
    let same = |pair: &Pair| pair.certificate.len() == first.certificate.len() && pair.key.len() == first.key.len();
    let second = std::iter::repeat_with(|| authority.issue(NAME)).take(1000).find(same).unwrap();
    let files = Files::of(&first);
    let epoch = || {
        for name in ["certificate", "key"] {
            std::fs::File::open(files.path(name)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    };
    epoch();
    let (shared, mut rotation) = followed(&files);
    let original = Arc::clone(&shared.load()[0].1);
    files.put("certificate", &second.certificate);
    files.put("key", &second.key);
    epoch();
    rotation.check();
    assert!(!Arc::ptr_eq(&shared.load()[0].1, &original), "some images and stores keep no times");
}

#[tokio::test]
async fn a_listener_does_not_start_with_files_that_make_no_server() {
    let authority = Authority::new("authority");
    let (first, second) = (authority.issue(NAME), authority.issue(NAME));
    for (name, text, named) in [
        ("certificate", "", "certificate holds no certificate"),
        ("certificate", second.certificate.as_str(), "is not the key of"),
        ("key", "no PEM", "key cannot be read as PEM"),
        ("client_ca", "", "client_ca holds no certificate"),
    ] {
        let files = Files::of(&first);
        files.put(name, text);
        let backend = "endpoints: []";
        let resources = resources(&yaml(&format!("protocol: http, {}", files.yaml()), backend));
        let (_told, watched) = tokio::sync::watch::channel(resources);
        let Err(error) = App::bind(Options { workers: 1, ..Options::default() }, watched).await else {
            panic!("it starts with {text:?} as {name}")
        };
        let AppError::Tls { source } = error else { panic!("{error}") };
        assert!(source.to_string().contains(named), "{source}");
        assert!(source.to_string().contains(&files.path(name)), "{source}");
    }
}

#[tokio::test]
async fn who_never_shakes_hands_is_sent_away() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    let backend = scheme().await;
    let mesh = files.listen("http", &backend).await;
    let mut silent = TcpStream::connect(mesh.proxy).await.unwrap();
    let mut plain = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut plain, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    for (who, stream) in [("plain HTTP", &mut plain), ("silence", &mut silent)] {
        let mut told = Vec::new();
        // An end or a reset, and at most an alert before.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await.expect(who);
        assert!(told.len() < 16, "{who}: {}", String::from_utf8_lossy(&told));
    }
    eventually("both are counted", async || mesh.metric("mesh_tls_handshake_failures_total", &[]).await == 2.0).await;
    assert_eq!(backend.count(), 0);
}
