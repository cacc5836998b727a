//! An endpoint of h2 is asked for a tunnel as the client asks for one, if it opens any.

use super::{broke, expect, head_of, refused, send, tunnel, web_socket, with};
use crate::h2::client::Client;
use crate::h2::frame::{self, code, flag};
use crate::h2::origin::{Manners, Place};
use crate::h2::world::World;
use crate::world::LIMITS;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("8441 3: an endpoint that opens no tunnels is not asked", not_offered),
    ("8441 4: an extended CONNECT goes on as one", asked),
    ("8441 4: bytes both ways between streams", both_ways),
    ("8441 5: between streams a client that is done sending still receives", client_ends_first),
    ("8441 5: between streams an endpoint that is done sending still receives", endpoint_ends_first),
    ("8441 5: each reset goes on between streams", resets),
    ("8441 5: an endpoint's connection that breaks off", breaks),
    ("9113 8.1: an end and no more interest are an end", ends_and_resets),
    ("8441 5: a refusal of an h2 endpoint", endpoint_refuses),
    ("8441 5: a tunnel that is not answered in time", no_answer),
    ("8441 5: no tunnel is asked for twice", not_twice),
];

const OFFERED: (u16, u32) = (8, 1);

fn world() -> World {
    World::start(Manners { settings: vec![OFFERED], ..Manners::default() })
}

fn opened(world: &World) -> (Client, u32, Place) {
    let mut client = world.client();
    let stream = client.begin(&web_socket("/held"));
    let place = world.origin.wait_head("/held");
    world.origin.head(place, &[(":status", "200")]);
    assert_eq!(head_of(&mut client, stream).status(), "200");
    (client, stream, place)
}

fn origin_has(world: &World, place: Place, wanted: &str) {
    world.origin.wait(wanted, |log| {
        let said = log.connections[place.connection].heard.on(place.stream)?;
        said.text().ends_with(wanted).then_some(())
    });
}

fn not_offered() {
    let world = World::start(Manners::default());
    let mut client = world.client();
    for _ in 0..2 {
        let stream = client.begin(&web_socket("/held"));
        refused(&mut client, stream, "501");
    }
    client.serves("/second");
    world.origin.settled(|log| assert!(log.requests().all(|said| said.first(":method") != "CONNECT")));
    world.serves("/probe");
}

fn asked() {
    let world = world();
    let mut client = world.client();
    let fields = [("sec-websocket-protocol", "chat"), ("sec-websocket-key", "bWluZQ=="), ("content-length", "5")];
    let stream = client.begin(&with(web_socket("/held"), &fields));
    send(&mut client, stream, "early");
    let place = world.origin.wait_head("/held");
    client.serves("/probe");
    let said = world.origin.settled(|log| log.connections[place.connection].heard.on(place.stream).cloned()).unwrap();
    let head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")];
    for (name, value) in head.into_iter().chain([("sec-websocket-protocol", "chat")]) {
        assert_eq!(said.all(name), [value], "{said:?}");
    }
    assert!(said.all("content-length").is_empty() && said.all("sec-websocket-key").is_empty(), "{said:?}");
    assert!(said.body.is_empty(), "it waits for the answer: {said:?}");
    world.origin.head(place, &[(":status", "200"), ("sec-websocket-protocol", "chat")]);
    assert_eq!(head_of(&mut client, stream).all("sec-websocket-protocol"), ["chat"]);
    origin_has(&world, place, "early");
}

fn both_ways() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    for n in 0..20 {
        send(&mut client, stream, &format!("\0ping {n}"));
        origin_has(&world, place, &format!("\0ping {n}"));
        world.origin.data(place, format!("\0pong {n}").as_bytes());
        expect(&mut client, stream, &format!("\0pong {n}"));
    }
    world.serves("/probe");
}

fn client_ends_first() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    client.send(frame::data(stream, flag::END_STREAM, b"last words"));
    let (_, said) = world.origin.wait_request("/held");
    assert_eq!(said.text(), "last words");
    world.origin.data_and_end(place, b"an answer all the same");
    let said = client.over(stream);
    assert!(said.whole && said.reset.is_none() && said.text() == "an answer all the same", "{said:?}");
    world.serves("/probe");
}

fn endpoint_ends_first() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    world.origin.data_and_end(place, b"bye");
    let said = client.over(stream);
    assert!(said.whole && said.text() == "bye", "{said:?}");
    client.settle();
    assert_eq!(client.over(stream).reset, None, "its own direction is open");
    client.send(frame::data(stream, flag::END_STREAM, b"bye yourself"));
    let (_, said) = world.origin.wait_request("/held");
    assert_eq!((said.text().as_str(), said.reset), ("bye yourself", None));
    world.serves("/probe");
}

fn resets() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    world.origin.data(place, b"half");
    expect(&mut client, stream, "half");
    world.origin.reset(place, code::INTERNAL_ERROR);
    broke(&mut client, stream);
    let world = self::world();
    let (mut client, stream, place) = opened(&world);
    client.send(frame::reset(stream, code::CANCEL));
    assert_eq!(world.origin.wait_reset(place), code::CANCEL);
    client.serves("/probe");
}

fn breaks() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    world.origin.break_off(place.connection);
    broke(&mut client, stream);
    world.serves("/probe");
}

fn ends_and_resets() {
    let world = world();
    let (mut client, stream, place) = opened(&world);
    let words =
        [frame::data(place.stream, flag::END_STREAM, b"all that there is"), frame::reset(place.stream, code::NO_ERROR)];
    world.origin.send(place.connection, words.concat());
    let said = client.wait("an end", |heard| heard.on(stream).filter(|said| said.whole).cloned());
    assert_eq!(said.text(), "all that there is", "{said:?}");
    client.serves("/probe");
}

fn endpoint_refuses() {
    let world = world();
    let mut client = world.client();
    let stream = client.begin(&web_socket("/held"));
    send(&mut client, stream, "for the tunnel");
    let place = world.origin.wait_head("/held");
    world.origin.head(place, &[(":status", "403"), ("x-why", "no")]);
    world.origin.data_and_end(place, b"not here");
    let said = client.answer(stream);
    assert_eq!((said.status(), said.text().as_str(), said.all("x-why")), ("403", "not here", vec!["no"]), "{said:?}");
    assert!(world.origin.said(place).body.is_empty());
    world.serves("/probe");
}

fn no_answer() {
    let manners = Manners { settings: vec![OFFERED], ..Manners::default() };
    let world = World::with(manners, LIMITS, "timeout: 300ms, retry: { on: [] }");
    let mut client = world.client();
    let stream = client.begin(&web_socket("/held"));
    let place = world.origin.wait_head("/held");
    refused(&mut client, stream, "504");
    world.origin.wait_reset(place);
}

fn not_twice() {
    let manners = Manners { settings: vec![OFFERED], ..Manners::default() };
    let world = World::with(manners, LIMITS, "retry: { on: [5xx, reset], attempts: 3 }");
    let mut client = world.client();
    let stream = client.begin(&tunnel("other", "/held"));
    let place = world.origin.wait_head("/held");
    world.origin.only_head(place, &[(":status", "503")]);
    assert_eq!(client.answer(stream).status(), "503");
    let count = world.origin.settled(|log| log.requests().filter(|said| said.first(":path") == "/held").count());
    assert_eq!(count, 1);
}
