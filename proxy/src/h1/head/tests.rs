use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 512, fields_max: 8 };

/// Reads a request that comes in pieces; none when its end never came.
fn read(input: &[u8], piece: usize) -> Result<Option<Whole<RequestHead>>, BadHead> {
    let mut scan = Scan::default();
    for end in (0..).map(|count: usize| (count * piece).min(input.len())) {
        match scan.request(&input[..end], LIMITS)? {
            None if end == input.len() => return Ok(None),
            None => {}
            whole => return Ok(whole),
        }
    }
    unreachable!("the range has no end")
}

fn shown(head: &RequestHead) -> String {
    let authority = String::from_utf8_lossy(head.authority().unwrap_or(b"-"));
    format!("{} {} {authority} {:?} {:?}", head.method, String::from_utf8_lossy(head.path()), head.version, head.fields)
}

#[track_caller]
fn check(input: &str, expected: &str) {
    for piece in [1, 2, 3, 5, input.len()] {
        let whole =
            read(input.as_bytes(), piece).unwrap().unwrap_or_else(|| panic!("{input:?} by {piece} is not whole"));
        assert_eq!((shown(&whole.head).as_str(), whole.length), (expected, input.len()), "by {piece}");
    }
}

#[track_caller]
fn refused(input: &str) {
    for piece in [1, 3, input.len()] {
        assert!(read(input.as_bytes(), piece).is_err(), "{input:?} by {piece}: {:?}", read(input.as_bytes(), piece));
    }
}

#[test]
fn requests_as_the_grammar_has_them() {
    check("GET / HTTP/1.1\r\n\r\n", "GET / - HTTP/1.1 []");
    check("\r\n\r\nget /a?b=%20 HTTP/1.0\r\nHost:\ta \r\nx:\r\n\r\n", "get /a?b=%20 - HTTP/1.0 [Host: a, x: ]");
    check("OPTIONS * HTTP/1.9\r\nA: b\\x\r\n\r\n", "OPTIONS * - HTTP/1.1 [A: b\\\\x]");
    check("GET http://a:1/b HTTP/1.1\r\nhost: c\r\n\r\n", "GET /b a:1 HTTP/1.1 [host: c]");
    check("CONNECT a:443 HTTP/1.1\r\nX: y  z\r\n\r\n", "CONNECT  a:443 HTTP/1.1 [X: y  z]");
    check("M-SEARCH /\u{7e} HTTP/1.1\r\nx!#$: a\tb\r\n\r\n", "M-SEARCH /~ - HTTP/1.1 [x!#$: a\\tb]");
}

#[test]
fn what_is_no_request() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1.",
        "GET / HTTP/0.9",
        "GET /a b HTTP/1.1",
        "G@T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /# HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a HTTP/1.1",
        "\n",
    ] {
        refused(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    for field in [
        "Host : a",
        " Host: a",
        "\tHost: a",
        "Host",
        ": a",
        "H\u{e9}: a",
        "a b: c",
        "a\0: b",
        "a: b\0",
        "a: b\x0b",
        "a: b\x7f",
        "a: b\rc",
        "a: b\nc: d",
        "a: b\r\n c",
        "(a): b",
        "a",
    ] {
        refused(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n"));
    }
    for whole in
        ["GET / HTTP/1.1\n\n", "GET / HTTP/1.1\r\n\n", "GET / HTTP/1.1\rHost: a\r\r", "GET / HTTP/1.1\r\nHost: a\r\n\r"]
    {
        if !whole.ends_with("a\r\n\r") {
            refused(whole);
        }
    }
    refused("\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n");
}

#[test]
fn what_begins_wrong_is_refused_before_its_end() {
    let check = |input: &str| assert!(Scan::default().request(input.as_bytes(), LIMITS).is_err(), "{input:?}");
    for input in
        ["GET /\r\n", "\x16\x03\x01", " ", "GET / HTTP/2.0\r\n", "GET /\rx", "G\n", "GET / HTTP/1.1\r\nHost: a\n"]
    {
        check(input);
    }
    for fine in ["", "G", "GET /", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\n\r", "\r\n"] {
        assert!(Scan::default().request(fine.as_bytes(), LIMITS).unwrap().is_none(), "{fine:?}");
    }
}

#[test]
fn heads_are_limited() {
    let check = |input: String, expected: BadHead| {
        for piece in [1, 64, input.len()] {
            assert_eq!(read(input.as_bytes(), piece).unwrap_err(), expected, "by {piece}");
        }
    };
    check(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(600)), BadHead::TargetTooLong { bytes_max: 512 });
    check(format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(600)), BadHead::TooLarge { bytes_max: 512 });
    check(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9)), BadHead::TooManyFields { fields_max: 8 });
}

#[test]
fn responses() {
    let read = |input: &str| Scan::default().response(input.as_bytes(), LIMITS);
    let check = |input: &str, status: u16, reason: &str, fields: &str| {
        let whole = read(input).unwrap().unwrap();
        assert_eq!((whole.head.status.as_u16(), whole.length), (status, input.len()));
        assert_eq!((whole.head.reason(), format!("{:?}", whole.head.fields).as_str()), (reason.as_bytes(), fields));
    };
    check("HTTP/1.1 200 OK\r\n\r\n", 200, "OK", "[]");
    check("HTTP/1.0 404\r\nA: b\r\n\r\n", 404, "Not Found", "[A: b]");
    check("HTTP/1.1 204 \r\nA \t: b\r\n\r\n", 204, "No Content", "[A: b]");
    check("HTTP/1.1 599 G\u{f6} on\r\n\r\n", 599, "G\u{f6} on", "[]");
    for bad in [
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\na\x0c: b\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "x",
        "HTTP/1.1 2OO OK\r\n\r\n",
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert!(read("HTT").unwrap().is_none() && read("HTTP/1.1 200 OK\r\n").unwrap().is_none());
}

#[test]
fn another_protocol_is_told_by_its_first_line() {
    let check =
        |line: &str, expected: bool| assert_eq!(is_foreign(format!("{line}\r\n").as_bytes()), expected, "{line}");
    for line in ["INVALID CONNECTION PREFACE", "MAIL FROM you", "a b c d"] {
        check(line, true);
    }
    for line in [
        "",
        "nonsense",
        "two words",
        "GET / HTTP/1.1",
        "GET / ICY/1.1",
        "GET x HTTP/1.1",
        "GET x http/1.1",
        "OPTIONS * ICY/1.1",
        "CONNECT a:80 ICY/1.1",
        "HTTP/1.1 200 OK",
        "a  b",
        "G(T x y",
        " a b",
    ] {
        check(line, false);
    }
}
