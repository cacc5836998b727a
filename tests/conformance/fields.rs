//! Field lines, and where they end (RFC 9112 sections 2.2 and 5, RFC 9110 section 5).

use crate::asked::{Row, bad, forwarded, refused, row};

pub fn rows() -> Vec<Row> {
    [names(), values(), line_ends(), folding(), sizes()].into_iter().flatten().collect()
}

/// A request with this field line, as it is.
fn with(line: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /x HTTP/1.1\r\nHost: a\r\n", line.as_ref(), b"\r\n\r\n"].concat()
}

fn names() -> Vec<Row> {
    let mut rows = vec![
        row("9112 5.1: a space before the colon", with("X-A : 1"), bad()),
        row("9112 5.1: a tab before the colon", with("X-A\t: 1"), bad()),
        row("9112 5.1: a space before the colon of the last field", with("Accept: x\r\nX-A : 1"), bad()),
        row("9112 5: an empty name", with(": 1"), bad()),
        row("9112 5: a space for a name", with(" : 1"), bad()),
        row("9112 5: a line without a colon", with("X-A"), bad()),
        row("9112 5: a line of two words without a colon", with("X-A 1"), bad()),
        row("9112 5: a line of colons", with("::"), bad()),
        row("9112 5: a request line among fields", with("GET / HTTP/1.1"), bad()),
    ];
    for (what, byte) in [
        ("NUL", 0),
        ("SOH", 1),
        ("VT", 0x0b),
        ("a bare CR", 0x0d),
        ("a space", b' '),
        ("a tab", b'\t'),
        ("DEL", 0x7f),
        ("an 8-bit character", 0xe9),
    ] {
        rows.push(row(format!("9110 5.1: a name with {what}"), with([b"X", &[byte][..], b"A: 1"].concat()), bad()));
    }
    for byte in b"()<>@,;\\\"/[]?={}" {
        rows.push(row(
            format!("9110 5.1: a name with {}", char::from(*byte)),
            with([b"X", &[*byte][..], b"A: 1"].concat()),
            bad(),
        ));
    }
    let odd = "X-!#$%&'*+.^_`|~9";
    rows.push(row(
        "9110 5.6.2: a name of every character of a token",
        with(format!("{odd}: 1")),
        forwarded().field(odd, "1"),
    ));
    rows.push(row(
        "9110 5.6.2: a name with an underscore is a name of its own",
        with("Content_Length: 5"),
        bad().or(forwarded().without("content-length").body("")),
    ));
    rows.push(row(
        "9110 5.1: an unknown field is passed on",
        with("X-Unknown: 1"),
        forwarded().field("x-unknown", "1"),
    ));
    rows.push(row(
        "9110 5.3: equal names keep their order",
        with("X-A: 1\r\nX-B: 2\r\nX-A: 3"),
        forwarded().fields("x-a", &["1", "3"]),
    ));
    rows
}

fn values() -> Vec<Row> {
    let mut rows = vec![
        row(
            "9112 5.1: whitespace around a value is no part of it",
            with("X-A: \t 1 2 \t"),
            forwarded().field("x-a", "1 2"),
        ),
        row("9112 5.1: no whitespace before a value", with("X-A:1"), forwarded().field("x-a", "1")),
        row("9110 5.5: an empty value", with("X-A:"), forwarded().field("x-a", "")),
        row("9110 5.5: a value of whitespace", with("X-A:  \t"), forwarded().field("x-a", "")),
        row("9110 5.5: a tab within a value", with("X-A: 1\t2"), forwarded().field("x-a", "1\t2")),
        row("9110 5.5: colons within a value", with("X-A: 1:2::"), forwarded().field("x-a", "1:2::")),
        row(
            "9110 5.5: quotes and commas within a value",
            with("X-A: \"a, b\", c=\"d\\\"e\""),
            forwarded().field("x-a", "\"a, b\", c=\"d\\\"e\""),
        ),
        row(
            "9110 5.5: 8-bit characters are opaque",
            with(b"X-A: caf\xe9 \xff\x80"),
            forwarded().field("x-a", "caf\u{e9} \u{ff}\u{80}"),
        ),
        row("9110 5.5: UTF-8 is opaque", with("X-A: \u{e9}"), forwarded().field("x-a", "\u{c3}\u{a9}")),
    ];
    for (what, byte) in [("NUL", 0), ("a bare CR", 0x0d)] {
        for (place, before, after) in [("within", "1", "2"), ("before", "", "2"), ("behind", "1", "")] {
            let line = [b"X-A: ", before.as_bytes(), &[byte], after.as_bytes()].concat();
            rows.push(row(format!("9110 5.5: {what} {place} a value"), with(line), bad().or(forwarded())));
        }
    }
    for byte in (1..0x20).filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n')).chain([0x7f]) {
        let sent = with([b"X-A: 1", &[byte][..], b"2"].concat());
        rows.push(row(
            format!("9110 5.5: the control character {byte:#04x} within a value"),
            sent,
            bad().or(forwarded()),
        ));
    }
    rows
}

fn line_ends() -> Vec<Row> {
    let either = || bad().or(forwarded().target("/x"));
    vec![
        row("9112 2.2: a bare LF ends a field line", "GET /x HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n", either()),
        row("9112 2.2: a bare LF ends the last field line", "GET /x HTTP/1.1\r\nHost: a\n\r\n", either()),
        row("9112 2.2: a bare LF ends the head", "GET /x HTTP/1.1\r\nHost: a\r\n\n", either()),
        row("9112 2.2: bare LFs everywhere", "GET /x HTTP/1.1\nHost: a\n\n", either()),
        row("9112 2.2: LF CR instead of CRLF", "GET /x HTTP/1.1\n\rHost: a\n\r\n\r", bad()),
        row("9112 2.2: a bare CR ends a field line", "GET /x HTTP/1.1\r\nHost: a\rX-A: 1\r\n\r\n", bad()),
        row("9112 2.2: a bare CR ends the head", "GET /x HTTP/1.1\r\nHost: a\r\n\rX-A: 1\r\n\r\n", bad()),
        row("9112 2.2: CR CR LF ends a field line", "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\r\n\r\n", either()),
        row("9112 2.2: CR CR LF ends the head", "GET /x HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", bad()),
        row("9112 2.2: bare CRs everywhere", "GET /x HTTP/1.1\rHost: a\r\r", bad()),
        row(
            "9112 2.2: a bare CR hides a field",
            "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\rContent-Length: 5\r\n\r\n",
            bad().or(forwarded().body("")),
        ),
        row(
            "9112 2.2: a bare LF hides a field",
            "POST /x HTTP/1.1\r\nHost: a\r\nX-A: 1\nContent-Length: 5\r\n\r\nhello",
            bad().or(forwarded().body("hello")),
        ),
        row(
            "9112 2.2: a NUL hides a field",
            "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\0Content-Length: 5\r\n\r\n",
            bad().or(forwarded().body("")),
        ),
    ]
}

fn folding() -> Vec<Row> {
    let either = || bad().or(forwarded().target("/x"));
    let first = |line: &str| format!("GET /x HTTP/1.1\r\n{line}\r\nHost: a\r\n\r\n");
    vec![
        row("9112 5.2: a folded value", with("X-A: 1\r\n 2"), either()),
        row("9112 5.2: a value folded with a tab", with("X-A: 1\r\n\t2"), either()),
        row("9112 5.2: a value folded twice", with("X-A: 1\r\n 2\r\n 3"), either()),
        row("9112 5.2: a value that begins folded", with("X-A:\r\n 1"), either()),
        row("9112 5.2: a value folded with a bare LF", with("X-A: 1\n 2"), either()),
        row("9112 5.2: a fold of nothing", with("X-A: 1\r\n "), either()),
        row(
            "9112 5.2: a fold that looks like a field",
            with("X-A: 1\r\n Content-Length: 5"),
            bad().or(forwarded().without("content-length").body("")),
        ),
        row(
            "9112 5.2: a folded Content-Length",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello",
            bad().or(forwarded().body("hello")),
        ),
        row(
            "9112 5.2: a Content-Length with a fold behind it",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n 0\r\n\r\nhello",
            bad(),
        ),
        row("9112 5.2: a folded Host", "GET /x HTTP/1.1\r\nHost:\r\n a\r\n\r\n", either()),
        row("9112 2.2: whitespace before the first field", first(" X-A: 1"), bad().or(forwarded().without("x-a"))),
        row("9112 2.2: a tab before the first field", first("\tX-A: 1"), bad().or(forwarded().without("x-a"))),
        row("9112 2.2: a line of whitespace before the first field", first("  "), either()),
        row("9112 2.2: whitespace before a first Host", first(" Host: b"), bad().or(forwarded().field("host", "a"))),
    ]
}

fn sizes() -> Vec<Row> {
    let fields = |count: usize, size: usize| {
        let lines: Vec<String> = (0..count).map(|n| format!("X-{n}: {}", "v".repeat(size))).collect();
        with(lines.join("\r\n"))
    };
    vec![
        row("9110 5.4: 90 fields", fields(90, 10), forwarded().field("x-89", "vvvvvvvvvv")),
        row(
            "9110 5.4: a value of 16,000 bytes",
            with(format!("X-A: {}", "v".repeat(16_000))),
            forwarded().field("x-a", &"v".repeat(16_000)),
        ),
        row("9110 5.4: a value of 70,000 bytes", with(format!("X-A: {}", "v".repeat(70_000))), refused(&[431])),
        row("9110 5.4: a name of 70,000 bytes", with(format!("{}: 1", "n".repeat(70_000))), refused(&[431])),
        row("9110 5.4: fields of 100,000 bytes in all", fields(100, 1000), refused(&[431])),
        row("9110 5.4: 8,000 small fields", fields(8_000, 1), refused(&[431])),
        row("9110 5.4: a head of 300,000 bytes", with(format!("X-A: {}", "v".repeat(300_000))), refused(&[431])),
    ]
}
