use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_proxy::app::{App, Drained, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::support::*;

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let backend = Backend::answering(|_| std::future::pending()).await;
    let mesh = Mesh::http(&[backend.address], "timeout: 50ms").await;
    let answer = get(mesh.proxy, "web", "/").await;
    assert_eq!(answer.status, 504);
    assert!(answer.headers["proxy-status"].to_str().unwrap().contains("\"UT "), "{answer:?}");
}

#[tokio::test]
async fn a_slow_head_and_silence_end_a_connection() {
    let backend = Backend::saying(200, "hello").await;
    let limits = "protocol: http, limits: { header_timeout: 100ms, idle_timeout: 300ms }";
    let mesh = Mesh::start(&yaml(limits, &endpoints(&[backend.address]))).await;
    let mut slow = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut slow, "GET / HTTP/1.1\r\nhost:").await;
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, slow.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text:?}");
    let mut kept = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut kept, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, kept.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello"), "{text:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let backend = Backend::raw(move |mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                write(&mut stream, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n")).await;
                write(&mut stream, if head.contains("chunked") { "4\r\nhalf\r\n" } else { "half" }).await;
                stream.shutdown().await.unwrap();
            }
        })
        .await;
        let mesh = Mesh::http(&[backend.address], "lb: round_robin").await;
        // The break may overtake the response head.
        if let Ok(one) = h1(mesh.proxy).await.send_request(request("GET", "web", "/", "")).await {
            assert!(whole(one).await.is_err(), "h1, {head}");
        }
        if let Ok(two) = h2(mesh.proxy).await.send_request(request("GET", "web", "http://web/", "")).await {
            assert!(whole(two).await.is_err(), "h2, {head}");
        }
        // A client of HTTP/1.0 sees a reset where it would otherwise see an orderly end.
        let mut old = TcpStream::connect(mesh.proxy).await.unwrap();
        write(&mut old, "GET / HTTP/1.0\r\nhost: web\r\n\r\n").await;
        let mut text = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, old.read_to_end(&mut text)).await.unwrap();
        let measured = String::from_utf8_lossy(&text).contains("content-length: 10");
        assert!(ended.is_err() || measured, "{ended:?} {}", String::from_utf8_lossy(&text));
        assert_eq!(mesh.metric("mesh_requests_total", &["reason=\"UC\""]).await, 3.0);
    }
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let backend = Backend::answering(async |_| {
        tokio::time::sleep(Duration::from_millis(200)).await; // a slow peer
        http::Response::new(full("finished"))
    })
    .await;
    let mut mesh = Mesh::http(&[backend.address], "lb: round_robin").await;
    let proxy = mesh.proxy;
    let asking: Vec<_> = (0..20).map(|_| tokio::spawn(get(proxy, "web", "/"))).collect();
    eventually("all are under way", async || backend.count() == 20).await;
    mesh.shut_down();
    for one in asking {
        assert_eq!(one.await.unwrap().text(), "finished");
    }
    assert_eq!(mesh.drained().await, Drained::Whole);
    assert!(TcpStream::connect(proxy).await.is_err());
}

#[tokio::test]
async fn a_reload_disturbs_no_connection() {
    let (before, after) = (Backend::saying(200, "before").await, Backend::saying(200, "after").await);
    let mesh = Mesh::http(&[before.address], "lb: round_robin").await;
    let mut client = h1(mesh.proxy).await;
    let mut ask = async || whole(client.send_request(request("GET", "web", "/", "")).await.unwrap()).await.unwrap();
    assert_eq!(ask().await.text(), "before");
    mesh.told.send_replace(resources(&yaml("protocol: http", &endpoints(&[after.address]))));
    eventually("the new endpoint answers", async || ask().await.text() == "after").await;
    assert_eq!(mesh.metric("mesh_connections_accepted_total", &[]).await, 1.0);
}

/// Two listeners in front of one service, the second one on `second`.
fn two_listeners(second: SocketAddr, backend: SocketAddr) -> String {
    yaml("protocol: http", &endpoints(&[backend]))
        .replace("services:", &format!("  - {{ listen: \"{second}\", service: web, protocol: http }}\nservices:"))
}

#[tokio::test]
async fn a_listener_on_a_taken_port_harms_no_other_and_comes_when_the_port_is_free() {
    let backend = Backend::saying(200, "hello").await;
    let mesh = Mesh::http(&[backend.address], "").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = taken.local_addr().unwrap();
    mesh.told.send_replace(resources(&two_listeners(second, backend.address)));
    eventually("the failure counted", async || mesh.metric("mesh_listeners_failed", &[]).await == 1.0).await;
    assert_eq!(get(mesh.proxy, "web", "/").await.status, 200);
    let ready = get(mesh.admin, "admin", "/readyz?verbose").await;
    let line = format!("listener {second} is not open: cannot listen on {second}: ");
    assert!(ready.status == 200 && ready.text().contains(&line), "{}", ready.text());
    assert!(ready.text().contains(&format!("sport = :{}", second.port())), "what to do: {}", ready.text());
    drop(taken);
    eventually("the listener", async || TcpStream::connect(second).await.is_ok()).await;
    assert_eq!(get(second, "web", "/").await.text(), "hello");
    eventually("none failed", async || mesh.metric("mesh_listeners_failed", &[]).await == 0.0).await;
    assert!(!get(mesh.admin, "admin", "/readyz?verbose").await.text().contains("not open"));
}

#[tokio::test]
async fn a_listener_that_is_not_required_does_not_stop_the_start() {
    let backend = Backend::saying(200, "hello").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let told = resources(&two_listeners(taken.local_addr().unwrap(), backend.address));
    let bind = async |required: Option<&str>| {
        let required = required.map(|name| BTreeSet::from([name.into()]));
        let options = Options { workers: 1, required, ..Options::default() };
        App::bind(options, watch::channel(told.clone()).1).await.map(|app| app.addresses().len())
    };
    assert_eq!(bind(Some("127.0.0.1:0")).await.ok(), Some(1));
    assert!(bind(None).await.is_err());
    assert!(bind(Some(&taken.local_addr().unwrap().to_string())).await.is_err());
}
