//! Response heads (RFC 9112 sections 4 and 5, RFC 9110 sections 5, 6.6 and 15).

use crate::answered::{Row, gateway, passed, row, row_and_end, row_and_reset, unanswered};

pub fn rows() -> Vec<Row> {
    [status_lines(), names(), values(), line_ends(), fields(), sizes(), nothing()].into_iter().flatten().collect()
}

/// A response with this status line, and two bytes.
fn status(line: &str) -> String {
    format!("{line}\r\nContent-Length: 2\r\n\r\nok")
}

/// A response with this field line, as it is.
fn with(line: impl AsRef<[u8]>) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", line.as_ref(), b"\r\nContent-Length: 2\r\n\r\nok"].concat()
}

fn ok() -> crate::answered::Wanted {
    passed(200).body("ok")
}

fn status_lines() -> Vec<Row> {
    let mut rows = Vec::new();
    for code in [
        200, 201, 202, 203, 206, 226, 299, 300, 301, 302, 303, 307, 308, 399, 400, 401, 404, 405, 418, 421, 429, 431,
        451, 499, 500, 501, 502, 503, 504, 505, 511, 599,
    ] {
        rows.push(row(
            format!("9110 15: status {code} is passed on"),
            status(&format!("HTTP/1.1 {code} Words here")),
            passed(code).body("ok"),
        ));
    }
    for code in [600, 700, 999] {
        rows.push(row(
            format!("9110 15: status {code} is of no known class"),
            status(&format!("HTTP/1.1 {code} Words")),
            gateway().or(passed(code).body("ok")),
        ));
    }
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 0x1 OK",
        "HTTP/1.1 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1  ",
        "HTTP/2.0 200 OK",
        "HTTP/2 200 OK",
        "HTTP/3.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1 200 OK",
        "HTTP/1. 200 OK",
        "HTTP/11 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/01.1 200 OK",
        "HTTP/1.1.1 200 OK",
        "HTTP/x.y 200 OK",
        "http/1.1 200 OK",
        "HTTPS/1.1 200 OK",
        "ICY 200 OK",
        "200 OK",
        "HTTP/1.1200 OK",
        "HTTP/1.1, 200 OK",
        "HTTP/1.1 200OK",
        "nonsense",
        "GET / HTTP/1.1",
        "HTTP/1.1 200.0 OK",
        "HTTP/1.1 \u{662}00 OK",
        "SSH-2.0-OpenSSH_9.2",
        "220 smtp.example ESMTP",
        "\u{1}\u{2}\u{3}",
        "<html>",
    ] {
        rows.push(row_and_end(format!("9112 4: {line:?} is no status line"), status(line), gateway()));
    }
    for line in [
        "HTTP/1.1 200",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.2 200 OK",
        "HTTP/1.9 200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "\r\n\r\nHTTP/1.1 200 OK",
        "\nHTTP/1.1 200 OK",
    ] {
        rows.push(row(format!("9112 4: {line:?} is refused or made one"), status(line), gateway().or(ok())));
    }
    for line in
        ["HTTP/1.1 200 ", "HTTP/1.1 200 \t", "HTTP/1.1 200 All is well", "HTTP/1.1 200 200", "HTTP/1.1 200 OK  "]
    {
        rows.push(row(format!("9112 4: {line:?} is a status line"), status(line), ok()));
    }
    rows.push(row(
        "9112 4: a reason with 8-bit characters",
        [b"HTTP/1.1 200 caf\xe9\r\nContent-Length: 2\r\n\r\nok".as_slice()].concat(),
        ok(),
    ));
    for (what, byte) in [("NUL", 0), ("SOH", 1), ("a bare CR", 0x0d), ("ESC", 0x1b), ("DEL", 0x7f)] {
        let sent = [b"HTTP/1.1 200 O", &[byte][..], b"K\r\nContent-Length: 2\r\n\r\nok"].concat();
        rows.push(row(format!("9112 4: a reason with {what} is refused or made one"), sent, gateway().or(ok())));
    }
    rows.push(row_and_end("9112 4: HTTP/1.0 with a length", status("HTTP/1.0 200 OK"), ok()));
    rows
}

fn names() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in ["X-A : 1", "X-A\t: 1", "X-A  : 1"] {
        rows.push(row(
            format!("9112 5.1: whitespace before the colon in {line:?} is removed or refused"),
            with(line),
            gateway().or(ok().field("x-a", "1")),
        ));
    }
    for line in [
        ": 1",
        "X-A",
        "X A: 1",
        "X(A): 1",
        "X\0A: 1",
        "X\"A: 1",
        "X/A: 1",
        "X@A: 1",
        "X[A]: 1",
        "X\u{7f}A: 1",
        "X\u{1}A: 1",
        "X{A}: 1",
        "X,A: 1",
        "X;A: 1",
        "X=A: 1",
        "X?A: 1",
        "X\\A: 1",
        "X<A>: 1",
        "X\u{e9}A: 1",
        "X\rA: 1",
        "HTTP/1.1 200 OK",
        "X-A 1",
        "::",
    ] {
        rows.push(row_and_end(format!("9112 5: {line:?} is no field line"), with(line), gateway()));
    }
    rows.push(row(
        "9110 5.6.2: a name of every character of a token",
        with("X-!#$%&'*+.^_`|~9: 1"),
        ok().field("X-!#$%&'*+.^_`|~9", "1"),
    ));
    rows
}

fn values() -> Vec<Row> {
    let mut rows = vec![
        row("9112 5.1: whitespace around a value is no part of it", with("X-A: \t 1 2 \t"), ok().field("x-a", "1 2")),
        row("9112 5.1: no whitespace before a value", with("X-A:1"), ok().field("x-a", "1")),
        row("9110 5.5: an empty value", with("X-A:"), ok().field("x-a", "")),
        row("9110 5.5: 8-bit characters are opaque", with(b"X-A: caf\xe9 \xff"), ok().field("x-a", "caf\u{e9} \u{ff}")),
        row("9110 5.5: a tab within a value", with("X-A: 1\t2"), ok().field("x-a", "1\t2")),
    ];
    for (what, byte) in [("NUL", 0), ("a bare CR", 0x0d)] {
        for (place, line) in [("within", ["X-A: 1", "2"]), ("before", ["X-A: ", "1"]), ("behind", ["X-A: 1", ""])] {
            let line = [line[0].as_bytes(), &[byte], line[1].as_bytes()].concat();
            rows.push(row(
                format!("9110 5.5: {what} {place} a value is refused or replaced"),
                with(line),
                gateway().or(ok()),
            ));
        }
    }
    for byte in [1, 2, 7, 8, 0x0b, 0x0c, 0x0e, 0x1b, 0x1f, 0x7f] {
        let line = [b"X-A: 1", &[byte][..], b"2"].concat();
        rows.push(row(
            format!("9110 5.5: the control character {byte:#04x} within a value is refused or removed"),
            with(line),
            gateway().or(ok()),
        ));
    }
    rows
}

fn line_ends() -> Vec<Row> {
    let either = || gateway().or(ok());
    vec![
        row("9112 2.2: a bare LF ends the status line", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", either()),
        row(
            "9112 2.2: a bare LF ends a field line",
            "HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 2\r\n\r\nok",
            either(),
        ),
        row("9112 2.2: a bare LF ends the head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", either()),
        row("9112 2.2: bare LFs everywhere", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", either()),
        row_and_end("9112 2.2: bare CRs everywhere", "HTTP/1.1 200 OK\rContent-Length: 2\r\rok", unanswered()),
        row(
            "9112 2.2: CR CR LF ends a field line",
            "HTTP/1.1 200 OK\r\nX-A: 1\r\r\nContent-Length: 2\r\n\r\nok",
            either(),
        ),
        row(
            "9112 2.2: a bare CR hides a field",
            "HTTP/1.1 200 OK\r\nX-A: 1\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
            gateway().or(ok().without("set-cookie")),
        ),
        row("9112 5.2: a folded value", with("X-A: 1\r\n 2"), either()),
        row("9112 5.2: a value folded with a tab", with("X-A: 1\r\n\t2"), either()),
        row("9112 5.2: a value that begins folded", with("X-A:\r\n 1"), either()),
        row("9112 5.2: a folded Content-Length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok", either()),
        row(
            "9112 5.2: a fold that looks like a field",
            with("X-A: 1\r\n Set-Cookie: a=b"),
            gateway().or(ok().without("set-cookie")),
        ),
        row("9112 2.2: whitespace before the first field", with(" X-A: 1"), gateway().or(ok().without("x-a"))),
    ]
}

fn fields() -> Vec<Row> {
    vec![
        row(
            "9110 5.3: Set-Cookie is never joined",
            with("Set-Cookie: a=1\r\nX-B: 2\r\nSet-Cookie: c=3"),
            ok().fields("set-cookie", &["a=1", "c=3"]),
        ),
        row("9110 5.1: an unknown field is passed on", with("X-Unknown: 1"), ok().field("x-unknown", "1")),
        row(
            "9110 6.6.1: Date is passed on as it is",
            with("Date: Sun, 06 Nov 1994 08:49:37 GMT"),
            ok().field("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ),
        row("9110 10.2.4: Server is passed on as it is", with("Server: origin/1"), ok().field("server", "origin/1")),
        row(
            "9110 11.6.1: WWW-Authenticate is passed on",
            with("WWW-Authenticate: Basic realm=\"a\""),
            ok().field("www-authenticate", "Basic realm=\"a\""),
        ),
        row("9110 8.8.3: ETag is passed on as it is", with("ETag: W/\"a b\""), ok().field("etag", "W/\"a b\"")),
        row(
            "9110 10.2.2: Location is passed on as it is",
            with("Location: http://b/?x#y"),
            ok().field("location", "http://b/?x#y"),
        ),
        row(
            "9110 8.4: Content-Encoding is passed on",
            with("Content-Encoding: gzip"),
            ok().field("content-encoding", "gzip"),
        ),
        row("9110 14.3: Accept-Ranges is passed on", with("Accept-Ranges: none"), ok().field("accept-ranges", "none")),
        row(
            "9111 5.2: Cache-Control is passed on",
            with("Cache-Control: no-transform, max-age=0"),
            ok().field("cache-control", "no-transform, max-age=0"),
        ),
    ]
}

fn sizes() -> Vec<Row> {
    let many = |count: usize| with((0..count).map(|n| format!("X-{n}: {n}")).collect::<Vec<_>>().join("\r\n"));
    let long = |size: usize| with(format!("X-A: {}", "v".repeat(size)));
    let either = || gateway().or(ok());
    vec![
        row("9110 5.4: 90 fields", many(90), ok().field("x-89", "89")),
        row("9110 5.4: a value of 16,000 bytes", long(16_000), ok().field("x-a", &"v".repeat(16_000))),
        row("9110 5.4: a value of 200,000 bytes", long(200_000), either()),
        row("9110 5.4: 8,000 fields", many(8_000), either()),
        row("9112 4: a reason of 200,000 bytes", status(&format!("HTTP/1.1 200 {}", "x".repeat(200_000))), either()),
        row_and_end("9112 4: no end of a line in 300,000 bytes", "x".repeat(300_000), gateway()),
    ]
}

fn nothing() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, sent) in [
        ("no byte", ""),
        ("half a version", "HTTP/1"),
        ("half a status line", "HTTP/1.1 20"),
        ("a status line", "HTTP/1.1 200 OK\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
        ("half the end of a head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r"),
    ] {
        rows.push(row_and_end(format!("9112 8: {what}, then the end"), sent, unanswered()));
        rows.push(row_and_reset(format!("9112 8: {what}, then a reset"), sent, unanswered()));
        rows.push(row_and_end(format!("9112 8: {what}, then the end, to HEAD"), sent, unanswered()).to("HEAD"));
    }
    rows
}
