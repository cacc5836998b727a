//! Requests of h2, written as HTTP/1.1: what a server of ours takes is one request to a strict reader, says what it said before, and
//! nothing of it becomes a line of its own. The same the other way round for responses and trailers.
#![no_main]

use std::time::Instant;

use http::{Method, Version};
use libfuzzer_sys::fuzz_target;
use mesh_proxy::h1::framing::{self, Length};
use mesh_proxy::h1::head::{HeadLimits, Scan};
use mesh_proxy::h1::write;
use mesh_proxy::h2::frame::PREFACE;
use mesh_proxy::h2::head::join_cookies;
use mesh_proxy::h2::{Connection, Event, Limits, Received, Settings};
use mesh_proxy::message::fields::Fields;
use mesh_proxy::message::name::Name;
use mesh_proxy::message::{RequestHead, ResponseHead};

const LIMITS: HeadLimits = HeadLimits { bytes_max: 1 << 20, fields_max: 4096 };
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

fuzz_target!(|bytes: &[u8]| {
    let [mode, text @ ..] = bytes else { return };
    let block = if mode & 2 == 0 { lines(text) } else { text.to_vec() };
    let frame = headers(&block[..block.len().min(16_000)]);
    if mode & 1 == 0 { check_request(&frame) } else { check_response(&frame) }
});

/// HEADERS of stream 1 that end it.
fn headers(block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u32).to_be_bytes();
    [&length[1..], &[1, 0x5, 0, 0, 0, 1], block].concat()
}

/// `name NUL NUL value NUL NUL ...` as literals; a value may hold anything else.
fn lines(text: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut words = text.split(|byte| *byte == 0xff);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        block.push(0);
        for word in [name, value] {
            let word = &word[..word.len().min(126)];
            block.push(word.len() as u8);
            block.extend(word);
        }
    }
    block
}

fn check_request(frame: &[u8]) {
    let now = Instant::now();
    let mut server = Connection::server(&Settings::default(), &Limits::default(), now);
    server.receive(&[PREFACE, &SETTINGS].concat(), now).expect("a preface");
    let _ = server.receive(frame, now);
    while let Some(event) = server.next_event() {
        let Event::Request { mut head, .. } = event else { continue };
        if head.method == Method::CONNECT {
            continue;
        }
        join_cookies(&mut head.fields);
        let authority = head.authority().or_else(|| head.fields.get(Name::Host)).expect("one of both").to_vec();
        let mut written = Vec::new();
        write::request(&mut written, &head, &authority, Length::None);
        // Whatever follows is the next request's.
        let behind = written.len();
        written.extend(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n");
        let read = Scan::default().request(&written, LIMITS).expect("what was taken is well-formed").expect("it is whole");
        assert_eq!(read.length, behind);
        check_same(&head, &read.head, &authority);
    }
}

fn check_same(sent: &RequestHead, read: &RequestHead, authority: &[u8]) {
    assert_eq!((&sent.method, sent.path()), (&read.method, read.path()));
    assert_eq!(read.fields.all(Name::Host).collect::<Vec<_>>(), [authority]);
    assert!(matches!(framing::of_request(read), Ok(Length::None | Length::Sized(0))), "{:?}", framing::of_request(read));
    assert_eq!(own(&sent.fields), own(&read.fields));
}

/// Fields, without what frames a message.
fn own(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    let framing = [Name::Host, Name::ContentLength, Name::TransferEncoding];
    let kept = fields.iter().filter(|field| !framing.contains(&field.name));
    kept.map(|field| (field.letters, field.value)).collect()
}

fn check_response(frame: &[u8]) {
    let now = Instant::now();
    let mut client = Connection::client(&Settings::default(), &Limits::default(), now);
    client.receive(&SETTINGS, now).expect("settings");
    let mut head = RequestHead::new(Method::GET, Version::HTTP_11, b"/", Fields::default());
    head.set_authority(b"a");
    let key = client.send_request(&head, true, now).expect("there is room");
    let _ = client.receive(frame, now);
    while let Some(received) = client.read(key) {
        match received {
            Received::Head(head) => check_head(&head),
            Received::End | Received::Reset(_) => break,
            Received::Frame(_) => {}
        }
    }
}

fn check_head(head: &ResponseHead) {
    let mut written = Vec::new();
    write::response(&mut written, head, Length::Sized(0), None);
    let behind = written.len();
    written.extend(b"HTTP/1.1 200 OK\r\n\r\n");
    let read = Scan::default().response(&written, LIMITS).expect("what was taken is well-formed").expect("it is whole");
    assert_eq!((read.length, read.head.status), (behind, head.status));
    assert_eq!(own(&head.fields), own(&read.head.fields));
}
