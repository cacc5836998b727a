//! A connection in the hands of a peer that is made of bytes.

mod client; // what servers may and may not say
mod drive; // on sockets, with the h2 crate at the other end
mod floods; // limits
mod flow; // windows, turns, and memory
mod messages; // RFC 9113 section 8: which messages are malformed
mod pair; // two connections, through random chunks
mod server; // RFC 9113 sections 3 to 7, as a client may break them

use std::time::Instant;

use bytes::Bytes;
use http::{StatusCode, Version};

use super::frame::{FrameHeader, HEADER_BYTES, PREFACE, flag, kind};
use super::hpack::decoder::Decoder;
use super::*;
use crate::message::fields::Fields;
use crate::message::{Frame, RequestHead, ResponseHead};

/// `GET http://x/`, with nothing that the table remembers.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'x'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 0x01, b'x'];
const OK: &[u8] = &[0x88];

const END: u8 = flag::END_STREAM;
const WHOLE: u8 = flag::END_HEADERS;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { length: payload.len(), kind, flags, stream };
    [&header.bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block)
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(kind::SETTINGS, 0, 0, &entries.iter().flat_map(entry).collect::<Vec<u8>>())
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32, code: Code) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

/// A literal that no table remembers.
fn line(name: &str, value: &str) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    [&[0x00, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| line(name, value)).collect()
}

/// One frame that a connection wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Cuts what was written into frames.
fn frames(mut bytes: &[u8]) -> Vec<Written> {
    let mut all = Vec::new();
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::read(header);
        let (payload, rest) = rest.split_at(header.length);
        all.push(Written { kind: header.kind, flags: header.flags, stream: header.stream, payload: payload.to_vec() });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame was written");
    all
}

/// Takes everything out of the output.
fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let output = connection.output();
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let filled = output.slices(&mut slices);
        if filled == 0 {
            return all;
        }
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        output.advance(bytes.len());
        all.extend(bytes);
    }
}

/// What a server's application does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum App {
    /// Answers with 200 and five bytes, as soon as the request is whole.
    Answers,
    /// Holds it, and reads nothing.
    Holds,
}

/// A connection under test, and its application.
struct Tested {
    connection: Connection,
    app: App,
    open: Vec<StreamKey>,
    requests: Vec<RequestHead>,
    refused: Vec<Refused>,
    now: Instant,
}

impl Tested {
    /// A server that has read the preface and the client's empty settings, and whose own have been written.
    fn server(app: App) -> Self {
        let mut tested = Self::fresh(app, &Settings::default(), &Limits::default());
        tested.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
        drain(&mut tested.connection);
        tested
    }

    fn fresh(app: App, settings: &Settings, limits: &Limits) -> Self {
        let now = Instant::now();
        let connection = Connection::server(settings, limits, now);
        Self { connection, app, open: Vec::new(), requests: Vec::new(), refused: Vec::new(), now }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let result = self.connection.receive(bytes, self.now);
        self.run();
        if result.is_ok() {
            self.connection.check_invariants();
        }
        result
    }

    fn run(&mut self) {
        while let Some(event) = self.connection.next_event() {
            match event {
                Event::Request { stream, head } => {
                    self.open.push(stream);
                    self.requests.push(head);
                }
                Event::Refused(refused) => self.refused.push(refused),
                _ => {}
            }
        }
        if self.app == App::Answers {
            for key in std::mem::take(&mut self.open) {
                if self.answer(key).is_none() {
                    self.open.push(key);
                }
            }
        }
    }

    /// Reads what there is, and answers a request that is whole.
    fn answer(&mut self, key: StreamKey) -> Option<()> {
        loop {
            match self.connection.read(key)? {
                Received::Frame(_) => {}
                Received::End => break,
                other => {
                    assert!(matches!(other, Received::Reset(_)), "{other:?}");
                    self.connection.release(key);
                    return Some(());
                }
            }
        }
        let head = ResponseHead::new(StatusCode::OK, Version::HTTP_2, Fields::default());
        if self.connection.send_response(key, &head, false).is_ok() {
            self.connection.send_data(key, Bytes::from_static(b"hello"), true).unwrap();
        }
        self.connection.release(key);
        Some(())
    }

    fn written(&mut self) -> Vec<Written> {
        frames(&drain(&mut self.connection))
    }
}

/// What must come of what a client sent.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// GOAWAY, and the end.
    Connection(Code),
    /// RST_STREAM, and the connection lives.
    Stream(u32, Code),
    /// A response on that stream, whole.
    Response(u32),
    /// A response head with that status on stream 1.
    Status(u16),
    /// An acknowledgement of that type.
    Ack(u8),
    /// Nothing is written, and the connection lives.
    Silence,
}

/// Feeds a server, frame by frame and byte by byte, and looks at what it writes.
fn check(section: &str, app: App, sent: &[Vec<u8>], expected: Expected) {
    for pieces in [usize::MAX, 1, 7] {
        let mut tested = Tested::server(app);
        let mut result = Ok(());
        for piece in sent.iter().flat_map(|frame| frame.chunks(pieces)) {
            result = tested.feed(piece);
            if result.is_err() {
                break;
            }
        }
        check_written(&format!("{section}, in pieces of {pieces}"), result, &tested.written(), expected);
    }
}

fn check_written(section: &str, result: Result<(), ConnectionError>, written: &[Written], expected: Expected) {
    let of = |kind: u8| written.iter().filter(move |frame| frame.kind == kind);
    let code =
        |frame: &Written, place: usize| Code(u32::from_be_bytes(frame.payload[place..][..4].try_into().unwrap()));
    if !matches!(expected, Expected::Connection(_)) {
        assert_eq!(result, Ok(()), "{section}");
    }
    match expected {
        Expected::Connection(expected) => {
            assert_eq!(result.map_err(|error| error.code()), Err(expected), "{section}");
            assert_eq!(of(kind::GOAWAY).map(|frame| code(frame, 4)).collect::<Vec<_>>(), [expected], "{section}");
        }
        Expected::Stream(id, expected) => {
            let resets: Vec<_> = of(kind::RST_STREAM).map(|frame| (frame.stream, code(frame, 0))).collect();
            assert_eq!(resets, [(id, expected)], "{section}: {written:?}");
        }
        Expected::Response(id) => {
            let body: Vec<&Written> = of(kind::DATA).collect();
            assert_eq!(of(kind::HEADERS).map(|frame| frame.stream).collect::<Vec<_>>(), [id], "{section}: {written:?}");
            assert_eq!(body.iter().map(|frame| frame.payload.len()).sum::<usize>(), 5, "{section}");
            assert!(body.last().is_some_and(|frame| frame.flags == END && frame.stream == id), "{section}");
        }
        Expected::Status(expected) => {
            let head = of(kind::HEADERS).next().unwrap_or_else(|| panic!("{section}: {written:?}"));
            let mut status = Vec::new();
            Decoder::new(4096).decode(&head.payload, |line| status = line.value.to_vec()).unwrap();
            assert_eq!(status, expected.to_string().as_bytes(), "{section}");
        }
        Expected::Ack(expected) => {
            assert_eq!(of(expected).map(|frame| frame.flags).collect::<Vec<_>>(), [flag::ACK], "{section}");
        }
        Expected::Silence => assert_eq!(written, [], "{section}"),
    }
}

/// Everything that can be read of a stream at the moment.
fn read_all(connection: &mut Connection, key: StreamKey) -> (Vec<u8>, Vec<Received>) {
    let (mut body, mut others) = (Vec::new(), Vec::new());
    while let Some(received) = connection.read(key) {
        match received {
            Received::Frame(Frame::Data(data)) => body.extend_from_slice(&data),
            Received::End | Received::Reset(_) => {
                others.push(received);
                break;
            }
            other => others.push(other),
        }
    }
    (body, others)
}
