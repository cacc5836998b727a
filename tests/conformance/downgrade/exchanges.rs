//! Exchanges of an h2 client with an HTTP/1.1 origin that no table can tell: in each the test plays both ends, step by step.

use crate::backend::{Act, Script};
use crate::connection::POISON;
use crate::h2::client::{Client, get, post};
use crate::h2::frame::{self, code, flag};
use crate::h2::hpack;
use crate::world::World;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9113 8.1: an early answer, and the end of the request by NO_ERROR", an_early_answer),
    ("9112 9.3: an answer that its client cancelled is nobody else's", cancelled_within_an_answer),
    ("9112 9.3: an answer that came behind its client's cancel is nobody else's", cancelled_before_its_answer),
    ("9112 8: a body that its client cancelled does not look whole", cancelled_within_a_body),
    ("9110 5.4: a head of 100 KiB, and of far more", large_heads),
];

/// A proxy, an origin that answers nothing by itself at `/first`, and a client.
fn held() -> (World, Client) {
    let world = World::start(vec![Script { target: "/first", early: false, acts: vec![] }]);
    let client = Client::connect(world.proxy);
    (world, client)
}

fn cancelled_within_an_answer() {
    for (head, piece) in [("Content-Length: 100", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        let (world, mut client) = held();
        let stream = client.ask(&get("/first"));
        let (origin, _) = world.backend.wait_request("/first");
        world.backend.send(origin, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{piece}"));
        client.wait("DATA", |heard| heard.on(stream).filter(|said| said.body.len() == 5).map(drop));
        client.send(frame::reset(stream, code::CANCEL));
        client.serves("/second");
        world.backend.send(origin, POISON);
        client.serves("/third");
        world.serves("/fourth");
        world.backend.wait_end(origin);
    }
}

fn cancelled_before_its_answer() {
    let (world, mut client) = held();
    let stream = client.ask(&get("/first"));
    let (origin, _) = world.backend.wait_request("/first");
    client.send(frame::reset(stream, code::CANCEL));
    world.backend.wait_end(origin);
    world.backend.send(origin, POISON);
    client.serves("/second");
    world.serves("/third");
}

fn cancelled_within_a_body() {
    for fields in [&[("content-length", "10")][..], &[]] {
        let (world, mut client) = held();
        let stream = client.begin(&[&post("/first")[..], fields].concat());
        client.send(frame::data(stream, 0, b"hello"));
        let origin = world.backend.wait_head("/first");
        client.send(frame::reset(stream, code::CANCEL));
        world.backend.wait_end(origin);
        world.backend.settled(|log| assert!(log.connections[origin].requests.is_empty(), "what was cut looks whole"));
        client.serves("/second");
    }
}

fn large_heads() {
    for (kib, passes) in [(15, true), (17, true), (100, true), (1000, false)] {
        let (world, mut client) = held();
        let stream = client.ask(&get("/first"));
        let (origin, _) = world.backend.wait_request("/first");
        let long = "v".repeat(kib << 10);
        world.backend.send(origin, &format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 2\r\n\r\nok"));
        let said = client.answer(stream);
        match passes {
            true => assert_eq!((said.first("x-long"), said.text()), (long.as_str(), "ok".into())),
            false => assert_eq!(said.status(), "502"),
        }
        client.serves("/second");
    }
}

/// Who is answered before all was said is told that the rest is not wanted.
fn an_early_answer() {
    let sent = "HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let script = Script { target: "/first", early: true, acts: vec![Act::Send(sent.into()), Act::Finish] };
    let world = World::start(vec![script]);
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/first"));
    client.send(frame::data(stream, 0, b"hello"));
    let said = client.answer(stream);
    assert_eq!((said.status(), said.text()), ("413", "no".into()));
    let code = client.wait("the end of the request", |heard| heard.on(stream)?.reset);
    assert_eq!(code, code::NO_ERROR, "RFC 9113 8.1: no error");
    // What was on its way is no error either.
    client.send(frame::data(stream, 0, b"hello"));
    client.send(frame::headers(stream, flag::END_STREAM, &hpack::line("x-t", "1")));
    client.serves("/second");
}
