//! Calls that are large, slow, silent or many: each goes on without the others, and what nobody reads is not taken.

use std::time::Duration;

use super::{Call, Case, METHOD, calling, echoes, message, status_of};
use crate::h2::client::Client;
use crate::h2::frame::{self, FRAME_BYTES_MAX, flag, setting};
use crate::h2::origin::Manners;
use crate::h2::world::World;
use crate::world::SERVICE;

pub const CASES: &[Case] = &[
    ("a message of 16 MiB, asked", large_question),
    ("a message of 16 MiB, answered", large_answer),
    ("both at once", both_large),
    ("a reader that does not read holds up its own call, and nobody's memory grows", slow_reader),
    ("a reader that reads on gets all of it", slow_reader_goes_on),
    ("an endpoint that does not read holds up its own call", slow_endpoint),
    ("an endpoint that takes nothing of what is no call is given up", stalled_endpoint),
    ("two hundred calls at once, each with its own answer", many_calls),
    ("calls from many connections share those to the endpoint", many_connections),
    ("more calls than the endpoint takes on one connection", streams_of_endpoint),
    ("an endpoint that takes one stream at a time", one_stream_at_a_time),
    ("an endpoint with windows of few bytes", small_windows),
    ("an endpoint that changes its windows under way", changed_windows),
    ("an endpoint that takes larger frames", large_frames),
    ("an endpoint that keeps no table of fields", no_table),
    ("keepalive of the client's, between calls and within one", client_keepalive),
    ("keepalive of the endpoint's, between calls and within one", endpoint_keepalive),
    ("a call that is silent for longer than any message may be late", silent),
    ("trailers come through a window of nothing", trailers_without_window),
];

/// What a call may have under way on a proxy, each way: the window that it gives, and what it holds.
const UNDER_WAY_MAX: usize = 3 << 20;

fn world() -> World {
    World::start(Manners::default())
}

fn with_settings(settings: &[(u16, u32)]) -> World {
    World::start(Manners { settings: settings.to_vec(), ..Manners::default() })
}

fn large() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = vec![0; 16 << 20];
    random.fill(&mut text);
    message(&text)
}

fn large_question() {
    let (world, sent) = (world(), large());
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    client.send_body(call.stream, &sent);
    let (_, asked) = world.origin.wait_request(METHOD);
    assert!(asked.body == sent, "{} bytes of {}", asked.body.len(), sent.len());
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn large_answer() {
    let (world, sent) = (world(), large());
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    call.head();
    world.origin.send_body(call.place, &sent, || {
        client.read_some();
    });
    call.done();
    let said = client.answer(call.stream);
    assert!(said.body == sent, "{} bytes of {}", said.body.len(), sent.len());
}

fn both_large() {
    let (world, sent) = (world(), large());
    let mut client = world.client();
    let (first, second) = (Call::begin(&world, &mut client), Call::of(&world, &mut client, "/held.Echo/Other"));
    second.end(&mut client);
    second.head();
    let mut asker = world.client();
    let third = Call::of(&world, &mut asker, "/held.Echo/Third");
    std::thread::scope(|scope| {
        scope.spawn(|| asker.send_body(third.stream, &sent));
        world.origin.send_body(second.place, &sent, || {
            client.read_some();
        });
        second.done();
        assert!(client.answer(second.stream).body == sent);
    });
    assert!(world.origin.wait_request("/held.Echo/Third").1.body == sent);
    first.end(&mut client);
    first.head();
    first.done();
    assert_eq!(status_of(&client.answer(first.stream)), "0");
}

/// Answers with as much as the proxy takes, of a client that reads nothing of it.
fn filled(world: &World, client: &mut Client) -> (u32, usize, crate::h2::origin::Place) {
    client.send(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    client.settle();
    let call = Call::begin(world, client);
    call.end(client);
    call.head();
    client.wait("a head", |heard| heard.on(call.stream)?.head().map(drop));
    let mut sent = 0;
    let piece = vec![b'x'; FRAME_BYTES_MAX];
    while world.origin.window(call.place, sent + piece.len()) {
        world.origin.send(call.place.connection, frame::data(call.place.stream, 0, &piece));
        sent += piece.len();
        assert!(sent <= UNDER_WAY_MAX, "{sent} bytes were taken though nobody reads them");
        // The proxy has seen all of it, and said what it says to that.
        world.origin.settle(call.place.connection);
    }
    (call.stream, sent, call.place)
}

fn slow_reader() {
    let world = world();
    let mut client = world.client();
    let (stream, sent, _) = filled(&world, &mut client);
    assert!(sent > 0);
    // Neighbours on the same connections, with windows of their own.
    client.send(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]));
    let mut other = world.client();
    echoes(&world, &mut other, "/held.Echo/Other");
    echoes(&world, &mut client, "/held.Echo/Neighbour");
    client.send(frame::reset(stream, frame::code::CANCEL));
    world.serves("/probe");
}

fn slow_reader_goes_on() {
    let world = world();
    let mut client = world.client();
    let (stream, sent, place) = filled(&world, &mut client);
    assert_eq!(client.heard.streams[&stream].body.len(), 0);
    client.send(frame::window_update(stream, 1 << 24));
    world.origin.only_head(place, super::DONE);
    let said = client.answer(stream);
    assert_eq!((said.body.len(), status_of(&said)), (sent, "0".into()));
}

fn slow_endpoint() {
    let world = World::start(Manners { polite: false, ..Manners::default() });
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let (piece, mut sent) = (vec![b'x'; FRAME_BYTES_MAX], 0);
    let granted = |client: &Client| 65_535 + client.heard.windows.get(&call.stream).copied().unwrap_or(0) as usize;
    while granted(&client) >= sent + piece.len() {
        client.send(frame::data(call.stream, 0, &piece));
        sent += piece.len();
        assert!(sent <= UNDER_WAY_MAX, "{sent} bytes were taken though nobody reads them");
        client.settle();
    }
    assert!(world.origin.settled(|log| log.connections[0].heard.streams[&call.place.stream].body.len()) <= 65_535);
    // What needs no window of the endpoint's goes on.
    let stream = client.ask(&calling("/held.Echo/Other", &[]));
    let (place, _) = world.origin.wait_request("/held.Echo/Other");
    world.origin.only_head(place, &[super::OK, super::DONE].concat());
    assert_eq!(status_of(&client.answer(stream)), "0");
}

fn stalled_endpoint() {
    let limits = "limits: { header_timeout: 15s, body_idle_timeout: 200ms, idle_timeout: 25s }";
    let world = World::with(Manners { polite: false, ..Manners::default() }, limits, SERVICE);
    let mut client = world.client();
    let stream = client.begin(&crate::h2::client::post("/held"));
    let place = world.origin.wait_head("/held");
    let pieces = [FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MAX - 1];
    client.send(pieces.iter().flat_map(|bytes| frame::data(stream, 0, &vec![b'x'; *bytes])).collect::<Vec<u8>>());
    client.wait("a window", |heard| heard.windows.get(&stream).copied());
    client.send(frame::data(stream, flag::END_STREAM, &[b'x'; 1000]));
    world.origin.wait("all that its window takes", |log| {
        (log.connections[place.connection].heard.on(place.stream)?.body.len() == 65_535).then_some(())
    });
    let said = client.over(stream);
    assert!(["502", "503", "504"].contains(&said.status()) && !said.first("proxy-status").is_empty(), "{said:?}");
    assert_eq!(world.origin.wait_reset(place), frame::code::CANCEL);
    // A call may wait for as long as it likes: that is what flow control is for.
    let call = Call::begin(&world, &mut client);
    client.send(frame::data(call.stream, 0, b"x"));
    client.settle();
    assert!(!client.hears_within(Duration::from_millis(500)), "it was cut");
}

fn many_calls() {
    let world = world();
    let mut client = world.client();
    let methods: Vec<String> = (0..200).map(|number| format!("{METHOD}/{number}")).collect();
    let calls: Vec<Call<'_>> = methods.iter().map(|method| Call::of(&world, &mut client, method)).collect();
    for (call, method) in calls.iter().zip(&methods) {
        call.ask(&mut client, method.as_bytes());
    }
    for (call, method) in calls.iter().zip(&methods).rev() {
        call.end(&mut client);
        let (_, said) = world.origin.wait_request(method);
        assert_eq!(said.body, message(method.as_bytes()));
        call.head();
        call.answer(method.as_bytes());
    }
    for call in &calls {
        call.done();
    }
    for (call, method) in calls.iter().zip(&methods) {
        assert_eq!(client.answer(call.stream).body, message(method.as_bytes()));
    }
}

fn many_connections() {
    let world = world();
    let mut clients: Vec<Client> = (0..20).map(|_| world.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        echoes(&world, client, &format!("{METHOD}/{number}"));
    }
    assert_eq!(world.origin.settled(|log| log.connections.len()), 1, "one connection has room for all of them");
}

fn streams_of_endpoint() {
    let world = with_settings(&[(setting::MAX_CONCURRENT_STREAMS, 5)]);
    let mut client = world.client();
    echoes(&world, &mut client, "/held.Echo/Before");
    let methods: Vec<String> = (0..23).map(|number| format!("{METHOD}/{number}")).collect();
    let calls: Vec<Call<'_>> = methods.iter().map(|method| Call::of(&world, &mut client, method)).collect();
    world.origin.settled(|log| {
        for connection in &log.connections {
            let open = connection.heard.streams.values().filter(|said| !said.is_over()).count();
            assert!(open <= 5, "{open} streams on one connection");
        }
    });
    for call in &calls {
        call.end(&mut client);
        call.head();
        call.done();
        assert_eq!(status_of(&client.answer(call.stream)), "0");
    }
}

fn one_stream_at_a_time() {
    let world = with_settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    let mut client = world.client();
    for number in 0..10 {
        echoes(&world, &mut client, &format!("{METHOD}/{number}"));
    }
}

fn small_windows() {
    let world = with_settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, &[b'x'; 200]);
    call.end(&mut client);
    assert_eq!(world.origin.wait_request(METHOD).1.body, message(&[b'x'; 200]));
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn changed_windows() {
    let world = World::start(Manners { polite: false, ..Manners::default() });
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let connection = call.place.connection;
    world
        .origin
        .send(connection, [frame::settings_ack(), frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)])].concat());
    world.origin.settle(connection);
    call.ask(&mut client, &[b'x'; 95]);
    call.end(&mut client);
    call.asked(10);
    world.origin.settle(connection);
    assert_eq!(world.origin.said(call.place).body.len(), 10);
    world.origin.send(connection, frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    world.origin.send(connection, frame::window_update(call.place.stream, 30));
    call.asked(30);
    world.origin.settle(connection);
    assert_eq!(world.origin.said(call.place).body.len(), 30);
    world.origin.send(connection, frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1000)]));
    assert_eq!(world.origin.wait_request(METHOD).1.body, message(&[b'x'; 95]));
}

fn large_frames() {
    let world = with_settings(&[(setting::MAX_FRAME_SIZE, 1 << 20), (setting::INITIAL_WINDOW_SIZE, 1 << 24)]);
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let sent = message(&vec![b'x'; 300_000]);
    client.send_body(call.stream, &sent);
    assert!(world.origin.wait_request(METHOD).1.body == sent);
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn no_table() {
    let world = with_settings(&[(setting::HEADER_TABLE_SIZE, 0)]);
    let mut client = world.client();
    for number in 0..5 {
        echoes(&world, &mut client, &format!("{METHOD}/{number}"));
    }
}

fn client_keepalive() {
    let world = world();
    let mut client = world.client();
    client.settle();
    let call = Call::begin(&world, &mut client);
    for _ in 0..20 {
        client.settle();
    }
    call.end(&mut client);
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
    client.settle();
}

fn endpoint_keepalive() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    for _ in 0..20 {
        world.origin.settle(call.place.connection);
    }
    call.end(&mut client);
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
    world.origin.settle(call.place.connection);
    echoes(&world, &mut client, "/held.Echo/After");
    assert_eq!(world.origin.settled(|log| log.connections.len()), 1);
}

fn silent() {
    let limits = "limits: { header_timeout: 15s, body_idle_timeout: 100ms, idle_timeout: 25s }";
    let world = World::with(Manners::default(), limits, SERVICE);
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.head();
    client.wait("a head", |heard| heard.on(call.stream)?.head().map(drop));
    let both_silent = |client: &mut Client| {
        client.settle();
        assert!(!client.hears_within(Duration::from_millis(350)), "it was cut");
    };
    both_silent(&mut client);
    call.ask(&mut client, b"question");
    call.asked(13);
    both_silent(&mut client);
    call.answer(b"answer");
    call.answered(&mut client, 11);
    both_silent(&mut client);
    call.end(&mut client);
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn trailers_without_window() {
    let world = world();
    let mut client = Client::with_settings(world.proxy.address, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let call = Call::begin(&world, &mut client);
    client.send(frame::data(call.stream, flag::END_STREAM, &message(b"question")));
    call.head();
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}
