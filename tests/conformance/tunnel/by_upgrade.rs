//! An endpoint of HTTP/1.1 is asked to switch its connection.

use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{broke, expect, head_of, refused, send, tunnel, web_socket, with};
use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::h2::client::{Client, get};
use crate::h2::frame::{self, code, flag};
use crate::wire::Request;
use crate::world::{LIMITS, Running, SERVICE, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("8441 3: tunnels are announced", announced),
    ("8441 5.1: what an endpoint of HTTP/1.1 is asked", asked),
    ("8441 5: what it answers", answered),
    ("6455 4.1: each tunnel has a key of its own", keys),
    ("8441 4: another protocol is a plain upgrade", other_protocol),
    ("9113 3.1: h2c is no protocol for a tunnel", h2c),
    ("8441 5: bytes both ways", both_ways),
    ("8441 5: bytes in front of the answer wait for it", early_bytes),
    ("8441 5: bytes right behind the switch are not lost", bytes_behind_the_switch),
    ("8441 5: a client that is done sending still receives", client_ends_first),
    ("8441 5: an endpoint that is done sending still receives", endpoint_ends_first),
    ("8441 5: a client that ended its stream with the head", ended_at_once),
    ("8441 5: an endpoint that breaks off", endpoint_breaks),
    ("8441 5: a client that resets its stream", client_resets),
    ("8441 5: a client whose connection ends", client_leaves),
    ("8441 5: a client that resets before the answer", client_gives_up),
    ("9113 8.5: trailers in a tunnel", trailers),
    ("8441 5: an endpoint that refuses answers as it does", endpoint_refuses),
    ("8441 5: a success without a switch is no tunnel", success_without_switch),
    ("6455 4.1: a wrong Sec-WebSocket-Accept", wrong_accept),
    ("9110 7.8: an endpoint that switches to something else", something_else),
    ("8441 4: nobody there", nobody),
    ("9113 8.5: CONNECT to anywhere is refused", plain_connect),
    ("8441 5: other streams go on", others_go_on),
    ("9113 6.8: a tunnel is not cut by GOAWAY", drains),
    ("8441 5: no timeout ends a tunnel", no_timeout),
];

fn silent() -> World {
    World::start(vec![Script { target: "/first", early: false, acts: vec![] }])
}

/// A right answer, with these lines more.
pub fn switch(request: &Request, more: &str) -> String {
    let accept = derive_accept_key(request.fields.first("sec-websocket-key").expect("a key").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// A client and an endpoint, with a tunnel on a stream.
fn opened(world: &World) -> (Client, u32, usize) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    let (origin, request) = world.backend.wait_request("/first");
    world.backend.send(origin, &switch(&request, ""));
    assert_eq!(head_of(&mut client, stream).status(), "200");
    (client, stream, origin)
}

fn origin_has(backend: &Backend, origin: usize, wanted: &str) {
    backend.wait(wanted, |log| log.connections[origin].bytes.ends_with(wanted.as_bytes()).then_some(()));
}

fn announced() {
    let world = silent();
    let client = Client::connect(world.proxy);
    assert_eq!(client.heard.settings.get(&8), Some(&1));
}

fn asked() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let fields = [
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("sec-websocket-key", "bWluZQ=="),
        ("origin", "http://a"),
        ("content-length", "7"),
    ];
    client.begin(&with(web_socket("/first"), &fields));
    let (_, request) = world.backend.wait_request("/first");
    assert_eq!((request.method.as_str(), request.fields.first("host")), ("GET", Some("a")));
    assert!(request.fields.lists("connection", "upgrade"), "{request:?}");
    let wanted = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("origin", "http://a"),
    ];
    for (name, value) in wanted {
        assert_eq!(request.fields.all(name), [value], "{request:?}");
    }
    let keys = request.fields.all("sec-websocket-key");
    assert!(keys.len() == 1 && keys[0].len() == 24 && keys[0].ends_with("==") && keys[0] != "bWluZQ==", "{request:?}");
    assert!(!request.fields.has("content-length") && !request.fields.has("transfer-encoding"), "{request:?}");

    let world = silent();
    let mut client = Client::connect(world.proxy);
    client.begin(&with(web_socket("/first"), &[("sec-websocket-version", "8")]));
    let (_, request) = world.backend.wait_request("/first");
    assert_eq!(request.fields.all("sec-websocket-version"), ["8"]);
}

fn answered() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    let (origin, request) = world.backend.wait_request("/first");
    let more = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: x\r\nX-A: 1\r\n";
    world.backend.send(origin, &switch(&request, more));
    let said = head_of(&mut client, stream);
    assert_eq!(said.status(), "200");
    for (name, value) in [("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "x"), ("x-a", "1")] {
        assert_eq!(said.all(name), [value], "{said:?}");
    }
    for name in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(said.all(name).is_empty(), "{said:?}");
    }
}

fn keys() {
    let key = || {
        let world = silent();
        let mut client = Client::connect(world.proxy);
        client.begin(&web_socket("/first"));
        world.backend.wait_request("/first").1.fields.first("sec-websocket-key").unwrap().to_owned()
    };
    assert_ne!(key(), key());
}

fn other_protocol() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&tunnel("connect-udp", "/first"));
    let (origin, request) = world.backend.wait_request("/first");
    assert_eq!(request.fields.all("upgrade"), ["connect-udp"]);
    assert!(!request.fields.has("sec-websocket-key") && !request.fields.has("sec-websocket-version"));
    world
        .backend
        .send(origin, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: connect-udp\r\nConnection: Upgrade\r\n\r\n\0pong");
    assert_eq!(head_of(&mut client, stream).status(), "200");
    expect(&mut client, stream, "\0pong");
}

fn h2c() {
    for name in ["h2c", "H2C"] {
        let world = silent();
        let mut client = Client::connect(world.proxy);
        let stream = client.begin(&tunnel(name, "/first"));
        refused(&mut client, stream, "400");
        client.serves("/second");
    }
}

fn both_ways() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    for n in 0..20 {
        send(&mut client, stream, &format!("\0ping {n}\r\n\r\n"));
        origin_has(&world.backend, origin, &format!("\0ping {n}\r\n\r\n"));
        world.backend.send(origin, &format!("\0pong {n}\r\n\r\n"));
        expect(&mut client, stream, &format!("\0pong {n}\r\n\r\n"));
    }
    client.serves("/probe");
}

fn early_bytes() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    send(&mut client, stream, "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    let (origin, request) = world.backend.wait_request("/first");
    client.serves("/probe");
    let had = world.backend.settled(|log| log.connections[origin].bytes.windows(5).any(|part| part == b"/evil"));
    assert!(!had, "they wait until the endpoint switches");
    world.backend.send(origin, &switch(&request, ""));
    assert_eq!(head_of(&mut client, stream).status(), "200");
    origin_has(&world.backend, origin, "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
}

fn bytes_behind_the_switch() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    let (origin, request) = world.backend.wait_request("/first");
    world.backend.send(origin, &(switch(&request, "") + "HTTP/1.1 200 OK\r\n\r\n"));
    assert_eq!(head_of(&mut client, stream).status(), "200");
    expect(&mut client, stream, "HTTP/1.1 200 OK\r\n\r\n");
}

fn client_ends_first() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    client.send(frame::data(stream, flag::END_STREAM, b"last words"));
    origin_has(&world.backend, origin, "last words");
    world.backend.wait_end(origin);
    world.backend.send(origin, "an answer all the same");
    expect(&mut client, stream, "an answer all the same");
    world.backend.act(origin, &Act::Finish);
    let said = client.over(stream);
    assert!(said.whole && said.reset.is_none(), "{said:?}");
    client.serves("/probe");
}

fn endpoint_ends_first() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    world.backend.send(origin, "bye");
    world.backend.act(origin, &Act::Finish);
    let said = client.over(stream);
    assert!(said.is_entire() && said.text() == "bye", "{said:?}");
    client.settle();
    assert_eq!(client.over(stream).reset, None, "its own direction is open");
    send(&mut client, stream, "an answer all the same");
    origin_has(&world.backend, origin, "an answer all the same");
    client.send(frame::data(stream, flag::END_STREAM, b""));
    world.backend.wait_end(origin);
    client.serves("/probe");
}

fn ended_at_once() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.ask(&web_socket("/first"));
    let (origin, request) = world.backend.wait_request("/first");
    world.backend.send(origin, &(switch(&request, "") + "news"));
    expect(&mut client, stream, "news");
    world.backend.wait_end(origin);
    world.backend.act(origin, &Act::Finish);
    assert!(client.over(stream).is_entire());
}

fn endpoint_breaks() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    world.backend.send(origin, "half a mess");
    expect(&mut client, stream, "half a mess");
    world.backend.act(origin, &Act::Reset);
    broke(&mut client, stream);
    client.serves("/probe");
}

fn client_resets() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    client.send(frame::reset(stream, code::CANCEL));
    world.backend.wait_end(origin);
    client.serves("/probe");
}

fn client_leaves() {
    let world = silent();
    let (client, _, origin) = opened(&world);
    client.break_off();
    world.backend.wait_end(origin);
    let world = silent();
    let (client, _, origin) = opened(&world);
    drop(client);
    world.backend.wait_end(origin);
}

fn client_gives_up() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    let (origin, _) = world.backend.wait_request("/first");
    client.send(frame::reset(stream, code::CANCEL));
    world.backend.wait_end(origin);
    client.serves("/probe");
}

fn trailers() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    client.send(frame::headers(stream, flag::END_STREAM, &crate::h2::hpack::block(&[("x-t", "1")])));
    let said = client.over(stream);
    assert_eq!(said.reset, Some(code::PROTOCOL_ERROR), "{said:?}");
    world.backend.wait_end(origin);
    client.serves("/probe");
}

fn endpoint_refuses() {
    for (refusal, status) in [
        ("HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno", "403"),
        ("HTTP/1.1 302 Found\r\nX-Why: no\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "302"),
        (
            "HTTP/1.1 426 Upgrade Required\r\nX-Why: no\r\nUpgrade: other\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
            "426",
        ),
    ] {
        let world = silent();
        let mut client = Client::connect(world.proxy);
        let stream = client.begin(&web_socket("/first"));
        send(&mut client, stream, "for the tunnel");
        let (origin, _) = world.backend.wait_request("/first");
        world.backend.send(origin, refusal);
        let said = client.answer(stream);
        assert_eq!((said.status(), said.text().as_str(), said.all("x-why")), (status, "no", vec!["no"]), "{said:?}");
        client.serves("/probe");
        world.sound();
        let reached = world.backend.settled(|log| log.connections[origin].bytes.ends_with(b"tunnel"));
        assert!(!reached, "bytes of no tunnel reached the endpoint");
    }
}

fn success_without_switch() {
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 204 No Content\r\n\r\n"] {
        let world = silent();
        let mut client = Client::connect(world.proxy);
        let stream = client.begin(&web_socket("/first"));
        let (origin, _) = world.backend.wait_request("/first");
        world.backend.send(origin, answer);
        refused(&mut client, stream, "502");
        client.serves("/probe");
    }
}

fn wrong_accept() {
    let lines = |accept: &str| format!("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n");
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "Sec-WebSocket-Accept:\r\n"] {
        let world = silent();
        let mut client = Client::connect(world.proxy);
        let stream = client.begin(&web_socket("/first"));
        let (origin, _) = world.backend.wait_request("/first");
        world.backend.send(origin, &lines(accept));
        refused(&mut client, stream, "502");
        client.serves("/probe");
        world.backend.wait_end(origin);
    }
}

fn something_else() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&web_socket("/first"));
    let (origin, request) = world.backend.wait_request("/first");
    world.backend.send(origin, &switch(&request, "").replace("Upgrade: websocket", "Upgrade: other"));
    refused(&mut client, stream, "502");
    client.serves("/probe");
    world.backend.wait_end(origin);
}

fn nobody() {
    let backend = Backend::start(Vec::new(), Delivery::Whole);
    let address = backend.address;
    drop(backend);
    let running = Running::start(LIMITS, &format!("endpoints: [ {{ address: \"{address}\" }} ], {SERVICE}"));
    let mut client = Client::connect(running.address);
    let stream = client.begin(&web_socket("/first"));
    refused(&mut client, stream, "503");
}

fn plain_connect() {
    let world = silent();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&[(":method", "CONNECT"), (":authority", "a:80")]);
    refused(&mut client, stream, "405");
    client.serves("/probe");
}

fn others_go_on() {
    let world = silent();
    let (mut client, stream, origin) = opened(&world);
    for n in 0..10 {
        let other = client.ask(&get("/other"));
        send(&mut client, stream, &format!("ping {n}"));
        assert_eq!(client.answer(other).text(), "GET /other");
        origin_has(&world.backend, origin, &format!("ping {n}"));
        world.backend.send(origin, &format!("pong {n}"));
        expect(&mut client, stream, &format!("pong {n}"));
    }
}

fn drains() {
    let backend = Backend::start(vec![Script { target: "/first", early: false, acts: vec![] }], Delivery::Whole);
    let service = format!("endpoints: [ {{ address: \"{}\" }} ], {SERVICE}", backend.address);
    let mut running = Running::patient(LIMITS, &service, crate::world::DEADLINE);
    let mut client = Client::connect(running.address);
    let stream = client.begin(&web_socket("/first"));
    let (origin, request) = backend.wait_request("/first");
    backend.send(origin, &switch(&request, ""));
    assert_eq!(head_of(&mut client, stream).status(), "200");
    running.leave();
    client.wait("GOAWAY", |heard| (heard.goaways.len() > 1).then_some(()));
    send(&mut client, stream, "still there?");
    origin_has(&backend, origin, "still there?");
    backend.send(origin, "still here");
    expect(&mut client, stream, "still here");
    backend.act(origin, &Act::Finish);
    client.send(frame::data(stream, flag::END_STREAM, b""));
    assert!(client.over(stream).is_entire());
    client.end();
}

fn no_timeout() {
    let backend = Backend::start(vec![Script { target: "/first", early: false, acts: vec![] }], Delivery::Whole);
    // Only the head of the answer has to be there in time.
    let world = World::between_with(backend, "limits: { body_idle_timeout: 300ms }", "timeout: 1s");
    let (mut client, stream, origin) = opened(&world);
    assert!(!client.hears_within(Duration::from_millis(1500)), "{:?}", client.heard.frames);
    world.backend.send(origin, "late news");
    expect(&mut client, stream, "late news");
    send(&mut client, stream, "late answer");
    origin_has(&world.backend, origin, "late answer");
}
