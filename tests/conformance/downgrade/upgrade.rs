//! Requests in HTTP/1.1 for an h2 origin, and its responses (RFC 9113 section 8, RFC 9112 sections 3, 6 and 7).

use libtest_mimic::Trial;

use crate::client::{Client, Delivery};
use crate::h2::frame::{self, code, flag};
use crate::h2::hpack;
use crate::h2::origin::{Manners, Place};
use crate::h2::world::World;
use crate::wire::{Fields, Response};

/// A request, and all that the origin gets: pseudo-headers in the order of their names, fields as they come, body, trailers.
type Asked = (&'static str, String, Vec<(&'static str, &'static str)>, &'static str, Vec<(&'static str, &'static str)>);

fn requests() -> Vec<Asked> {
    let get = |path, host| vec![(":authority", host), (":method", "GET"), (":path", path), (":scheme", "http")];
    let post = || vec![(":authority", "a"), (":method", "POST"), (":path", "/x"), (":scheme", "http")];
    let and =
        |head: Vec<(&'static str, &'static str)>, more: &[(&'static str, &'static str)]| [&head[..], more].concat();
    let with = |lines: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let posted = |lines: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}");
    vec![
        ("9113 8.3.1: a request line", with(""), get("/x", "a"), "", vec![]),
        (
            "9113 8.3.1: Host becomes :authority",
            "GET /y?z HTTP/1.1\r\nHost: b:81\r\n\r\n".into(),
            get("/y?z", "b:81"),
            "",
            vec![],
        ),
        (
            "9112 3.2.2: an absolute target",
            "GET http://b/y HTTP/1.1\r\nHost: b\r\n\r\n".into(),
            get("/y", "b"),
            "",
            vec![],
        ),
        (
            "9112 3.2.4: OPTIONS *",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            { vec![(":authority", "a"), (":method", "OPTIONS"), (":path", "*"), (":scheme", "http")] },
            "",
            vec![],
        ),
        (
            "9113 8.2: names become lower case",
            with("X-A: B\r\nX-B: c\r\n"),
            and(get("/x", "a"), &[("x-a", "B"), ("x-b", "c")]),
            "",
            vec![],
        ),
        (
            "9113 8.2.2: fields of the connection end here",
            with("Connection: keep-alive, x-a\r\nKeep-Alive: 5\r\nX-A: 1\r\nProxy-Connection: close\r\nX-B: 2\r\n"),
            and(get("/x", "a"), &[("x-b", "2")]),
            "",
            vec![],
        ),
        (
            "9113 8.2.2: TE: trailers stays",
            with("TE: gzip, trailers\r\nConnection: te\r\n"),
            and(get("/x", "a"), &[("te", "trailers")]),
            "",
            vec![],
        ),
        ("9113 8.2.2: another TE ends here", with("TE: gzip\r\nConnection: te\r\n"), get("/x", "a"), "", vec![]),
        (
            "9113 3.1: h2c is not switched to",
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            get("/x", "a"),
            "",
            vec![],
        ),
        (
            "9110 7.8: an upgrade that the origin's version does not have is not asked for",
            with("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            and(get("/x", "a"), &[("sec-websocket-version", "13")]),
            "",
            vec![],
        ),
        (
            "9113 8.1.1: a length",
            posted("Content-Length: 5\r\n", "hello"),
            and(post(), &[("content-length", "5")]),
            "hello",
            vec![],
        ),
        (
            "9113 8.1.1: a length of 0",
            posted("Content-Length: 0\r\n", ""),
            and(post(), &[("content-length", "0")]),
            "",
            vec![],
        ),
        (
            "9113 8.1: chunks",
            posted("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n"),
            post(),
            "hello",
            vec![],
        ),
        (
            "9113 8.1: chunks and trailers",
            posted("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
            post(),
            "hello",
            vec![("x-t", "1")],
        ),
        (
            "9112 7.1.2: trailers that may not be",
            posted("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nContent-Length: 9\r\nHost: e\r\n\r\n"),
            post(),
            "hello",
            vec![],
        ),
        ("9113 8.1: no chunk at all", posted("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), post(), "", vec![]),
        (
            "9113 8.2.3: a cookie",
            with("Cookie: a=b; c=d\r\n"),
            and(get("/x", "a"), &[("cookie", "a=b; c=d")]),
            "",
            vec![],
        ),
        (
            "9110 10.1.1: an expectation is met here",
            posted("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"),
            and(post(), &[("content-length", "5")]),
            "hello",
            vec![],
        ),
    ]
}

fn check_request(asked: &Asked) {
    let (_, sent, head, body, trailers) = asked;
    for delivery in [Delivery::Whole, Delivery::Torn] {
        let world = World::start(Manners::default());
        let mut client = Client::connect(world.proxy.address);
        client.deliver(sent.as_bytes(), delivery);
        let answer = client.response("GET").entire();
        assert_eq!(answer.status, 200, "{sent}: {answer:?}");
        let got = world.origin.settled(|log| log.requests().next().expect("a request").clone());
        let added = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via", "forwarded"];
        let mut lines: Vec<(String, String)> = got.heads[0].0.clone();
        lines.retain(|(name, _)| !added.contains(&name.as_str()));
        let pseudo = lines.iter().filter(|(name, _)| name.starts_with(':')).count();
        lines[..pseudo].sort();
        assert_eq!(lines, super::owned(head), "{sent}");
        assert_eq!(got.text(), *body, "{sent}");
        assert_eq!(got.trailers.unwrap_or_default().0, super::owned(trailers), "{sent}");
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").entire().text(), "GET /second");
        world.serves("/third");
    }
}

/// What the client gets of a response.
enum Wanted {
    Passed(u16, &'static str, &'static [(&'static str, &'static str)]),
    /// 502, as a whole message.
    Gateway,
    /// 502, or what cannot be mistaken for a whole message.
    Broken,
}

/// Frames of the origin on the stream that it is asked on.
type Sent = fn(u32) -> Vec<u8>;

const OK: &[(&str, &str)] = &[(":status", "200")];

fn only(lines: &[(&str, &str)]) -> impl Fn(u32) -> Vec<u8> {
    let block = hpack::block(lines);
    move |stream| frame::headers(stream, flag::END_STREAM, &block)
}

fn head(stream: u32, lines: &[(&str, &str)]) -> Vec<u8> {
    frame::headers(stream, 0, &hpack::block(lines))
}

fn ok_and(stream: u32, field: (&str, &str)) -> Vec<u8> {
    only(&[OK[0], field])(stream)
}

const END: u8 = flag::END_STREAM;

fn responses() -> Vec<(&'static str, Sent, Wanted)> {
    use Wanted::{Broken, Gateway, Passed};
    vec![
        ("9113 8.1: a head alone", |s| only(OK)(s), Passed(200, "", &[])),
        ("9113 8.1: a head and DATA", |s| [head(s, OK), frame::data(s, END, b"hi")].concat(), Passed(200, "hi", &[])),
        (
            "9113 8.1: DATA, and an empty frame",
            |s| [head(s, OK), frame::data(s, 0, b"hi"), frame::data(s, END, b"")].concat(),
            Passed(200, "hi", &[]),
        ),
        (
            "9113 6.1: padded DATA",
            |s| [head(s, OK), frame::data(s, END | flag::PADDED, b"\x03hi\0\0\0")].concat(),
            Passed(200, "hi", &[]),
        ),
        (
            "9113 8.1: trailers",
            |s| [head(s, OK), frame::data(s, 0, b"hi"), frame::headers(s, END, &hpack::line("x-t", "1"))].concat(),
            Passed(200, "hi", &[("trailer", "x-t: 1")]),
        ),
        (
            "9113 8.3.2: another status",
            |s| only(&[(":status", "404"), ("x-a", "B")])(s),
            Passed(404, "", &[("x-a", "B")]),
        ),
        (
            "9113 8.1.1: a length",
            |s| [head(s, &[OK[0], ("content-length", "2")]), frame::data(s, END, b"hi")].concat(),
            Passed(200, "hi", &[("content-length", "2")]),
        ),
        (
            "9113 8.1: an interim response",
            |s| [head(s, &[(":status", "103"), ("link", "x")]), only(OK)(s)].concat(),
            Passed(200, "", &[]),
        ),
        (
            "9113 8.1: an end of the stream without error",
            |s| [only(OK)(s), frame::reset(s, code::NO_ERROR)].concat(),
            Passed(200, "", &[]),
        ),
        ("9113 8.3.2: no status", |s| only(&[("x-a", "1")])(s), Gateway),
        ("9113 8.3.2: two statuses", |s| only(&[OK[0], OK[0]])(s), Gateway),
        ("9113 8.3.2: a status behind a field", |s| only(&[("x-a", "1"), OK[0]])(s), Gateway),
        ("9113 8.3.2: a status of four digits", |s| only(&[(":status", "2000")])(s), Gateway),
        ("9113 8.3.2: a status that is no number", |s| only(&[(":status", "ok")])(s), Gateway),
        ("9113 8.3.2: an empty status", |s| only(&[(":status", "")])(s), Gateway),
        ("9113 8.3.2: a status and a line", |s| only(&[(":status", "200 OK\r\nx-evil: 1")])(s), Gateway),
        ("9113 8.3.2: a pseudo-header of requests", |s| ok_and(s, (":path", "/")), Gateway),
        ("9113 8.3: an unknown pseudo-header", |s| only(&[OK[0], (":evil", "1")])(s), Gateway),
        ("9113 8.6: 101", |s| only(&[(":status", "101")])(s), Gateway),
        ("9113 8.1: an interim response that ends the stream", |s| only(&[(":status", "103")])(s), Gateway),
        ("9113 8.2.1: an upper-case name", |s| ok_and(s, ("X-A", "1")), Gateway),
        ("9113 8.2.1: CR LF in a value", |s| ok_and(s, ("x-a", "1\r\nx-evil: 1")), Gateway),
        ("9113 8.2.1: LF in a value", |s| ok_and(s, ("x-a", "1\nx-evil: 1")), Gateway),
        ("9113 8.2.1: CR in a value", |s| ok_and(s, ("x-a", "1\rx-evil: 1")), Gateway),
        ("9113 8.2.1: NUL in a value", |s| ok_and(s, ("x-a", "1\0")), Gateway),
        (
            "9113 8.2.1: the end of a head in a value",
            |s| ok_and(s, ("x-a", "1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")),
            Gateway,
        ),
        ("9113 8.2.1: white space in front of a value", |s| ok_and(s, ("x-a", " 1")), Gateway),
        ("9113 8.2.1: CR LF in a name", |s| ok_and(s, ("x-a: 1\r\nx-evil", "1")), Gateway),
        ("9113 8.2.1: a colon in a name", |s| ok_and(s, ("x-a:", "1")), Gateway),
        ("9113 8.2.1: a space in a name", |s| ok_and(s, ("x a", "1")), Gateway),
        ("9113 8.2.1: an empty name", |s| ok_and(s, ("", "1")), Gateway),
        ("9113 8.2.2: connection", |s| ok_and(s, ("connection", "close")), Gateway),
        ("9113 8.2.2: transfer-encoding", |s| ok_and(s, ("transfer-encoding", "chunked")), Gateway),
        ("9113 8.2.2: keep-alive", |s| ok_and(s, ("keep-alive", "1")), Gateway),
        ("9113 8.2.2: upgrade", |s| ok_and(s, ("upgrade", "h2c")), Gateway),
        ("9113 8.2.2: proxy-connection", |s| ok_and(s, ("proxy-connection", "close")), Gateway),
        (
            "9110 8.6: two lengths",
            |s| {
                [head(s, &[OK[0], ("content-length", "2"), ("content-length", "2")]), frame::data(s, END, b"hi")]
                    .concat()
            },
            Gateway,
        ),
        (
            "9110 8.6: a list of lengths",
            |s| [head(s, &[OK[0], ("content-length", "2, 2")]), frame::data(s, END, b"hi")].concat(),
            Gateway,
        ),
        ("9110 8.6: a length that is no number", |s| ok_and(s, ("content-length", "x")), Gateway),
        ("9113 8.1.1: a length without DATA", |s| ok_and(s, ("content-length", "2")), Gateway),
        (
            "9113 8.1.1: less DATA than the length",
            |s| [head(s, &[OK[0], ("content-length", "3")]), frame::data(s, END, b"hi")].concat(),
            Broken,
        ),
        (
            "9113 8.1.1: more DATA than the length",
            |s| [head(s, &[OK[0], ("content-length", "1")]), frame::data(s, END, b"hi")].concat(),
            Broken,
        ),
        ("9113 8.1: DATA in front of a head", |s| [frame::data(s, 0, b"hi"), only(OK)(s)].concat(), Gateway),
        ("9113 8.1: a second head", |s| [head(s, OK), head(s, OK), frame::data(s, END, b"hi")].concat(), Broken),
        (
            "9113 8.1: trailers with a pseudo-header",
            |s| [head(s, OK), frame::data(s, 0, b"hi"), only(OK)(s)].concat(),
            Broken,
        ),
        (
            "9113 8.1: trailers with a line",
            |s| {
                [head(s, OK), frame::data(s, 0, b"hi"), frame::headers(s, END, &hpack::line("x-t", "1\r\nx-u: 1"))]
                    .concat()
            },
            Broken,
        ),
        ("9113 6.4: a reset without a head", |s| frame::reset(s, code::INTERNAL_ERROR), Broken),
        (
            "9113 6.4: a reset behind the head",
            |s| [head(s, OK), frame::reset(s, code::INTERNAL_ERROR)].concat(),
            Broken,
        ),
        (
            "9113 6.4: a reset within DATA",
            |s| [head(s, OK), frame::data(s, 0, b"hi"), frame::reset(s, code::INTERNAL_ERROR)].concat(),
            Broken,
        ),
        (
            "9113 6.4: no error, and yet not whole",
            |s| [head(s, OK), frame::data(s, 0, b"hi"), frame::reset(s, code::NO_ERROR)].concat(),
            Broken,
        ),
        (
            "9113 6.4: a cancel within a length",
            |s| {
                [head(s, &[OK[0], ("content-length", "3")]), frame::data(s, 0, b"hi"), frame::reset(s, code::CANCEL)]
                    .concat()
            },
            Broken,
        ),
        ("9113 6.8: GOAWAY without a word on the stream", |_| frame::goaway(0, code::NO_ERROR), Broken),
        (
            "9113 8.4: a push",
            |s| frame::frame(5, flag::END_HEADERS, s, &[&[0, 0, 0, 2][..], &hpack::block(OK)].concat()),
            Broken,
        ),
        ("9113 4.3: a block that cannot be read", |s| frame::headers(s, END, &[0xff, 0xff, 0xff, 0xff, 0x7f]), Broken),
        ("9113 4.1: nonsense", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".repeat(3), Broken),
    ]
}

fn check_response(sent: Sent, wanted: &Wanted) {
    let world = World::start(Manners::default());
    let mut client = Client::connect(world.proxy.address);
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    let (Place { connection, stream }, _) = world.origin.wait_request("/held");
    world.origin.send(connection, sent(stream));
    let heard = client.response("GET");
    let refused = |response: &Response| response.fields.has("proxy-status") && [502, 503].contains(&response.status);
    match (wanted, &heard.response) {
        (Wanted::Passed(status, body, fields), Some(response)) => {
            assert!(heard.whole, "{response:?}");
            assert_eq!((response.status, response.text().as_str()), (*status, *body), "{response:?}");
            let trailers: Vec<String> =
                response.trailers.0.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            for (name, value) in *fields {
                let found = if *name == "trailer" {
                    trailers.iter().map(String::as_str).collect()
                } else {
                    response.fields.all(name)
                };
                assert_eq!(found, [*value], "{response:?}");
            }
        }
        (Wanted::Gateway | Wanted::Broken, Some(response)) if heard.whole => assert!(refused(response), "{response:?}"),
        (Wanted::Broken, _) => {}
        (_, response) => panic!("{response:?}, whole: {}", heard.whole),
    }
    let evil = |fields: &Fields| fields.has("x-evil");
    assert!(!heard.response.is_some_and(|response| evil(&response.fields) || evil(&response.trailers)));
    world.serves("/second");
    world.serves("/third");
}

pub fn trials() -> Vec<Trial> {
    let requests = requests().into_iter().map(|asked| {
        Trial::test(format!("h1 to h2: RFC {}", asked.0), move || {
            check_request(&asked);
            Ok(())
        })
    });
    let responses = responses().into_iter().map(|(name, sent, wanted)| {
        Trial::test(format!("h2 response to h1: RFC {name}"), move || {
            check_response(sent, &wanted);
            Ok(())
        })
    });
    requests.chain(responses).collect()
}
