//! Chunks and trailers of a response, and responses that are cut (RFC 9112 sections 7.1 and 8, RFC 9110 section 6.5).

use crate::answered::{Row, Wanted, broken, passed, row, row_and_end, row_and_reset};

pub fn rows() -> Vec<Row> {
    [chunks(), trailers(), cut()].into_iter().flatten().collect()
}

fn with(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    with("Transfer-Encoding: chunked", body)
}

/// What must reach nobody.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn hello() -> Wanted {
    passed(200).body("hello")
}

fn chunks() -> Vec<Row> {
    let mut rows = vec![
        row("9112 7.1: two chunks", chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), hello()),
        row("9112 7.1: no data", chunked("0\r\n\r\n"), passed(200).body("")),
        row("9112 7.1: a size in upper case", chunked("A\r\n0123456789\r\n0\r\n\r\n"), passed(200).body("0123456789")),
        row("9112 7.1: a size with leading zeros", chunked("0005\r\nhello\r\n000\r\n\r\n"), hello()),
        row("9112 7.1.1: extensions", chunked("5;a=\"b\";c\r\nhello\r\n0;d\r\n\r\n"), hello()),
        row(
            "9112 7.1: a chunk of 100,000 bytes",
            chunked(&format!("186a0\r\n{}\r\n0\r\n\r\n", "x".repeat(100_000))),
            passed(200).body(&"x".repeat(100_000)),
        ),
        row(
            "9112 7.1: data like a response",
            chunked(&format!("{:x}\r\n{POISON}\r\n0\r\n\r\n", POISON.len())),
            passed(200).body(POISON),
        ),
    ];
    for size in [
        "",
        " 5",
        "+5",
        "-5",
        "0x5",
        "5h",
        "5,",
        "5_0",
        "g",
        "5 5",
        "\u{b}5",
        "5\0",
        "five",
        "5\u{e9}",
        "10000000000000005",
        "FFFFFFFFFFFFFFFFFFFF",
        "100000005",
        "FFFFFFFFFFFFFFFF",
        "7FFFFFFFFFFFFFFF",
        "8000000000000005",
        "5;a\0",
        "5;a\n",
        "5;\ra",
        "5;\u{1}",
        "-0",
    ] {
        rows.push(row_and_end(
            format!("9112 7.1: a chunk under {size:?}"),
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
            broken(),
        ));
    }
    for size in ["5 ", "5\t", "5 ;a", "5; a", "5;", "5;a=\"b"] {
        rows.push(row_and_end(
            format!("9112 7.1.1: a chunk under {size:?} is refused or taken"),
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
            broken().or(hello()),
        ));
    }
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "hello",
        "5\nhello\n0\n\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0 \0\r\n\r\n",
        "5\r\nhello\r\n0x0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\r\n \r\n\r\n",
    ] {
        rows.push(row_and_end(format!("9112 7.1: the chunks {body:?}"), chunked(body), broken()));
    }
    rows
}

fn trailers() -> Vec<Row> {
    let with_trailers = |announced: &str, lines: &str| {
        with(&format!("Transfer-Encoding: chunked{announced}"), &format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"))
    };
    let mut rows = vec![
        row(
            "9112 7.1.2: a trailer that was announced is passed on",
            with_trailers("\r\nTrailer: X-T", "X-T: 1"),
            hello().trailer("x-t", "1"),
        )
        .with_fields("TE: trailers\r\nConnection: TE\r\n"),
        row("9112 7.1.2: a trailer is no field", with_trailers("\r\nTrailer: X-T", "X-T: 1"), hello().without("x-t")),
        row("9112 7.1.2: a trailer that was not announced", with_trailers("", "X-T: 1"), hello()),
        row(
            "9112 7.1.2: trailers of 200,000 bytes",
            with_trailers("", &format!("X-T: {}", "v".repeat(200_000))),
            broken().or(hello()),
        ),
    ];
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Trailer",
        "Keep-Alive",
        "Upgrade",
        "Location",
        "Cache-Control",
    ] {
        let sent = with_trailers(&format!("\r\nTrailer: {name}"), &format!("{name}: 7"));
        rows.push(row(format!("9110 6.5.1: {name} is no trailer"), sent, broken().or(hello().without_trailer(name))));
    }
    for line in ["X-T : 1", ": 1", "X-T", "X T: 1", "X-T: 1\0", "X-T: 1\r2", "X\0: 1", " X-T: 1", "X-T: \u{1}", POISON]
    {
        rows.push(row_and_end(format!("9112 5: {line:?} is no trailer"), with_trailers("", line), broken()));
    }
    rows
}

fn cut() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, sent) in [
        ("no byte of a body", with("Content-Length: 10", "")),
        ("half a body", with("Content-Length: 10", "hello")),
        ("a body one byte short", with("Content-Length: 6", "hello")),
        ("no byte of chunks", chunked("")),
        ("half a size", chunked("5")),
        ("half a chunk", chunked("5\r\nhel")),
        ("chunks without a last one", chunked("5\r\nhello\r\n")),
        ("half a last chunk", chunked("5\r\nhello\r\n0")),
        ("a last chunk without its end", chunked("5\r\nhello\r\n0\r\n")),
        ("half an end", chunked("5\r\nhello\r\n0\r\n\r")),
        ("half a trailer", chunked("5\r\nhello\r\n0\r\nX-T: 1")),
        ("a length of 2^40", with("Content-Length: 1099511627776", "hello")),
    ] {
        rows.push(row_and_end(format!("9112 8: {what}, then the end"), sent.clone(), broken()));
        rows.push(row_and_reset(format!("9112 8: {what}, then a reset"), sent.clone(), broken()));
        rows.push(row_and_end(format!("9112 8: {what}, then the end, to HTTP/1.0"), sent, broken()).by_old(""));
    }
    rows.push(row_and_reset("9112 8: a body until the end, then a reset", "HTTP/1.1 200 OK\r\n\r\nhello", broken()));
    rows.push(
        row_and_reset(
            "9112 8: a body until the end, then a reset, to HTTP/1.0",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            broken(),
        )
        .by_old(""),
    );
    rows
}
