//! Every limit of a listener has a key that has an effect, and a metric that bears its name.

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const ENHANCE_YOUR_CALM: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /`, with a field of so many bytes.
fn post(bytes: u8) -> Vec<u8> {
    let field = [&[0, 1, b'x', bytes][..], &vec![b'y'; bytes.into()]].concat();
    [&[0x83, 0x86, 0x84, 0x41, 3][..], b"web", &field].concat()
}

/// A connection of h2, byte by byte.
struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    async fn connect(mesh: &Mesh) -> Self {
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&preface).await.unwrap();
        Self { stream, bytes: Vec::new() }
    }

    async fn send(&mut self, frames: &[u8]) {
        // It may have been given up in between; what it was told is read afterwards.
        let _ = self.stream.write_all(frames).await;
    }

    /// The next frame: kind, flags, stream, payload; none at the end.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let [a, b, c, kind, flags, s0, s1, s2, s3, rest @ ..] = self.bytes.as_slice() {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if let Some(payload) = rest.get(..length) {
                    let read = (*kind, *flags, u32::from_be_bytes([*s0, *s1, *s2, *s3]), payload.to_vec());
                    self.bytes.drain(..9 + length);
                    return Some(read);
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await.expect("a frame");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The payload of the next frame that fits.
    async fn wait_for(&mut self, fits: impl Fn(u8, u8, u32) -> bool) -> Option<Vec<u8>> {
        while let Some((kind, flags, stream, payload)) = self.frame().await {
            if fits(kind, flags, stream) {
                return Some(payload);
            }
        }
        None
    }
}

/// A mesh whose backend answers nothing.
async fn holding(limits: &str) -> Mesh {
    let backend = Backend::raw(async |mut stream: TcpStream| {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    Mesh::start(&yaml(&format!("protocol: http, limits: {{ {limits} }}"), &endpoints(&[backend.address]))).await
}

/// So many frames that are all alike.
fn many(count: u32, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(one).collect()
}

#[tokio::test]
async fn every_flood_of_h2_is_bounded_by_its_key() {
    let block = post(120);
    let (begin, rest) = block.split_at(20);
    let large = [post(100), vec![0, 1, b'z', 126], vec![b'y'; 126]].concat();
    let huge = (0..8).fold(post(100), |block, _| [block, vec![0, 1, b'z', 126], vec![b'y'; 126]].concat());
    let in_pieces = [
        frame(HEADERS, END_STREAM, 1, begin),
        frame(CONTINUATION, 0, 1, &[]),
        frame(CONTINUATION, END_HEADERS, 1, rest),
    ];
    let begun = frame(HEADERS, END_HEADERS, 1, &large);
    let cases: [(&str, &str, Vec<u8>); 10] = [
        ("max_pings", "max_pings: 10", many(20, |_| frame(PING, 0, 0, &[0; 8]))),
        ("max_settings", "max_settings: 10", many(20, |_| frame(SETTINGS, 0, 0, &[]))),
        ("max_priorities", "max_priorities: 10", many(20, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))),
        ("max_window_updates", "max_window_updates: 10", many(20, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("max_ignored", "max_ignored: 10", many(20, |_| frame(0xfa, 0, 0, &[]))),
        ("max_empty_data", "max_empty_data: 10", [begun, many(20, |_| frame(0, 0, 1, &[]))].concat()),
        (
            "max_resets",
            "max_resets: 10",
            many(30, |turn| {
                let stream = turn * 2 + 1;
                [frame(HEADERS, END_HEADERS, stream, &post(1)), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
            }),
        ),
        ("max_continuations", "max_continuations: 1", in_pieces.concat()),
        (
            "max_header_block_bytes",
            "max_header_block_bytes: 1KiB",
            [frame(HEADERS, END_STREAM, 1, &huge[..700]), frame(CONTINUATION, END_HEADERS, 1, &huge[700..])].concat(),
        ),
        ("max_unread_answer_bytes", "max_unread_answer_bytes: 1KiB", many(300, |_| frame(PING, 0, 0, &[0; 8]))),
    ];
    for (limit, key, flood) in cases {
        // What a head needs that is small enough is always let in.
        let mesh = holding(&format!("max_header_bytes: 1KiB, h2: {{ {key} }}")).await;
        let mut client = Client::connect(&mesh).await;
        client.send(&flood).await;
        let goaway = client.wait_for(|kind, _, _| kind == GOAWAY).await;
        assert_eq!(goaway.expect(limit)[7], ENHANCE_YOUR_CALM, "{limit}");
        let label = format!("limit=\"{limit}\"");
        drop(client);
        eventually(limit, async || mesh.metric("mesh_h2_limits_reached_total", &[&label]).await == 1.0).await;
        // The default lets the same through.
        let mesh = holding("").await;
        let mut client = Client::connect(&mesh).await;
        client.send(&[flood, frame(PING, 0, 0, b"the last")].concat()).await;
        let last = async {
            while client.wait_for(|kind, flags, _| kind == PING && flags == ACK).await.expect(limit) != b"the last" {}
        };
        tokio::time::timeout(PATIENCE, last).await.expect(limit);
        assert_eq!(mesh.metric("mesh_h2_limits_reached_total", &[]).await, 0.0, "{limit}");
    }
}

#[tokio::test]
async fn clients_are_told_what_h2_is_limited_to() {
    let mesh = holding("h2: { max_concurrent_streams: 2, connection_window_bytes: 128KiB }").await;
    let mut client = Client::connect(&mesh).await;
    let settings = client.wait_for(|kind, flags, _| kind == SETTINGS && flags == 0).await.unwrap();
    assert!(settings.chunks(6).any(|entry| entry == [0, 3, 0, 0, 0, 2]), "{settings:?}");
    let window = client.wait_for(|kind, _, stream| kind == WINDOW_UPDATE && stream == 0).await.unwrap();
    assert_eq!(u32::from_be_bytes(window.try_into().unwrap()) + 65_535, 128 << 10);
    client.send(&frame(SETTINGS, ACK, 0, &[])).await;
    client.send(&many(3, |turn| frame(HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, &post(1)))).await;
    let refused = client.wait_for(|kind, _, stream| kind == RST_STREAM && stream == 5).await.unwrap();
    assert_eq!(refused, [0, 0, 0, 7], "REFUSED_STREAM");
    let label = "limit=\"max_concurrent_streams\"";
    eventually("it is counted", async || mesh.metric("mesh_h2_limits_reached_total", &[label]).await == 1.0).await;
}

#[tokio::test]
async fn a_client_of_h2_that_opens_no_window_is_given_up() {
    let backend = Backend::saying(200, "hello").await;
    let limits = "protocol: http, limits: { body_idle_timeout: 200ms }";
    let mesh = Mesh::start(&yaml(limits, &endpoints(&[backend.address]))).await;
    let mut client = Client::connect(&mesh).await;
    // No byte of any body may be sent.
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &post(1))).await;
    let given_up = client.wait_for(|kind, _, stream| kind == RST_STREAM && stream == 1).await.unwrap();
    assert_eq!(given_up, [0, 0, 0, 8], "CANCEL");
    // One that does open it gets all of the next response, on the same connection.
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &post(1))).await;
    client.wait_for(|kind, _, stream| kind == HEADERS && stream == 3).await.unwrap();
    client.send(&frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 5])).await;
    assert_eq!(
        client.wait_for(|kind, flags, stream| (kind, flags, stream) == (0, END_STREAM, 3)).await.unwrap(),
        b"hello"
    );
}

#[tokio::test]
async fn a_silent_client_of_h2_is_asked_whether_it_is_there() {
    let mesh = holding("h2: { keepalive_interval: 50ms, keepalive_timeout: 50ms }").await;
    let mut client = Client::connect(&mesh).await;
    assert!(client.wait_for(|kind, flags, _| kind == PING && flags == 0).await.is_some(), "it is asked");
    assert!(client.wait_for(|_, _, _| false).await.is_none(), "it is given up");
}

/// What comes back for these bytes, up to the end of the connection.
async fn answer(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8_lossy(&text).into_owned()
}

async fn reached(mesh: &Mesh, limit: &str) {
    let label = format!("limit=\"{limit}\"");
    eventually(limit, async || mesh.metric("mesh_h1_limits_reached_total", &[&label]).await == 1.0).await;
    assert_eq!(mesh.metric("mesh_h1_limits_reached_total", &[]).await, 1.0, "{limit} alone");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_counted_by_what_it_is_past() {
    let field = format!("x: {}\r\n", "y".repeat(1024));
    let cases = [
        ("max_header_bytes: 1KiB", "max_header_bytes", format!("GET / HTTP/1.1\r\nhost: web\r\n{field}\r\n")),
        ("max_headers: 16", "max_headers", format!("GET / HTTP/1.1\r\nhost: web\r\n{}\r\n", "x: y\r\n".repeat(16))),
    ];
    for (key, limit, request) in cases {
        let mesh = holding(&format!("{key}, linger_timeout: 10s")).await;
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(answer(&mut stream, b"").await.starts_with("HTTP/1.1 431 "), "{key}");
        reached(&mesh, limit).await;
    }
}

#[tokio::test]
async fn whoever_does_not_leave_is_left() {
    let mesh = holding("linger_timeout: 50ms").await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    assert!(answer(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    reached(&mesh, "linger_timeout").await;
}

#[tokio::test]
async fn whoever_is_done_sending_is_waited_for_as_long_as_is_said() {
    let mesh = holding("half_closed_timeout: 50ms").await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(answer(&mut stream, b"").await, "");
    reached(&mesh, "half_closed_timeout").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let backend =
        Backend::answering(async |_: Request<hyper::body::Incoming>| Response::new(full(vec![0; 64 << 20]))).await;
    let limits = "protocol: http, limits: { body_idle_timeout: 100ms }";
    let mesh = Mesh::start(&yaml(limits, &endpoints(&[backend.address]))).await;
    let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    reached(&mesh, "body_idle_timeout").await;
}

#[tokio::test]
async fn what_is_left_of_a_request_is_read_so_far() {
    let backend = Backend::saying(413, "no").await;
    let service = endpoints(&[backend.address]);
    let begun = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3000\r\n\r\n";
    let behind = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let whole = format!("{begun}{}{behind}", "x".repeat(3000));
    for (bytes, answers) in [("1KiB", 1), ("4KiB", 2)] {
        let limits = format!("protocol: http, limits: {{ max_unread_body_bytes: {bytes} }}");
        let mesh = Mesh::start(&yaml(&limits, &service)).await;
        let mut stream = TcpStream::connect(mesh.proxy).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // The answer is there before the body.
        let mut first = [0; 12];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("an early answer").unwrap();
        assert_eq!(&first, b"HTTP/1.1 413");
        let rest = answer(&mut stream, &whole.as_bytes()[begun.len()..]).await;
        assert_eq!(rest.matches("HTTP/1.1 413").count() + 1, answers, "{bytes}: {rest}");
        if answers == 1 {
            reached(&mesh, "max_unread_body_bytes").await;
        }
    }
}
