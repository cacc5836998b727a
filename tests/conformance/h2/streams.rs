//! What may come in which state of a stream, and how a connection begins and ends (RFC 9113 sections 3.4, 5 and 6.8).

use super::client::{Client, get, post};
use super::frame::{
    PREFACE, code, continuation, data, flag, frame, goaway, headers, kind, ping, priority, reset, setting, settings,
    settings_ack, window_update,
};
use super::hpack::{self, block};
use super::table::{Row, Scenario, Wanted, answered, asked, connection, ignored, opened, posting, row, stream};
use crate::world::World;

const END: u8 = flag::END_STREAM;
const CLOSED: u32 = code::STREAM_CLOSED;
const PROTOCOL: u32 = code::PROTOCOL_ERROR;

pub fn rows() -> Vec<Row> {
    [idle(), half_closed(), closed(), identifiers()].into_iter().flatten().collect()
}

pub const SCENARIOS: &[Scenario] = &[
    ("9113 3.4: the proxy's first frame is SETTINGS, before it has heard anything of ours", first_frame),
    ("9113 3.4: SETTINGS behind the preface may be missing for a while", late_settings),
    ("9113 3.4: what is no preface ends the connection without an answer", no_preface),
    ("9113 3.4: a preface with another end", half_a_preface),
    ("9113 3.4: a first frame other than SETTINGS", no_settings),
    ("9113 3.4: an acknowledgement is no greeting", acknowledged_first),
    ("9113 3.4: requests in one write with the preface", all_at_once),
    ("9113 6.5.3: every SETTINGS is acknowledged, in order", acknowledged),
    ("9113 6.7: PING is answered with what it carried", pings),
    ("9113 6.7: PING is answered while a request is under way", ping_meanwhile),
    ("9113 5.1: frames on a stream behind its whole exchange", behind_the_end),
    ("9113 5.1: RST_STREAM, PRIORITY and WINDOW_UPDATE behind a whole exchange mean nothing", harmless_behind_the_end),
    ("9113 5.1: a reset of the proxy's crosses frames of the client's", crossing),
    ("9113 5.1.2: more streams than are allowed are refused, and others go on", concurrency),
    ("9113 5.4.1: GOAWAY tells the last stream that was looked at", last_stream),
    ("9113 6.8: a client's GOAWAY ends what it has not begun", client_leaves),
    ("9113 7: a client's GOAWAY with a code nobody knows", client_leaves_strangely),
    ("9113 9.1: a connection that ends orderly between requests", end_between),
    ("9113 8.1: a client that ends its side within a request", end_within),
    ("9113 5.1: many streams at once, each with its own answer", many),
    ("9113 5.1: answers in another order than the requests", out_of_order),
];

fn idle() -> Vec<Row> {
    vec![
        row("9113 5.1: DATA on an idle stream", data(1, END, b"test"), connection(PROTOCOL)),
        row("9113 5.1: RST_STREAM on an idle stream", reset(1, code::CANCEL), connection(PROTOCOL)),
        row("9113 5.1: WINDOW_UPDATE on an idle stream", window_update(1, 100), connection(PROTOCOL)),
        row(
            "9113 5.1: CONTINUATION on an idle stream",
            continuation(1, flag::END_HEADERS, &block(&get("/one"))),
            connection(PROTOCOL),
        ),
        row("9113 5.1: PRIORITY on an idle stream", priority(7, 0, 9), ignored()),
        row(
            "9113 5.1: DATA on an idle stream above others",
            [asked(1), data(3, END, b"x")].concat(),
            connection(PROTOCOL),
        ),
    ]
}

fn half_closed() -> Vec<Row> {
    let closed = || Wanted::Stream(1, vec![CLOSED]);
    let block = block(&get("/one"));
    vec![
        row("9113 5.1: DATA on a half-closed stream", [asked(1), data(1, END, b"test")].concat(), closed()),
        row("9113 5.1: HEADERS on a half-closed stream", [asked(1), asked(1)].concat(), closed()),
        row(
            "9113 5.1: trailers on a half-closed stream",
            [asked(1), headers(1, END, &hpack::line("x-t", "1"))].concat(),
            closed(),
        ),
        row(
            "9113 5.1: CONTINUATION on a half-closed stream",
            [asked(1), continuation(1, flag::END_HEADERS, &block)].concat(),
            Wanted::Stream(1, vec![CLOSED, PROTOCOL]),
        ),
        row(
            "9113 5.1: DATA behind DATA that ended the stream",
            [posting(1), data(1, END, b"x"), data(1, END, b"y")].concat(),
            closed(),
        ),
        row(
            "9113 5.1: DATA behind trailers",
            [posting(1), data(1, 0, b"x"), headers(1, END, &hpack::line("x-t", "1")), data(1, END, b"y")].concat(),
            closed(),
        ),
        row("9113 5.1: WINDOW_UPDATE on a half-closed stream", [asked(1), window_update(1, 100)].concat(), answered()),
        row("9113 5.1: RST_STREAM on a half-closed stream", [asked(1), reset(1, code::CANCEL)].concat(), ignored()),
    ]
}

fn closed() -> Vec<Row> {
    let over = || [opened(1), reset(1, code::CANCEL)].concat();
    let wanted = || stream(CLOSED);
    vec![
        row("9113 5.1: DATA behind RST_STREAM", [over(), data(1, END, b"test")].concat(), wanted()),
        row("9113 5.1: HEADERS behind RST_STREAM", [over(), asked(1)].concat(), wanted()),
        row(
            "9113 5.1: CONTINUATION behind RST_STREAM",
            [over(), continuation(1, flag::END_HEADERS, &hpack::line("x", "1"))].concat(),
            Wanted::Stream(1, vec![CLOSED, PROTOCOL]),
        ),
        row("9113 5.1: PRIORITY behind RST_STREAM", [over(), priority(1, 0, 9)].concat(), ignored()),
        row("9113 5.1: WINDOW_UPDATE behind RST_STREAM", [over(), window_update(1, 9)].concat(), ignored()),
    ]
}

fn identifiers() -> Vec<Row> {
    vec![
        row("9113 5.1.1: an even stream", asked(2), connection(PROTOCOL)),
        row("9113 5.1.1: a stream lower than the last", [asked(5), asked(3)].concat(), connection(PROTOCOL)),
        row("9113 5.1.1: a stream lower than one that is open", [posting(5), asked(1)].concat(), connection(PROTOCOL)),
        row("9113 5.1.1: a first stream other than 1", asked(77), Wanted::Answered(vec![77])),
        row(
            "9113 5.1.1: streams with gaps",
            [asked(3), asked(9), asked(501)].concat(),
            Wanted::Answered(vec![3, 9, 501]),
        ),
    ]
}

fn first_frame(world: &World) {
    let mut client = Client::mute(world.proxy);
    client.polite = false;
    client.send(PREFACE);
    client.wait("SETTINGS", |heard| (heard.settings_frames > 0).then_some(()));
    let streams_max = client.heard.settings.get(&setting::MAX_CONCURRENT_STREAMS).copied();
    assert!(streams_max.is_none_or(|max| max >= 100), "RFC 9113 6.5.2: 100 at least: {streams_max:?}");
    assert_ne!(
        client.heard.settings.get(&setting::ENABLE_PUSH),
        Some(&1),
        "RFC 9113 6.5.2: a server says no such thing"
    );
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]));
    client.wait("an acknowledgement", |heard| (heard.settings_acks > 0).then_some(()));
    client.serves("/one");
}

fn late_settings(world: &World) {
    let mut client = Client::mute(world.proxy);
    client.polite = false;
    for byte in PREFACE {
        client.send([*byte]);
    }
    client.wait("SETTINGS", |heard| (heard.settings_frames > 0).then_some(()));
    client.send([settings(&[]), settings_ack()].concat());
    client.serves("/one");
}

fn no_preface(world: &World) {
    let mut client = crate::client::Client::connect(world.proxy);
    client.send("INVALID CONNECTION PREFACE\r\n\r\n");
    // Nothing may come that somebody who speaks h2 would have to take for a frame.
    client.end();
}

fn half_a_preface(world: &World) {
    for preface in
        ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n"]
    {
        let mut client = Client::mute(world.proxy);
        client.send([preface.as_bytes(), &settings(&[])].concat());
        client.connection_error(&[PROTOCOL]);
    }
}

fn no_settings(world: &World) {
    for sent in [ping(b"12345678"), asked(1), window_update(0, 1), frame(0x16, 0, 0, b"x"), goaway(0, 0)] {
        let mut client = Client::mute(world.proxy);
        client.send([PREFACE, &sent].concat());
        client.connection_error(&[PROTOCOL]);
    }
}

fn acknowledged_first(world: &World) {
    let mut client = Client::mute(world.proxy);
    client.send([PREFACE, &frame(kind::SETTINGS, flag::ACK, 0, &[])].concat());
    client.connection_error(&[PROTOCOL]);
}

fn all_at_once(world: &World) {
    let mut client = Client::mute(world.proxy);
    client.send([PREFACE, &settings(&[]), &asked(1), &posting(3), &data(3, END, b"hello")].concat());
    assert_eq!(client.answer(1).text(), "GET /one");
    assert_eq!(client.answer(3).text(), "POST /one");
}

fn acknowledged(world: &World) {
    let mut client = Client::connect(world.proxy);
    let before = client.heard.settings_acks;
    client.send((0..5).flat_map(|_| settings(&[(setting::INITIAL_WINDOW_SIZE, 70_000)])).collect::<Vec<u8>>());
    client.settle();
    assert_eq!(client.heard.settings_acks, before + 5);
}

fn pings(world: &World) {
    let mut client = Client::connect(world.proxy);
    let sent: Vec<[u8; 8]> = (0..20u64).map(|number| (number * 0x0101_0101_0101).to_be_bytes()).collect();
    client.send(sent.iter().flat_map(ping).collect::<Vec<u8>>());
    client.wait("as many answers", |heard| (heard.pongs.len() == sent.len()).then_some(()));
    assert!(client.heard.pongs.iter().zip(&sent).all(|(pong, ping)| pong == ping), "{:?}", client.heard.pongs);
}

fn ping_meanwhile(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/one"));
    client.settle();
    client.send(data(stream, END, b"x"));
    assert_eq!(client.answer(stream).status(), "200");
}

fn behind_the_end(world: &World) {
    let late = [
        (data(1, END, b"test"), vec![CLOSED]),
        (asked(1), vec![CLOSED]),
        (headers(1, END, &hpack::line("x-t", "1")), vec![CLOSED]),
        (continuation(1, flag::END_HEADERS, &hpack::line("x", "1")), vec![CLOSED, PROTOCOL]),
    ];
    for (sent, codes) in late {
        let mut client = Client::connect(world.proxy);
        client.serves("/one");
        client.send(sent);
        client.connection_error(&codes);
    }
}

fn harmless_behind_the_end(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    client.send([reset(1, code::CANCEL), window_update(1, 5), priority(1, 0, 3)].concat());
    client.serves("/two");
    client.settle();
}

fn crossing(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&[&post("/one")[..], &[("content-length", "1")]].concat());
    client.send(data(stream, 0, b"hello"));
    client.stream_error(stream, &[PROTOCOL]);
    // What was on its way when the proxy reset the stream is no mistake of the client's.
    client.send([data(stream, 0, b"hello"), window_update(stream, 7)].concat());
    client.send(headers(stream, END, &hpack::line("x-t", "1")));
    client.serves("/two");
    client.settle();
}

fn concurrency(world: &World) {
    let mut client = Client::with_settings(world.proxy, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let Some(max) = client.heard.settings.get(&setting::MAX_CONCURRENT_STREAMS).copied() else { return };
    let mut sent = Vec::new();
    for number in 0..=max {
        sent.extend(headers(2 * number + 1, END, &block(&get("/one"))));
    }
    client.send(sent);
    client.stream_error(2 * max + 1, &[PROTOCOL, code::REFUSED_STREAM]);
    assert!(client.heard.streams.values().filter(|said| said.reset.is_some()).count() == 1, "one was too many");
    client.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]));
    for number in 0..max {
        let said = client.over(2 * number + 1);
        assert!(said.is_entire(), "{number}: {said:?}");
    }
    client.begin_at(2 * max + 3);
    client.serves("/two");
}

fn last_stream(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    client.serves("/two");
    client.send(data(0, 0, b"x"));
    client.connection_error(&[PROTOCOL]);
    assert_eq!(client.heard.goaways.last().map(|(last, _)| *last), Some(3));
}

fn client_leaves(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/one"));
    client.send(goaway(0, code::NO_ERROR));
    // What it asked before is answered all the same.
    client.send(data(stream, END, b"x"));
    assert_eq!(client.answer(stream).text(), "POST /one");
    client.end();
    let codes: Vec<u32> = client.heard.goaways.iter().map(|(_, code)| *code).collect();
    assert!(codes.iter().all(|code| *code == code::NO_ERROR), "{codes:?}");
}

fn client_leaves_strangely(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.send([goaway(0, 0xff), ping(b"12345678")].concat());
    client.wait_or_end("an answer to PING, or the end", |heard| (!heard.pongs.is_empty()).then_some(()));
}

fn end_between(world: &World) {
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    client.finish();
    client.end();
    assert!(client.heard.goaways.iter().all(|(_, code)| *code == code::NO_ERROR), "{:?}", client.heard.goaways);
}

fn end_within(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.begin(&post("/cut"));
    client.send(data(stream, 0, b"hello"));
    client.settle();
    let origin = world.backend.wait_head("/cut");
    client.finish();
    world.backend.wait_end(origin);
    world.backend.settled(|log| assert!(log.connections[origin].requests.is_empty(), "what was cut looks whole"));
    client.end();
}

fn many(world: &World) {
    let mut client = Client::connect(world.proxy);
    let paths: Vec<String> = (0..100).map(|number| format!("/number/{number}")).collect();
    let streams: Vec<u32> = paths.iter().map(|path| client.ask(&get(path))).collect();
    for (stream, path) in streams.iter().zip(&paths) {
        assert_eq!(client.answer(*stream).text(), format!("GET {path}"));
    }
}

fn out_of_order(world: &World) {
    let mut client = Client::connect(world.proxy);
    let first = client.begin(&post("/first"));
    let second = client.begin(&post("/second"));
    client.serves("/third");
    client.send(data(second, END, b"2"));
    assert_eq!(client.answer(second).text(), "POST /second");
    client.send(data(first, END, b"1"));
    assert_eq!(client.answer(first).text(), "POST /first");
}
