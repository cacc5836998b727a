//! Where a response's body ends (RFC 9112 sections 6 and 9, RFC 9110 sections 6.4 and 15).

use crate::answered::{Row, Wanted, broken, gateway, passed, row, row_and_end, row_and_reset};

pub fn rows() -> Vec<Row> {
    [lengths(), codings(), bodyless(), beyond(), old()].into_iter().flatten().collect()
}

fn with(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    with("Transfer-Encoding: chunked", body)
}

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
/// What must reach nobody.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn hello() -> Wanted {
    passed(200).body("hello")
}

fn lengths() -> Vec<Row> {
    let mut rows = vec![
        row("9112 6.2: Content-Length 5", with("Content-Length: 5", "hello"), hello().field("content-length", "5")),
        row(
            "9112 6.2: Content-Length 0",
            with("Content-Length: 0", ""),
            passed(200).body("").field("content-length", "0"),
        ),
        row("9112 6.3: neither length nor coding: until the end", "HTTP/1.1 200 OK\r\n\r\nhello", hello()).and_end(),
        row("9112 6.3: neither length nor coding, and no byte", "HTTP/1.1 200 OK\r\n\r\n", passed(200).body(""))
            .and_end(),
        row("9110 8.6: Content-Length 05", with("Content-Length: 05", "hello"), gateway().or(hello())),
        row("9112 5.1: a space behind the name", with("Content-Length : 5", "hello"), gateway().or(hello())),
    ];
    for value in [
        "",
        "+5",
        "-5",
        "0x5",
        "5h",
        "5 5",
        "5;",
        "5.0",
        "1e1",
        "five",
        "\"5\"",
        "5, 6",
        "5,",
        ",",
        "5\u{b}",
        "5\0",
        "\u{665}",
        "18446744073709551621",
        "99999999999999999999999999",
        "_5",
        "5_0",
    ] {
        rows.push(row_and_end(
            format!("9112 6.3: Content-Length {value:?}"),
            with(&format!("Content-Length: {value}"), "hello"),
            gateway(),
        ));
    }
    for (first, second) in [("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("5", "x"), ("x", "5"), ("5", "+5")] {
        let lines = format!("Content-Length: {first}\r\nContent-Length: {second}");
        rows.push(row_and_end(
            format!("9112 6.3: Content-Length {first:?} and {second:?}"),
            with(&lines, "hello"),
            gateway(),
        ));
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,5",
        "Content-Length: 5\r\nContent-Length: 05",
    ] {
        rows.push(row(
            format!("9112 6.3: {lines:?} is refused or made one"),
            with(lines, "hello"),
            gateway().or(hello().field("content-length", "5")),
        ));
    }
    rows
}

fn codings() -> Vec<Row> {
    let mut rows = Vec::new();
    for value in ["chunked", "Chunked", "CHUNKED", " chunked", "\tchunked\t"] {
        rows.push(row(
            format!("9112 7: Transfer-Encoding {value:?}"),
            with(&format!("Transfer-Encoding:{value}"), CHUNKS),
            hello(),
        ));
    }
    for value in ["chunked,", ",chunked", "\r\n chunked"] {
        rows.push(row(
            format!("9110 5.6.1: Transfer-Encoding {value:?}"),
            with(&format!("Transfer-Encoding: {value}"), CHUNKS),
            gateway().or(hello()),
        ));
    }
    for value in [
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "x-chunked",
        "\"chunked\"",
        "chunked;a=b",
        "\u{b}chunked",
        "chunked\u{b}",
        "chunked\0",
        "chunked identity",
        "gzip",
        "chunked, gzip",
        "chunked, identity",
        "cow",
        "",
        ",",
    ] {
        rows.push(row_and_end(
            format!("9112 6.3: Transfer-Encoding {value:?}"),
            with(&format!("Transfer-Encoding: {value}"), CHUNKS),
            gateway(),
        ));
    }
    rows.push(row_and_end(
        "9112 7.4: Transfer-Encoding \"identity\"",
        with("Transfer-Encoding: identity", "hello"),
        gateway().or(hello()),
    ));
    rows.push(row_and_end(
        "9112 6.1: two Transfer-Encodings",
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CHUNKS),
        gateway(),
    ));
    let both = || gateway().or(hello().without("content-length"));
    for length in ["5", "0", "15", "100"] {
        let (length, coding) = (format!("Content-Length: {length}"), "Transfer-Encoding: chunked");
        rows.push(row(
            format!("9112 6.3: {length} then {coding}"),
            with(&format!("{length}\r\n{coding}"), CHUNKS),
            both(),
        ));
        rows.push(row(
            format!("9112 6.3: {coding} then {length}"),
            with(&format!("{coding}\r\n{length}"), CHUNKS),
            both(),
        ));
    }
    rows.push(row_and_end(
        "9112 6.3: Content-Length and an unknown coding",
        with("Content-Length: 5\r\nTransfer-Encoding: x", "hello"),
        gateway(),
    ));
    rows.push(row_and_end(
        "9112 6.1: Transfer-Encoding in HTTP/1.0",
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
        broken(),
    ));
    rows
}

/// Responses that have no body, whatever they say.
fn bodyless() -> Vec<Row> {
    let mut rows = Vec::new();
    for lines in ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Type: text/plain", "Content-Length: 0"] {
        rows.push(row(format!("9112 6.3: HEAD and {lines}"), with(lines, ""), passed(200)).to("HEAD"));
        rows.push(row(
            format!("9110 15.4.5: 304 and {lines}"),
            format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n\r\n"),
            passed(304),
        ));
        let none = || passed(204).without("content-length").without("transfer-encoding");
        let none = if lines.contains("Type") { none() } else { gateway().or(none()) };
        rows.push(row(
            format!("9110 8.6: 204 and {lines}"),
            format!("HTTP/1.1 204 No Content\r\n{lines}\r\n\r\n"),
            none,
        ));
    }
    rows.push(
        row(
            "9110 9.3.2: HEAD keeps Content-Length",
            with("Content-Length: 5", ""),
            passed(200).field("content-length", "5"),
        )
        .to("HEAD"),
    );
    rows.push(row(
        "9110 15.4.5: 304 keeps Content-Length or drops it",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n",
        passed(304).field("etag", "\"a\""),
    ));
    rows.push(row(
        "9110 15.3.6: 205 has a length",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        passed(205).body(""),
    ));
    rows.push(row("9110 15.3.5: 204 with nothing else", "HTTP/1.1 204 No Content\r\n\r\n", passed(204)));
    for (what, status) in [("204", "204 No Content"), ("304", "304 Not Modified")] {
        for (how, lines, body) in [
            ("a length", "Content-Length: 5\r\n", "hello"),
            ("chunks", "Transfer-Encoding: chunked\r\n", CHUNKS),
            ("nothing", "", "hello"),
            ("a response", "", POISON),
        ] {
            let sent = format!("HTTP/1.1 {status}\r\n{lines}\r\n{body}");
            rows.push(
                row(
                    format!("9112 6.3: {what} with a body by {how} poisons nobody"),
                    sent,
                    gateway().or(passed(status[..3].parse().unwrap())),
                )
                .at_once(),
            );
        }
    }
    for (how, lines, body) in [
        ("a length", "Content-Length: 5", "hello"),
        ("chunks", "Transfer-Encoding: chunked", CHUNKS),
        ("a response", "Content-Length: 46", POISON),
    ] {
        rows.push(
            row(
                format!("9112 6.3: HEAD answered with a body by {how} poisons nobody"),
                with(lines, body),
                gateway().or(passed(200)),
            )
            .to("HEAD")
            .at_once(),
        );
    }
    rows
}

/// Bytes behind a whole response, that are the answer to nothing.
fn beyond() -> Vec<Row> {
    let mut rows = Vec::new();
    let two = |head: &str| format!("{head}{POISON}");
    for (what, sent, wanted) in [
        ("a length", two(&with("Content-Length: 5", "hello")), hello()),
        ("chunks", two(&chunked(CHUNKS)), hello()),
        ("no byte", two(&with("Content-Length: 0", "")), passed(200).body("")),
        ("a 404", two("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), passed(404).body("")),
    ] {
        rows.push(row(
            format!("9112 9.2: a response behind {what} poisons nobody"),
            sent.clone(),
            broken().or(wanted.clone()),
        ));
        rows.push(row_and_end(
            format!("9112 9.2: a response behind {what}, then the end, poisons nobody"),
            sent,
            broken().or(wanted),
        ));
    }
    for extra in
        ["\r\n", "x", "\0", "0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"]
    {
        rows.push(row(
            format!("9112 6.3: {extra:?} behind a body poisons nobody"),
            with("Content-Length: 5", &format!("hello{extra}")),
            broken().or(hello()),
        ));
    }
    rows.push(row(
        "9112 9.2: a thousand responses behind one poison nobody",
        with("Content-Length: 5", &format!("hello{}", POISON.repeat(1000))),
        broken().or(hello()),
    ));
    rows.into_iter().map(Row::at_once).collect()
}

/// Clients and origins of HTTP/1.0.
fn old() -> Vec<Row> {
    let old = |lines: &str, body: &str| format!("HTTP/1.0 200 OK\r\n{lines}\r\n{body}");
    vec![
        row("9112 6.1: chunks become a body until the end", chunked(CHUNKS), hello()).by_old(""),
        row(
            "9112 6.1: trailers are dropped",
            with("Transfer-Encoding: chunked\r\nTrailer: X-T", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
            hello().without("x-t"),
        )
        .by_old(""),
        row("9112 9.3: a length keeps the connection that is to be kept", with("Content-Length: 5", "hello"), hello())
            .by_old("Connection: keep-alive\r\n"),
        row("9112 9.3: chunks cannot keep the connection that is to be kept", chunked(CHUNKS), hello())
            .by_old("Connection: keep-alive\r\n"),
        row("9112 9.3: no length, to a client that would keep the connection", "HTTP/1.1 200 OK\r\n\r\nhello", hello())
            .by_old("Connection: keep-alive\r\n")
            .and_end(),
        row("9112 9.3: a length, to a client that names nothing", with("Content-Length: 5", "hello"), hello())
            .by_old(""),
        row(
            "9110 6.2: the proxy answers an origin of HTTP/1.0 in its own version",
            old("Content-Length: 5\r\n", "hello"),
            hello(),
        )
        .and_end(),
        row(
            "9112 9.3: an origin of HTTP/1.0 that keeps the connection",
            old("Connection: keep-alive\r\nContent-Length: 5\r\n", "hello"),
            hello().without("keep-alive"),
        ),
        row(
            "9112 9.3: an origin of HTTP/1.0 whose connection must not be used again",
            old("Content-Length: 5\r\n", "hello"),
            hello(),
        ),
        row("9112 6.3: an origin of HTTP/1.0 without a length", old("", "hello"), hello()).and_end(),
        row("9112 6.3: an origin of HTTP/1.0 without a length, to HTTP/1.0", old("", "hello"), hello())
            .by_old("")
            .and_end(),
        row_and_reset("9112 8: an origin of HTTP/1.0 that is cut", old("", "hello"), broken()),
        row("9112 9.6: an origin that closes", with("Connection: close\r\nContent-Length: 5", "hello"), hello())
            .and_end(),
        row(
            "9112 9.6: an origin that says it closes and does not",
            with("Connection: close\r\nContent-Length: 5", "hello"),
            hello(),
        ),
        row(
            "9112 9.6: an origin that says it closes, and sends more",
            with("Connection: close\r\nContent-Length: 5", &format!("hello{POISON}")),
            hello(),
        ),
    ]
}
