use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use mesh_proxy::app::Drained;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificates::*;
use super::support::*;

/// Answers with the address that the proxy says the client has.
async fn seen() -> Backend {
    Backend::answering(async |request: Request<hyper::body::Incoming>| {
        Response::new(full(request.headers()["x-forwarded-for"].as_bytes().to_vec()))
    })
    .await
}

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";

/// What comes back for these bytes: all of it, or nothing where the connection is cut.
async fn sent(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            return String::new();
        }
        tokio::task::yield_now().await;
    }
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn connections_are_evened_out_over_workers() {
    let backend = Backend::saying(200, "hello").await;
    for (workers, apart_max) in [(2, 4.0), (4, 3.0)] {
        let resources = resources(&yaml("protocol: http", &endpoints(&[backend.address])));
        let mut mesh = Mesh::start_with(resources, workers).await;
        let mut open = Vec::new();
        for _ in 0..64 {
            let mut client = h1(mesh.proxy).await;
            let answer = client.send_request(request("GET", "web", "/", "")).await.unwrap();
            assert_eq!(whole(answer).await.unwrap().text(), "hello");
            open.push(client);
        }
        let mut loads = Vec::new();
        for worker in 0..workers {
            let label = format!("worker=\"{worker}\"");
            loads.push(mesh.metric("mesh_worker_connections_active", &[&label]).await);
        }
        assert_eq!(loads.iter().sum::<f64>(), 64.0);
        let (least, most) = (loads.iter().copied().fold(64.0, f64::min), loads.iter().copied().fold(0.0, f64::max));
        assert!(most - least <= apart_max, "{loads:?}");
        // What was handed on goes with its listener, too.
        mesh.shut_down();
        for mut client in open {
            eventually("an idle connection is closed", async || client.ready().await.is_err()).await;
        }
        assert_eq!(mesh.drained().await, Drained::Whole);
    }
}

#[tokio::test]
async fn nothing_that_was_accepted_is_lost_when_workers_drain() {
    let backend = Backend::answering(async |_| {
        tokio::time::sleep(Duration::from_millis(200)).await; // a slow peer
        Response::new(full("finished"))
    })
    .await;
    let mut mesh = Mesh::start_with(resources(&yaml("protocol: http", &endpoints(&[backend.address]))), 3).await;
    let proxy = mesh.proxy;
    let asking: Vec<_> = (0..60).map(|_| tokio::spawn(get(proxy, "web", "/"))).collect();
    eventually("all are under way", async || backend.count() == 60).await;
    mesh.shut_down();
    for one in asking {
        assert_eq!(one.await.unwrap().text(), "finished");
    }
    assert_eq!(mesh.drained().await, Drained::Whole);
}

#[tokio::test]
async fn beyond_its_limit_a_listener_takes_nobody() {
    let backend = Backend::saying(200, "hello").await;
    let limits = "protocol: http, limits: { max_connections: 3 }";
    let mesh = Mesh::start_with(resources(&yaml(limits, &endpoints(&[backend.address]))), 2).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = h1(mesh.proxy).await;
        client.send_request(request("GET", "web", "/", "")).await.unwrap();
        open.push(client);
    }
    for _ in 0..2 {
        assert_eq!(sent(mesh.proxy, &[GET.as_bytes()]).await, "", "there is a fourth");
    }
    eventually("both are counted, with their reason", async || {
        mesh.metric("mesh_connections_ended_total", &["max_connections"]).await == 2.0
            && mesh.metric("mesh_requests_total", &["tcp", "OM", "code_class=\"none\""]).await == 2.0
    })
    .await;
    // Those inside are served on, and who leaves makes room.
    let answer = open[0].send_request(request("GET", "web", "/", "")).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().text(), "hello");
    open.pop();
    eventually("there is room", async || sent(mesh.proxy, &[GET.as_bytes()]).await.ends_with("hello")).await;
    // The limit may change while it is open.
    mesh.told.send_replace(resources(&yaml("protocol: http", &endpoints(&[backend.address]))));
    eventually("there is more room", async || {
        let mut client = h1(mesh.proxy).await;
        let came = client.send_request(request("GET", "web", "/", "")).await.is_ok();
        open.push(client);
        came && open.len() > 5
    })
    .await;
}

/// A header of version 2 about a client of IPv4.
fn second() -> Vec<u8> {
    let block = [203, 0, 113, 7, 192, 0, 2, 1, 0x30, 0x39, 0, 80, 0x20, 0, 2, 9, 9];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11".as_slice(), &block].concat()
}

#[tokio::test]
async fn who_is_trusted_says_whose_a_connection_is() {
    let backend = seen().await;
    let settings = "protocol: http, proxy_protocol: { trusted: [127.0.0.0/8] }, limits: { handshake_timeout: 500ms }";
    let mesh = Mesh::start(&yaml(settings, &endpoints(&[backend.address]))).await;
    let get = GET.as_bytes();
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 80\r\n".as_slice();
    for (header, expected) in [
        (vec![line], "2001:db8::7"),
        (vec![second().as_slice()], "203.0.113.7"),
        (vec![b"PROXY UNKNOWN\r\n".as_slice()], "127.0.0.1"),
        (vec![&line[..3], &line[3..20], &line[20..line.len() - 1], &line[line.len() - 1..]], "2001:db8::7"),
        (second().chunks(5).collect(), "203.0.113.7"),
    ] {
        let answer = sent(mesh.proxy, &[header.clone(), vec![get]].concat()).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{header:?}: {answer}");
        // The header and the request in one piece.
        let together = [header.concat().as_slice(), get].concat();
        assert!(sent(mesh.proxy, &[&together]).await.ends_with(expected));
    }
    let count = backend.count();
    for header in [b"".as_slice(), b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", b"PROXY TCP4 1.2", &second()[..20]] {
        let whole = if header.len() < 28 && !header.is_empty() { header.to_vec() } else { [header, get].concat() };
        assert_eq!(sent(mesh.proxy, &[&whole]).await, "", "{}", header.escape_ascii());
    }
    // A connection is counted once it is closed.
    let ended = async || mesh.metric("mesh_connections_ended_total", &["proxy_protocol"]).await;
    eventually("four refusals counted", async || ended().await == 4.0).await;

    let settings = "protocol: http, proxy_protocol: { trusted: [10.0.0.0/8, 192.0.2.1] }";
    let strict = Mesh::start(&yaml(settings, &endpoints(&[backend.address]))).await;
    assert_eq!(sent(strict.proxy, &[line, get]).await, "", "a stranger is believed");
    assert_eq!(backend.count(), count);
}

#[tokio::test]
async fn tls_begins_behind_what_was_said() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    let settings = format!("protocol: http, proxy_protocol: {{ trusted: [127.0.0.1] }}, {}", files.yaml());
    let mesh = Mesh::start(&yaml(&settings, &endpoints(&[seen().await.address]))).await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    stream.write_all(&second()).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let stream = TlsConnector::from(authority.client(None, &[])).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request("GET", NAME, "/", "")).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().text(), "203.0.113.7");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_the_configured_moment() {
    let greeting = Backend::raw(async |mut stream| {
        write(&mut stream, "220 ready\r\n").await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let heard = async |settings: &str| {
        let mesh = Mesh::start(&yaml(settings, &endpoints(&[greeting.address]))).await;
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        let mut text = [0; 11];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut text)).await;
        (read.is_ok(), mesh.metric("mesh_detect_timeouts_total", &[]).await)
    };
    assert_eq!(heard("protocol: auto, detect_timeout: 1ms").await, (true, 1.0));
    assert_eq!(heard("protocol: auto, detect_timeout: 1h").await, (false, 0.0));
    assert_eq!(heard("protocol: tcp").await, (true, 0.0));
}

/// How many connections this process can hold both ends of, beside all else that it does.
fn connections_possible() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft: usize = files.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    (soft / 4).min(2000)
}

#[tokio::test]
async fn a_crowd_of_idle_clients_harms_nobody() {
    let backend = Backend::saying(200, "hello").await;
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(NAME));
    for settings in ["protocol: http".to_owned(), "protocol: auto, detect_timeout: 1h".to_owned(), files.yaml()] {
        let limits = "limits: { idle_timeout: 1s, handshake_timeout: 1s }";
        let settings = yaml(&format!("{settings}, {limits}"), &endpoints(&[backend.address]));
        let mesh = Mesh::start_with(resources(&settings), 2).await;
        let mut crowd = Vec::new();
        for _ in 0..connections_possible() {
            crowd.push(TcpStream::connect(mesh.proxy).await.unwrap());
        }
        let accepted = async || mesh.metric("mesh_connections_accepted_total", &[]).await;
        eventually("all are there", async || accepted().await == crowd.len() as f64).await;
        if settings.contains("tls") {
            assert_eq!(try_get(&mesh, &authority.client(None, &[])).await.unwrap().text(), "hello");
        } else {
            assert_eq!(get(mesh.proxy, "web", "/").await.text(), "hello");
        }
        if !settings.contains("1h") {
            let active = async || mesh.metric("mesh_connections_active", &[]).await;
            eventually("those that say nothing are sent away", async || active().await <= 1.0).await;
        }
    }
}
