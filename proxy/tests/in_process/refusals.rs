use std::net::SocketAddr;

use mesh_proxy::h2::frame::{FrameHeader, PREFACE, flag, kind};
use mesh_proxy::h2::hpack::decoder::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

#[tokio::test]
async fn an_unknown_authority_is_told_the_known_names() {
    let backend = Backend::saying(200, "hello").await;
    let text = format!(
        "listeners:\n  - {{ listen: \"127.0.0.1:0\", protocol: http, service: web }}\nservices:\n  web: {{ {} }}\n",
        endpoints(&[backend.address])
    );
    let mut told = (*resources(&text)).clone();
    let (name, table) = told.routes.iter().next().map(|(name, table)| (name.clone(), (**table).clone())).unwrap();
    let mut table = table;
    table.hosts[0].domains = vec!["web".into(), "web.shop".into()];
    told.routes.insert(name, table.into());
    let mesh = Mesh::start_from(told.into(), PATIENCE).await;

    assert_eq!(get(mesh.proxy, "web:8080", "/").await.text(), "hello");
    let refused = get(mesh.proxy, "nobody", "/").await;
    assert_eq!(refused.status, 404);
    assert!(refused.text().contains("web, web.shop"), "{}", refused.text());
    let status = refused.headers["proxy-status"].to_str().unwrap();
    assert_eq!(status, "mesh; error=destination_unavailable; details=\"NR no_route_found\"");
    assert_eq!(mesh.metric("mesh_requests_total", &["reason=\"NR\"", "code_class=\"4xx\""]).await, 1.0);
}

#[tokio::test]
async fn nobody_there_is_service_unavailable() {
    let mesh = Mesh::http(&[], "lb: round_robin").await;
    let refused = get(mesh.proxy, "web", "/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers["proxy-status"].to_str().unwrap().contains("\"UH "), "{refused:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let backend = Backend::saying(200, "hello").await;
    let mesh = Mesh::http(&[backend.address], "lb: round_robin").await;
    let check = async |text: &str, expected: &str| {
        let mut stream = tokio::net::TcpStream::connect(mesh.proxy).await.unwrap();
        write(&mut stream, text).await;
        let mut answer = vec![0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {expected}"), "{text:?}");
    };
    check("GET / HTTP/1.1\r\n\r\n", "400").await;
    check("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400").await;
    check("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "405").await;
    check("nonsense\r\n\r\n", "400").await;
    check("GET http://elsewhere/ HTTP/1.1\r\nhost: other\r\n\r\n", "200").await;
    assert_eq!(backend.count(), 1);
    eventually("both kinds counted", async || mesh.metric("mesh_requests_total", &["reason=\"DPE\""]).await == 3.0)
        .await;
}

/// What a client of h2 is answered on stream 1 that sends these frames; none where the connection ends without an answer.
async fn h2_answer(proxy: SocketAddr, frames: &[u8]) -> Option<Vec<(String, String)>> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], frames].concat()).await.unwrap();
    let mut decoder = Decoder::new(4096);
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.ok()?;
        let header = FrameHeader::read(&header);
        let mut payload = vec![0; header.length];
        stream.read_exact(&mut payload).await.unwrap();
        if header.kind == kind::HEADERS {
            let mut lines = Vec::new();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            decoder.decode(&payload, |line| lines.push((text(line.name), text(line.value)))).unwrap();
            return Some(lines);
        }
    }
}

fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader { length: payload.len(), kind, flags, stream }.bytes(), payload].concat()
}

#[tokio::test]
async fn what_makes_no_sense_in_h2_is_refused_with_its_reason() {
    let backend = Backend::saying(200, "hello").await;
    let limits = "protocol: http, limits: { max_header_bytes: 4KiB, max_headers: 20, header_timeout: 300ms }";
    let mesh = Mesh::start(&yaml(limits, &endpoints(&[backend.address]))).await;
    // `GET http://x/` with one field more, that no table remembers.
    let get = |name: &str, value: &[u8]| {
        let length = match value.len().checked_sub(127) {
            None => vec![value.len() as u8],
            Some(rest) => vec![0x7f, rest as u8 & 0x7f | 0x80, (rest >> 7) as u8],
        };
        let name = [&[0, name.len() as u8], name.as_bytes()].concat();
        let block = [&[0x82, 0x86, 0x84, 0x01, 0x01, b'x'], name.as_slice(), &length, value].concat();
        h2_frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block)
    };
    let malformed = h2_answer(mesh.proxy, &get("Upper", b"case")).await.unwrap();
    let too_large = h2_answer(mesh.proxy, &get("x", &[b'x'; 5000])).await.unwrap();
    for (answer, status) in [(malformed, "400"), (too_large, "431")] {
        assert_eq!(answer[0], (":status".into(), status.into()));
        let told = answer.iter().find(|(name, _)| name == "proxy-status").map(|(_, value)| value.as_str());
        assert_eq!(told, Some("mesh; error=http_request_error; details=\"DPE downstream_protocol_error\""));
    }
    // Neither of these leaves a stream to answer on.
    assert_eq!(h2_answer(mesh.proxy, &h2_frame(kind::DATA, 0, 0, b"x")).await, None);
    assert_eq!(h2_answer(mesh.proxy, &h2_frame(kind::HEADERS, 0, 1, &[0x82])).await, None);
    let counted = async |labels: &[&str]| mesh.metric("mesh_requests_total", labels).await;
    eventually("each is counted", async || {
        counted(&["http2", "DPE", "4xx"]).await == 2.0
            && counted(&["http2", "DPE", "none"]).await == 1.0
            && counted(&["http2", "SI", "none"]).await == 1.0
    })
    .await;
    assert_eq!(mesh.metric("mesh_h2_limits_reached_total", &["max_header_bytes"]).await, 1.0);
    assert_eq!(backend.count(), 0);

    // What shows later on, while the request waits for its endpoint: a body that is shorter than was said.
    let length = [&[0x83, 0x86, 0x84, 0x01, 0x01, b'x', 0, 14], b"content-length".as_slice(), &[1, b'5']].concat();
    let body = h2_frame(kind::DATA, flag::END_STREAM, 1, b"abc");
    let short = [h2_frame(kind::HEADERS, flag::END_HEADERS, 1, &length), body].concat();
    let answer = h2_answer(mesh.proxy, &short).await.unwrap();
    assert_eq!(answer[0], (":status".into(), "400".into()));
    eventually("it is counted as what it was", async || counted(&["http2", "DPE", "4xx"]).await == 3.0).await;
}

#[tokio::test]
async fn a_connection_that_is_not_taken_has_its_reason() {
    let backend = Backend::saying(200, "hello").await;
    for (settings, reason) in [
        ("protocol: http, proxy_protocol: { trusted: [192.0.2.0/24] }", "DPE"),
        ("protocol: http, proxy_protocol: { trusted: [127.0.0.0/8] }", "DPE"),
    ] {
        let mesh = Mesh::start(&yaml(settings, &endpoints(&[backend.address]))).await;
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        // It may be closed before that is written.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let labels = ["tcp", reason, "code_class=\"none\""];
        eventually(settings, async || mesh.metric("mesh_requests_total", &labels).await == 1.0).await;
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn beyond_the_circuit_the_refusal_is_immediate() {
    let backend = Backend::answering(|_| std::future::pending()).await;
    let mesh = Mesh::http(&[backend.address], "circuit: { max_requests: 1 }").await;
    let first = tokio::spawn(get(mesh.proxy, "web", "/"));
    eventually("the first is under way", async || backend.count() == 1).await;
    let refused = get(mesh.proxy, "web", "/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers["proxy-status"].to_str().unwrap().contains("\"UO "), "{refused:?}");
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"requests\""]).await, 1.0);
    first.abort();
    eventually("its place comes back", async || mesh.metric("mesh_upstream_requests_active", &[]).await == 0.0).await;
}
