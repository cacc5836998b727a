//! Transfer codings of a request, alone and beside a length (RFC 9112 sections 6.1, 6.3 and 7).

use crate::asked::{Row, Wanted, bad, cut, forwarded, refused, row};

pub fn rows() -> Vec<Row> {
    [codings(), both(), hidden()].into_iter().flatten().collect()
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

fn codings() -> Vec<Row> {
    let mut rows = Vec::new();
    for value in [
        "chunked",
        "Chunked",
        "CHUNKED",
        "cHuNkEd",
        " chunked",
        "\tchunked",
        "chunked ",
        "chunked\t",
        "  \t chunked \t ",
    ] {
        rows.push(row(
            format!("9112 7: Transfer-Encoding {value:?}"),
            post(&format!("Transfer-Encoding:{value}"), CHUNKS),
            hello(),
        ));
    }
    for value in ["chunked,", ",chunked", ", chunked ,", "\r\n chunked", "chunked\r\n "] {
        rows.push(row(
            format!("9110 5.6.1: Transfer-Encoding {value:?}"),
            post(&format!("Transfer-Encoding: {value}"), CHUNKS),
            unknown().or(hello()),
        ));
    }
    for value in [
        "",
        ",",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "deflate, gzip, chunked",
        "x-gzip, chunked",
        "chunked, chunked",
        "chunked,chunked",
        "xchunked",
        "chunkedx",
        "x-chunked",
        "chunke",
        "chunked chunked",
        "chunked identity",
        "\"chunked\"",
        "'chunked'",
        "chunked;a=b",
        "chunked;q=1",
        "chunked; ",
        "chunked;",
        "chunked\0",
        "\0chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "chunked\u{c}",
        "\u{a0}chunked",
        "chun\tked",
        "chunk\u{e9}d",
        "\u{212a}chunked",
        "chun\u{212a}ed",
        "=chunked",
        "chunked=",
        "(chunked)",
        "[chunked]",
        "chunked/1",
        "trailers",
        "chunked, trailers",
        "*",
        "chunked\u{7f}",
        "chunked\r",
        "chunked\rx",
        "chunked, cow",
        "cow, chunked",
        "cow",
        "br, chunked",
        "compress, chunked",
        "undefined",
        "null",
    ] {
        rows.push(row(
            format!("9112 6.1: Transfer-Encoding {value:?}"),
            post(&format!("Transfer-Encoding: {value}"), CHUNKS),
            unknown(),
        ));
    }
    for (first, second) in [
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("identity", "chunked"),
        ("gzip", "chunked"),
        ("chunked", "gzip"),
        ("chunked", "x"),
        ("x", "chunked"),
        ("", "x"),
    ] {
        let lines = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}");
        rows.push(row(
            format!("9112 6.1: Transfer-Encoding {first:?} and {second:?}"),
            post(&lines, CHUNKS),
            unknown(),
        ));
    }
    for (first, second) in [("chunked", ""), ("", "chunked")] {
        let lines = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}");
        rows.push(row(
            format!("9110 5.6.1: Transfer-Encoding {first:?} and {second:?}"),
            post(&lines, CHUNKS),
            unknown().or(hello()),
        ));
    }
    rows.push(row(
        "9112 6.1: Transfer-Encoding in HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        bad(),
    ));
    rows.push(row("9112 6.1: Transfer-Encoding and keep-alive in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", bad()));
    rows.push(row(
        "9112 6.1: Transfer-Encoding and Content-Length in HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        bad(),
    ));
    rows
}

fn both() -> Vec<Row> {
    let chunks = || bad().or(hello().closes());
    let mut rows = Vec::new();
    for (length, coding) in
        [("5", "chunked"), ("0", "chunked"), ("15", "chunked"), ("5, 5", "chunked"), ("05", "chunked")]
    {
        let (length, coding) = (format!("Content-Length: {length}"), format!("Transfer-Encoding: {coding}"));
        rows.push(row(
            format!("9112 6.3: {length} then {coding}"),
            post(&format!("{length}\r\n{coding}"), CHUNKS),
            chunks(),
        ));
        rows.push(row(
            format!("9112 6.3: {coding} then {length}"),
            post(&format!("{coding}\r\n{length}"), CHUNKS),
            chunks(),
        ));
    }
    for coding in ["identity", "xchunked", "gzip", "chunked, identity", "", "\u{b}chunked", "chunked\0"] {
        let lines = format!("Content-Length: 5\r\nTransfer-Encoding: {coding}");
        rows.push(row(
            format!("9112 6.3: Content-Length and Transfer-Encoding {coding:?}"),
            post(&lines, "hello"),
            unknown(),
        ));
    }
    for length in ["x", "-1", "", "5, 6"] {
        let lines = format!("Transfer-Encoding: chunked\r\nContent-Length: {length}");
        rows.push(row(
            format!("9112 6.3: Transfer-Encoding and Content-Length {length:?}"),
            post(&lines, CHUNKS),
            bad().or(hello().closes()),
        ));
    }
    rows
}

/// Fields that some would read as framing, and others not.
fn hidden() -> Vec<Row> {
    let length = "Content-Length: 5";
    let mut rows = Vec::new();
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\0: chunked",
        "\u{b}Transfer-Encoding: chunked",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding:: chunked",
        "Transfer-Encoding; chunked",
        "Transfer-Encoding chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "\rTransfer-Encoding: chunked",
        "Transfer-Encoding\r: chunked",
        "\u{feff}Transfer-Encoding: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Tran\u{17f}fer-Encoding: chunked",
        "Transfer-Encod\u{131}ng: chunked",
        "\"Transfer-Encoding\": chunked",
    ] {
        // Where a bare LF ends a line, there are both, and the body is no chunk.
        let wanted = if line.contains('\n') { unknown().or(cut()) } else { unknown() };
        rows.push(row(
            format!("9112 5: {line:?} beside Content-Length"),
            post(&format!("{length}\r\n{line}"), "hello"),
            wanted,
        ));
    }
    for line in [
        "Transfer_Encoding: chunked",
        "Transfer-Encodin: chunked",
        "X-Transfer-Encoding: chunked",
        "TransferEncoding: chunked",
        "Content_Length: 9",
    ] {
        let wanted = bad().or(hello().field("content-length", "5").without("transfer-encoding"));
        rows.push(row(
            format!("9110 5.1: {line:?} is no framing"),
            post(&format!("{length}\r\n{line}"), "hello"),
            wanted,
        ));
    }
    rows
}
