//! Flow control (RFC 9113 sections 5.2 and 6.9): what the proxy may send, and how much it takes.

use std::net::TcpListener;

use super::client::{Client, get, post};
use super::frame::{code, data, flag, setting, settings, window_update};
use super::table::{Row, Scenario, Wanted, connection, opened, row};
use crate::world::{LIMITS, Running, SERVICE, World};

const END: u8 = flag::END_STREAM;
const MAX: u32 = (1 << 31) - 1;

pub fn rows() -> Vec<Row> {
    let stream_error = || Wanted::Stream(1, vec![code::FLOW_CONTROL_ERROR]);
    vec![
        row(
            "9113 6.9.1: a window above 2^31-1, of the connection",
            [window_update(0, MAX), window_update(0, MAX)].concat(),
            connection(code::FLOW_CONTROL_ERROR),
        ),
        row(
            "9113 6.9.1: a window above 2^31-1, of a stream",
            [opened(1), window_update(1, MAX), window_update(1, MAX)].concat(),
            stream_error(),
        ),
        row(
            "9113 6.9.1: a window of 2^31-1, of the connection",
            window_update(0, MAX - 65_535),
            Wanted::Answered(vec![]),
        ),
        row(
            "9113 6.9.2: SETTINGS that make a window larger than 2^31-1",
            [opened(1), window_update(1, MAX - 65_535), settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)])].concat(),
            connection(code::FLOW_CONTROL_ERROR),
        ),
        row(
            "9113 6.9.2: SETTINGS with a window of 2^31",
            settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
            connection(code::FLOW_CONTROL_ERROR),
        ),
    ]
}

pub const SCENARIOS: &[Scenario] = &[
    ("9113 6.9.1: no more DATA than the window of a stream", one_byte),
    ("9113 6.5.3: the last of several values in one SETTINGS counts", last_value),
    ("9113 6.9.2: a window of 0 holds DATA back, SETTINGS let it go", by_settings),
    ("9113 6.9.2: a window that became negative", negative),
    ("9113 6.9.2: SETTINGS change no window of the connection", connection_untouched),
    ("9113 6.9.1: no more DATA than the window of the connection", of_the_connection),
    ("9113 6.9: an empty window holds back neither HEADERS nor the end of a stream without DATA", empty_window),
    ("9113 5.2: a stream without a window does not hold up others", neighbours),
    ("9113 6.9: windows are given back as the origin reads", given_back),
    ("9113 6.9: padding counts, and is given back", padding),
    ("9113 6.9.1: DATA of a stream that is over counts, and is given back", over),
    ("9113 6.9.1: more DATA than the window of a stream is an error", too_much),
];

fn quiet(world: &World, window: u32) -> Client {
    let mut client = Client::with_settings(world.proxy, &[(setting::INITIAL_WINDOW_SIZE, window)]);
    client.polite = false;
    client
}

/// Waits until a stream has so many bytes, and then sees that no more come.
fn has(client: &mut Client, stream: u32, bytes: usize) {
    client.wait("DATA", |heard| heard.on(stream).filter(|said| said.body.len() >= bytes).map(drop));
    client.settle();
    assert_eq!(client.heard.streams[&stream].body.len(), bytes, "{:?}", client.heard.frames);
}

fn one_byte(world: &World) {
    let mut client = quiet(world, 1);
    let stream = client.ask(&get("/one"));
    has(&mut client, stream, 1);
    client.send(window_update(stream, 2));
    has(&mut client, stream, 3);
    client.send(window_update(stream, 100));
    assert_eq!(client.answer(stream).text(), "GET /one");
}

fn last_value(world: &World) {
    let mut client = quiet(world, 65_535);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)]));
    let stream = client.ask(&get("/one"));
    has(&mut client, stream, 1);
}

fn by_settings(world: &World) {
    let mut client = quiet(world, 0);
    let stream = client.ask(&get("/one"));
    client.wait("a head", |heard| heard.on(stream)?.head().map(drop));
    client.settle();
    assert_eq!(client.heard.streams[&stream].data_frames, 0);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
    has(&mut client, stream, 1);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 3)]));
    has(&mut client, stream, 3);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]));
    assert_eq!(client.answer(stream).text(), "GET /one");
}

fn negative(world: &World) {
    let mut client = quiet(world, 3);
    let stream = client.ask(&get("/one"));
    has(&mut client, stream, 3);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]));
    client.send(window_update(stream, 2));
    has(&mut client, stream, 4);
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    client.send(window_update(stream, 2));
    has(&mut client, stream, 4);
    client.send(window_update(stream, 1));
    has(&mut client, stream, 5);
    client.send(window_update(stream, 100));
    assert_eq!(client.answer(stream).text(), "GET /one");
}

/// A path whose answer has about so many bytes.
fn long(bytes: usize) -> String {
    format!("/{}", "p".repeat(bytes))
}

fn connection_untouched(world: &World) {
    let mut client = quiet(world, MAX);
    let streams: Vec<u32> = (0..3).map(|_| client.ask(&get(&long(30_000)))).collect();
    let all = |client: &Client| -> usize {
        streams.iter().filter_map(|id| client.heard.on(*id)).map(|said| said.body.len()).sum()
    };
    while all(&client) < 65_535 {
        client.read_more("DATA");
    }
    client.settle();
    assert_eq!(all(&client), 65_535, "the connection's window is what it was");
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]));
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, MAX)]));
    client.settle();
    assert_eq!(all(&client), 65_535, "the connection's window is what it was");
    client.send(window_update(0, 65_535));
    for stream in streams.clone() {
        assert_eq!(client.answer(stream).body.len(), 30_005);
    }
}

fn of_the_connection(world: &World) {
    let mut client = quiet(world, 1 << 20);
    let first = client.ask(&get(&long(40_000)));
    let second = client.ask(&get(&long(40_000)));
    let sum = |client: &Client| {
        [first, second].iter().filter_map(|id| client.heard.on(*id)).map(|said| said.body.len()).sum::<usize>()
    };
    while sum(&client) < 65_535 {
        client.read_more("DATA");
    }
    client.settle();
    assert_eq!(sum(&client), 65_535);
    client.send(window_update(0, 1));
    client.settle();
    while sum(&client) < 65_536 {
        client.read_more("DATA");
    }
    client.send(window_update(0, 100_000));
    assert_eq!(client.answer(first).body.len(), 40_005);
    assert_eq!(client.answer(second).body.len(), 40_005);
}

fn empty_window(world: &World) {
    let mut client = quiet(world, 0);
    let stream = client.ask(&[&[(":method", "HEAD")][..], &get("/one")[1..]].concat());
    assert_eq!(client.answer(stream).status(), "200");
    let refused = client.ask(&[&get("/one")[..], &[("te", "gzip")]].concat());
    client.stream_error(refused, &[code::PROTOCOL_ERROR]);
}

fn neighbours(world: &World) {
    let mut client = quiet(world, 0);
    let held = client.ask(&get("/held"));
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    for number in 0..5 {
        let path = format!("/other/{number}");
        let stream = client.ask(&get(&path));
        client.send(window_update(stream, 1000));
        assert_eq!(client.answer(stream).text(), format!("GET {path}"));
    }
    assert!(!client.heard.streams[&held].is_over());
    client.send(window_update(held, 1000));
    assert_eq!(client.answer(held).text(), "GET /held");
}

fn given_back(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/one"));
    let (mut sent, piece) = (0u64, vec![b'x'; 16_384]);
    while sent < 1 << 20 {
        let window = |heard: &super::heard::Heard, id| 65_535 + heard.windows.get(&id).copied().unwrap_or(0);
        client.wait("a window", |heard| (window(heard, 0).min(window(heard, stream)) >= sent + 16_384).then_some(()));
        client.send(data(stream, 0, &piece));
        sent += 16_384;
    }
    client.send(data(stream, END, b""));
    assert_eq!(client.answer(stream).text(), "POST /one");
    let (_, request) = world.backend.wait_request("/one");
    assert_eq!(request.body.len() as u64, sent);
}

fn padding(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/one"));
    let payload = [&[255][..], b"x", &[0; 255]].concat();
    let mut sent = 0u64;
    for _ in 0..1000 {
        let window = |heard: &super::heard::Heard, id| 65_535 + heard.windows.get(&id).copied().unwrap_or(0);
        client.wait("a window", |heard| (window(heard, 0).min(window(heard, stream)) >= sent + 257).then_some(()));
        client.send(data(stream, flag::PADDED, &payload));
        sent += 257;
    }
    client.send(data(stream, END, b""));
    assert_eq!(client.answer(stream).text(), "POST /one");
    let (_, request) = world.backend.wait_request("/one");
    assert_eq!(request.body.len(), 1000);
}

fn over(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&[&post("/one")[..], &[("content-length", "1")]].concat());
    let piece = vec![b'x'; 16_384];
    let mut sent = 0;
    // More than the proxy's whole window, all of it on its way when the stream was reset for all anybody can tell.
    while sent <= 20 << 20 {
        client.wait("a window", |heard| {
            (65_535 + heard.windows.get(&0).copied().unwrap_or(0) >= sent + 16_384).then_some(())
        });
        client.send(data(stream, 0, &piece));
        sent += 16_384;
    }
    client.stream_error(stream, &[code::PROTOCOL_ERROR]);
    client.serves("/two");
}

fn too_much(_: &World) {
    let reads_nothing = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("endpoints: [ {{ address: \"{}\" }} ], {SERVICE}", reads_nothing.local_addr().unwrap());
    let proxy = Running::start(LIMITS, &service);
    let mut client = Client::connect(proxy.address);
    let stream = client.begin(&post("/one"));
    let (piece, mut sent) = (data(stream, 0, &vec![b'x'; 16_384]).repeat(16), 0);
    // What sockets take is not the proxy's to refuse.
    while sent < 64 << 20
        && client.heard.goaways.is_empty()
        && client.heard.on(stream).is_none_or(|said| !said.is_over())
    {
        client.send(&piece);
        sent += piece.len();
        client.settle_or_end();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken though nobody reads them");
    client.stream_error(stream, &[code::FLOW_CONTROL_ERROR]);
}
