//! Where a request ends: DATA, Content-Length and trailers, which become a length or chunks (RFC 9113 section 8.1, RFC 9112
//! section 6).

use super::{Row, Wanted, cut, get, head, passed, passed_body, post, refused, row};

pub fn rows() -> Vec<Row> {
    [lengths(), wrong_lengths(), chunks(), methods(), trailers()].into_iter().flatten().collect()
}

fn posted(lines: &str, body: &str) -> Wanted {
    passed(&format!("POST /x HTTP/1.1\nhost: a\n{lines}"), body)
}

/// A body whose length nobody told.
fn untold(body: &str) -> Wanted {
    passed_body(
        "POST /x HTTP/1.1
host: a",
        body,
        &[],
    )
}

fn trailed(body: &str, trailers: &[(&str, &str)]) -> Wanted {
    passed_body(
        "POST /x HTTP/1.1
host: a",
        body,
        trailers,
    )
}

fn sized(length: &str) -> Vec<(String, String)> {
    post(&[("content-length", length)])
}

fn lengths() -> Vec<Row> {
    let five = || posted("content-length: 5", "hello");
    vec![
        row("9113 8.1.1: a length, and one frame", sized("5"), five()).body(&["hello"]),
        row("9113 8.1.1: a length, and two frames", sized("5"), five()).body(&["he", "llo"]),
        row("9113 8.1.1: a length, and an empty frame that ends", sized("5"), five()).body(&["hello", ""]),
        row("9113 8.1.1: a length, and empty frames between", sized("5"), five()).body(&["", "he", "", "llo"]),
        row("9113 8.1.1: a length of 0", sized("0"), posted("content-length: 0", "")),
        row("9113 8.1.1: a length of 0, and an empty frame", sized("0"), posted("content-length: 0", "")).body(&[""]),
        row("9110 8.6: leading zeros are no other length", sized("005"), five().or(refused())).body(&["hello"]),
        row(
            "9113 8.1.1: a body that looks like a request",
            sized("33"),
            posted("content-length: 33", "GET /evil HTTP/1.1\r\nhost: e\r\n\r\nxx"),
        )
        .body(&["GET /evil HTTP/1.1\r\nhost: e\r\n\r\nxx"]),
        row(
            "9110 5.3: its place among other fields is not its value",
            post(&[("x-a", "1"), ("content-length", "5"), ("x-b", "2")]),
            posted("x-a: 1\nx-b: 2\ncontent-length: 5", "hello"),
        )
        .body(&["hello"]),
    ]
}

fn wrong_lengths() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, length, body) in [
        ("less DATA than the length", "6", &["hello"][..]),
        ("more DATA than the length", "4", &["hello"]),
        ("more DATA than the length, in another frame", "5", &["hello", "!"]),
        ("more DATA behind a whole body that looks like a request", "5", &["hello", "GET /evil HTTP/1.1\r\n\r\n"]),
        ("less DATA, and an empty frame", "6", &["hello", ""]),
        ("DATA of a length of 0", "0", &["hello"]),
        ("nothing but an empty frame", "5", &[""]),
    ] {
        // What comes behind a body that is whole already may come too late to take it back; it goes nowhere.
        let late = match (length, body) {
            ("5", [_, _]) => posted("content-length: 5", "hello"),
            ("0", _) => posted("content-length: 0", ""),
            _ => Wanted::default(),
        };
        rows.push(row(format!("9113 8.1.1: {what}"), sized(length), cut().or(late)).body(body));
    }
    rows.push(row("9113 8.1.1: a length without DATA", sized("5"), refused()));
    rows.push(row("9113 8.1.1: a length of GET without DATA", get(&[("content-length", "5")]), refused()));
    rows.push(
        row("9113 8.1.1: less DATA than the length, and trailers", sized("6"), cut())
            .body(&["hello"])
            .trailers(&[("x-t", "1")]),
    );
    rows.push(row("9113 8.1.1: no DATA but trailers", sized("6"), cut()).trailers(&[("x-t", "1")]));
    for length in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 ",
        " 5",
        "0x5",
        "5.0",
        "5e0",
        "five",
        "5;",
        "5\u{b2}",
        "99999999999999999999",
        "18446744073709551616",
        "9223372036854775808",
        "00000000000000000000000000000000005",
    ] {
        let wanted =
            if length.ends_with("0005") { refused().or(posted("content-length: 5", "hello")) } else { refused() };
        rows.push(row(format!("9110 8.6: {length:?} is no length"), sized(length), wanted).body(&["hello"]));
    }
    for second in ["5", "6", "0", ""] {
        rows.push(
            row(
                format!("9112 6.3: 5 and {second:?} are two lengths"),
                post(&[("content-length", "5"), ("content-length", second)]),
                refused(),
            )
            .body(&["hello"]),
        );
    }
    rows
}

fn chunks() -> Vec<Row> {
    let crowd = "x".repeat(16_384);
    let smuggled = "0\r\n\r\nGET /evil HTTP/1.1\r\nhost: e\r\n\r\n";
    let sent = |name, body: &[&str]| row(name, post(&[]), untold(&body.concat())).body(body);
    vec![
        sent("9112 7.1: no length, and one frame", &["hello"]),
        sent("9112 7.1: no length, and two frames", &["he", "llo"]),
        sent("9112 7.1: empty frames are no last chunk", &["", "he", "", "llo", ""]),
        sent("9112 7.1: a body that looks like the end of chunks", &[smuggled]),
        sent("9112 7.1: frames of the largest size", &[&crowd, &crowd]),
        row("9112 7.1: nothing but an empty frame", post(&[]), untold("").or(posted("content-length: 0", "")))
            .body(&[""]),
    ]
}

fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PURGE"] {
        let first = format!("{method} /x HTTP/1.1\nhost: a");
        let sized = passed(&format!("{first}\ncontent-length: 5"), "hello");
        rows.push(
            row(
                format!("9110 9.3: {method} with a length and a body"),
                head(method, &[("content-length", "5")]),
                sized,
            )
            .body(&["hello"]),
        );
        rows.push(
            row(format!("9110 9.3: {method} with a body"), head(method, &[]), passed_body(&first, "hello", &[]))
                .body(&["hello"]),
        );
        let zero = passed(&format!("{first}\ncontent-length: 0"), "").or(passed(&first, ""));
        rows.push(row(
            format!("9110 8.6: {method} with a length of 0"),
            head(method, &[("content-length", "0")]),
            zero,
        ));
        let empty = passed_body(&first, "", &[]).or(passed(&first, ""));
        rows.push(row(format!("9110 9.3: {method} with an empty frame"), head(method, &[]), empty).body(&[""]));
    }
    rows
}

fn trailers() -> Vec<Row> {
    let one = || trailed("hello", &[("x-t", "1")]);
    let announced = passed_body("POST /x HTTP/1.1\nhost: a\ntrailer: x-t", "hello", &[("x-t", "1")]);
    let three = [("x-t", "1"), ("x-u", "2"), ("x-t", "3")];
    let sent = |name, wanted, trailers| row(name, post(&[]), wanted).body(&["hello"]).trailers(trailers);
    let mut rows = vec![
        sent("9113 8.1: trailers", one(), &[("x-t", "1")]),
        sent("9113 8.1: trailers of nothing", untold("hello"), &[]),
        sent("9110 5.3: trailers in their order", trailed("hello", &three), &three),
        row("9110 6.5: trailers that were announced", post(&[("trailer", "x-t")]), announced)
            .body(&["hello"])
            .trailers(&[("x-t", "1")]),
        row("9113 8.1: trailers without a body", post(&[]), trailed("", &[("x-t", "1")])).trailers(&[("x-t", "1")]),
        row("9112 7.1.2: trailers behind a length", sized("5"), posted("content-length: 5", "hello").or(one()))
            .body(&["hello"])
            .trailers(&[("x-t", "1")]),
    ];
    for (name, value) in [
        (":method", "GET"),
        (":path", "/evil"),
        (":scheme", "http"),
        (":authority", "e"),
        (":status", "200"),
        (":evil", "1"),
        ("X-T", "1"),
        ("", "1"),
        ("x t", "1"),
        ("x-t", "1\r\nx-evil: 1"),
        ("x-t", "1\r\n\r\nGET /evil HTTP/1.1\r\nhost: e"),
        ("x-t", "1\n"),
        ("x-t", "\0"),
        ("x-t", " 1"),
        ("x-t\r\nx-evil", "1"),
        ("x-t:", "1"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "1"),
        ("te", "gzip"),
    ] {
        rows.push(
            row(format!("9113 8.1: the trailer {name:?}: {value:?}"), post(&[]), cut())
                .body(&["hello"])
                .trailers(&[(name, value)]),
        );
    }
    for (name, value) in [
        ("content-length", "5"),
        ("content-length", "7"),
        ("content-length", "x"),
        ("host", "e"),
        ("te", "trailers"),
        ("trailer", "x-t"),
        ("authorization", "e"),
        ("cookie", "e"),
        ("expect", "100-continue"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("max-forwards", "0"),
    ] {
        rows.push(
            row(
                format!("9110 6.5.1: the trailer {name}: {value} goes no further"),
                post(&[]),
                untold("hello").or(cut()),
            )
            .body(&["hello"])
            .trailers(&[(name, value)]),
        );
    }
    rows
}
