//! RFC 9113 sections 3 to 7, as a client may keep and break them; and what HPACK refuses, on the wire.

use super::App::{Answers, Holds};
use super::Expected::{Ack, Connection, Response, Silence, Stream};
use super::*;

/// A whole GET on that stream.
fn get(stream: u32) -> Vec<u8> {
    headers(stream, WHOLE | END, GET)
}

/// A request of which a body is to come.
fn begun(stream: u32) -> Vec<u8> {
    headers(stream, WHOLE, POST)
}

fn priority(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, payload)
}

fn ping(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::PING, flags, stream, payload)
}

fn continuation(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, block)
}

fn goaway(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::GOAWAY, 0, stream, payload)
}

#[test]
fn rfc_9113_3_4_preface() {
    let check = |bytes: &[u8], expected: Result<(), Code>| {
        for pieces in [1, bytes.len()] {
            let mut tested = Tested::fresh(Answers, &Settings::default(), &Limits::default());
            let fed = bytes.chunks(pieces).try_for_each(|piece| tested.feed(piece));
            assert_eq!(fed.map_err(|error| error.code()), expected, "{}", bytes.escape_ascii());
            let written = tested.written();
            assert_eq!(written[0].kind, kind::SETTINGS, "our settings go first, whatever the client says");
            assert_eq!(written.iter().any(|frame| frame.kind == kind::GOAWAY), expected.is_err());
        }
    };
    check(&[PREFACE, &settings(&[])].concat(), Ok(()));
    check(PREFACE, Ok(()));
    check(b"INVALID CONNECTION PREFACE\r\n\r\n", Err(Code::PROTOCOL_ERROR));
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Err(Code::PROTOCOL_ERROR));
    // SETTINGS come first.
    check(&[PREFACE, &ping(0, 0, &[0; 8])].concat(), Err(Code::PROTOCOL_ERROR));
    check(&[PREFACE, &get(1)].concat(), Err(Code::PROTOCOL_ERROR));
    check(&[PREFACE, &frame(kind::SETTINGS, flag::ACK, 0, &[])].concat(), Err(Code::PROTOCOL_ERROR));
}

#[test]
fn rfc_9113_4_1_frame_format() {
    check("unknown types are ignored", Answers, &[frame(0xfa, 0xff, 0, b"junk"), get(1)], Response(1));
    check("unknown types on streams", Answers, &[begun(1), frame(0xfa, 0, 1, &[]), data(1, END, b"")], Response(1));
    check("undefined flags are ignored", Answers, &[ping(0x16 & !flag::ACK, 0, &[1; 8])], Ack(kind::PING));
    let mut reserved = ping(0, 0, &[1; 8]);
    reserved[5] |= 0x80;
    check("the reserved bit is ignored", Answers, &[reserved], Ack(kind::PING));
    let mut reserved = get(1);
    reserved[5] |= 0x80;
    check("the reserved bit on a stream", Answers, &[reserved], Response(1));
}

#[test]
fn rfc_9113_4_2_frame_size() {
    let full = vec![0; 16_384];
    check("as large as may be", Answers, &[begun(1), data(1, END, &full)], Response(1));
    let over = vec![0; 16_385];
    let error = Connection(Code::FRAME_SIZE_ERROR);
    check("DATA above the maximum", Answers, &[begun(1), data(1, END, &over)], error);
    check("HEADERS above the maximum", Answers, &[headers(1, WHOLE | END, &over)], error);
    check("an unknown type above the maximum", Answers, &[frame(0xfa, 0, 0, &over)], error);
}

#[test]
fn rfc_9113_4_3_header_blocks() {
    check(
        "a block that cannot be read",
        Answers,
        &[headers(1, WHOLE | END, &[0x40])],
        Connection(Code::COMPRESSION_ERROR),
    );
    let open = headers(1, END, GET);
    let error = Connection(Code::PROTOCOL_ERROR);
    check("PRIORITY within a block", Answers, &[open.clone(), priority(1, &[0, 0, 0, 0, 9])], error);
    check("HEADERS of another stream within", Answers, &[open.clone(), get(3)], error);
    check("an unknown frame within", Answers, &[open.clone(), frame(0xfa, 0, 0, &[])], error);
    check("PING within", Answers, &[open, ping(0, 0, &[0; 8])], error);
}

#[test]
fn rfc_9113_5_1_idle() {
    let error = Connection(Code::PROTOCOL_ERROR);
    check("DATA", Answers, &[data(1, END, b"x")], error);
    check("RST_STREAM", Answers, &[reset(1, Code::CANCEL)], error);
    check("WINDOW_UPDATE", Answers, &[window_update(1, 100)], error);
    check("CONTINUATION", Answers, &[continuation(1, WHOLE, GET)], error);
    check("PRIORITY is allowed", Answers, &[priority(1, &[0, 0, 0, 0, 15]), get(3)], Response(3));
}

#[test]
fn rfc_9113_5_1_half_closed_remote() {
    let error = Stream(1, Code::STREAM_CLOSED);
    check("DATA", Holds, &[get(1), data(1, END, b"x")], error);
    check("HEADERS", Holds, &[get(1), headers(1, WHOLE | END, GET)], error);
    check("CONTINUATION", Holds, &[get(1), continuation(1, WHOLE, GET)], Connection(Code::PROTOCOL_ERROR));
    check("WINDOW_UPDATE is allowed", Holds, &[get(1), window_update(1, 100)], Silence);
    check("PRIORITY is allowed", Holds, &[get(1), priority(1, &[0, 0, 0, 0, 15])], Silence);
    check("RST_STREAM is allowed", Holds, &[get(1), reset(1, Code::CANCEL)], Silence);
}

#[test]
fn rfc_9113_5_1_closed() {
    let cancelled = |app, frame: Vec<u8>, expected| {
        check("after RST_STREAM", app, &[begun(1), reset(1, Code::CANCEL), frame], expected)
    };
    cancelled(Holds, data(1, END, b"x"), Stream(1, Code::STREAM_CLOSED));
    cancelled(Holds, headers(1, WHOLE | END, GET), Stream(1, Code::STREAM_CLOSED));
    cancelled(Holds, continuation(1, WHOLE, GET), Connection(Code::PROTOCOL_ERROR));
    cancelled(Answers, data(1, END, b"x"), Connection(Code::STREAM_CLOSED));
    cancelled(Answers, headers(1, WHOLE | END, GET), Connection(Code::STREAM_CLOSED));
    cancelled(Answers, window_update(1, 9), Silence);
    cancelled(Answers, reset(1, Code::CANCEL), Silence);
    cancelled(Answers, priority(1, &[0, 0, 0, 0, 15]), Silence);
    let ended = |frame: Vec<u8>, code| check("after both ends", Answers, &[get(1), frame], Connection(code));
    ended(data(1, END, b"x"), Code::STREAM_CLOSED);
    ended(headers(1, WHOLE | END, GET), Code::STREAM_CLOSED);
    ended(continuation(1, WHOLE, GET), Code::PROTOCOL_ERROR);
    check("WINDOW_UPDATE after both ends", Answers, &[get(1), window_update(1, 1)], Response(1));
    check("RST_STREAM after both ends", Answers, &[get(1), reset(1, Code::CANCEL)], Response(1));
    check("PRIORITY after both ends", Answers, &[get(1), priority(1, &[0, 0, 0, 0, 15])], Response(1));
}

#[test]
fn rfc_9113_5_1_what_was_on_its_way_when_we_reset_is_ignored() {
    let mut tested = Tested::server(Holds);
    tested.feed(&begun(1)).unwrap();
    let key = tested.open[0];
    tested.connection.reset(key, Code::CANCEL);
    tested.connection.release(key);
    assert_eq!(tested.written().len(), 1);
    // Its header block is decoded all the same: the next one uses the table that it fills.
    let trailers = [0x40, 1, b'a', 1, b'b'];
    tested.feed(&[data(1, 0, b"xyz"), window_update(1, 5), headers(1, WHOLE | END, &trailers)].concat()).unwrap();
    assert_eq!(tested.written(), []);
    tested.feed(&headers(3, WHOLE | END, &[GET, &[0xbe]].concat())).unwrap();
    assert_eq!(tested.requests[1].fields.named(b"a"), Some(b"b".as_slice()));
}

#[test]
fn rfc_9113_5_1_1_stream_ids() {
    let error = Connection(Code::PROTOCOL_ERROR);
    check("an even one", Answers, &[get(2)], error);
    check("one lower than the last", Answers, &[get(5), get(3)], error);
    check("0", Answers, &[get(0)], error);
    check("some are skipped", Answers, &[get(7)], Response(7));
}

#[test]
fn rfc_9113_5_1_2_streams_at_once() {
    let mut tested = Tested::server(Holds);
    for place in 0..1024 {
        tested.feed(&begun(place * 2 + 1)).unwrap();
    }
    tested.written();
    tested.feed(&begun(2049)).unwrap();
    check_written("one too many", Ok(()), &tested.written(), Stream(2049, Code::REFUSED_STREAM));
    assert_eq!((tested.requests.len(), &tested.refused[..]), (1024, &[Refused::Full][..]));
    // One that ends makes room.
    tested.feed(&reset(1, Code::CANCEL)).unwrap();
    tested.feed(&begun(2051)).unwrap();
    assert_eq!(tested.requests.len(), 1025);
    // What the refused one sent meanwhile is ignored.
    tested.feed(&data(2049, END, b"x")).unwrap();
    assert_eq!(tested.written(), []);
}

#[test]
fn rfc_9113_5_3_a_stream_that_depends_on_itself() {
    let block = [&[0, 0, 0, 1, 255], GET].concat();
    let flags = WHOLE | END | flag::PRIORITY;
    check("HEADERS", Answers, &[headers(1, flags, &block)], Stream(1, Code::PROTOCOL_ERROR));
    check(
        "PRIORITY on an open one",
        Holds,
        &[begun(1), priority(1, &[0, 0, 0, 1, 0])],
        Stream(1, Code::PROTOCOL_ERROR),
    );
    check("PRIORITY on an idle one", Answers, &[priority(1, &[0, 0, 0, 1, 0])], Connection(Code::PROTOCOL_ERROR));
    check("on another one", Answers, &[headers(3, flags, &block)], Response(3));
}

#[test]
fn rfc_9113_5_4_1_goaway_names_the_last_stream() {
    let mut tested = Tested::server(Holds);
    tested.feed(&[get(1), get(5)].concat()).unwrap();
    tested.feed(&ping(0, 0, &[0; 6])).unwrap_err();
    let written = tested.written();
    let (numbers, words) = written[0].payload.split_at(8);
    assert_eq!(numbers, [0, 0, 0, 5, 0, 0, 0, 6]);
    assert_eq!(words, b"the peer breaks the rules of h2 (FRAME_SIZE_ERROR): PING whose length is not 8");
    let Some(Received::Reset(reset)) = tested.connection.read(tested.open[0]) else {
        assert!(matches!(tested.connection.read(tested.open[0]), Some(Received::End)), "the request was whole");
        assert_eq!(tested.connection.active_streams(), 0);
        assert!(tested.connection.is_done());
        assert_eq!(
            tested.feed(&get(7)).map_err(|error| error.code()),
            Err(Code::FRAME_SIZE_ERROR),
            "nothing more is read"
        );
        return;
    };
    panic!("{reset:?}");
}

#[test]
fn rfc_9113_6_1_data() {
    let error = Connection(Code::PROTOCOL_ERROR);
    check("on stream 0", Answers, &[data(0, END, b"x")], error);
    let padded = END | flag::PADDED;
    check("padding as long as the payload", Answers, &[begun(1), data(1, padded, &[4, 1, 2, 3])], error);
    check("padding without its length", Answers, &[begun(1), data(1, padded, &[])], error);
    check("padding", Answers, &[begun(1), data(1, padded, &[2, b'x', 0, 0])], Response(1));
    check("nothing but padding", Answers, &[begun(1), data(1, padded, &[3, 0, 0, 0])], Response(1));
}

#[test]
fn rfc_9113_6_2_headers() {
    let error = Connection(Code::PROTOCOL_ERROR);
    check("on stream 0", Answers, &[headers(0, WHOLE | END, GET)], error);
    let flags = WHOLE | END | flag::PADDED;
    check("padding longer than the payload", Answers, &[headers(1, flags, &[&[7], GET].concat())], error);
    check("padding without its length", Answers, &[headers(1, flags, &[])], Connection(Code::FRAME_SIZE_ERROR));
    check("padding", Answers, &[headers(1, flags, &[&[2], GET, &[0, 0]].concat())], Response(1));
    let flags = flags | flag::PRIORITY;
    check(
        "padding and priority",
        Answers,
        &[headers(1, flags, &[&[2, 0, 0, 0, 0, 9], GET, &[0, 0]].concat())],
        Response(1),
    );
    check(
        "half a priority",
        Answers,
        &[headers(1, WHOLE | flag::PRIORITY, &[0, 0])],
        Connection(Code::FRAME_SIZE_ERROR),
    );
}

#[test]
fn rfc_9113_6_3_priority() {
    check("on stream 0", Answers, &[priority(0, &[0; 5])], Connection(Code::PROTOCOL_ERROR));
    check("of another length", Holds, &[begun(1), priority(1, &[0; 4])], Stream(1, Code::FRAME_SIZE_ERROR));
    check("of another length, idle", Holds, &[priority(1, &[0; 6])], Connection(Code::FRAME_SIZE_ERROR));
}

#[test]
fn rfc_9113_6_4_rst_stream() {
    let cancel = Code::CANCEL.0.to_be_bytes();
    check("on stream 0", Answers, &[reset(0, Code::CANCEL)], Connection(Code::PROTOCOL_ERROR));
    check("on an idle stream", Answers, &[reset(1, Code::CANCEL)], Connection(Code::PROTOCOL_ERROR));
    let short = frame(kind::RST_STREAM, 0, 1, &cancel[..3]);
    check("of another length", Holds, &[begun(1), short], Connection(Code::FRAME_SIZE_ERROR));
}

#[test]
fn rfc_9113_6_5_settings() {
    let error = Connection(Code::FRAME_SIZE_ERROR);
    check("an acknowledgement with a payload", Answers, &[frame(kind::SETTINGS, flag::ACK, 0, &[0])], error);
    check("on a stream", Answers, &[frame(kind::SETTINGS, 0, 1, &[0; 6])], Connection(Code::PROTOCOL_ERROR));
    check("of another length", Answers, &[frame(kind::SETTINGS, 0, 0, &[0, 3, 0])], error);
    check("they are acknowledged", Answers, &[settings(&[(3, 100)])], Ack(kind::SETTINGS));
    check("an acknowledgement is not", Answers, &[frame(kind::SETTINGS, flag::ACK, 0, &[])], Silence);
}

#[test]
fn rfc_9113_6_5_2_settings_values() {
    let wrong = |entry, code| check(&format!("{entry:?}"), Answers, &[settings(&[entry])], Connection(code));
    let right = |entry| check(&format!("{entry:?}"), Answers, &[settings(&[entry])], Ack(kind::SETTINGS));
    wrong((2, 2), Code::PROTOCOL_ERROR);
    wrong((4, 1 << 31), Code::FLOW_CONTROL_ERROR);
    wrong((5, 16_383), Code::PROTOCOL_ERROR);
    wrong((5, 1 << 24), Code::PROTOCOL_ERROR);
    // RFC 8441 section 3, RFC 9218 section 2.1.
    wrong((8, 2), Code::PROTOCOL_ERROR);
    wrong((9, 2), Code::PROTOCOL_ERROR);
    right((2, 1));
    right((4, (1 << 31) - 1));
    right((5, (1 << 24) - 1));
    right((0xff, 1));
    check("no way back", Answers, &[settings(&[(8, 1)]), settings(&[(8, 0)])], Connection(Code::PROTOCOL_ERROR));
    // The last of equal ones counts.
    let mut tested = Tested::server(Answers);
    tested.feed(&[settings(&[(4, 100), (4, 1)]), get(1)].concat()).unwrap();
    let sent: Vec<usize> = tested.written().iter().filter(|f| f.kind == kind::DATA).map(|f| f.payload.len()).collect();
    assert_eq!(sent, [1]);
}

#[test]
fn rfc_9113_6_6_push_promise_is_refused() {
    let promise = frame(kind::PUSH_PROMISE, WHOLE, 1, &[&[0, 0, 0, 2], GET].concat());
    check("from a client", Holds, &[begun(1), promise], Connection(Code::PROTOCOL_ERROR));
}

#[test]
fn rfc_9113_6_7_ping() {
    let mut tested = Tested::server(Answers);
    tested.feed(&ping(0, 0, b"12345678")).unwrap();
    assert_eq!(tested.written()[0].payload, b"12345678");
    check("an answer is not answered", Answers, &[ping(flag::ACK, 0, &[0; 8])], Silence);
    check("on a stream", Answers, &[ping(0, 1, &[0; 8])], Connection(Code::PROTOCOL_ERROR));
    check("of another length", Answers, &[ping(0, 0, &[0; 6])], Connection(Code::FRAME_SIZE_ERROR));
}

#[test]
fn rfc_9113_6_8_goaway() {
    check("on a stream", Answers, &[goaway(1, &[0; 8])], Connection(Code::PROTOCOL_ERROR));
    check("too short", Answers, &[goaway(0, &[0; 7])], Connection(Code::FRAME_SIZE_ERROR));
    check("streams go on", Answers, &[begun(1), goaway(0, &[0; 20]), data(1, END, b"x")], Response(1));
}

#[test]
fn rfc_9113_6_8_a_server_leaves_in_two_steps() {
    let mut tested = Tested::server(Holds);
    tested.feed(&begun(1)).unwrap();
    let now = tested.now;
    tested.connection.shutdown(now);
    let written = tested.written();
    assert_eq!(written[0].payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(written[1].kind, kind::PING);
    // What was on its way is still taken, until the client is known to have read.
    tested.feed(&begun(3)).unwrap();
    assert_eq!(tested.written(), []);
    tested.feed(&ping(flag::ACK, 0, &written[1].payload)).unwrap();
    assert_eq!(tested.written()[0].payload, [0, 0, 0, 3, 0, 0, 0, 0]);
    tested.feed(&begun(5)).unwrap();
    check_written("refused", Ok(()), &tested.written(), Stream(5, Code::REFUSED_STREAM));
    assert!(!tested.connection.is_done());
    for key in std::mem::take(&mut tested.open) {
        tested.feed(&data(key.id, END, b"")).unwrap();
        tested.answer(key).unwrap();
    }
    assert!(tested.connection.is_done());
}

#[test]
fn rfc_9113_6_8_a_client_that_does_not_answer_is_not_waited_for() {
    let mut tested = Tested::server(Holds);
    let now = tested.now;
    tested.connection.shutdown(now);
    tested.written();
    let deadline = tested.connection.deadline().unwrap();
    tested.connection.tick(now).unwrap();
    assert_eq!(tested.written(), []);
    tested.connection.tick(deadline).unwrap();
    assert_eq!(tested.written()[0].payload, [0; 8]);
    assert!(tested.connection.is_done());
}

#[test]
fn rfc_9113_6_9_window_update() {
    let error = Code::PROTOCOL_ERROR;
    check("0 for the connection", Holds, &[window_update(0, 0)], Connection(error));
    check("0 for a stream", Holds, &[begun(1), window_update(1, 0)], Stream(1, error));
    let short = frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1]);
    check("of another length", Holds, &[short], Connection(Code::FRAME_SIZE_ERROR));
    let overflow = Code::FLOW_CONTROL_ERROR;
    let max = (1 << 31) - 1;
    check("overflow", Holds, &[window_update(0, max), window_update(0, max)], Connection(overflow));
    check(
        "overflow of a stream",
        Holds,
        &[begun(1), window_update(1, max), window_update(1, max)],
        Stream(1, overflow),
    );
}

#[test]
fn rfc_9113_6_9_2_a_changed_window() {
    let overflow = [begun(1), window_update(1, (1 << 31) - 1 - 65_535), settings(&[(4, 65_536)])];
    check("overflow by settings", Holds, &overflow, Connection(Code::FLOW_CONTROL_ERROR));
    // h2spec 6.9.2/1 and /2: a window that grows from nothing, and one that becomes negative.
    let mut tested = Tested::server(Answers);
    let sent = |tested: &mut Tested| {
        let written = tested.written();
        written.into_iter().filter(|f| f.kind == kind::DATA).map(|f| f.payload).collect::<Vec<_>>()
    };
    tested.feed(&[settings(&[(4, 3)]), get(1)].concat()).unwrap();
    assert_eq!(sent(&mut tested), [b"hel"]);
    tested.feed(&settings(&[(4, 2)])).unwrap();
    assert!(sent(&mut tested).is_empty());
    tested.feed(&window_update(1, 1)).unwrap();
    assert!(sent(&mut tested).is_empty(), "the window was at -1");
    tested.feed(&window_update(1, 1)).unwrap();
    assert_eq!(sent(&mut tested), [b"l"]);
    tested.feed(&settings(&[(4, 3)])).unwrap();
    assert_eq!(sent(&mut tested), [b"o"]);
}

#[test]
fn rfc_9113_6_10_continuation() {
    let (first, rest) = GET.split_at(3);
    let open = headers(1, END, first);
    check("one", Answers, &[open.clone(), continuation(1, WHOLE, rest)], Response(1));
    let many = [open.clone(), continuation(1, 0, &rest[..1]), continuation(1, WHOLE, &rest[1..])];
    check("several", Answers, &many, Response(1));
    let error = Connection(Code::PROTOCOL_ERROR);
    let fields = [open.clone(), continuation(1, 0, rest), data(1, END, b"x")];
    check("another frame between", Answers, &fields, error);
    check("on stream 0", Answers, &[open.clone(), continuation(0, WHOLE, rest)], error);
    check("on another stream", Answers, &[open, continuation(3, WHOLE, rest)], error);
    check("behind whole HEADERS", Answers, &[get(1), continuation(1, WHOLE, rest)], error);
    let twice = [headers(1, END, first), continuation(1, WHOLE, rest), continuation(1, WHOLE, rest)];
    check("behind the last", Answers, &twice, error);
    check("behind DATA", Answers, &[begun(1), data(1, 0, b"x"), continuation(1, WHOLE, rest)], error);
    check("within an unfinished block, alone", Answers, &[continuation(1, 0, rest)], error);
}

#[test]
fn rfc_9113_7_unknown_codes_mean_nothing_special() {
    check("GOAWAY", Answers, &[goaway(0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), get(1)], Response(1));
    check("RST_STREAM", Answers, &[begun(1), reset(1, super::Code(0xff)), get(3)], Response(3));
}

#[test]
fn rfc_7541_on_the_wire() {
    let broken = |what, lines: &[u8]| {
        let block = [GET, lines].concat();
        check(what, Answers, &[headers(1, WHOLE | END, &block)], Connection(Code::COMPRESSION_ERROR));
    };
    broken("2.3.3 an index behind both tables", &[0xc6]);
    broken("2.3.3 a name behind both tables", &[0x7f, 0x20, 0x01, b'x']);
    broken("4.2 a change of size at the end", &[0x20]);
    broken(
        "5.2 padding of more than 7 bits",
        &[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff],
    );
    broken("5.2 padding of zeros", &[0x00, 0x83, 0x1f, 0x1f, 0x1e, 0x01, b'x']);
    broken("5.2 the end-of-string symbol", &[0x00, 0x87, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'x']);
    broken("6.1 index 0", &[0x80]);
    let above = [&[0x3f, 0xe2, 0x1f], GET].concat();
    check("6.3 above the limit", Answers, &[headers(1, WHOLE | END, &above)], Connection(Code::COMPRESSION_ERROR));
    let within = [&[0x20, 0x3f, 0xe1, 0x1f], GET].concat();
    check("6.3 two changes", Answers, &[headers(1, WHOLE | END, &within)], Response(1));
    for line in [
        &[0x40, 1, b'a', 1, b'b'][..],
        &[0x00, 1, b'a', 1, b'b'],
        &[0x10, 1, b'a', 1, b'b'],
        &[0x50, 1, b'b'],
        &[0x00, 0x81, 0x1f, 0x81, 0x8f],
        &[0x40, 1, b'a', 1, b'b', 0xbe],
    ] {
        check(
            "6.1 and 6.2 every representation",
            Answers,
            &[headers(1, WHOLE | END, &[GET, line].concat())],
            Response(1),
        );
    }
}
