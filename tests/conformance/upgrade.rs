//! Connections that become something else (RFC 9110 section 7.8, RFC 6455 section 4).

use crate::asked::{Row, bad, forwarded, row};
use crate::backend::{Act, Script};
use crate::world::World;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9110 7.8: a switched connection carries bytes both ways", both_ways),
    ("9110 7.8: bytes right behind 101 are not lost", bytes_behind_the_switch),
    ("9110 7.8: bytes right behind the request wait for the switch", bytes_behind_the_request),
    ("9110 7.8: a body before the switch", a_body_first),
    ("9110 7.8: an origin that refuses leaves HTTP", refused),
    ("9110 7.8: what is behind a refused switch is HTTP", refused_and_more),
    ("9110 7.8: an origin that switches to what was not asked for", something_else),
    ("9110 7.8: each end of a switched connection ends the other", ends),
    ("9293 3.5: a switched connection that breaks off breaks", breaks),
    ("9110 7.8: 101 behind interim responses", interim_first),
];

pub fn rows() -> Vec<Row> {
    const KEY: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let with = |lines: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{KEY}\r\n{lines}\r\n\r\n");
    // Behind a switch that did not come to be the proxy may close.
    let asked = || {
        let names = |r: &crate::wire::Request| r.fields.lists("connection", "upgrade");
        forwarded().field("upgrade", "websocket").that("Connection names it", names).may_close()
    };
    let none = || {
        let names = |r: &crate::wire::Request| !r.fields.lists("connection", "upgrade");
        forwarded().without("upgrade").that("Connection does not name it", names).may_close()
    };
    vec![
        row("9110 7.8: a wanted upgrade is passed on", with("Connection: Upgrade\r\nUpgrade: websocket"), asked()),
        row("9110 7.8: a wanted upgrade in any case", with("connection: uPGRADE\r\nupgrade: websocket"), asked()),
        row(
            "9110 7.8: a wanted upgrade among other options",
            with("Connection: keep-alive, Upgrade\r\nUpgrade: websocket"),
            asked(),
        ),
        row(
            "9110 7.8: a wanted upgrade in the second line",
            with("Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: Upgrade"),
            asked(),
        ),
        row("9110 7.8: Upgrade that Connection does not name", with("Upgrade: websocket"), none()),
        row("9110 7.8: Connection that names no Upgrade there", with("Connection: Upgrade"), bad().or(none())),
        row(
            "9110 7.8: h2c is not passed on",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
            none().without("http2-settings"),
        ),
        row(
            "9110 7.8: h2c among others is not passed on",
            with("Connection: Upgrade\r\nUpgrade: h2c, websocket"),
            forwarded().that("no h2c", |r| !r.fields.lists("upgrade", "h2c")).may_close(),
        ),
        row("9110 7.8: h2c in any case is not passed on", with("Connection: Upgrade\r\nUpgrade: H2C"), none()),
        row(
            "9110 7.8: fields of WebSocket are passed on",
            with("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: a, b"),
            asked()
                .field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                .field("sec-websocket-version", "13")
                .field("sec-websocket-protocol", "a, b"),
        ),
    ]
}

const ASK: &str = "GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

fn silent() -> World {
    World::start(vec![Script { target: "/first", early: false, acts: vec![] }])
}

/// All that the origin has had behind the request on a connection.
fn origin_has(world: &World, origin: usize, wanted: &str) {
    world.backend.wait(wanted, |log| log.connections[origin].bytes.ends_with(wanted.as_bytes()).then_some(()));
}

/// A client and an origin, switched.
fn switched() -> (World, crate::client::Client, usize) {
    let world = silent();
    let mut client = world.client();
    client.send(ASK);
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, SWITCH);
    let answer = client.head();
    assert_eq!((answer.status, answer.fields.all("upgrade")), (101, vec!["echo"]));
    assert!(answer.fields.lists("connection", "upgrade"), "{answer:?}");
    (world, client, origin)
}

fn both_ways() {
    let (world, mut client, origin) = switched();
    for n in 0..20 {
        client.send(format!("\0ping {n}\r\n\r\n"));
        origin_has(&world, origin, &format!("\0ping {n}\r\n\r\n"));
        world.backend.send(origin, &format!("\0pong {n}\r\n\r\n"));
        client.expect(format!("\0pong {n}\r\n\r\n").as_bytes());
    }
    world.serves("/probe");
}

fn bytes_behind_the_switch() {
    let world = silent();
    let mut client = world.client();
    client.send(ASK);
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, &format!("{SWITCH}HTTP/1.1 200 OK\r\n\r\n"));
    assert_eq!(client.head().status, 101);
    client.expect(b"HTTP/1.1 200 OK\r\n\r\n");
}

fn bytes_behind_the_request() {
    let world = silent();
    let mut client = world.client();
    client.send(format!("{ASK}early"));
    let (origin, _) = world.backend.wait_request("/first");
    world.serves("/probe");
    let had = world.backend.settled(|log| log.connections[origin].bytes.ends_with(b"early"));
    assert!(!had, "they are HTTP until the origin switches");
    world.backend.send(origin, SWITCH);
    assert_eq!(client.head().status, 101);
    origin_has(&world, origin, "early");
}

fn a_body_first() {
    let world = silent();
    let mut client = world.client();
    client.send(ASK.replace("GET", "POST").replace("Host", "Content-Length: 5\r\nHost") + "hello");
    let (origin, request) = world.backend.wait_request("/first");
    assert_eq!(request.body, b"hello");
    assert_eq!(request.fields.all("upgrade"), ["echo"]);
    world.backend.send(origin, SWITCH);
    assert_eq!(client.head().status, 101);
    client.send("\0ping");
    origin_has(&world, origin, "\0ping");
}

const REFUSALS: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
];

fn refused() {
    for refusal in REFUSALS {
        let world = silent();
        let mut client = world.client();
        client.send(ASK);
        let (origin, _) = world.backend.wait_request("/first");
        world.backend.send(origin, refusal);
        let answer = client.response("GET").entire();
        assert_eq!(answer.text(), "no", "{answer:?}");
        if answer.closes() {
            client.end();
        } else {
            client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response("GET").entire().text(), "GET /second");
        }
        world.serves("/probe");
    }
}

fn refused_and_more() {
    let world = silent();
    let mut client = world.client();
    client.send(format!("{ASK}GET /second HTTP/1.1\r\nHost: a\r\nConnection: X-Foo\r\nX-Foo: 1\r\n\r\n"));
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, REFUSALS[0]);
    let answer = client.response("GET").entire();
    assert_eq!(answer.text(), "no");
    if answer.closes() {
        client.end();
        return;
    }
    assert_eq!(client.response("GET").entire().text(), "GET /second");
    let (_, second) = world.backend.wait_request("/second");
    assert!(!second.fields.has("x-foo"), "it passed the proxy as HTTP: {second:?}");
}

/// RFC 9110 section 7.8: a server never switches to what was not asked for.
fn something_else() {
    let world = silent();
    let mut client = world.client();
    client.send(ASK);
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, &SWITCH.replace("echo", "other"));
    let heard = client.response("GET");
    let status = heard.response.as_ref().map(|response| response.status);
    assert!(status == Some(502), "{heard:?}");
    world.serves("/probe");
}

fn ends() {
    let (world, mut client, origin) = switched();
    world.backend.send(origin, "bye");
    world.backend.act(origin, &Act::Finish);
    client.expect(b"bye");
    client.end();
    let (world, client, origin) = switched();
    client.finish();
    world.backend.wait_end(origin);
}

fn breaks() {
    let (world, mut client, origin) = switched();
    world.backend.act(origin, &Act::Reset);
    assert_eq!(client.end(), crate::client::End::Reset, "what broke off looks like an end");
    let (world, client, origin) = switched();
    client.reset();
    world.backend.wait_end(origin);
}

fn interim_first() {
    let world = silent();
    let mut client = world.client();
    client.send(ASK);
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, &format!("HTTP/1.1 103 Early Hints\r\n\r\n{SWITCH}"));
    assert_eq!(client.head().status, 103);
    assert_eq!(client.head().status, 101);
    world.backend.send(origin, "\0pong");
    client.expect(b"\0pong");
}
