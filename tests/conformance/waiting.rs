//! Requests that wait for a connection, where the service allows no more of them (RFC 9112 section 9.4: who opens connections ought to
//! limit them), and what they are told that wait in vain (RFC 9110 sections 15.6.4 and 15.6.5).
//!
//! Streams of one h2 connection are the requests, so that it is known which came first.

use std::time::Duration;

use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::connection::{OK, get as text_of};
use crate::h2::client::{Client, get};
use crate::h2::frame::{self, code, setting};
use crate::h2::heard::Said;
use crate::h2::origin::{Manners, Place};
use crate::h2::world::World as H2World;
use crate::wire::text;
use crate::world::{LIMITS, SERVICE, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9112 9.4: requests wait for the only connection, and get it in the order in which they came", in_order),
    ("9112 9.4: many clients share two connections", many_clients),
    ("9112 9.4: a connection that ends, or is broken, makes room as one that is kept does", a_connection_that_ends),
    ("9110 15.6.4: beyond as many as may wait the refusal is immediate, and those that wait are served", too_many),
    ("9110 15.6.5: who waits too long is told so", too_long),
    ("9110 15.6.5: what runs out of time when it has waited is told so, and not tried again", out_of_time),
    ("9113 5.4.2: who goes away while it waits is nobody's hindrance", gone_meanwhile),
    ("9112 9.6: a connection that breaks while its request waits is nobody's hindrance", broken_meanwhile),
    ("9110 8: a body waits with its request", a_body),
    ("9113 5.1.2: requests wait for a stream of the only connection, in their order", streams),
    ("9113 5.1.2: who goes away while it waits for a stream is nobody's hindrance", streams_gone_meanwhile),
];

/// An origin that says nothing by itself to `/first`, of which so much may be asked at once.
fn world(service: &str) -> World {
    scripted(vec![], service)
}

fn scripted(acts: Vec<Act>, service: &str) -> World {
    let backend = Backend::start(vec![Script { target: "/first", early: false, acts }], Delivery::Whole);
    World::between_with(backend, LIMITS, &format!("{SERVICE}, {service}"))
}

const ONE: &str = "circuit: { max_connections: 1 }";

/// `/first` is under way, on a connection of the origin's.
fn begun(world: &World, client: &mut Client) -> (u32, usize) {
    let stream = client.ask(&get("/first"));
    (stream, world.backend.wait_request("/first").0)
}

fn is_answer(said: &Said, body: &str) {
    assert_eq!((said.status(), text(&said.body)), ("200", body.to_owned()));
}

/// What the origin was asked, in order.
fn asked(world: &World) -> Vec<String> {
    world.backend.settled(|log| {
        let requests = log.connections.iter().flat_map(|connection| &connection.requests);
        requests.map(|request| request.target.clone()).collect()
    })
}

fn in_order() {
    let world = world(ONE);
    let mut client = Client::connect(world.proxy);
    let (first, origin) = begun(&world, &mut client);
    let paths: Vec<String> = (0..50).map(|n| format!("/{n}")).collect();
    let streams: Vec<u32> = paths.iter().map(|path| client.ask(&get(path))).collect();
    client.settle();
    assert_eq!(asked(&world), ["/first"]);
    world.backend.send(origin, OK);
    is_answer(&client.answer(first), "ok");
    for (stream, path) in streams.into_iter().zip(&paths) {
        is_answer(&client.answer(stream), &format!("GET {path}"));
    }
    assert_eq!(asked(&world)[1..], paths);
    world.backend.settled(|log| assert_eq!(log.connections.len(), 1));
}

fn many_clients() {
    let world = world("circuit: { max_connections: 2 }");
    let mut clients: Vec<_> = (0..40).map(|_| world.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(text_of(&format!("/{number}/{round}")));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let answer = client.response("GET").entire();
            assert_eq!((answer.status, answer.text()), (200, format!("GET /{number}/{round}")));
        }
    }
    world.backend.settled(|log| assert!(log.connections.len() <= 2, "{}", log.connections.len()));
}

fn a_connection_that_ends() {
    let closing = OK.replace("Content-Length", "Connection: close\r\nContent-Length");
    for (acts, status) in [
        (vec![Act::Send(closing.into()), Act::Finish], "200"),
        (vec![Act::Finish], "503"),
        (vec![Act::Reset], "503"),
        (vec![Act::Send("what is this?\r\n\r\n".into())], "502"),
    ] {
        let world = world(ONE);
        let mut client = Client::connect(world.proxy);
        let (first, origin) = begun(&world, &mut client);
        let waiting = [client.ask(&get("/second")), client.ask(&get("/third"))];
        client.settle();
        acts.iter().for_each(|act| world.backend.act(origin, act));
        assert_eq!(client.answer(first).status(), status);
        is_answer(&client.answer(waiting[0]), "GET /second");
        is_answer(&client.answer(waiting[1]), "GET /third");
    }
}

fn too_many() {
    let world = world("circuit: { max_connections: 1, max_pending: 2 }");
    let mut client = Client::connect(world.proxy);
    let (first, origin) = begun(&world, &mut client);
    let waiting = [client.ask(&get("/second")), client.ask(&get("/third"))];
    let refused = client.ask(&get("/fourth"));
    let said = client.answer(refused);
    assert_eq!(said.status(), "503");
    assert!(said.first("proxy-status").contains("UO"), "{said:?}");
    world.backend.send(origin, OK);
    is_answer(&client.answer(first), "ok");
    is_answer(&client.answer(waiting[0]), "GET /second");
    is_answer(&client.answer(waiting[1]), "GET /third");
    assert_eq!(asked(&world), ["/first", "/second", "/third"]);
    world.serves("/fifth");
}

fn too_long() {
    // News may go on for longer than a request may take.
    let news = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let world = scripted(vec![Act::Send(news.into())], &format!("timeout: 300ms, {ONE}"));
    let mut client = Client::connect(world.proxy);
    let (first, origin) = begun(&world, &mut client);
    client.wait("news", |heard| heard.on(first).filter(|said| !said.body.is_empty()).map(drop));
    let late = client.ask(&get("/late"));
    let said = client.answer(late);
    assert_eq!(said.status(), "504");
    assert!(said.first("proxy-status").contains("UT"), "{said:?}");
    assert!(text(&said.body).contains("1 are in use, of 1 allowed"), "{said:?}");
    assert!(!client.hears_within(Duration::from_millis(50)), "the news are not over");
    world.backend.act(origin, &Act::Finish);
    assert!(client.over(first).is_entire());
    world.serves("/after");
    assert_eq!(asked(&world), ["/first", "/after"]);
}

fn out_of_time() {
    // Nobody answers, and all run out of time at once: whoever held the only connection gives it up to those behind, who have none left.
    let backend = Backend::start(vec![Script { target: "/first", early: false, acts: vec![] }], Delivery::Whole);
    let service = format!("timeout: 300ms, outlier: {{ consecutive_5xx: 2, max_ejection_percent: 100% }}, {ONE}");
    let world = World::between_with(backend, LIMITS, &service);
    for _ in 0..3 {
        let mut client = Client::connect(world.proxy);
        let streams: Vec<u32> = (0..4).map(|_| client.ask(&get("/first"))).collect();
        for stream in streams {
            let said = client.answer(stream);
            assert_eq!(said.status(), "504", "{said:?}");
            assert!(said.first("proxy-status").contains("UT"), "{said:?}");
        }
        world.serves("/probe");
    }
}

fn gone_meanwhile() {
    // The one that is next, and the one behind it.
    for gone in ["/second", "/third"] {
        let world = world(ONE);
        let mut client = Client::connect(world.proxy);
        let (first, origin) = begun(&world, &mut client);
        let mut waiting = vec![];
        for path in ["/second", "/third", "/fourth"] {
            let stream = client.ask(&get(path));
            waiting.push((path, stream));
        }
        client.settle();
        let (_, stream) = waiting.remove(waiting.iter().position(|(path, _)| *path == gone).unwrap());
        client.send(frame::reset(stream, code::CANCEL));
        client.settle();
        world.backend.send(origin, OK);
        is_answer(&client.answer(first), "ok");
        for (path, stream) in waiting {
            is_answer(&client.answer(stream), &format!("GET {path}"));
        }
        assert!(!asked(&world).iter().any(|path| path == gone), "nobody waits for {gone} any more");
    }
}

fn broken_meanwhile() {
    let world = world(ONE);
    let mut client = Client::connect(world.proxy);
    let (first, origin) = begun(&world, &mut client);
    for _ in 0..5 {
        let mut gone = world.client();
        gone.send(text_of("/second"));
        gone.reset();
    }
    let third = client.ask(&get("/third"));
    client.settle();
    world.backend.send(origin, OK);
    is_answer(&client.answer(first), "ok");
    is_answer(&client.answer(third), "GET /third");
    world.serves("/fourth");
}

fn a_body() {
    let world = world(ONE);
    let mut client = Client::connect(world.proxy);
    let (first, origin) = begun(&world, &mut client);
    let mut other = world.client();
    other.send("POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    other.send("x".repeat(100_000));
    let third = client.ask(&get("/third"));
    client.settle();
    world.backend.send(origin, OK);
    is_answer(&client.answer(first), "ok");
    is_answer(&client.answer(third), "GET /third");
    assert_eq!(other.response("POST").entire().text(), "POST /second");
    let (_, request) = world.backend.wait_request("/second");
    assert_eq!(request.body.len(), 100_000);
}

/// An origin that takes one stream at a time, and has said so.
fn one_stream() -> (H2World, Client) {
    let manners = Manners { settings: vec![(setting::MAX_CONCURRENT_STREAMS, 1)], ..Manners::default() };
    let world = H2World::with(manners, LIMITS, &format!("{ONE}, {SERVICE}"));
    let mut client = Client::connect(world.proxy.address);
    client.serves("/before");
    (world, client)
}

/// Where the whole requests for these have come, if they have.
fn places_of(world: &H2World, paths: &[&str]) -> Vec<Option<Place>> {
    let found = |path: &&str| world.origin.settled(|log| log.find(path, |said| said.is_entire()));
    paths.iter().map(found).collect()
}

const ANSWER: &[(&str, &str)] = &[(":status", "204")];

fn streams() {
    let (world, mut client) = one_stream();
    let paths = ["/held/1", "/held/2", "/held/3", "/held/4"];
    let streams = paths.map(|path| client.ask(&get(path)));
    for (done, (path, stream)) in paths.into_iter().zip(streams).enumerate() {
        let (place, _) = world.origin.wait_request(path);
        let later = places_of(&world, &paths[done + 1..]);
        assert!(later.iter().all(Option::is_none), "{path} is under way: {later:?}");
        world.origin.only_head(place, ANSWER);
        assert_eq!(client.answer(stream).status(), "204");
    }
    client.serves("/after");
    world.origin.settled(|log| assert_eq!(log.connections.len(), 1));
}

fn streams_gone_meanwhile() {
    let (world, mut client) = one_stream();
    let [first, gone, third] = ["/held/1", "/held/2", "/held/3"].map(|path| client.ask(&get(path)));
    let (place, _) = world.origin.wait_request("/held/1");
    client.send(frame::reset(gone, code::CANCEL));
    client.settle();
    world.origin.only_head(place, ANSWER);
    assert_eq!(client.answer(first).status(), "204");
    let (place, _) = world.origin.wait_request("/held/3");
    world.origin.only_head(place, ANSWER);
    assert_eq!(client.answer(third).status(), "204");
    assert!(places_of(&world, &["/held/2"])[0].is_none());
    // The stream that is under way goes away, too.
    let first = client.ask(&get("/held/4"));
    let second = client.ask(&get("/held/5"));
    world.origin.wait_request("/held/4");
    client.send(frame::reset(first, code::CANCEL));
    let (place, _) = world.origin.wait_request("/held/5");
    world.origin.only_head(place, ANSWER);
    assert_eq!(client.answer(second).status(), "204");
}
