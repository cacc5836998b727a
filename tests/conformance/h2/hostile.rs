//! Peers that mean harm in h2, or hang (RFC 9113 section 10.5): they are cut, and harm nobody else. What they cost is measured under
//! `bounded`.

use std::time::Duration;

use mesh_tests::eventually::until;

use super::client::{Client, get, post};
use super::frame::{
    PREFACE, code, continuation, data, flag, frame, goaway, headers, headers_begun, ping, priority, reset, setting,
    settings, window_update,
};
use super::hpack::{block, indexed, line, remembered};
use super::origin::Manners;
use super::table::Scenario;
use super::world;
use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::world::{DEADLINE, World};

const END: u8 = flag::END_STREAM;

pub const SCENARIOS: &[Scenario] = &[
    ("9113 10.5: streams that are reset as soon as they are opened", rapid_reset),
    ("9113 10.5: malformed requests, which the proxy has to reset", made_to_reset),
    ("9113 10.5: good requests, which the proxy is made to reset", made_to_reset_by_windows),
    ("9113 10.5: PING without end", |world| flood(world, |_| ping(b"12345678"))),
    ("9113 10.5: SETTINGS without end", |world| flood(world, |_| settings(&[(setting::HEADER_TABLE_SIZE, 4096)]))),
    ("9113 10.5: SETTINGS of a thousand entries without end", |world| flood(world, |_| settings(&[(9999, 1); 1000]))),
    ("9113 10.5: PRIORITY without end", |world| flood(world, |number| priority(2 * number + 1, 0, 1))),
    ("9113 10.5: WINDOW_UPDATE without end", |world| flood(world, |_| window_update(0, 1))),
    ("9113 10.5: kinds nobody knows without end", |world| flood(world, |_| frame(0x16, 0, 0, b""))),
    ("9113 10.5: CONTINUATION without end", endless_continuation),
    ("9113 10.5: empty CONTINUATION without end", empty_continuation),
    ("9113 10.5: empty DATA without end", |world| empty_data(world, 0, b"")),
    ("9113 10.5: DATA of nothing but padding without end", |world| empty_data(world, flag::PADDED, b"\x03\0\0\0")),
    ("9113 10.5.1: a small block that becomes a large head", bomb),
    ("9113 10.5: half a preface", half_a_preface),
    ("9113 10.5: half a frame", half_a_frame),
    ("9113 10.5: half a header block", half_a_block),
    ("9113 10.5: half a body", half_a_body),
    ("9113 9.1: a connection without a request is closed, with GOAWAY", nothing_at_all),
    ("9113 10.5: a client that takes nothing of its answer", stalled_reader),
    ("9113 10.5: connections that break off, one after the other", broken_off),
    ("9113 10.5: an endpoint that floods", hostile_endpoint),
    ("9110 10.1.1: a client that waits for 100 is told by its origin", expectation),
];

/// So many frames are no flood any more.
const FRAMES_MAX: u32 = 40_000;

/// Frame after frame: the proxy ends that in time, and says why.
fn over_and_over(mut client: Client, sent: impl Fn(u32) -> Vec<u8>) {
    client.polite = false;
    for number in (0..FRAMES_MAX).step_by(50) {
        client.send((number..number + 50).flat_map(&sent).collect::<Vec<u8>>());
        client.read_some();
        if client.heard.ended {
            break;
        }
    }
    client.finish();
    client.end();
    let told = client.heard.goaways.last().map(|(_, code)| *code);
    assert_eq!(told, Some(code::ENHANCE_YOUR_CALM), "{:?}", client.heard.goaways);
}

fn flood(world: &World, sent: impl Fn(u32) -> Vec<u8>) {
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    over_and_over(client, sent);
}

/// An origin of a test takes no connections while so many come and go; the proxy does.
fn recovers(world: &World) {
    until("an origin that takes connections", DEADLINE, || {
        let mut client = world.client();
        client.send("GET /again HTTP/1.1\r\nHost: probe\r\n\r\n");
        let answer = client.response("GET").entire();
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.text() == "GET /again"
    });
}

fn rapid_reset(_: &World) {
    let world = World::start(Vec::new());
    let block = block(&get("/one"));
    over_and_over(Client::connect(world.proxy), |number| {
        let stream = 2 * number + 1;
        [headers(stream, END, &block), reset(stream, code::CANCEL)].concat()
    });
    recovers(&world);
}

fn made_to_reset(world: &World) {
    let block = block(&[&get("/bad")[..], &[("connection", "close")]].concat());
    over_and_over(Client::connect(world.proxy), |number| headers(2 * number + 1, END, &block));
    world
        .backend
        .settled(|log| assert!(log.connections.iter().all(|one| one.bytes.is_empty()), "it reached the origin"));
}

fn made_to_reset_by_windows(_: &World) {
    let world = World::start(Vec::new());
    let block = block(&get("/one"));
    over_and_over(Client::connect(world.proxy), |number| {
        let stream = 2 * number + 1;
        [headers(stream, END, &block), window_update(stream, 0)].concat()
    });
    recovers(&world);
}

fn endless_continuation(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.send(headers_begun(1, END, &block(&get("/one"))));
    over_and_over(client, |_| continuation(1, 0, &line("x", &"v".repeat(1000))));
}

fn empty_continuation(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.send(headers_begun(1, END, &block(&get("/one"))));
    over_and_over(client, |_| continuation(1, 0, b""));
}

fn empty_data(world: &World, flags: u8, payload: &'static [u8]) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/one"));
    over_and_over(client, |_| data(stream, flags, payload));
}

fn bomb(world: &World) {
    let mut client = Client::connect(world.proxy);
    let lines: Vec<u8> = (0..16_000).flat_map(|_| indexed(62)).collect();
    let sent = [block(&get("/bomb")), remembered("x-bomb", &"v".repeat(4000)), lines].concat();
    let stream = client.stream();
    client.send(super::frame::long_headers(stream, END, &sent));
    let said = client.over(stream);
    assert!(said.reset.is_some() || said.status() == "431", "{said:?}");
    client.serves("/two");
    world.backend.settled(|log| {
        let bomb = log.connections.iter().flat_map(|one| one.all()).any(|request| request.target == "/bomb");
        assert!(!bomb, "it reached the origin");
    });
}

/// A proxy that does not wait for long.
fn quick() -> World {
    let limits = "limits: { header_timeout: 200ms, body_idle_timeout: 200ms, idle_timeout: 400ms }";
    World::between(Backend::start(Vec::new(), Delivery::Whole), limits)
}

fn half_a_preface(_: &World) {
    let world = quick();
    for length in [1, 3, 10, 16, 18, PREFACE.len() - 1, PREFACE.len()] {
        let mut client = crate::client::Client::connect(world.proxy);
        client.send(&PREFACE[..length]);
        // It may be told in either version.
        assert!(client.hears_within(DEADLINE), "{length} bytes are left to wait");
        client.skip(usize::MAX);
    }
    world.serves("/probe");
}

fn half_a_frame(_: &World) {
    let world = quick();
    for sent in [&[0][..], &[0, 0, 8, 6, 0], &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2], &[0, 0, 8, 1, 5, 0, 0, 0, 1, 0x82]] {
        let mut client = Client::connect(world.proxy);
        client.send(sent);
        client.connection_error(&[code::NO_ERROR]);
    }
    world.serves("/probe");
}

fn half_a_block(_: &World) {
    let world = quick();
    let mut client = Client::connect(world.proxy);
    client.send(headers_begun(1, END, &block(&get("/one"))));
    client.connection_error(&[code::NO_ERROR]);
    world.serves("/probe");
}

fn half_a_body(_: &World) {
    let world = quick();
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/cut"));
    client.send(data(stream, 0, b"hello"));
    let origin = world.backend.wait_head("/cut");
    let said = client.over(stream);
    assert!(said.status() == "408" || said.reset.is_some(), "{said:?}");
    world.backend.wait_end(origin);
    world.backend.settled(|log| assert!(log.connections[origin].requests.is_empty(), "what was cut looks whole"));
    world.serves("/probe");
}

fn nothing_at_all(_: &World) {
    let world = quick();
    let mut client = Client::connect(world.proxy);
    client.connection_error(&[code::NO_ERROR]);
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    client.connection_error(&[code::NO_ERROR]);
    world.serves("/probe");
}

fn stalled_reader(_: &World) {
    let world = quick();
    let mut client = Client::with_settings(world.proxy, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let stream = client.ask(&get("/one"));
    let said = client.over(stream);
    assert_eq!((said.status(), said.reset), ("200", Some(code::CANCEL)), "{said:?}");
    world.serves("/probe");
}

fn broken_off(world: &World) {
    for number in 0..100 {
        let mut client = Client::connect(world.proxy);
        let stream = client.begin(&post("/one"));
        if number % 2 == 0 {
            client.send(data(stream, 0, b"hello"));
        }
        if number % 3 == 0 {
            client.send([&goaway(0, 0)[..], &[0, 0, 8]].concat());
        }
        client.break_off();
    }
    world.serves("/one");
}

fn hostile_endpoint(_: &World) {
    let floods: [fn() -> Vec<u8>; 4] = [
        || ping(b"12345678"),
        || settings(&[(setting::MAX_CONCURRENT_STREAMS, 100)]),
        || frame(0x16, 0, 0, b""),
        || window_update(0, 1),
    ];
    for sent in floods {
        let world = world::World::start(Manners { polite: false, ..Manners::default() });
        let mut client = world.client();
        let stream = client.ask(&get("/held"));
        let place = world.origin.wait_head("/held");
        let flood = sent().repeat(100);
        for _ in 0..400 {
            world.origin.send(place.connection, &flood);
            if world.origin.settled(|log| log.connections[place.connection].heard.ended) {
                break;
            }
        }
        world.origin.wait_end(place.connection);
        let said = client.over(stream);
        assert!(said.reset.is_some() || ["502", "503"].contains(&said.status()), "{said:?}");
        client.serves("/after");
    }
}

fn expectation(_: &World) {
    let acts = vec![Act::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())];
    let world = World::start(vec![Script { target: "/first", early: true, acts }]);
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&[&post("/first")[..], &[("expect", "100-continue"), ("content-length", "5")]].concat());
    client.wait("100", |heard| heard.on(stream).filter(|said| !said.heads.is_empty()).map(drop));
    assert!(!client.hears_within(Duration::from_millis(20)), "nothing more was said");
    client.send(data(stream, END, b"hello"));
    let (origin, request) = world.backend.wait_request("/first");
    assert_eq!((request.body.as_slice(), request.fields.first("expect")), (&b"hello"[..], Some("100-continue")));
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let said = client.answer(stream);
    assert_eq!((said.heads[0].first(":status"), said.status(), said.text()), (Some("100"), "200", "ok".into()));
}
