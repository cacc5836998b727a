//! Requests, well-formed and malformed (RFC 9113 section 8). What becomes of each in HTTP/1.1 is under `downgrade`.

use super::client::{Client, get, post};
use super::frame::{code, data, flag, headers, kind, window_update};
use super::hpack::{self, block};
use super::table::{Row, Scenario, answered, connection, malformed, posting, row};
use crate::world::World;

const END: u8 = flag::END_STREAM;

pub fn rows() -> Vec<Row> {
    [exchanges(), fields(), pseudo_headers(), lengths(), trailers()].into_iter().flatten().collect()
}

pub const SCENARIOS: &[Scenario] = &[
    ("9113 8.1: every method is answered", methods),
    ("9113 8.1: HEAD is answered without DATA", head),
    ("9113 8.1.1: a malformed request does not reach the origin, and harms no other", malformed_among_others),
    ("9113 8.1: a body of a megabyte arrives whole", long_body),
    ("9113 8.1: an answer of a megabyte arrives whole", long_answer),
    ("9113 8.3.1: the proxy takes whoever asks by Host alone", by_host),
];

fn asking(lines: &[(&str, &str)]) -> Vec<u8> {
    headers(1, END, &block(lines))
}

fn with(lines: &[(&str, &str)]) -> Vec<u8> {
    asking(&[&get("/one")[..], lines].concat())
}

fn exchanges() -> Vec<Row> {
    let second = headers(1, 0, &hpack::line("x-t", "1"));
    vec![
        row("9113 8.1: GET", with(&[]), answered()),
        row("9113 8.1: POST without DATA", asking(&post("/one")), answered()),
        row("9113 8.1: POST with DATA", [posting(1), data(1, END, b"test")].concat(), answered()),
        row(
            "9113 8.1: POST with DATA and trailers",
            [posting(1), data(1, 0, b"test"), headers(1, END, &hpack::line("x-t", "ok"))].concat(),
            answered(),
        ),
        row(
            "9113 8.1: a second HEADERS that does not end the stream",
            [posting(1), second.clone()].concat(),
            malformed(),
        ),
        row("9113 8.1: the same behind DATA", [posting(1), data(1, 0, b"x"), second].concat(), malformed()),
        row("9113 8.1: a second head", [posting(1), asking(&get("/two"))].concat(), malformed()),
        row(
            "9113 8.1: GET with DATA",
            [headers(1, 0, &block(&get("/one"))), data(1, END, b"test")].concat(),
            answered(),
        ),
    ]
}

fn fields() -> Vec<Row> {
    let mut rows = vec![
        row("9113 8.2.1: an upper-case name", with(&[("X-TEST", "ok")]), malformed()),
        row("9113 8.2.2: a field of the connection", with(&[("connection", "keep-alive")]), malformed()),
        row(
            "9113 8.2.2: TE other than trailers",
            with(&[("trailers", "test"), ("te", "trailers, deflate")]),
            malformed(),
        ),
        row("9113 8.2.2: TE: trailers", with(&[("te", "trailers")]), answered()),
        row("9113 8.2.3: cookies in crumbs", with(&[("cookie", "a=b"), ("cookie", "c=d")]), answered()),
    ];
    for name in ["keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        rows.push(row(format!("9113 8.2.2: {name}"), with(&[(name, "x")]), malformed()));
    }
    rows
}

fn pseudo_headers() -> Vec<Row> {
    let all = get("/one");
    let mut rows = vec![
        row("9113 8.3: an unknown pseudo-header", asking(&[&[(":test", "ok")], &all[..]].concat()), malformed()),
        row("9113 8.3: a pseudo-header of responses", asking(&[&all[..], &[(":status", "200")]].concat()), malformed()),
        row(
            "9113 8.3: a pseudo-header behind a field",
            asking(&[&all[..3], &[("x-test", "ok")], &all[3..]].concat()),
            malformed(),
        ),
        row("9113 8.3: :path behind a field", asking(&[("x-test", "ok"), all[0], all[1], all[2], all[3]]), malformed()),
        row("9113 8.3.1: an empty :path", asking(&[all[0], all[1], (":path", ""), all[3]]), malformed()),
        row(
            "9113 8.5: CONNECT with :path and :scheme",
            asking(&[(":method", "CONNECT"), all[1], all[2], all[3]]),
            malformed(),
        ),
        row(
            "8441 4: extended CONNECT without :path",
            asking(&[(":method", "CONNECT"), (":protocol", "websocket"), all[1], all[3]]),
            malformed(),
        ),
        row(
            "8441 4: a :protocol that is no token",
            asking(&[(":method", "CONNECT"), (":protocol", "web socket"), all[1], all[2], all[3]]),
            malformed(),
        ),
        row(
            "8441 4: :protocol without CONNECT",
            asking(&[all[0], (":protocol", "websocket"), all[1], all[2], all[3]]),
            malformed(),
        ),
    ];
    for (place, name) in [(0, ":method"), (1, ":scheme"), (2, ":path")] {
        let mut without = all.clone();
        without.remove(place);
        rows.push(row(format!("9113 8.3.1: no {name}"), asking(&without), malformed()));
        let mut twice = all.clone();
        twice.insert(place, all[place]);
        rows.push(row(format!("9113 8.3.1: {name} twice"), asking(&twice), malformed()));
    }
    rows
}

fn lengths() -> Vec<Row> {
    let told = |length: &str| headers(1, 0, &block(&[&post("/one")[..], &[("content-length", length)]].concat()));
    vec![
        row("9113 8.1.1: more DATA than Content-Length", [told("1"), data(1, END, b"test")].concat(), malformed()),
        row(
            "9113 8.1.1: the sum of several DATA is more",
            [told("1"), data(1, 0, b"test"), data(1, END, b"test")].concat(),
            malformed(),
        ),
        row("9113 8.1.1: less DATA than Content-Length", [told("5"), data(1, END, b"test")].concat(), malformed()),
        row("9113 8.1.1: as much", [told("8"), data(1, 0, b"test"), data(1, END, b"test")].concat(), answered()),
        row(
            "9113 8.1.1: padding does not count",
            [told("4"), data(1, END | flag::PADDED, b"\x03test\0\0\0")].concat(),
            answered(),
        ),
    ]
}

fn trailers() -> Vec<Row> {
    let with = |lines: &[(&str, &str)]| [posting(1), data(1, 0, b"test"), headers(1, END, &block(lines))].concat();
    vec![
        row("9113 8.1: a pseudo-header in trailers", with(&[(":method", "GET")]), malformed()),
        row("9113 8.1: a status in trailers", with(&[(":status", "200")]), malformed()),
        row("9113 8.2.1: an upper-case name in trailers", with(&[("X-T", "1")]), malformed()),
        row("9113 8.2.2: a field of the connection in trailers", with(&[("connection", "close")]), malformed()),
        row("9113 8.1: trailers that fill frames", with(&[("x-t", &"t".repeat(10_000))]), answered()),
        row(
            "9113 8.1: trailers in the middle",
            [posting(1), headers(1, 0, &hpack::line("x-t", "1")), data(1, END, b"test")].concat(),
            malformed(),
        ),
        row(
            "9113 4.3: trailers that cannot be read",
            [posting(1), headers(1, END, b"\xff\xff\xff\xff\x7f")].concat(),
            connection(code::COMPRESSION_ERROR),
        ),
        row(
            "9113 8.1: a kind nobody knows between",
            [posting(1), super::frame::frame(kind::CONTINUATION + 9, 0, 1, b"x"), data(1, END, b"test")].concat(),
            answered(),
        ),
        row(
            "9113 8.1: a window between",
            [posting(1), window_update(1, 9), data(1, END, b"test")].concat(),
            answered(),
        ),
    ]
}

fn methods(world: &World) {
    let mut client = Client::connect(world.proxy);
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE"] {
        let stream = client.ask(&[&[(":method", method)], &get("/one")[1..]].concat());
        assert_eq!(client.answer(stream).text(), format!("{method} /one"));
    }
}

fn head(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.ask(&[&[(":method", "HEAD")], &get("/one")[1..]].concat());
    let said = client.answer(stream);
    assert_eq!((said.status(), said.body.len(), said.first("content-length")), ("200", 0, "9"));
}

fn malformed_among_others(world: &World) {
    let mut client = Client::connect(world.proxy);
    let good = client.begin(&post("/good"));
    let bad = client.ask(&[&get("/bad")[..], &[("connection", "close")]].concat());
    client.stream_error(bad, &[code::PROTOCOL_ERROR]);
    client.send(data(good, END, b"x"));
    assert_eq!(client.answer(good).text(), "POST /good");
    world.backend.settled(|log| {
        let bad = log.connections.iter().flat_map(|one| one.all()).any(|request| request.target == "/bad");
        assert!(!bad, "it reached the origin");
    });
}

fn long_body(world: &World) {
    let mut client = Client::connect(world.proxy);
    let body: Vec<u8> = (0..1u32 << 20).map(|number| (number * 7 % 251) as u8).collect();
    let stream = client.begin(&post("/one"));
    client.send_body(stream, &body);
    assert_eq!(client.answer(stream).text(), "POST /one");
    assert!(world.backend.wait_request("/one").1.body == body);
}

fn long_answer(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.ask(&get("/held"));
    let _ = client.answer(stream);
    let path = format!("/{}", "x".repeat(30_000));
    let streams: Vec<u32> = (0..40).map(|_| client.ask(&get(&path))).collect();
    for stream in streams {
        assert_eq!(client.answer(stream).body.len(), path.len() + 4);
    }
}

fn by_host(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.ask(&[&get("/one")[..3], &[("host", "a")]].concat());
    assert_eq!(client.answer(stream).text(), "GET /one");
}
