//! Flow control goes from end to end: of what nobody reads little is kept.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::by_upgrade::switch;
use super::{head_of, web_socket};
use crate::h2::client::Client;
use crate::h2::frame::{self, FRAME_BYTES_MAX, flag, setting};
use crate::wire;
use crate::world::{DEADLINE, LIMITS, Running, SERVICE};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9113 5.2: a client that does not read holds the endpoint back", slow_client),
    ("9113 5.2: an endpoint that does not read holds the client back", slow_endpoint),
    ("8441 5: a reset reaches an endpoint that does not read", reset_of_full),
];

/// More than all sockets on the way have room for.
const BYTES: usize = 48 << 20;

/// What sockets on the way may hold, and what the proxy may.
const HELD_BYTES_MAX: u64 = 24 << 20;

/// An endpoint that switches, and hands over its connection.
fn endpoint() -> (TcpListener, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Running::start(LIMITS, &format!("endpoints: [ {{ address: \"{address}\" }} ], {SERVICE}")))
}

fn switched(listener: &TcpListener) -> std::net::TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let (request, _) = wire::request(&bytes).unwrap();
    stream.write_all(switch(&request.unwrap(), "").as_bytes()).unwrap();
    stream
}

fn slow_client() {
    const WINDOW: u32 = 16_384;
    let (listener, running) = endpoint();
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut stream = switched(&listener);
            for _ in 0..BYTES / FRAME_BYTES_MAX {
                stream.write_all(&[7; FRAME_BYTES_MAX]).unwrap();
                written.fetch_add(FRAME_BYTES_MAX as u64, Ordering::Relaxed);
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut client = Client::with_settings(running.address, &[(setting::INITIAL_WINDOW_SIZE, WINDOW)]);
        client.polite = false;
        let stream = client.begin(&web_socket("/first"));
        head_of(&mut client, stream);
        client.wait("a full window", |heard| {
            heard.on(stream).filter(|said| said.body.len() >= WINDOW as usize).map(drop)
        });
        // Until nothing more is taken of the endpoint.
        let mut before = u64::MAX;
        while before != written.load(Ordering::Relaxed) {
            before = written.load(Ordering::Relaxed);
            (0..50).for_each(|_| client.settle());
        }
        assert!(!done.load(Ordering::Relaxed) && before <= HELD_BYTES_MAX, "{before} bytes were taken");
        client.polite = true;
        client.send(frame::window_update(0, WINDOW));
        client.send(frame::window_update(stream, WINDOW));
        let said = client.wait("all of it", |heard| heard.on(stream).filter(|said| said.whole).cloned());
        assert_eq!(said.body.len(), BYTES);
        client.send(frame::data(stream, flag::END_STREAM, b""));
        client.settle();
    });
}

fn slow_endpoint() {
    let (listener, running) = endpoint();
    let reads = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let endpoint = threads.spawn(|| {
            let mut stream = switched(&listener);
            while !reads.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let mut all = 0;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return all,
                    length => all += length as u64,
                }
            }
        });
        let mut client = Client::connect(running.address);
        let stream = client.begin(&web_socket("/first"));
        head_of(&mut client, stream);
        let sent = fill(&mut client, stream);
        let held = sent <= HELD_BYTES_MAX;
        reads.store(true, Ordering::Relaxed);
        client.send(frame::data(stream, flag::END_STREAM, b""));
        assert_eq!(endpoint.join().unwrap(), sent);
        assert!(held, "{sent} bytes were taken of which nobody read one");
    });
}

/// Sends until nothing more is taken; how much that was.
fn fill(client: &mut Client, stream: u32) -> u64 {
    let mut sent = 0u64;
    let piece = [7; FRAME_BYTES_MAX];
    let mut waited = 0;
    while sent < BYTES as u64 && waited < 100 {
        let initial = client.heard.settings.get(&setting::INITIAL_WINDOW_SIZE).copied().unwrap_or(65_535);
        let told = |stream| client.heard.windows.get(&stream).copied().unwrap_or(0);
        let room = (told(stream) + u64::from(initial)).min(told(0) + 65_535) - sent;
        if room < FRAME_BYTES_MAX as u64 {
            waited += 1;
            client.settle();
            continue;
        }
        waited = 0;
        client.send(frame::data(stream, 0, &piece));
        sent += piece.len() as u64;
    }
    sent
}

fn reset_of_full() {
    let (listener, running) = endpoint();
    let mut client = Client::connect(running.address);
    let stream = client.begin(&web_socket("/first"));
    let endpoint = switched(&listener);
    head_of(&mut client, stream);
    fill(&mut client, stream);
    client.send(frame::reset(stream, frame::code::CANCEL));
    let deadline = Instant::now() + DEADLINE;
    while endpoint.take_error().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the endpoint's connection is left as it is");
        client.settle();
    }
}
