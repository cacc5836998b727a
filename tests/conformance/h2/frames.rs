//! Each kind of frame, as it may and may not be (RFC 9113 sections 4, 5.5, 6 and 7).

use super::client::{get, post};
use super::frame::{
    code, continuation, data, flag, frame, goaway, headers, headers_begun, kind, ping, priority, reset, setting,
    settings, settings_ack, window_update,
};
use super::hpack::{self, block};
use super::table::{Row, Wanted, answered, asked, connection, ignored, opened, posting, row, stream};

const END: u8 = flag::END_STREAM;
const PROTOCOL: u32 = code::PROTOCOL_ERROR;
const SIZE: u32 = code::FRAME_SIZE_ERROR;

pub fn rows() -> Vec<Row> {
    let all = [
        format(),
        sizes(),
        blocks(),
        data_frames(),
        head_frames(),
        priorities(),
        resets(),
        settings_frames(),
        others(),
    ];
    all.into_iter().flatten().chain(continuations()).collect()
}

fn format() -> Vec<Row> {
    let unknown = |flags, stream| frame(0x16, flags, stream, b"unknown");
    vec![
        row("9113 4.1: a kind nobody knows", [unknown(0, 0), ping(b"12345678")].concat(), ignored()),
        row("9113 5.5: a kind nobody knows, on a stream that is idle", unknown(0, 1), ignored()),
        row("9113 5.5: a kind nobody knows, with every flag", unknown(0xff, 0), ignored()),
        row("9113 5.5: the last kind there is", frame(0xff, 0, 0, &[0; 100]), ignored()),
        row(
            "9113 5.5: a kind nobody knows, on an open stream",
            [opened(1), unknown(0, 1), data(1, END, b"")].concat(),
            answered(),
        ),
        row(
            "9113 5.5: a kind nobody knows within a header block",
            [headers_begun(1, END, &block(&get("/one"))), unknown(0, 1), continuation(1, flag::END_HEADERS, b"")]
                .concat(),
            connection(PROTOCOL),
        ),
        row("9113 4.1: flags that PING does not have", frame(kind::PING, 0x16, 0, b"12345678"), ignored()),
        row("9113 4.1: flags that DATA does not have", [posting(1), data(1, 0x76 | END, b"x")].concat(), answered()),
        row("9113 4.1: flags that HEADERS do not have", headers(1, 0xd2 | END, &block(&get("/one"))), answered()),
        row(
            "9113 4.1: flags that RST_STREAM does not have",
            [opened(1), frame(kind::RST_STREAM, 0xff, 1, &[0, 0, 0, 8])].concat(),
            ignored(),
        ),
        row(
            "9113 4.1: flags that WINDOW_UPDATE does not have",
            frame(kind::WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1]),
            ignored(),
        ),
        row("9113 4.1: the bit that is reserved, in PING", frame(kind::PING, 0, 1 << 31, b"12345678"), ignored()),
        row(
            "9113 4.1: the bit that is reserved, in HEADERS",
            headers(1 | 1 << 31, END, &block(&get("/one"))),
            answered(),
        ),
        row(
            "9113 6.9: the bit that is reserved, in an increment",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1]),
            ignored(),
        ),
        row("9113 6.8: the bit that is reserved, in a last stream", goaway(1 << 31, code::NO_ERROR), Wanted::Ended),
        row("9113 5.5: a setting nobody knows", settings(&[(0xff, 1), (0xf0f0, u32::MAX)]), ignored()),
    ]
}

fn sizes() -> Vec<Row> {
    let large = vec![b'x'; 16_384];
    let too_large = vec![b'x'; 16_385];
    let either = Wanted::Stream(1, vec![SIZE]);
    let long = [block(&get("/one")), hpack::line("x-a", &"a".repeat(16_300))].concat();
    let filler = 16_384 - block(&get("/one")).len() - 7;
    let exact = [block(&get("/one")), hpack::line("x", &"a".repeat(filler))].concat();
    vec![
        row("9113 4.2: DATA of 2^14 bytes", [posting(1), data(1, END, &large)].concat(), answered()),
        row("9113 4.2: DATA of one byte more", [posting(1), data(1, END, &too_large)].concat(), either),
        row(
            "9113 4.2: HEADERS of more than 2^14 bytes",
            headers(1, END, &[exact.clone(), vec![0x82; 50]].concat()),
            connection(SIZE),
        ),
        row("9113 4.2: HEADERS of nearly 2^14 bytes", headers(1, END, &exact[..exact.len().min(16_384)]), answered()),
        row("9113 4.2: a kind nobody knows, too large", frame(0x16, 0, 0, &too_large), connection(SIZE)),
        row(
            "9113 4.2: a length of 2^24-1",
            [&[0xff, 0xff, 0xff, kind::DATA, 0, 0, 0, 0, 1][..], &large].concat(),
            Wanted::Connection(vec![SIZE, PROTOCOL]),
        ),
        row("9113 4.2: SETTINGS too large", frame(kind::SETTINGS, 0, 0, &vec![0; 6 * 2731]), connection(SIZE)),
        row(
            "9113 4.2: CONTINUATION too large",
            [headers_begun(1, END, &block(&get("/one"))), continuation(1, flag::END_HEADERS, &vec![0; 16_385])]
                .concat(),
            connection(SIZE),
        ),
        row(
            "9113 4.2: a block in two frames of the largest size",
            super::frame::long_headers(1, END, &[long, hpack::line("x-b", &"b".repeat(10_000))].concat()),
            answered(),
        ),
    ]
}

fn blocks() -> Vec<Row> {
    let begun = |stream| headers_begun(stream, END, &block(&get("/one")));
    let wrong = || connection(PROTOCOL);
    let mut rows = vec![
        row(
            "9113 4.3: a block that cannot be read",
            headers(1, END, b"\x8f\xff\xff\xff\xff\x7f"),
            connection(code::COMPRESSION_ERROR),
        ),
        row(
            "9113 4.3: a block that is cut",
            headers(1, END, &block(&get("/one"))[..20]),
            connection(code::COMPRESSION_ERROR),
        ),
        row(
            "9113 4.3: PRIORITY within a block",
            [begun(1), priority(1, 0, 255), continuation(1, flag::END_HEADERS, b"")].concat(),
            wrong(),
        ),
        row("9113 4.3: HEADERS of another stream within a block", [begun(1), asked(3)].concat(), wrong()),
        row("9113 4.3: HEADERS of the same stream within a block", [begun(1), asked(1)].concat(), wrong()),
        row("9113 4.3: DATA within a block", [begun(1), data(1, END, b"x")].concat(), wrong()),
        row("9113 4.3: PING within a block", [begun(1), ping(b"12345678")].concat(), wrong()),
        row("9113 4.3: SETTINGS within a block", [begun(1), settings(&[])].concat(), wrong()),
        row("9113 4.3: RST_STREAM within a block", [begun(1), reset(1, code::CANCEL)].concat(), wrong()),
        row("9113 4.3: WINDOW_UPDATE within a block", [begun(1), window_update(0, 1)].concat(), wrong()),
        row("9113 4.3: GOAWAY within a block", [begun(1), goaway(0, 0)].concat(), wrong()),
        row(
            "9113 4.3: CONTINUATION of another stream",
            [begun(1), continuation(3, flag::END_HEADERS, b"")].concat(),
            wrong(),
        ),
        row(
            "9113 4.3: CONTINUATION of stream 0",
            [begun(1), continuation(0, flag::END_HEADERS, b"")].concat(),
            wrong(),
        ),
    ];
    let whole = block(&get("/one"));
    for at in [0, 1, 2, whole.len() / 2, whole.len() - 1] {
        let (first, rest) = whole.split_at(at);
        rows.push(row(
            format!("9113 4.3: a block that is cut behind {at} bytes"),
            [headers_begun(1, END, first), continuation(1, flag::END_HEADERS, rest)].concat(),
            answered(),
        ));
    }
    rows
}

fn data_frames() -> Vec<Row> {
    let padded = |flags, payload: &[u8]| [posting(1), data(1, flags | flag::PADDED, payload)].concat();
    vec![
        row("9113 6.1: DATA", [posting(1), data(1, END, b"hello")].concat(), answered()),
        row(
            "9113 6.1: several DATA",
            [posting(1), data(1, 0, b"he"), data(1, 0, b"l"), data(1, END, b"lo")].concat(),
            answered(),
        ),
        row("9113 6.1: DATA with padding", padded(END, b"\x06hello\0\0\0\0\0\0"), answered()),
        row("9113 6.1: DATA with padding of no length", padded(END, b"\0hello"), answered()),
        row("9113 6.1: DATA of padding alone", padded(END, b"\x04\0\0\0\0"), answered()),
        row("9113 6.1: padding that is not of zeros", padded(END, b"\x03hellox\0y"), Wanted::Answered(vec![1])),
        row("9113 6.1: DATA on stream 0", data(0, END, b"hello"), connection(PROTOCOL)),
        row("9113 6.1: more padding than payload", padded(END, b"\x06hello"), connection(PROTOCOL)),
        row("9113 6.1: as much padding as payload", padded(END, b"\x05hell"), connection(PROTOCOL)),
        row("9113 6.1: no length of padding", padded(END, b""), Wanted::Connection(vec![PROTOCOL, SIZE])),
        row("9113 5.1.1: DATA on a stream of the server's", data(2, END, b"x"), connection(PROTOCOL)),
    ]
}

fn head_frames() -> Vec<Row> {
    let one = block(&get("/one"));
    let with = |flags: u8, front: &[u8], back: &[u8]| headers(1, END | flags, &[front, &one, back].concat());
    vec![
        row("9113 6.2: HEADERS", asked(1), answered()),
        row("9113 6.2: HEADERS with padding", with(flag::PADDED, &[6], &[0; 6]), answered()),
        row("9113 6.2: HEADERS with padding of no length", with(flag::PADDED, &[0], &[]), answered()),
        row("9113 6.2: HEADERS with a priority", with(flag::PRIORITY, &[0, 0, 0, 0, 200], &[]), answered()),
        row("9113 6.2: HEADERS with an exclusive priority", with(flag::PRIORITY, &[0x80, 0, 0, 9, 0], &[]), answered()),
        row(
            "9113 6.2: HEADERS with both",
            with(flag::PRIORITY | flag::PADDED, &[3, 0, 0, 0, 0, 200], &[0; 3]),
            answered(),
        ),
        row("9113 6.2: HEADERS on stream 0", asked(0), connection(PROTOCOL)),
        row(
            "9113 6.2: more padding than payload",
            headers(1, END | flag::PADDED, &[&[200], &one[..]].concat()),
            connection(PROTOCOL),
        ),
        row(
            "9113 6.2: padding up to within the priority",
            headers(1, END | flag::PADDED | flag::PRIORITY, &[3, 0, 0, 0, 0, 200]),
            Wanted::Connection(vec![PROTOCOL, SIZE]),
        ),
        row(
            "9113 6.2: no room for the priority",
            headers(1, END | flag::PRIORITY, &[0, 0, 0]),
            Wanted::Connection(vec![PROTOCOL, SIZE]),
        ),
        row(
            "9113 6.2: no length of padding",
            headers(1, END | flag::PADDED, &[]),
            Wanted::Connection(vec![PROTOCOL, SIZE]),
        ),
        row(
            "9113 5.3.1: HEADERS that depend on their own stream",
            with(flag::PRIORITY, &[0, 0, 0, 1, 200], &[]),
            stream(PROTOCOL),
        ),
        row(
            "9113 6.2: a body behind HEADERS in CONTINUATION",
            [
                headers_begun(1, 0, &block(&post("/one"))),
                continuation(1, flag::END_HEADERS, &hpack::line("x", "1")),
                data(1, END, b"hello"),
            ]
            .concat(),
            answered(),
        ),
    ]
}

fn priorities() -> Vec<Row> {
    vec![
        row(
            "9113 6.3: PRIORITY of an idle stream, and its HEADERS",
            [priority(1, 0, 255), asked(1)].concat(),
            answered(),
        ),
        row(
            "9113 6.3: PRIORITY of an open stream",
            [opened(1), priority(1, 0, 0), data(1, END, b"")].concat(),
            answered(),
        ),
        row("9113 6.3: PRIORITY of a half-closed stream", [asked(1), priority(1, 3, 16)].concat(), answered()),
        row(
            "9113 6.3: PRIORITY of a stream that was reset",
            [opened(1), reset(1, code::CANCEL), priority(1, 0, 1)].concat(),
            ignored(),
        ),
        row("9113 6.3: PRIORITY of a high stream opens none", [priority(501, 0, 1), asked(1)].concat(), answered()),
        row("9113 6.3: exclusive PRIORITY", [priority(1, 1 << 31 | 3, 1), asked(1)].concat(), answered()),
        row("9113 6.3: PRIORITY on stream 0", priority(0, 1, 255), connection(PROTOCOL)),
        row(
            "9113 6.3: PRIORITY of 4 bytes",
            [opened(1), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1])].concat(),
            stream(SIZE),
        ),
        row(
            "9113 6.3: PRIORITY of 6 bytes",
            [opened(1), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1, 1])].concat(),
            stream(SIZE),
        ),
        row(
            "9113 6.3: PRIORITY of nothing, of an idle stream",
            frame(kind::PRIORITY, 0, 1, &[]),
            Wanted::Stream(1, vec![SIZE]),
        ),
        row(
            "9113 5.3.1: PRIORITY of a stream that depends on itself",
            [opened(1), priority(1, 1, 255)].concat(),
            stream(PROTOCOL),
        ),
        row("9113 5.3.1: the same, of an idle stream", priority(1, 1, 255), Wanted::Stream(1, vec![PROTOCOL])),
    ]
}

fn resets() -> Vec<Row> {
    vec![
        row("9113 6.4: RST_STREAM", [opened(1), reset(1, code::CANCEL)].concat(), ignored()),
        row("9113 6.4: RST_STREAM without an error", [opened(1), reset(1, code::NO_ERROR)].concat(), ignored()),
        row("9113 7: RST_STREAM with a code nobody knows", [opened(1), reset(1, 0xff)].concat(), ignored()),
        row(
            "9113 6.4: RST_STREAM twice",
            [opened(1), reset(1, code::CANCEL), reset(1, code::CANCEL)].concat(),
            ignored(),
        ),
        row("9113 6.4: RST_STREAM on stream 0", reset(0, code::CANCEL), connection(PROTOCOL)),
        row("9113 6.4: RST_STREAM on an idle stream", reset(1, code::CANCEL), connection(PROTOCOL)),
        row("9113 6.4: RST_STREAM on an idle stream of the server's", reset(2, code::CANCEL), connection(PROTOCOL)),
        row(
            "9113 6.4: RST_STREAM of 3 bytes",
            [opened(1), frame(kind::RST_STREAM, 0, 1, &[0, 0, 8])].concat(),
            connection(SIZE),
        ),
        row(
            "9113 6.4: RST_STREAM of 5 bytes",
            [opened(1), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8, 0])].concat(),
            connection(SIZE),
        ),
        row(
            "9113 6.4: RST_STREAM of nothing",
            [opened(1), frame(kind::RST_STREAM, 0, 1, &[])].concat(),
            connection(SIZE),
        ),
    ]
}

fn settings_frames() -> Vec<Row> {
    let entry = |name, value| settings(&[(name, value)]);
    vec![
        row("9113 6.5: SETTINGS of nothing", settings(&[]), ignored()),
        row("9113 6.5: an acknowledgement", settings_ack(), ignored()),
        row(
            "9113 6.5: an acknowledgement with a payload",
            frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            connection(SIZE),
        ),
        row("9113 6.5: an acknowledgement with one byte", frame(kind::SETTINGS, flag::ACK, 0, &[0]), connection(SIZE)),
        row("9113 6.5: SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]), connection(PROTOCOL)),
        row("9113 6.5: an acknowledgement on a stream", frame(kind::SETTINGS, flag::ACK, 1, &[]), connection(PROTOCOL)),
        row("9113 6.5: SETTINGS of 3 bytes", frame(kind::SETTINGS, 0, 0, &[0, 3, 0]), connection(SIZE)),
        row("9113 6.5: SETTINGS of 7 bytes", frame(kind::SETTINGS, 0, 0, &[0; 7]), connection(SIZE)),
        row("9113 6.5.2: ENABLE_PUSH of 0", entry(setting::ENABLE_PUSH, 0), ignored()),
        row("9113 6.5.2: ENABLE_PUSH of 1", entry(setting::ENABLE_PUSH, 1), ignored()),
        row("9113 6.5.2: ENABLE_PUSH of 2", entry(setting::ENABLE_PUSH, 2), connection(PROTOCOL)),
        row("9113 6.5.2: INITIAL_WINDOW_SIZE of 2^31-1", entry(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1), ignored()),
        row(
            "9113 6.5.2: INITIAL_WINDOW_SIZE of 2^31",
            entry(setting::INITIAL_WINDOW_SIZE, 1 << 31),
            connection(code::FLOW_CONTROL_ERROR),
        ),
        row("9113 6.5.2: MAX_FRAME_SIZE of 2^14-1", entry(setting::MAX_FRAME_SIZE, 16_383), connection(PROTOCOL)),
        row("9113 6.5.2: MAX_FRAME_SIZE of 2^24-1", entry(setting::MAX_FRAME_SIZE, (1 << 24) - 1), ignored()),
        row("9113 6.5.2: MAX_FRAME_SIZE of 2^24", entry(setting::MAX_FRAME_SIZE, 1 << 24), connection(PROTOCOL)),
        row("9113 6.5.2: MAX_CONCURRENT_STREAMS of 0", entry(setting::MAX_CONCURRENT_STREAMS, 0), ignored()),
        row(
            "9113 6.5.2: HEADER_TABLE_SIZE of 0",
            [entry(setting::HEADER_TABLE_SIZE, 0), asked(1), asked(3)].concat(),
            Wanted::Answered(vec![1, 3]),
        ),
        row("9113 6.5.2: HEADER_TABLE_SIZE of 4096", entry(setting::HEADER_TABLE_SIZE, 4096), ignored()),
        row(
            "9113 6.5.2: a good value, then a bad one",
            settings(&[(setting::MAX_FRAME_SIZE, 16_384), (setting::ENABLE_PUSH, 7)]),
            connection(PROTOCOL),
        ),
        row("9113 6.5.2: MAX_HEADER_LIST_SIZE", entry(setting::MAX_HEADER_LIST_SIZE, 8192), ignored()),
    ]
}

fn others() -> Vec<Row> {
    let promise = [&[0, 0, 0, 2][..], &block(&get("/one"))].concat();
    vec![
        row(
            "9113 6.6: PUSH_PROMISE of a client",
            frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise),
            connection(PROTOCOL),
        ),
        row(
            "9113 8.4: PUSH_PROMISE on an open stream",
            [opened(1), frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise)].concat(),
            connection(PROTOCOL),
        ),
        row(
            "9113 6.6: PUSH_PROMISE on stream 0",
            frame(kind::PUSH_PROMISE, flag::END_HEADERS, 0, &promise),
            connection(PROTOCOL),
        ),
        row("9113 6.7: PING", ping(b"h2 tests"), ignored()),
        row("9113 6.7: an answer to a PING that was not sent", frame(kind::PING, flag::ACK, 0, b"invented"), ignored()),
        row("9113 6.7: PING on a stream", frame(kind::PING, 0, 1, &[0; 8]), connection(PROTOCOL)),
        row("9113 6.7: PING of 6 bytes", frame(kind::PING, 0, 0, &[0; 6]), connection(SIZE)),
        row("9113 6.7: PING of 9 bytes", frame(kind::PING, 0, 0, &[0; 9]), connection(SIZE)),
        row("9113 6.7: PING of nothing", frame(kind::PING, 0, 0, &[]), connection(SIZE)),
        row("9113 6.7: an answer to PING of 7 bytes", frame(kind::PING, flag::ACK, 0, &[0; 7]), connection(SIZE)),
        row("9113 6.8: GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), connection(PROTOCOL)),
        row("9113 6.8: GOAWAY of 7 bytes", frame(kind::GOAWAY, 0, 0, &[0; 7]), connection(SIZE)),
        row("9113 6.9: WINDOW_UPDATE of the connection", window_update(0, 1), ignored()),
        row(
            "9113 6.9: WINDOW_UPDATE of an open stream",
            [opened(1), window_update(1, 100), data(1, END, b"")].concat(),
            answered(),
        ),
        row("9113 6.9: WINDOW_UPDATE of 0, of the connection", window_update(0, 0), connection(PROTOCOL)),
        row("9113 6.9: WINDOW_UPDATE of 0, of a stream", [opened(1), window_update(1, 0)].concat(), stream(PROTOCOL)),
        row("9113 6.9: WINDOW_UPDATE of 3 bytes", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1]), connection(SIZE)),
        row(
            "9113 6.9: WINDOW_UPDATE of 5 bytes, of a stream",
            [opened(1), frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1, 0])].concat(),
            connection(SIZE),
        ),
        row("9113 6.9: WINDOW_UPDATE of an idle stream", window_update(1, 1), connection(PROTOCOL)),
    ]
}

fn continuations() -> Vec<Row> {
    let whole = block(&get("/one"));
    let (first, rest) = whole.split_at(whole.len() / 2);
    let (second, third) = rest.split_at(rest.len() / 2);
    let begun = headers_begun(1, END, first);
    vec![
        row(
            "9113 6.10: one CONTINUATION",
            [&begun[..], &continuation(1, flag::END_HEADERS, rest)].concat(),
            answered(),
        ),
        row(
            "9113 6.10: two CONTINUATION",
            [&begun[..], &continuation(1, 0, second), &continuation(1, flag::END_HEADERS, third)].concat(),
            answered(),
        ),
        row(
            "9113 6.10: empty CONTINUATION between",
            [&begun[..], &continuation(1, 0, b""), &continuation(1, flag::END_HEADERS, rest)].concat(),
            answered(),
        ),
        row(
            "9113 6.10: CONTINUATION behind a whole block",
            [asked(1), continuation(1, flag::END_HEADERS, rest)].concat(),
            connection(PROTOCOL),
        ),
        row(
            "9113 6.10: CONTINUATION behind the last CONTINUATION",
            [&begun[..], &continuation(1, flag::END_HEADERS, rest), &continuation(1, flag::END_HEADERS, b"")].concat(),
            connection(PROTOCOL),
        ),
        row(
            "9113 6.10: CONTINUATION behind DATA",
            [posting(1), data(1, 0, b"x"), continuation(1, flag::END_HEADERS, rest)].concat(),
            connection(PROTOCOL),
        ),
        row(
            "9113 6.10: CONTINUATION of an idle stream",
            continuation(1, flag::END_HEADERS, &whole),
            connection(PROTOCOL),
        ),
        row("9113 6.10: CONTINUATION on stream 0", continuation(0, flag::END_HEADERS, &whole), connection(PROTOCOL)),
        row(
            "9113 6.10: another frame behind CONTINUATION",
            [&begun[..], &continuation(1, 0, second), &data(1, 0, b"x")].concat(),
            connection(PROTOCOL),
        ),
    ]
}
