//! Calls that end before their time: cancelled, reset, refused, cut, too late.

use std::net::TcpListener;
use std::time::Duration;

use super::{Call, Case, DONE, METHOD, OK, calling, echoes, failed_with, message, status_of};
use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::h2::client::Client;
use crate::h2::frame::{self, code, flag, setting};
use crate::h2::origin::{Manners, Origin};
use crate::h2::world::World;
use crate::world::{DEADLINE, LIMITS, Running, SERVICE};

pub const CASES: &[Case] = &[
    ("the client cancels before anything was answered", cancelled_before),
    ("the client cancels what streams to it", cancelled_while_answered),
    ("the client cancels what it streams", cancelled_while_asking),
    ("what the endpoint says behind a cancel means nothing, and costs no window", crossing),
    ("the client's connection breaks: all its calls are cancelled", client_gone),
    ("the client leaves orderly in the middle of calls", client_leaves),
    ("the endpoint resets before it answers", reset_before),
    ("the endpoint cancels before it answers", cancelled_by_endpoint_before),
    ("the endpoint refuses the stream, and nobody tries again", refused),
    ("the endpoint refuses the stream, and another try answers", refused_and_again),
    ("the endpoint resets in the middle of its answer", reset_within),
    ("the endpoint's code for a call is passed on where it means the same", codes_within),
    ("the endpoint dies before it answers", dead_before),
    ("the endpoint dies in the middle of its answer", dead_within),
    ("the endpoint ends its connection in the middle of its answer", ended_within),
    ("the endpoint closes every connection at once", closes_at_once),
    ("the endpoint cannot be reached", unreachable),
    ("nobody is there to take a call", nobody),
    ("the endpoint speaks HTTP/1.1 alone", speaks_http1),
    ("the endpoint speaks nothing known", speaks_nonsense),
    ("the endpoint says GOAWAY in the middle of calls", goaway_within),
    ("the endpoint says GOAWAY for a call it has not seen, and another try answers", goaway_unseen),
    ("the endpoint says GOAWAY with an error", goaway_with_error),
    ("the endpoint breaks a rule in the middle of its answer", broken_rule),
    ("a malformed answer is no answer", malformed_answer),
    ("malformed trailers are no status", malformed_trailers),
    ("a call that takes too long is told so", too_late),
    ("more calls than the circuit allows", overload),
    ("a call with a malformed head harms no other", malformed_call),
    ("a cut message does not look whole to the endpoint", cut_question),
    ("a proxy that leaves finishes the calls that it has", drained),
    ("metadata larger than the client takes", more_than_the_client_takes),
    ("metadata larger than the endpoint takes", more_than_the_endpoint_takes),
];

fn world() -> World {
    World::start(Manners::default())
}

fn cancelled_before() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    world.origin.wait_request(METHOD);
    client.send(frame::reset(call.stream, code::CANCEL));
    assert_eq!(world.origin.wait_reset(call.place), code::CANCEL);
    echoes(&world, &mut client, "/held.Echo/After");
}

fn cancelled_while_answered() {
    let world = world();
    let mut client = world.client();
    let other = Call::of(&world, &mut client, "/held.Echo/Other");
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    call.head();
    call.answer(b"part");
    call.answered(&mut client, 9);
    client.send(frame::reset(call.stream, code::CANCEL));
    assert_eq!(world.origin.wait_reset(call.place), code::CANCEL);
    // Neighbours on both connections go on, and so do both connections.
    other.head();
    other.answer(b"other");
    other.answered(&mut client, 10);
    other.done();
    assert_eq!(client.answer(other.stream).body, message(b"other"));
    assert_eq!(world.origin.settled(|log| log.connections.len()), 1);
}

fn cancelled_while_asking() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, b"part");
    call.asked(9);
    client.send(frame::reset(call.stream, code::CANCEL));
    assert_eq!(world.origin.wait_reset(call.place), code::CANCEL);
    assert!(!world.origin.said(call.place).whole, "what was cancelled looks whole");
    echoes(&world, &mut client, "/held.Echo/After");
}

fn crossing() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.head();
    call.answer(b"part");
    call.answered(&mut client, 9);
    client.send(frame::reset(call.stream, code::CANCEL));
    world.origin.wait_reset(call.place);
    // More than the proxy's whole window, as if all of it had been on its way.
    let (connection, piece) = (call.place.connection, vec![b'x'; frame::FRAME_BYTES_MAX]);
    let mut sent = 0;
    while sent < 20 << 20 {
        sent += piece.len();
        world.origin.wait("a window", |log| {
            let heard = &log.connections[connection].heard;
            (heard.windows.get(&0).copied().unwrap_or(0) as usize + 65_535 >= sent + 9).then_some(())
        });
        world.origin.send(connection, frame::data(call.place.stream, 0, &piece));
    }
    call.done();
    echoes(&world, &mut client, "/held.Echo/After");
    assert_eq!(world.origin.settled(|log| log.connections.len()), 1, "the connection is as good as before");
}

fn client_gone() {
    let world = world();
    let mut client = world.client();
    let calls: Vec<Call<'_>> =
        (0..5).map(|number| Call::of(&world, &mut client, &format!("{METHOD}{number}"))).collect();
    calls[0].head();
    calls[0].answer(b"part");
    calls[0].answered(&mut client, 9);
    let mut other = world.client();
    client.break_off();
    for call in &calls {
        assert_eq!(world.origin.wait_reset(call.place), code::CANCEL);
    }
    echoes(&world, &mut other, "/held.Echo/After");
}

fn client_leaves() {
    let world = world();
    let mut client = world.client();
    let asking = Call::begin(&world, &mut client);
    asking.ask(&mut client, b"part");
    asking.asked(9);
    client.finish();
    assert_eq!(world.origin.wait_reset(asking.place), code::CANCEL);
    assert!(!world.origin.said(asking.place).whole, "what was cut looks whole");
    client.end();
    world.serves("/probe");
}

/// A call that was asked, whole.
fn asked<'w>(world: &'w World, client: &mut Client) -> Call<'w> {
    let call = Call::begin(world, client);
    call.ask(client, b"question");
    call.end(client);
    world.origin.wait_request(METHOD);
    call
}

/// What the endpoint does when it was asked fails that call with one of these statuses, and no other.
fn fails(does: impl FnOnce(&Call<'_>), statuses: &[&str]) {
    let world = world();
    let mut client = world.client();
    let call = asked(&world, &mut client);
    does(&call);
    failed_with(&client.over(call.stream), statuses);
    echoes(&world, &mut client, "/held.Echo/After");
}

fn reset_before() {
    for code in [code::INTERNAL_ERROR, code::PROTOCOL_ERROR, code::ENHANCE_YOUR_CALM, code::NO_ERROR, 0xff] {
        fails(|call| call.world.origin.reset(call.place, code), &["14", "13"]);
    }
}

fn cancelled_by_endpoint_before() {
    fails(|call| call.world.origin.reset(call.place, code::CANCEL), &["1", "14", "13"]);
}

fn refused() {
    fails(|call| call.world.origin.reset(call.place, code::REFUSED_STREAM), &["14"]);
}

/// With the retry policy that services have by themselves.
fn patient() -> World {
    World::with(Manners::default(), LIMITS, "lb: round_robin")
}

fn refused_and_again() {
    let world = patient();
    let mut client = world.client();
    let call = asked(&world, &mut client);
    world.origin.reset(call.place, code::REFUSED_STREAM);
    let again = world.origin.wait("another try", |log| {
        log.find(METHOD, |said| said.whole && said.reset.is_none()).filter(|place| *place != call.place).or_else(|| {
            let one = &log.connections[call.place.connection].heard.streams;
            let (stream, _) = one.iter().find(|(stream, said)| **stream > call.place.stream && said.whole)?;
            Some(crate::h2::origin::Place { stream: *stream, ..call.place })
        })
    });
    assert_eq!(world.origin.said(again).body, message(b"question"));
    world.origin.head(again, OK);
    world.origin.only_head(again, DONE);
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

/// What the client hears of an answer that broke off.
fn broken_off(client: &mut Client, call: &Call<'_>) -> Option<u32> {
    let said = client.over(call.stream);
    assert!(!said.is_entire() || !["", "0"].contains(&status_of(&said).as_str()), "it looks whole: {said:?}");
    said.reset
}

fn reset_within() {
    for behind_message in [false, true] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        call.head();
        if behind_message {
            call.answer(b"part");
            call.answered(&mut client, 9);
        }
        world.origin.reset(call.place, code::INTERNAL_ERROR);
        broken_off(&mut client, &call);
        echoes(&world, &mut client, "/held.Echo/After");
    }
}

fn codes_within() {
    for (told, wanted) in [
        (code::CANCEL, code::CANCEL),
        (code::ENHANCE_YOUR_CALM, code::ENHANCE_YOUR_CALM),
        (code::INTERNAL_ERROR, code::INTERNAL_ERROR),
        // Of these the client would believe that it had done wrong, that nothing was done, or that all is well.
        (code::PROTOCOL_ERROR, code::INTERNAL_ERROR),
        (code::REFUSED_STREAM, code::INTERNAL_ERROR),
        (code::NO_ERROR, code::INTERNAL_ERROR),
    ] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        call.head();
        call.answer(b"part");
        call.answered(&mut client, 9);
        world.origin.reset(call.place, told);
        assert_eq!(broken_off(&mut client, &call), Some(wanted), "of {told}");
    }
}

fn dead_before() {
    fails(|call| call.world.origin.break_off(call.place.connection), &["14"]);
}

fn dead_within() {
    for behind_message in [false, true] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        call.head();
        client.wait("a head", |heard| heard.on(call.stream)?.head().map(drop));
        if behind_message {
            call.answer(b"part");
            call.answered(&mut client, 9);
        }
        world.origin.break_off(call.place.connection);
        broken_off(&mut client, &call);
        echoes(&world, &mut client, "/held.Echo/After");
    }
}

fn ended_within() {
    let world = world();
    let mut client = world.client();
    let call = asked(&world, &mut client);
    call.head();
    call.answer(b"part");
    call.answered(&mut client, 9);
    world.origin.finish(call.place.connection);
    broken_off(&mut client, &call);
    echoes(&world, &mut client, "/held.Echo/After");
}

/// A call to what is at `address` as if it spoke h2.
fn called(address: std::net::SocketAddr) -> crate::h2::heard::Said {
    let service = format!("endpoints: [ {{ address: \"{address}\" }} ], protocol: http2, {SERVICE}");
    let proxy = Running::start(LIMITS, &service);
    let mut client = Client::connect(proxy.address);
    let stream = client.begin(&calling("/x.Echo/Call", &[]));
    client.send(frame::data(stream, flag::END_STREAM, &message(b"question")));
    let said = client.over(stream);
    client.settle();
    said
}

fn closes_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Until the test's end: one connection, maybe another.
        for stream in listener.incoming().take(4) {
            drop(stream);
        }
    });
    failed_with(&called(address), &["14"]);
}

fn unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let said = called(address);
    failed_with(&said, &["14"]);
    assert!(said.first("proxy-status").contains("UF"), "{said:?}");
}

fn nobody() {
    let proxy = Running::start(LIMITS, &format!("endpoints: [], {SERVICE}"));
    let mut client = Client::connect(proxy.address);
    let stream = client.ask(&calling("/x.Echo/Call", &[]));
    let said = client.over(stream);
    failed_with(&said, &["14"]);
    assert!(said.first("proxy-status").contains("UH"), "{said:?}");
}

fn speaks_http1() {
    let backend = Backend::start(Vec::new(), Delivery::Whole);
    failed_with(&called(backend.address), &["14", "13"]);
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let script = Script { target: "*", early: true, acts: vec![Act::Send(refusal), Act::Finish] };
    let backend = Backend::start(vec![script], Delivery::Whole);
    failed_with(&called(backend.address), &["14", "13"]);
}

fn speaks_nonsense() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(4).flatten() {
            // The proxy may be gone by then.
            let _ = std::io::Write::write_all(&mut &stream, b"220 smtp.example ESMTP ready for mail\r\n");
            let _ = std::io::Read::read(&mut &stream, &mut [0; 1024]);
        }
    });
    failed_with(&called(address), &["14", "13"]);
}

fn goaway_within() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.head();
    world.origin.send(call.place.connection, frame::goaway(call.place.stream, code::NO_ERROR));
    // What was begun goes on; what comes later goes elsewhere.
    world.origin.settle(call.place.connection);
    echoes(&world, &mut client, "/held.Echo/After");
    let places = world.origin.settled(|log| log.find("/held.Echo/After", |_| true));
    assert_ne!(places.unwrap().connection, call.place.connection, "it went where nobody takes more");
    call.ask(&mut client, b"question");
    call.end(&mut client);
    world.origin.wait_request(METHOD);
    call.answer(b"answer");
    call.done();
    assert_eq!(client.answer(call.stream).body, message(b"answer"));
    world.origin.wait_end(call.place.connection);
}

fn goaway_unseen() {
    let world = patient();
    let mut client = world.client();
    let call = asked(&world, &mut client);
    world.origin.send(call.place.connection, frame::goaway(0, code::NO_ERROR));
    let again = world.origin.wait("another try", |log| {
        let mut places = log.connections.iter().enumerate().skip(call.place.connection + 1);
        places.find_map(|(connection, one)| {
            let (stream, _) = one.heard.streams.iter().find(|(_, said)| said.first(":path") == METHOD && said.whole)?;
            Some(crate::h2::origin::Place { connection, stream: *stream })
        })
    });
    world.origin.head(again, OK);
    world.origin.only_head(again, DONE);
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn goaway_with_error() {
    let does = |call: &Call<'_>| {
        let (origin, place) = (&call.world.origin, call.place);
        origin.send(place.connection, frame::goaway(place.stream, code::ENHANCE_YOUR_CALM));
        origin.break_off(place.connection);
    };
    fails(does, &["14", "8"]);
}

fn broken_rule() {
    for sent in [
        frame::frame(0, 0, 0, b"DATA on stream 0"),
        frame::frame(6, 0, 0, b"PING"),
        frame::headers(2, 0, &[0x88]),
        frame::window_update(0, 0),
    ] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        call.head();
        call.answer(b"part");
        call.answered(&mut client, 9);
        world.origin.send(call.place.connection, sent);
        broken_off(&mut client, &call);
        world.origin.wait_end(call.place.connection);
        echoes(&world, &mut client, "/held.Echo/After");
    }
}

fn malformed_answer() {
    for head in [
        &[("content-type", "application/grpc")][..],
        &[(":status", "200"), ("content-type", "application/grpc"), ("connection", "close")],
        &[(":status", "200"), ("Grpc-Status", "0")],
        &[(":status", "200"), ("grpc-message", "a\r\ngrpc-status: 0")],
    ] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        world.origin.only_head(call.place, head);
        failed_with(&client.over(call.stream), &["14", "13"]);
        echoes(&world, &mut client, "/held.Echo/After");
    }
}

fn malformed_trailers() {
    for trailers in [&[("grpc-status", "0"), ("connection", "x")][..], &[(":status", "200")], &[("Grpc-Status", "0")]] {
        let world = world();
        let mut client = world.client();
        let call = asked(&world, &mut client);
        call.head();
        call.answer(b"part");
        world.origin.only_head(call.place, trailers);
        broken_off(&mut client, &call);
        echoes(&world, &mut client, "/held.Echo/After");
    }
}

fn too_late() {
    let world = World::with(Manners::default(), LIMITS, &format!("timeout: 300ms, {SERVICE}"));
    let mut client = world.client();
    let call = asked(&world, &mut client);
    failed_with(&client.over(call.stream), &["4"]);
    assert_eq!(world.origin.wait_reset(call.place), code::CANCEL);
    // A stream of messages is not bound by it once it has begun.
    let streaming = Call::of(&world, &mut client, "/held.Echo/Stream");
    streaming.head();
    client.wait("a head", |heard| heard.on(streaming.stream)?.head().map(drop));
    assert!(!client.hears_within(Duration::from_millis(600)), "it was cut");
    streaming.end(&mut client);
    streaming.answer(b"late");
    streaming.done();
    assert_eq!(client.answer(streaming.stream).body, message(b"late"));
}

fn overload() {
    let world = World::with(Manners::default(), LIMITS, &format!("circuit: {{ max_requests: 1 }}, {SERVICE}"));
    let mut client = world.client();
    let call = asked(&world, &mut client);
    let stream = client.ask(&calling("/held.Echo/Other", &[]));
    let said = client.over(stream);
    failed_with(&said, &["14"]);
    assert!(said.first("proxy-status").contains("UO"), "{said:?}");
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
    echoes(&world, &mut client, "/held.Echo/After");
}

fn malformed_call() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let bad = client.ask(&calling("/held.Echo/Bad", &[("connection", "close")]));
    client.stream_error(bad, &[code::PROTOCOL_ERROR]);
    call.ask(&mut client, b"question");
    call.end(&mut client);
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
    assert!(world.origin.settled(|log| log.find("/held.Echo/Bad", |_| true)).is_none());
}

fn cut_question() {
    let world = world();
    let mut client = world.client();
    let stream = client.begin(&calling(METHOD, &[("content-length", "18")]));
    client.send(frame::data(stream, 0, &message(b"half")));
    let place = world.origin.wait_head(METHOD);
    client.send(frame::data(stream, flag::END_STREAM, b""));
    client.stream_error(stream, &[code::PROTOCOL_ERROR]);
    world.origin.wait_reset(place);
    assert!(!world.origin.said(place).whole, "what was cut looks whole");
}

fn drained() {
    let origin = Origin::start(Manners::default());
    let service = format!("endpoints: [ {{ address: \"{}\" }} ], protocol: http2, {SERVICE}", origin.address);
    let mut proxy = Running::patient(LIMITS, &service, DEADLINE);
    let mut client = Client::connect(proxy.address);
    let stream = client.begin(&calling(METHOD, &[]));
    let place = origin.wait_head(METHOD);
    proxy.leave();
    client.wait("GOAWAY", |heard| heard.goaways.first().copied());
    origin.head(place, OK);
    origin.data(place, &message(b"part"));
    client.wait("an answer", |heard| heard.on(stream).filter(|said| said.body.len() == 9).map(drop));
    client.send(frame::data(stream, flag::END_STREAM, &message(b"question")));
    assert_eq!(origin.wait_request(METHOD).1.body, message(b"question"));
    origin.only_head(place, DONE);
    let said = client.answer(stream);
    assert_eq!((status_of(&said), said.body), ("0".into(), message(b"part")));
    client.end();
    let told: Vec<u32> = client.heard.goaways.iter().map(|(_, code)| *code).collect();
    assert!(told.iter().all(|code| *code == code::NO_ERROR), "{told:?}");
    assert_eq!(client.heard.goaways.last().map(|(last, _)| *last), Some(stream));
}

fn more_than_the_client_takes() {
    let world = world();
    let mut client = Client::with_settings(world.proxy.address, &[(setting::MAX_HEADER_LIST_SIZE, 1000)]);
    let call = asked(&world, &mut client);
    world.origin.head(call.place, &[OK, &[("x-long", &"v".repeat(2000))]].concat());
    let said = client.over(call.stream);
    assert!(said.reset.is_some() && said.head().is_none(), "{said:?}");
    echoes(&world, &mut client, "/held.Echo/After");
}

fn more_than_the_endpoint_takes() {
    let settings = vec![(setting::MAX_HEADER_LIST_SIZE, 1000)];
    let world = World::start(Manners { settings, ..Manners::default() });
    let mut client = world.client();
    // The endpoint has said so by then.
    echoes(&world, &mut client, "/held.Echo/Before");
    let stream = client.ask(&calling(METHOD, &[("x-long", &"v".repeat(2000))]));
    let said = client.over(stream);
    assert!(said.head().is_some_and(|head| head.has("proxy-status")), "{said:?}");
    echoes(&world, &mut client, "/held.Echo/After");
}
