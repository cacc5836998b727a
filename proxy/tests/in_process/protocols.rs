use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

fn with_trailers(text: &'static str, name: &'static str) -> BoxedBody {
    let trailers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static("here"))]);
    let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)];
    StreamBody::new(stream::iter(frames.map(Ok))).boxed()
}

/// Answers with what came, and says which trailers did.
async fn echo(request: Request<hyper::body::Incoming>) -> Response<BoxedBody> {
    let collected = request.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let mut response = Response::new(with_trailers("answered", "x-checksum"));
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
    let got = format!("{} trailers, {} bytes", trailers.len(), collected.to_bytes().len());
    response.headers_mut().insert("x-got", got.parse().unwrap());
    response
}

#[tokio::test]
async fn every_pair_of_versions_carries_bodies_and_trailers() {
    let backend = Backend::answering(echo).await;
    for upstream in ["http1", "http2"] {
        let mesh = Mesh::http(&[backend.address], &format!("protocol: {upstream}")).await;
        let request = |uri: &str| {
            let builder = Request::post(uri).header("host", "web").header("te", "trailers").header("trailer", "x-mine");
            builder.body(with_trailers("question", "x-mine")).unwrap()
        };
        let one = whole(h1(mesh.proxy).await.send_request(request("/")).await.unwrap()).await.unwrap();
        let two = whole(h2(mesh.proxy).await.send_request(request("http://web/")).await.unwrap()).await.unwrap();
        for (version, answer) in [("h1", one), ("h2", two)] {
            assert_eq!((answer.status, answer.text()), (200, "answered"), "{version} to {upstream}");
            assert_eq!(answer.headers["x-got"], "1 trailers, 8 bytes", "{version} to {upstream}");
            assert_eq!(answer.trailers.unwrap()["x-checksum"], "here", "{version} to {upstream}");
        }
    }
}

#[tokio::test]
async fn a_switched_connection_carries_bytes_both_ways() {
    let backend = Backend::answering(async |mut request: Request<hyper::body::Incoming>| {
        assert_eq!(request.headers()["upgrade"], "echo");
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut stream = hyper_util::rt::TokioIo::new(upgraded);
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
        response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        response
    })
    .await;
    // A whole-request timeout does not end it.
    let mesh = Mesh::http(&[backend.address], "timeout: 100ms").await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut stream, "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\nearly").await;
    let mut text = String::new();
    while !text.contains("early") {
        let mut bytes = [0; 1024];
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(length > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    let began = tokio::time::Instant::now();
    let mut bytes = [0; 4];
    while began.elapsed() < Duration::from_millis(250) {
        write(&mut stream, "ping").await;
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
    }
}

async fn reversing(mut stream: TcpStream) {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    text.reverse();
    stream.write_all(&text).await.unwrap();
}

#[tokio::test]
async fn bytes_are_carried_with_half_close() {
    let backend = Backend::raw(reversing).await;
    for protocol in ["tcp", "auto"] {
        let mesh = Mesh::start(&yaml(&format!("protocol: {protocol}"), &endpoints(&[backend.address]))).await;
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        write(&mut stream, "desrever").await;
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(text, "reversed", "{protocol}");
        eventually("it is counted", async || mesh.metric("mesh_tcp_received_bytes_total", &["web"]).await == 8.0).await;
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            write(&mut stream, "half of it").await;
            if &word == b"break" {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            told.send(stream.read(&mut word).await.map_err(|error| error.kind())).unwrap();
        }
    })
    .await;
    let mesh = Mesh::start(&yaml("protocol: tcp", &endpoints(&[backend.address]))).await;
    let reset = std::io::ErrorKind::ConnectionReset;

    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut stream, "break").await;
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(reset), "what was cut looks whole");

    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut stream, "leave").await;
    stream.read_exact(&mut [0; 10]).await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap(), Some(Err(reset)));
}

#[tokio::test]
async fn auto_tells_http_from_servers_that_speak_first() {
    let web = Backend::saying(200, "hello").await;
    let mesh = Mesh::start(&yaml("protocol: auto", &endpoints(&[web.address]))).await;
    assert_eq!(get(mesh.proxy, "web", "/").await.text(), "hello");
    let answer = h2(mesh.proxy).await.send_request(request("GET", "web", "http://web/", "")).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().text(), "hello");

    let greeting = Backend::raw(async |mut stream| {
        write(&mut stream, "220 ready\r\n").await;
        reversing(stream).await;
    })
    .await;
    let mesh = Mesh::start(&yaml("protocol: auto", &endpoints(&[greeting.address]))).await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    let mut text = [0; 11];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut text)).await.unwrap().unwrap();
    assert_eq!(&text, b"220 ready\r\n");
    assert_eq!(mesh.metric("mesh_detect_timeouts_total", &[]).await, 1.0);
}
