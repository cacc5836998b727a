//! What an h2 peer may send, to a server and to a client: raw bytes, or frames whose payloads are. Nothing panics, the windows add up at
//! every step, what is kept and what is answered stays small, and a broken connection stays broken.
#![no_main]

use std::time::Instant;

use http::{Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use mesh_proxy::h2::frame::PREFACE;
use mesh_proxy::h2::{Code, Connection, Event, Limits, Received, Settings, StreamKey};
use mesh_proxy::message::fields::Fields;
use mesh_proxy::message::{RequestHead, ResponseHead};

const STREAMS_MAX: u32 = 8;

fuzz_target!(|bytes: &[u8]| {
    let [mode, choices @ ..] = bytes else { return };
    let now = Instant::now();
    let settings = Settings { connection_window_bytes: 70_000, ..Settings::default() };
    let limits = Limits { streams_max: STREAMS_MAX, head_bytes_max: 4096, ..Limits::default() };
    let is_server = mode & 1 == 0;
    let mut connection = match is_server {
        true => Connection::server(&settings, &limits, now),
        false => Connection::client(&settings, &limits, now),
    };
    let mut keys = Vec::new();
    if mode & 2 == 0 {
        let preface = if is_server { PREFACE } else { &[] };
        connection.receive(&[preface, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat(), now).expect("a preface");
    }
    if !is_server {
        let mut head = RequestHead::new(Method::POST, Version::HTTP_11, b"/", Fields::default());
        head.set_authority(b"a");
        for end in [true, false, false] {
            keys.extend(connection.send_request(&head, end, now));
        }
    }
    let input = if mode & 4 == 0 { framed(choices) } else { choices.to_vec() };
    let pieces = 1 + usize::from(mode >> 3) * 5;
    for piece in input.chunks(pieces) {
        let failed = connection.failed();
        let result = connection.receive(piece, now);
        assert!(failed.is_none() || result == failed.map_or(Ok(()), Err), "a broken connection works again");
        act(&mut connection, &mut keys, piece[0]);
        assert!(connection.unread_bytes() <= 70_000 && connection.active_streams() <= STREAMS_MAX as usize);
        if result.is_ok() {
            connection.check_invariants();
        }
        let waiting = connection.output().len();
        // A client that reads nothing is owed answers, refusals, and what its streams were sent.
        assert!(waiting < 1 << 20, "{waiting} bytes wait");
    }
    connection.break_off();
    for key in keys {
        assert!(!matches!(connection.read(key), None), "nobody will wake whoever waits for this");
        connection.release(key);
    }
    assert_eq!((connection.active_streams(), connection.unread_bytes()), (0, 0));
});

/// Frames with a short payload each: type, flags, stream, length, payload.
fn framed(mut choices: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [kind, flags, stream, length, rest @ ..] = choices {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        frames.extend([0, 0, payload.len() as u8, kind % 12, *flags, 0, 0, 0, stream % 32]);
        frames.extend(payload);
        choices = rest;
    }
    frames
}

/// What an application might do next.
fn act(connection: &mut Connection, keys: &mut Vec<StreamKey>, choice: u8) {
    while let Some(event) = connection.next_event() {
        if let Event::Request { stream, head } = event {
            assert!(!head.method.as_str().is_empty());
            keys.push(stream);
        }
    }
    let Some(key) = keys.get(usize::from(choice) % keys.len().max(1)).copied() else { return };
    match choice % 7 {
        0..3 => {
            while let Some(received) = connection.read(key) {
                if matches!(received, Received::End | Received::Reset(_)) {
                    break;
                }
            }
        }
        3 => {
            let fields = [("content-type", "text/plain")].into_iter().collect();
            let _ = connection.send_response(key, &ResponseHead::new(StatusCode::OK, Version::HTTP_11, fields), false);
        }
        4 if connection.has_room(key) => {
            let _ = connection.send_data(key, vec![choice; usize::from(choice) * 20].into(), choice & 8 != 0);
        }
        5 => connection.reset(key, Code::CANCEL),
        6 => {
            connection.release(key);
            keys.retain(|kept| *kept != key);
        }
        _ => {
            let output = connection.output();
            let waiting = output.len();
            output.advance(waiting.min(usize::from(choice) * 16));
        }
    }
}
