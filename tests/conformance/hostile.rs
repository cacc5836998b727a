//! Peers that mean harm, or hang: they are cut by the limits of their listener, and harm nobody else (RFC 9112 section 9.5,
//! RFC 9110 sections 15.5.9 and 17).

use std::time::{Duration, Instant};

use crate::backend::{Act, Backend, Script};
use crate::client::{Client, Delivery};
use crate::world::{DEADLINE, LIMITS, SERVICE, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9110 15.5.9: half a head is told 408", half_a_head),
    ("9110 15.5.9: a head that drips in is told 408 in the end", a_dripping_head),
    ("9110 15.5.9: half a body is told 408, and never looks whole", half_a_body),
    ("9110 15.5.9: half a second head is told 408", half_a_second_head),
    ("9112 9.5: a connection without a request is closed", nothing_at_all),
    ("9112 9.5: a connection without a further request is closed", nothing_more),
    ("9112 9.5: empty lines without end are no request", empty_lines),
    ("9112 9.6: the end of a connection without a request is answered with the end", an_end_without_a_request),
    ("9110 17.5: a request line without end", || endless("GET /", "x", &[414])),
    ("9110 17.5: a method without end", || endless("", "x", &[400, 414, 431, 501])),
    ("9110 17.5: a field value without end", || endless("GET / HTTP/1.1\r\nHost: a\r\nX-A: ", "v", &[431])),
    ("9110 17.5: a field name without end", || endless("GET / HTTP/1.1\r\nHost: a\r\n", "n", &[431])),
    ("9110 17.5: fields without end", || endless("GET / HTTP/1.1\r\nHost: a\r\n", "X-A: v\r\n", &[431])),
    ("9110 17.5: an answer with a larger head than its service may have", too_large_an_answer),
    ("9112 7.1.1: an extension without end", || endless(CHUNKED, "5;a", &[400, 413, 431])),
    ("9112 7.1.1: small chunks with great extensions", || {
        endless(CHUNKED, &format!("1;{}\r\nx\r\n", "a".repeat(500)), &[400, 413, 431])
    }),
    ("9112 7.1: a chunk size without end", || endless(CHUNKED, "0", &[400, 413])),
    ("9112 7.1.2: trailers without end", || endless(&format!("{CHUNKED}0\r\n"), "X-T: v\r\n", &[400, 413, 431])),
    ("9112 9.3: connections that break off at once, one after the other", broken_off),
    ("9112 9.3: connections with half a head each", many_half_heads),
];

const CHUNKED: &str = "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// So much may be taken of what has no end.
const ENDLESS_MAX: usize = 16 << 20;

fn world(limits: &str) -> World {
    let script = Script { target: "/first", early: false, acts: vec![] };
    World::between(Backend::start(vec![script], Delivery::Whole), &format!("limits: {{ {limits} }}"))
}

fn quick() -> World {
    world("header_timeout: 200ms, body_idle_timeout: 200ms, idle_timeout: 400ms")
}

/// The client is told this, and cut.
fn told(client: &mut Client, statuses: &[u16]) {
    let answer = client.response("GET").entire();
    assert!(statuses.contains(&answer.status), "{answer:?}");
    assert!(answer.closes(), "RFC 9112 9.6: what closes says so: {answer:?}");
    assert!(answer.fields.has("proxy-status"), "RFC 9209 2: a refusal says why: {answer:?}");
    client.end();
}

fn half_a_head() {
    for head in [
        "G",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
    ] {
        let world = quick();
        let mut client = world.client();
        client.send(head);
        told(&mut client, &[408]);
        world.serves("/probe");
    }
}

fn a_dripping_head() {
    let world = quick();
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let began = Instant::now();
    while !client.hears_within(Duration::from_millis(20)) {
        client.send("X-A: 1\r\n");
        assert!(began.elapsed() < DEADLINE, "each byte gives more time");
    }
    told(&mut client, &[408]);
    world.serves("/probe");
}

fn half_a_body() {
    for body in [
        "Content-Length: 10\r\n\r\nhello",
        "Content-Length: 10\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let world = quick();
        let mut client = world.client();
        client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{body}"));
        told(&mut client, &[408]);
        world.serves("/probe");
        world.backend.wait("the end of half a body", |log| {
            let mut connections = log.connections.iter();
            connections.all(|connection| connection.partial.is_none() || connection.ended).then_some(())
        });
        world.backend.settled(|log| {
            let mut all = log.connections.iter().flat_map(|connection| &connection.requests);
            assert!(all.all(|request| request.target == "/probe"), "{:?}", log.connections);
        });
    }
}

fn too_large_an_answer() {
    let answer = |bytes: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: {}\r\n\r\n", "v".repeat(bytes));
    let script = |target, bytes| Script { target, early: false, acts: vec![Act::Send(answer(bytes).into_bytes())] };
    let backend = Backend::start(vec![script("/small", 900), script("/large", 1100)], Delivery::Whole);
    let world = World::between_with(backend, LIMITS, &format!("upstream: {{ max_header_bytes: 1KiB }}, {SERVICE}"));
    let mut client = world.client();
    client.send("GET /small HTTP/1.1\r\nHost: a\r\n\r\nGET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").entire().status, 200);
    let refused = client.response("GET").entire();
    assert_eq!(refused.status, 502);
    assert!(refused.fields.has("proxy-status"), "RFC 9209 2: a refusal says why: {refused:?}");
    world.serves("/probe");
}

fn half_a_second_head() {
    let world = quick();
    let mut client = world.client();
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHos");
    assert_eq!(client.response("GET").entire().text(), "GET /one");
    told(&mut client, &[408]);
    world.serves("/probe");
}

/// A client that is silent is cut, and need not be told why.
fn cut(client: &mut Client) {
    if let Some(answer) = client.response("GET").response {
        assert_eq!(answer.status, 408);
        assert!(answer.closes(), "{answer:?}");
        client.end();
    }
}

fn nothing_at_all() {
    let world = quick();
    cut(&mut world.client());
    world.serves("/probe");
}

fn nothing_more() {
    let world = quick();
    let mut client = world.client();
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").entire().text(), "GET /one");
    cut(&mut client);
    world.serves("/probe");
}

fn empty_lines() {
    let world = quick();
    let mut client = world.client();
    let began = Instant::now();
    while !client.hears_within(Duration::from_millis(20)) {
        client.send("\r\n");
        assert!(began.elapsed() < DEADLINE, "each line gives more time");
    }
    if let Some(answer) = client.response("GET").response {
        assert!([400, 408].contains(&answer.status), "{answer:?}");
    }
    world.serves("/probe");
}

fn an_end_without_a_request() {
    // By itself it would be cut only later.
    let world = world("header_timeout: 60s, body_idle_timeout: 60s, idle_timeout: 60s");
    let mut client = world.client();
    client.finish();
    client.end();
    let mut client = world.client();
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").entire().text(), "GET /one");
    client.finish();
    client.end();
}

/// Sends `more` without end behind `begin`: refused, before much of it is taken.
fn endless(begin: &str, more: &str, statuses: &[u16]) {
    let world = world("header_timeout: 20s, body_idle_timeout: 20s, idle_timeout: 20s");
    let mut client = world.client();
    client.send(begin);
    let piece = more.repeat((64 << 10) / more.len());
    let mut sent = 0;
    while !client.hears_within(Duration::ZERO) {
        client.send(&piece);
        sent += piece.len();
        assert!(sent < ENDLESS_MAX, "{sent} bytes were taken");
    }
    told(&mut client, statuses);
    world.serves("/probe");
    world.backend.settled(|log| {
        let whole = log.connections.iter().flat_map(|one| &one.requests).find(|request| request.target == "/first");
        assert!(whole.is_none(), "what never ended looks whole");
    });
}

fn broken_off() {
    let world = world("idle_timeout: 20s");
    for begun in [
        "",
        "GET /one HTTP/1.1\r\nHost: a\r\n",
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
    ] {
        for _ in 0..50 {
            let mut client = world.client();
            client.send(begun);
            client.reset();
        }
    }
    world.serves("/probe");
    world.sound();
}

fn many_half_heads() {
    let world = world("header_timeout: 20s");
    let mut clients: Vec<Client> = (0..500).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n");
    }
    world.serves("/probe");
    for client in &mut clients {
        client.send("\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").entire().text(), "GET /late");
    }
    // Each of them may end, or break, as it likes.
    world.backend.act(0, &Act::Finish);
    world.serves("/probe");
}
