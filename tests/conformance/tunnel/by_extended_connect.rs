//! A client of HTTP/1.1 asks for WebSocket by an upgrade; an endpoint of h2 is asked for a tunnel in its place (RFC 8441 section 5).

use crate::client::Client;
use crate::h2::frame::code;
use crate::h2::origin::{Manners, Place};
use crate::h2::world::World;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("8441 5: an upgrade to WebSocket becomes an extended CONNECT, and 200 becomes 101", asked),
    ("8441 5: bytes both ways between a connection and a stream", both_ways),
    ("8441 5: each end of a connection and a stream goes on", ends),
    ("8441 5: a stream that is reset ends its connection", reset),
    ("8441 5: a refusal of WebSocket is an answer", refused),
    ("8441 3: an upgrade to WebSocket where no tunnels are opened", not_offered),
    ("9110 7.8: another protocol is not asked for, and the request goes on without", another),
];

/// With the key of the example of RFC 6455 section 1.3.
const KEY: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn world() -> World {
    World::start(Manners { settings: vec![(8, 1)], ..Manners::default() })
}

fn ask(world: &World, protocol: &str) -> Client {
    let mut client = Client::connect(world.proxy.address);
    client.send(format!("GET /held HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{KEY}\r\n"));
    client
}

fn opened(world: &World) -> (Client, Place) {
    let mut client = ask(world, "websocket");
    let place = world.origin.wait_head("/held");
    world.origin.head(place, &[(":status", "200"), ("sec-websocket-protocol", "chat")]);
    let answer = client.head();
    assert_eq!((answer.status, answer.fields.all("upgrade")), (101, vec!["websocket"]));
    assert_eq!(answer.fields.all("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    assert_eq!(answer.fields.all("sec-websocket-protocol"), ["chat"]);
    (client, place)
}

fn origin_has(world: &World, place: Place, wanted: &str) {
    world.origin.wait(wanted, |log| {
        let said = log.connections[place.connection].heard.on(place.stream)?;
        said.text().ends_with(wanted).then_some(())
    });
}

fn asked() {
    let world = world();
    let (_client, place) = opened(&world);
    let said = world.origin.said(place);
    let head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")];
    for (name, value) in head.into_iter().chain([(":path", "/held"), ("sec-websocket-version", "13")]) {
        assert_eq!(said.all(name), [value], "{said:?}");
    }
    let gone = ["upgrade", "connection", "sec-websocket-key", "content-length"];
    assert!(gone.iter().all(|name| said.all(name).is_empty()), "{said:?}");
    assert!(!said.whole && said.body.is_empty(), "{said:?}");
    world.serves("/probe");
}

fn both_ways() {
    let world = world();
    let (mut client, place) = opened(&world);
    for n in 0..20 {
        client.send(format!("\0ping {n}"));
        origin_has(&world, place, &format!("\0ping {n}"));
        world.origin.data(place, format!("\0pong {n}").as_bytes());
        client.expect(format!("\0pong {n}").as_bytes());
    }
    world.serves("/probe");
}

fn ends() {
    let world = world();
    let (mut client, place) = opened(&world);
    client.send("last words");
    client.finish();
    let (_, said) = world.origin.wait_request("/held");
    assert_eq!(said.text(), "last words");
    world.origin.data_and_end(place, b"an answer all the same");
    client.expect(b"an answer all the same");
    client.end();
    world.serves("/probe");
}

fn reset() {
    let world = world();
    let (mut client, place) = opened(&world);
    world.origin.data(place, b"half");
    client.expect(b"half");
    world.origin.reset(place, code::INTERNAL_ERROR);
    client.end();
    let world = self::world();
    let (client, place) = opened(&world);
    client.reset();
    assert_eq!(world.origin.wait_reset(place), code::CANCEL);
    world.serves("/probe");
}

fn refused() {
    let world = world();
    let mut client = ask(&world, "websocket");
    let place = world.origin.wait_head("/held");
    world.origin.head(place, &[(":status", "403")]);
    world.origin.data_and_end(place, b"not here");
    let answer = client.response("GET").entire();
    assert_eq!((answer.status, answer.text()), (403, "not here".into()));
    world.serves("/probe");
}

fn not_offered() {
    let world = World::start(Manners::default());
    let mut client = ask(&world, "websocket");
    let answer = client.response("GET").entire();
    assert_eq!(answer.status, 501);
    assert!(answer.fields.all("proxy-status")[0].contains("error="), "{answer:?}");
    world.serves("/probe");
}

fn another() {
    let world = world();
    let mut client = ask(&world, "other");
    let place = world.origin.wait_head("/held");
    let said = world.origin.said(place);
    assert_eq!((said.first(":method"), said.all(":protocol").len(), said.whole), ("GET", 0, true));
    world.origin.head(place, &[(":status", "200")]);
    world.origin.data_and_end(place, b"plain");
    assert_eq!(client.response("GET").entire().text(), "plain");
}
