//! Where a request's body ends (RFC 9112 section 6, RFC 9110 section 8.6).

use crate::asked::{Row, Wanted, bad, cut, forwarded, refused, row, row_and_end};

pub fn rows() -> Vec<Row> {
    [lengths(), repeated(), none(), unfinished(), smuggled()].into_iter().flatten().collect()
}

/// A request with these field lines, and what is behind its head.
fn post(lines: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

fn hello() -> Wanted {
    forwarded().target("/x").body("hello")
}

/// A transfer coding that we do not know, or that makes no sense.
fn unknown() -> Wanted {
    refused(&[400, 501])
}

fn lengths() -> Vec<Row> {
    let mut rows = vec![
        row("9112 6.2: Content-Length 5", post("Content-Length: 5", "hello"), hello()),
        row("9112 6.2: whitespace around a Content-Length", post("Content-Length: \t 5 \t", "hello"), hello()),
        row("9112 6.2: Content-Length 0", post("Content-Length: 0", ""), forwarded().body("")),
        row("9110 8.6: Content-Length 05", post("Content-Length: 05", "hello"), bad().or(hello())),
        row(
            "9110 8.6: a Content-Length with forty zeros",
            post(&format!("Content-Length: {}5", "0".repeat(40)), "hello"),
            bad().or(hello()),
        ),
        row("9112 5.1: a space behind the name", post("Content-Length : 5", "hello"), bad()),
        row("9112 5.1: a tab behind the name", post("Content-Length\t: 5", "hello"), bad()),
    ];
    for value in [
        "", "+5", "-5", "-0", "+0", "0x5", "5h", "5 5", "5;", "5.", "5.0", "1e1", "5e0", "five", "\"5\"", "5;a=b",
        "5 0", "_5", "5_0", "0b101", "0o5", " ", "\u{665}", "\u{ff15}", "5\u{b}", "\u{b}5", "5\0", "\x005", "5\u{7f}",
        "NaN", "(5)", "5 bytes", "=5", "5=", "!5", "#5", "'5'", "5-5",
    ] {
        rows.push(row(
            format!("9110 8.6: Content-Length {value:?}"),
            post(&format!("Content-Length: {value}"), "hello"),
            bad(),
        ));
    }
    for value in ["18446744073709551621", "4294967301000000000005", "99999999999999999999999999999999999999"] {
        let wanted = refused(&[400, 413]);
        rows.push(row(
            format!("9110 8.6: Content-Length {value} overflows"),
            post(&format!("Content-Length: {value}"), "hello"),
            wanted,
        ));
    }
    rows.push(row_and_end(
        "9110 8.6: Content-Length 9223372036854775813 is not 5",
        post("Content-Length: 9223372036854775813", "hello"),
        cut().or(refused(&[413])),
    ));
    rows.push(row_and_end(
        "9110 8.6: Content-Length 4294967301 is not 5",
        post("Content-Length: 4294967301", "hello"),
        Wanted::or(cut(), refused(&[413])),
    ));
    rows
}

fn repeated() -> Vec<Row> {
    let once = || bad().or(hello().field("content-length", "5"));
    let two =
        |first: &str, second: &str| post(&format!("Content-Length: {first}\r\nContent-Length: {second}"), "hello");
    let list = |value: &str| post(&format!("Content-Length: {value}"), "hello");
    let mut rows = vec![
        row("9112 6.3: two equal Content-Lengths", two("5", "5"), once()),
        row("9110 8.6: a list of equal Content-Lengths", list("5, 5"), once()),
        row("9110 8.6: a list of equal Content-Lengths without a space", list("5,5"), once()),
        row("9110 8.6: a list of three equal Content-Lengths", list("5, 5, 5"), once()),
        row("9110 8.6: a Content-Length and another in another form", two("5", "05"), once()),
    ];
    for (first, second) in [
        ("5", "6"),
        ("6", "5"),
        ("0", "5"),
        ("5", "0"),
        ("5", ""),
        ("", "5"),
        ("5", "x"),
        ("x", "5"),
        ("5", "+5"),
        ("5", "-5"),
    ] {
        rows.push(row(format!("9112 6.3: Content-Length {first:?} and {second:?}"), two(first, second), bad()));
    }
    for value in ["5, 6", "6, 5", "5,", ",5", "5,,5", "5, ", ",", "5, x", "5;5", "0, 5", "5, 5, 6"] {
        rows.push(row(format!("9112 6.3: Content-Length {value:?}"), list(value), bad()));
    }
    rows.push(row(
        "9112 6.3: two Content-Lengths in different case, apart",
        post("CONTENT-LENGTH: 5\r\nX-A: 1\r\ncontent-length: 6", "hello"),
        bad(),
    ));
    rows
}

fn none() -> Vec<Row> {
    let mut rows = vec![
        row(
            "9112 6.3: POST without any length has no body",
            "POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
            forwarded().method("POST").body(""),
        ),
        row(
            "9112 6.3: PUT without any length has no body",
            "PUT /x HTTP/1.1\r\nHost: a\r\n\r\n",
            forwarded().method("PUT").body(""),
        ),
        row(
            "9112 6.3: what is behind a request without length is the next",
            "POST /x HTTP/1.1\r\nHost: a\r\n\r\nhello\r\n\r\n",
            forwarded().body("").then_refused(&[400]),
        ),
    ];
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "SEARCH"] {
        let wanted = bad().or(forwarded().method(method).body("hello"));
        let sent = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        rows.push(row(format!("9110 9.3: {method} with a body"), sent, wanted.clone()));
        let sent = format!("{method} /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}");
        rows.push(row(format!("9110 9.3: {method} with a chunked body"), sent, wanted));
    }
    let traced = refused(&[400, 405, 413]).or(forwarded().method("TRACE"));
    rows.push(row(
        "9110 9.3.8: TRACE with a body",
        "TRACE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        traced,
    ));
    rows.push(row(
        "9110 9.3.6: CONNECT with a body",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
        refused(&[400, 403, 405, 501]),
    ));
    rows
}

fn unfinished() -> Vec<Row> {
    vec![
        row_and_end("9112 8: a body shorter than its Content-Length", post("Content-Length: 10", "hello"), cut()),
        row_and_end("9112 8: no byte of a body", post("Content-Length: 10", ""), cut()),
        row_and_end("9112 8: one byte short", post("Content-Length: 6", "hello"), cut()),
        row_and_end("9112 8: chunks without a last one", post("Transfer-Encoding: chunked", "5\r\nhello\r\n"), cut()),
        row_and_end("9112 8: no byte of chunks", post("Transfer-Encoding: chunked", ""), cut()),
        row_and_end("9112 8: half a chunk", post("Transfer-Encoding: chunked", "5\r\nhel"), cut()),
        row_and_end("9112 8: half a chunk size", post("Transfer-Encoding: chunked", "5"), cut()),
        row_and_end(
            "9112 8: a last chunk without its end",
            post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
            cut(),
        ),
        row_and_end("9112 8: half an end", post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r"), cut()),
        row_and_end("9112 8: half a trailer", post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-T: 1"), cut()),
        row_and_end(
            "9112 8: trailers without their end",
            post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-T: 1\r\n"),
            cut(),
        ),
        row_and_end("9112 8: half a head", "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1", cut()),
        row_and_end("9112 8: a head without its end", "GET /x HTTP/1.1\r\nHost: a\r\n", cut()),
        row_and_end("9112 8: half a request line", "GET /x HT", cut()),
    ]
}

/// Requests within requests, as attacks have them.
fn smuggled() -> Vec<Row> {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let close = |body: &str| bad().or(forwarded().body(body).closes());
    vec![
        row(
            "9112 11.2: a request behind the last chunk, by Content-Length",
            post(
                &format!("Content-Length: {}\r\nTransfer-Encoding: chunked", 5 + inner.len()),
                &format!("0\r\n\r\n{inner}"),
            ),
            close(""),
        ),
        row(
            "9112 11.2: a request within a chunk, by Content-Length",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked",
                &format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
            ),
            close(inner),
        ),
        row(
            "9112 11.2: a request behind a hidden Transfer-Encoding",
            post("Content-Length: 5\r\nTransfer-Encoding: \u{b}chunked", &format!("0\r\n\r\n{inner}")),
            unknown(),
        ),
        row(
            "9112 11.2: a request behind a second Transfer-Encoding",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", &format!("0\r\n\r\n{inner}")),
            unknown(),
        ),
        row(
            "9112 11.2: a request behind a second Content-Length",
            post(&format!("Content-Length: 0\r\nContent-Length: {}", inner.len()), inner),
            bad(),
        ),
        row(
            "9112 11.2: a body that looks like a request",
            post(&format!("Content-Length: {}", inner.len()), inner),
            forwarded().body(inner),
        ),
        row(
            "9112 11.2: a chunk that looks like a request",
            post("Transfer-Encoding: chunked", &format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len())),
            forwarded().body(inner),
        ),
        row(
            "9112 11.2: a request in a field value",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r{}", "GET /smuggled HTTP/1.1\r\n\r\n"),
            bad(),
        ),
        row(
            "9112 11.2: a request behind a GET with a length",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()),
            bad().or(forwarded().body(inner)),
        ),
        row(
            "9112 11.2: a request behind an Upgrade to h2c",
            format!(
                "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n{inner}"
            ),
            forwarded().without("http2-settings").requests(2),
        ),
    ]
}
