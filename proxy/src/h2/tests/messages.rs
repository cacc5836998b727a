//! RFC 9113 section 8: which messages are well-formed, and what becomes of them.

use super::App::{Answers, Holds};
use super::Expected::{Response, Status, Stream};
use super::*;
use crate::message::name::Name;

const HEAD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

fn request(lines: &[(&str, &str)]) -> Vec<u8> {
    headers(1, WHOLE | END, &block(lines))
}

/// The usual head with some lines changed, or further ones behind it.
fn with(changed: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut lines = HEAD.to_vec();
    for (name, value) in changed {
        match lines.iter_mut().find(|(old, _)| old == name) {
            Some(line) => line.1 = value,
            None => lines.push((name, value)),
        }
    }
    lines
}

fn without(name: &str, more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut lines = with(more);
    lines.retain(|(old, _)| *old != name);
    lines
}

fn refused(lines: &[(&str, &str)]) {
    check(&format!("{lines:?}"), Answers, &[request(lines)], Stream(1, Code::PROTOCOL_ERROR));
    let mut tested = Tested::server(Holds);
    tested.feed(&request(lines)).unwrap();
    assert!(tested.requests.is_empty(), "nobody hears of it: {lines:?}");
}

fn taken(lines: &[(&str, &str)]) -> RequestHead {
    check(&format!("{lines:?}"), Answers, &[request(lines)], Response(1));
    let mut tested = Tested::server(Holds);
    tested.feed(&request(lines)).unwrap();
    tested.requests.remove(0)
}

#[test]
fn rfc_9113_8_1_messages() {
    let head = headers(1, WHOLE, POST);
    let trailers = |flags: u8, lines: &[(&str, &str)]| headers(1, WHOLE | flags, &block(lines));
    check("trailers", Answers, &[head.clone(), data(1, 0, b"x"), trailers(END, &[("a", "b")])], Response(1));
    check("trailers without DATA", Answers, &[head.clone(), trailers(END, &[("a", "b")])], Response(1));
    check("empty trailers", Answers, &[head.clone(), trailers(END, &[])], Response(1));
    let malformed = Stream(1, Code::PROTOCOL_ERROR);
    check("a second head", Answers, &[head.clone(), trailers(0, &[("a", "b")])], malformed);
    check("pseudo-headers in trailers", Answers, &[head.clone(), trailers(END, &[(":method", "GET")])], malformed);
    check("an upper-case name in trailers", Answers, &[head.clone(), trailers(END, &[("A", "b")])], malformed);
    check("a connection's field in trailers", Answers, &[head, trailers(END, &[("connection", "b")])], malformed);
}

#[test]
fn rfc_9113_8_1_trailers_are_read_behind_the_data() {
    let mut tested = Tested::server(Holds);
    tested.feed(&[headers(1, WHOLE, POST), data(1, 0, b"one"), data(1, 0, b"two")].concat()).unwrap();
    tested.feed(&headers(1, WHOLE | END, &line("grpc-status", "0"))).unwrap();
    assert_eq!(tested.connection.length_left(tested.open[0]), None, "a length would leave no place for trailers");
    let (body, others) = read_all(&mut tested.connection, tested.open[0]);
    assert_eq!(body, b"onetwo");
    let [Received::Frame(Frame::Trailers(trailers)), Received::End] = &others[..] else { panic!("{others:?}") };
    assert_eq!(trailers.get(Name::GrpcStatus), Some(b"0".as_slice()));
}

#[test]
fn rfc_9113_8_1_1_content_length() {
    let malformed = Stream(1, Code::PROTOCOL_ERROR);
    let head = |length: &'static str, flags| headers(1, WHOLE | flags, &block(&with(&[("content-length", length)])));
    check("as promised", Answers, &[head("5", 0), data(1, 0, b"ab"), data(1, END, b"cde")], Response(1));
    check("none, none promised", Answers, &[head("0", END)], Response(1));
    check("less", Answers, &[head("5", 0), data(1, END, b"abcd")], malformed);
    check("more", Answers, &[head("5", 0), data(1, 0, b"abc"), data(1, 0, b"def")], malformed);
    check("more, at the end", Answers, &[head("1", 0), data(1, END, b"te")], malformed);
    check("nothing at all", Answers, &[head("5", END)], malformed);
    check("less, then trailers", Answers, &[head("5", 0), data(1, 0, b"ab"), headers(1, WHOLE | END, &[])], malformed);
    check(
        "padding does not count",
        Answers,
        &[head("2", 0), data(1, END | flag::PADDED, &[3, b'a', b'b', 0, 0, 0])],
        Response(1),
    );
    for wrong in [
        "",
        "-1",
        "+1",
        "1 ",
        "0x1",
        "1,1",
        "a",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        refused(&with(&[("content-length", wrong)]));
    }
    refused(&[&with(&[("content-length", "0")])[..], &[("content-length", "0")]].concat());
}

#[test]
fn rfc_9113_8_2_1_field_names_and_values() {
    for name in ["X-Upper", "", "a b", "a:b", "a\u{7f}", "a\0", "\u{e9}", "a\r\n", "(a)", ":a", "a\"", "{a}"] {
        refused(&with(&[(Box::leak(name.to_owned().into_boxed_str()), "x")]));
    }
    for value in ["a\0b", "a\rb", "a\nb", " a", "a ", "\ta", "a\t", " ", "a\u{1}b", "a\u{7f}b"] {
        refused(&with(&[("x", Box::leak(value.to_owned().into_boxed_str()))]));
    }
    for value in ["", "a b", "a\tb", "\u{e9}", "a: b, \"c\"; {d}"] {
        let head = taken(&with(&[("x", Box::leak(value.to_owned().into_boxed_str()))]));
        assert_eq!(head.fields.named(b"x"), Some(value.as_bytes()));
    }
    for value in ["/a\r\nx: y", "/a\0", "/a b", " /", "/ "] {
        refused(&with(&[(":path", Box::leak(value.to_owned().into_boxed_str()))]));
    }
    taken(&with(&[("x!#$%&'*+-.^_`|~09", "x")]));
}

#[test]
fn rfc_9113_8_2_2_fields_of_the_connection() {
    for (name, value) in [
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("te", "trailers, deflate"),
        ("te", "gzip"),
        ("te", ""),
    ] {
        refused(&with(&[(name, value)]));
    }
    taken(&with(&[("te", "trailers")]));
}

#[test]
fn rfc_9113_8_2_3_crumbs_of_a_cookie_are_joined() {
    let mut head =
        taken(&[&with(&[("cookie", "a=1")])[..], &[("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]].concat());
    head::join_cookies(&mut head.fields);
    assert_eq!(head.fields.all(Name::Cookie).collect::<Vec<_>>(), [b"a=1; b=2; c=3"]);
    let mut head = taken(&[&with(&[("cookie", "")])[..], &[("cookie", "a=1"), ("cookie", "")]].concat());
    head::join_cookies(&mut head.fields);
    assert_eq!(head.fields.all(Name::Cookie).collect::<Vec<_>>(), [b"a=1"]);
    let mut one = taken(&with(&[("cookie", "a=1")]));
    head::join_cookies(&mut one.fields);
    assert_eq!(one.fields.get(Name::Cookie), Some(b"a=1".as_slice()));
}

#[test]
fn rfc_9113_8_3_pseudo_headers() {
    refused(&with(&[(":test", "x")]));
    refused(&with(&[(":status", "200")]));
    refused(&[&[("x", "y")], &HEAD[..]].concat());
    refused(&[HEAD[0], HEAD[1], HEAD[2], ("x", "y"), HEAD[3]]);
    for name in [":method", ":scheme", ":path"] {
        refused(&without(name, &[]));
    }
    for line in HEAD {
        refused(&[&HEAD[..], &[line]].concat());
    }
}

#[test]
fn rfc_9113_8_3_1_method_scheme_and_path() {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    for method in ["", "GE T", "GET\r\n", "G@T", "\u{e9}"] {
        refused(&with(&[(":method", leak(method))]));
    }
    assert_eq!(taken(&with(&[(":method", "PURGE")])).method.as_str(), "PURGE");
    for scheme in ["", "ht tp", "1http", "http:", "http://x", "h\u{e9}"] {
        refused(&with(&[(":scheme", leak(scheme))]));
    }
    assert_eq!(taken(&with(&[(":scheme", "https")])).scheme(), Some(b"https".as_slice()));
    for path in ["", "a", "*", "/a#b", "/a b", "/a\tb", "/a\u{7f}", "http://a.example/", "?a", "/\u{e9}"] {
        refused(&with(&[(":path", leak(path))]));
    }
    for path in ["/", "/a?b=c", "//", "/%00", "/{a}|\"<>"] {
        assert_eq!(taken(&with(&[(":path", leak(path))])).path(), path.as_bytes());
    }
    assert_eq!(taken(&with(&[(":method", "OPTIONS"), (":path", "*")])).path(), b"*");
}

#[test]
fn rfc_9113_8_3_1_authority_and_host() {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    for authority in [
        "",
        "user@a.example",
        "user:word@a.example",
        "a.example/",
        "a b",
        "a.example:80:80",
        ":80",
        "a.example:x",
        "[::1",
        "[]",
        "[::1]x",
        "a\\b",
        "a.example?",
        "a.example#",
        "\u{e9}",
        "a,b@",
        "a.example:123456",
        "a<b",
        "[::1%25a]",
    ] {
        refused(&with(&[(":authority", leak(authority))]));
        refused(&without(":authority", &[("host", leak(authority))]));
    }
    for authority in ["a", "A.example:80", "127.0.0.1:8080", "[::1]", "[::1]:443", "a_b.example", "a%20b", "a.example:"]
    {
        assert_eq!(taken(&with(&[(":authority", leak(authority))])).authority(), Some(authority.as_bytes()));
    }
    refused(&without(":authority", &[]));
    refused(
        &without(":authority", &[("host", "a"), ("x", "y")]).iter().copied().chain([("host", "a")]).collect::<Vec<_>>(),
    );
    refused(&with(&[("host", "b.example")]));
    refused(&with(&[("host", "a.example:8080")]));
    let head = taken(&with(&[("host", "A.Example:80")]));
    assert_eq!(head.authority(), Some(b"a.example".as_slice()));
    let head = taken(&without(":authority", &[("host", "b.example")]));
    assert_eq!((head.authority(), head.fields.get(Name::Host)), (None, Some(b"b.example".as_slice())));
}

#[test]
fn rfc_9113_8_5_connect() {
    let head = taken(&[(":method", "CONNECT"), (":authority", "a.example:443")]);
    assert_eq!((head.path(), head.authority()), (b"".as_slice(), Some(b"a.example:443".as_slice())));
    refused(&[(":method", "CONNECT")]);
    refused(&[(":method", "CONNECT"), (":authority", "a.example")]);
    refused(&[(":method", "CONNECT"), (":authority", "a.example:")]);
    refused(&[(":method", "CONNECT"), (":authority", "u@a.example:443")]);
    refused(&[(":method", "CONNECT"), (":authority", "a.example:443"), (":path", "/")]);
    refused(&[(":method", "CONNECT"), (":authority", "a.example:443"), (":scheme", "http")]);
}

#[test]
fn rfc_8441_4_extended_connect() {
    let lines = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.example"),
    ];
    let head = taken(&lines);
    assert_eq!((head.protocol(), head.path()), (Some(b"websocket".as_slice()), b"/chat".as_slice()));
    for missing in [2, 3, 4] {
        let lines: Vec<_> =
            lines.iter().enumerate().filter(|(place, _)| *place != missing).map(|(_, line)| *line).collect();
        refused(&lines);
    }
    refused(&with(&[(":protocol", "websocket")]));
    let mut wrong = lines;
    wrong[1].1 = "web socket";
    refused(&wrong);
    // Not offered, not taken.
    let settings_without = Settings { extended_connect: false, ..Settings::default() };
    let mut tested = Tested::fresh(Answers, &settings_without, &Limits::default());
    tested.feed(&[PREFACE, &settings(&[]), &request(&lines)].concat()).unwrap();
    let written = tested.written();
    assert!(written[0].payload.as_chunks::<6>().0.iter().all(|entry| entry[1] != 8));
    check_written("not offered", Ok(()), &written, Stream(1, Code::PROTOCOL_ERROR));
}

#[test]
fn rfc_9113_10_5_1_a_head_of_too_many_fields_is_answered() {
    let mut lines = HEAD.to_vec();
    lines.extend(std::iter::repeat_n(("x", ""), 512));
    assert_eq!(taken(&lines).fields.len(), 512);
    lines.push(("x", ""));
    check("431", Answers, &[request(&lines)], Status(431));
    let why = Refused::Head(HeadError::TooManyFields { fields_max: 512 });
    assert_eq!(why.limit(), Some(Limit::HeadFields));
    let mut tested = Tested::server(Answers);
    tested.feed(&request(&lines)).unwrap();
    assert_eq!(tested.refused, [why]);
}

#[test]
fn rfc_9113_8_1_1_a_client_is_told_before_its_stream_is_reset() {
    let wrong = request(&[&HEAD[..], &[("X", "y")]].concat());
    check("400", Answers, std::slice::from_ref(&wrong), Status(400));
    let refusal = |error: &HeadError| {
        assert!(matches!(error, HeadError::Malformed(_)));
        let mut fields = Fields::default();
        fields.add(Name::ContentLength, b"5");
        (ResponseHead::new(StatusCode::BAD_REQUEST, Version::HTTP_2, fields), Bytes::from_static(b"wrong"))
    };
    let with_text = Settings { refusal, ..Settings::default() };
    for (window, has_text) in [(5, true), (4, false)] {
        let mut tested = Tested::fresh(Answers, &with_text, &Limits::default());
        tested.feed(&[PREFACE, &settings(&[(4, window)])].concat()).unwrap();
        tested.written();
        tested.feed(&wrong).unwrap();
        let written = tested.written();
        let kinds: Vec<(u8, u8)> = written.iter().map(|frame| (frame.kind, frame.flags)).collect();
        let reset = (kind::RST_STREAM, 0);
        if has_text {
            assert_eq!(kinds, [(kind::HEADERS, WHOLE), (kind::DATA, END), reset]);
            assert_eq!(written[1].payload, b"wrong");
        } else {
            // It would wait for a window that a refused client may never open.
            assert_eq!(kinds, [(kind::HEADERS, WHOLE | END), reset]);
            assert!(!written[0].payload.windows(2).any(|pair| pair == [0x0f, 0x0d]), "a length of nothing");
        }
        assert_eq!(tested.refused.len(), 1);
    }
    // One that turns out to be none later, as long as nothing was answered.
    let long = request_of_length("3");
    check("400", Holds, &[long.clone(), data(1, END, b"four")], Status(400));
    check("and the reset", Holds, &[long, data(1, END, b"four")], Stream(1, Code::PROTOCOL_ERROR));
}

fn request_of_length(length: &str) -> Vec<u8> {
    let lines = [&HEAD[..], &[("content-length", length)]].concat();
    headers(1, WHOLE, &block(&lines))
}

#[test]
fn rfc_9113_10_5_1_a_head_too_large_is_answered() {
    let long = "x".repeat(120);
    let mut lines = HEAD.to_vec();
    lines.extend(std::iter::repeat_n(("x", long.as_str()), 450));
    let bytes = block(&lines);
    let (first, rest) = bytes.split_at(16_000);
    let mut sent = vec![headers(1, END, first)];
    let last = rest.chunks(16_000).count() - 1;
    for (place, piece) in rest.chunks(16_000).enumerate() {
        sent.push(frame(kind::CONTINUATION, if place == last { WHOLE } else { 0 }, 1, piece));
    }
    check("431", Answers, &sent, Status(431));
    sent[0] = headers(1, 0, first);
    check("431, and the rest is not wanted", Answers, &sent, Stream(1, Code::NO_ERROR));
    sent.extend([data(1, END, b"x"), headers(3, WHOLE | END, GET)]);
    let mut tested = Tested::server(Answers);
    tested.feed(&sent.concat()).unwrap();
    assert_eq!(
        (tested.requests.len(), &tested.refused[..]),
        (1, &[Refused::Head(HeadError::TooLarge { bytes_max: 64 << 10 })][..])
    );
}
