//! What servers may and may not say, and what becomes of requests when they leave.

use http::Method;

use super::*;
use crate::message::name::Name;

const END_HEADERS: u8 = WHOLE;

struct Client {
    connection: Connection,
    now: Instant,
}

impl Client {
    /// A client that has read the server's empty settings.
    fn new() -> Self {
        let now = Instant::now();
        let mut client = Self { connection: Connection::client(&Settings::default(), &Limits::default(), now), now };
        client.feed(&settings(&[])).unwrap();
        client
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let result = self.connection.receive(bytes, self.now);
        if result.is_ok() {
            self.connection.check_invariants();
        }
        result
    }

    fn send(&mut self, method: Method, end: bool) -> StreamKey {
        let mut head = RequestHead::new(method, Version::HTTP_11, b"/", Fields::default());
        head.set_authority(b"a.example");
        let key = self.connection.send_request(&head, end, self.now).unwrap();
        drain(&mut self.connection);
        key
    }
}

/// Feeds a client that sent a request, and tells what its stream and its connection come to.
fn check(method: Method, sent: &[Vec<u8>], expected: Result<&str, Code>) {
    for pieces in [usize::MAX, 1] {
        let mut client = Client::new();
        let key = client.send(method.clone(), true);
        let fed = sent.iter().flat_map(|frame| frame.chunks(pieces)).try_for_each(|piece| client.feed(piece));
        let (body, others) = read_all(&mut client.connection, key);
        let seen: String = others
            .iter()
            .map(|received| match received {
                Received::Head(head) => format!("{} ", head.status.as_u16()),
                Received::Frame(Frame::Trailers(fields)) => format!("trailers {} ", fields.len()),
                Received::Frame(Frame::Data(_)) => String::new(),
                Received::End => format!("{} end", body.escape_ascii()),
                Received::Reset(reset) => format!("reset {} seen {}", reset.code, reset.seen),
            })
            .collect();
        match expected {
            Ok(expected) => assert_eq!((fed, seen.as_str()), (Ok(()), expected), "{sent:?}"),
            Err(code) => assert_eq!(fed.map_err(|error| error.code()), Err(code), "{sent:?}"),
        }
    }
}

fn response(flags: u8, lines: &[(&str, &str)]) -> Vec<u8> {
    headers(1, END_HEADERS | flags, &block(lines))
}

#[test]
fn rfc_9113_8_1_responses() {
    let get = |sent: &[Vec<u8>], expected| check(Method::GET, sent, expected);
    get(&[headers(1, WHOLE | END, OK)], Ok("200  end"));
    get(&[headers(1, WHOLE, OK), data(1, END, b"body")], Ok("200 body end"));
    get(&[headers(1, WHOLE, OK), data(1, 0, b"b"), response(END, &[("a", "b")])], Ok("200 trailers 1 b end"));
    let early = response(0, &[(":status", "103"), ("link", "</a>")]);
    let go_on = response(0, &[(":status", "100")]);
    get(&[go_on, early, headers(1, WHOLE, OK), data(1, END, b"x")], Ok("100 103 200 x end"));
    let malformed = Ok("reset PROTOCOL_ERROR seen true");
    get(&[response(END, &[(":status", "103")])], malformed);
    get(&[data(1, END, b"x")], malformed);
    get(&[response(END, &[("a", "b")])], malformed);
    get(&[response(END, &[(":status", "200"), (":path", "/")])], malformed);
    get(&[response(END, &[(":status", "200"), (":status", "200")])], malformed);
    get(&[response(END, &[("a", "b"), (":status", "200")])], malformed);
    get(&[response(END, &[(":status", "200"), ("connection", "close")])], malformed);
    get(&[response(END, &[(":status", "200"), ("transfer-encoding", "chunked")])], malformed);
    get(&[response(END, &[(":status", "200"), ("x", "a\r\nb: c")])], malformed);
    for status in ["101", "20", "2000", "abc", "099", "", "+20", "2 0", "600", "999"] {
        get(&[response(END, &[(":status", status)])], malformed);
    }
    get(&[headers(1, WHOLE, OK), response(0, &[("a", "b")])], Ok("200 reset PROTOCOL_ERROR seen true"));
}

#[test]
fn rfc_9113_8_1_1_length_of_responses() {
    let sized = |length| response(0, &[(":status", "200"), ("content-length", length)]);
    let ended = |status, length| response(END, &[(":status", status), ("content-length", length)]);
    check(Method::GET, &[sized("2"), data(1, END, b"ab")], Ok("200 ab end"));
    check(Method::GET, &[sized("2"), data(1, END, b"a")], Ok("200 reset PROTOCOL_ERROR seen true"));
    check(Method::GET, &[sized("2"), data(1, 0, b"abc")], Ok("200 reset PROTOCOL_ERROR seen true"));
    check(Method::GET, &[ended("200", "2")], Ok("reset PROTOCOL_ERROR seen true"));
    check(Method::GET, &[ended("304", "2")], Ok("304  end"));
    check(Method::HEAD, &[ended("200", "2")], Ok("200  end"));
    check(Method::HEAD, &[sized("2"), data(1, END, b"")], Ok("200  end"));
    check(Method::HEAD, &[sized("2"), data(1, END, b"ab")], Ok("200 reset PROTOCOL_ERROR seen true"));
    let none = response(0, &[(":status", "204")]);
    check(Method::GET, &[none, data(1, END, b"ab")], Ok("204 reset PROTOCOL_ERROR seen true"));
}

#[test]
fn rfc_9113_what_breaks_a_connection_to_a_server() {
    let broken = |sent: &[Vec<u8>], code| check(Method::GET, sent, Err(code));
    broken(&[headers(2, WHOLE | END, OK)], Code::PROTOCOL_ERROR);
    broken(&[headers(3, WHOLE | END, OK)], Code::PROTOCOL_ERROR);
    broken(&[data(3, 0, b"x")], Code::PROTOCOL_ERROR);
    broken(&[frame(kind::PUSH_PROMISE, WHOLE, 1, &[&[0, 0, 0, 2], GET].concat())], Code::PROTOCOL_ERROR);
    broken(&[settings(&[(2, 1)])], Code::PROTOCOL_ERROR);
    broken(&[headers(1, WHOLE | END, OK), data(1, END, b"x")], Code::STREAM_CLOSED);
    let client = Connection::client(&Settings::default(), &Limits::default(), Instant::now());
    let mut client = Client { connection: client, now: Instant::now() };
    let written = frames(&drain(&mut client.connection));
    assert!(written[0].payload.starts_with(&[0, 2, 0, 0, 0, 0]), "no pushes");
    assert_eq!(client.feed(&window_update(0, 1)).map_err(|e| e.code()), Err(Code::PROTOCOL_ERROR), "settings first");
}

#[test]
fn rfc_9113_8_7_whether_a_request_was_seen() {
    check(Method::GET, &[reset(1, Code::REFUSED_STREAM)], Ok("reset REFUSED_STREAM seen false"));
    check(Method::GET, &[reset(1, Code::CANCEL)], Ok("reset CANCEL seen true"));
    let goaway = |last: u8| frame(kind::GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
    check(Method::GET, &[goaway(0)], Ok("reset NO_ERROR seen false"));
    check(Method::GET, &[goaway(1), headers(1, WHOLE | END, OK)], Ok("200  end"));
    // The last word counts, and no later one takes it back.
    check(Method::GET, &[goaway(1), goaway(0)], Ok("reset NO_ERROR seen false"));
    check(Method::GET, &[goaway(0), goaway(1)], Ok("reset NO_ERROR seen false"));
    let mut client = Client::new();
    let key = client.send(Method::GET, true);
    client.connection.break_off();
    assert!(matches!(client.connection.read(key), Some(Received::Reset(Reset { seen: true, .. }))));
}

#[test]
fn rfc_9113_6_8_no_stream_behind_a_goaway() {
    let mut client = Client::new();
    let key = client.send(Method::GET, true);
    client.feed(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
    assert!(!client.connection.can_open() && !client.connection.takes_streams() && !client.connection.is_done());
    client.feed(&headers(1, WHOLE | END, OK)).unwrap();
    assert!(client.connection.is_done());
    assert_eq!(read_all(&mut client.connection, key).1.len(), 2, "what came is read all the same");
}

#[test]
fn rfc_9113_5_1_2_no_more_streams_than_the_server_takes() {
    let mut client = Client::new();
    client.feed(&settings(&[(3, 1)])).unwrap();
    let key = client.send(Method::GET, true);
    assert!(!client.connection.can_open());
    client.connection.release(key);
    assert!(client.connection.can_open());
    client.feed(&settings(&[(3, 0)])).unwrap();
    let head = RequestHead::new(Method::GET, Version::HTTP_11, b"/", Fields::default());
    assert_eq!(client.connection.send_request(&head, true, client.now), Err(SendError::NoRoom));
}

#[test]
fn rfc_9113_8_1_a_response_may_be_whole_before_the_request_is() {
    let mut client = Client::new();
    let key = client.send(Method::POST, false);
    let ends = [headers(1, WHOLE, OK), data(1, END, b"enough"), reset(1, Code::NO_ERROR)].concat();
    client.feed(&ends).unwrap();
    assert_eq!(client.connection.send_data(key, Bytes::from_static(b"x"), true), Err(SendError::Over));
    let (body, others) = read_all(&mut client.connection, key);
    assert_eq!(body, b"enough");
    assert!(matches!(others[..], [Received::Head(_), Received::End]));
}

#[test]
fn rfc_9113_8_2_2_what_belongs_to_a_connection_stays_there() {
    let mut client = Client::new();
    let fields = [
        ("Host", "a.example"),
        ("Connection", "close, X"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("TE", "gzip"),
        ("X-Own", "1"),
    ];
    let mut head = RequestHead::new(Method::POST, Version::HTTP_11, b"/p?q", fields.into_iter().collect());
    head.set_scheme(b"https");
    drain(&mut client.connection);
    client.connection.send_request(&head, true, client.now).unwrap();
    let written = frames(&drain(&mut client.connection));
    let mut lines = Vec::new();
    let one = |name: &[u8], value: &[u8]| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    Decoder::new(4096).decode(&written[0].payload, |line| lines.push(one(line.name, line.value))).unwrap();
    assert_eq!(lines, [":method: POST", ":scheme: https", ":path: /p?q", ":authority: a.example", "x-own: 1"]);
}

#[test]
fn rfc_9113_4_3_a_long_head_goes_in_several_frames() {
    let mut client = Client::new();
    drain(&mut client.connection);
    let value = vec![b'v'; 10_000];
    let fields: Fields = (0..5).map(|place| (format!("x-{place}"), value.clone())).collect();
    let head = RequestHead::new(Method::GET, Version::HTTP_11, b"/", fields);
    client.connection.send_request(&head, true, client.now).unwrap();
    let bytes = drain(&mut client.connection);
    let kinds: Vec<_> = frames(&bytes).iter().map(|frame| (frame.kind, frame.flags)).collect();
    let middle = (kind::CONTINUATION, 0);
    assert_eq!(kinds, [(kind::HEADERS, END), middle, middle, (kind::CONTINUATION, WHOLE)]);
}

#[test]
fn rfc_9113_6_5_2_a_head_larger_than_the_peer_takes_is_not_sent() {
    let mut client = Client::new();
    client.feed(&settings(&[(6, 200)])).unwrap();
    drain(&mut client.connection);
    let mut head = RequestHead::new(Method::GET, Version::HTTP_11, b"/", Fields::default());
    head.fields.push(b"x", &[b'v'; 200]);
    let refused = client.connection.send_request(&head, true, client.now);
    assert!(matches!(refused, Err(SendError::HeadTooLarge { bytes_max: 200, .. })), "{refused:?}");
    assert!(drain(&mut client.connection).is_empty());
    let head = RequestHead::new(Method::GET, Version::HTTP_11, b"/", Fields::default());
    client.connection.send_request(&head, true, client.now).unwrap();
}

#[test]
fn rfc_7541_6_2_3_what_was_secret_stays_secret() {
    let mut tested = Tested::server(App::Holds);
    let secret = [0x10, 6, b'x', b'-', b'm', b'i', b'n', b'e', 1, b's'];
    tested.feed(&headers(1, WHOLE | END, &[GET, &secret].concat())).unwrap();
    let mut client = Client::new();
    drain(&mut client.connection);
    for _ in 0..3 {
        client.connection.send_request(&tested.requests[0], true, client.now).unwrap();
        let written = frames(&drain(&mut client.connection));
        assert!(written[0].payload.ends_with(&secret), "{written:?}");
    }
}

#[test]
fn a_silent_server_is_asked_and_then_left() {
    let mut client = Client::new();
    assert_eq!(client.connection.deadline(), None, "nobody waits for it");
    let key = client.send(Method::GET, true);
    let deadline = client.connection.deadline().unwrap();
    client.connection.tick(deadline).unwrap();
    assert_eq!(frames(&drain(&mut client.connection))[0].kind, kind::PING);
    let last = client.connection.deadline().unwrap();
    client.connection.tick(deadline).unwrap();
    assert_eq!(client.connection.tick(last), Err(ConnectionError::Silent));
    assert!(matches!(client.connection.read(key), Some(Received::Reset(_))));
    // One that says anything is there.
    let mut client = Client::new();
    client.send(Method::GET, true);
    let deadline = client.connection.deadline().unwrap();
    client.connection.tick(deadline).unwrap();
    client.now = deadline;
    client.feed(&headers(1, WHOLE, &[0x88])).unwrap();
    assert!(client.connection.deadline().unwrap() > last);
    assert!(client.connection.peer_settings().received && Name::Te.as_str() == "te");
}
