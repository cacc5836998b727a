//! Whom a request is for (RFC 9112 section 3.2, RFC 9110 section 7.2, RFC 3986 section 3.2).

use crate::asked::{Row, bad, forwarded, row};

pub fn rows() -> Vec<Row> {
    [count(), values(), old()].into_iter().flatten().collect()
}

fn with(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\n{fields}\r\n")
}

fn count() -> Vec<Row> {
    vec![
        row("9112 3.2: no Host", with(""), bad()),
        row("9112 3.2: no Host among others", with("Accept: a\r\nX-Host: a\r\n"), bad()),
        row("9112 3.2: two different Hosts", with("Host: a\r\nHost: b\r\n"), bad()),
        row("9112 3.2: two equal Hosts", with("Host: a\r\nHost: a\r\n"), bad()),
        row("9112 3.2: two Hosts in different case, apart", with("HOST: a\r\nAccept: x\r\nhost: a\r\n"), bad()),
        row("9112 3.2: two Hosts, the first empty", with("Host:\r\nHost: a\r\n"), bad()),
        row("9112 3.2: two Hosts, the second empty", with("Host: a\r\nHost:\r\n"), bad()),
        row("9112 5.1: a second Host with a space before its colon", with("Host: a\r\nHost : b\r\n"), bad()),
        row("9112 5.2: a second Host folded", with("Host: a\r\n Host: b\r\n"), bad()),
        row("9112 5: a Host without a colon", with("Host a\r\n"), bad()),
        row("9110 5.1: its name in any case", with("hOsT: a\r\n"), forwarded().field("host", "a")),
        row("9112 5.1: no space behind its colon", with("Host:a\r\n"), forwarded().field("host", "a")),
        row("9112 5.1: whitespace around its value", with("Host: \t a \t\r\n"), forwarded().field("host", "a")),
        row(
            "9110 7.2: it is passed on where it is not the first",
            with("Accept: x\r\nHost: a\r\n"),
            forwarded().field("host", "a"),
        ),
    ]
}

fn values() -> Vec<Row> {
    let mut rows = Vec::new();
    for value in [
        "a",
        "a.b.c",
        "a:80",
        "a:65535",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:80",
        "[2001:db8::1]",
        "a-b_c",
        "xn--caf-dma",
        "A.Example",
    ] {
        rows.push(row(
            format!("9110 7.2: {value} is a Host"),
            with(&format!("Host: {value}\r\n")),
            forwarded().field("host", value),
        ));
    }
    for value in [
        "",
        "a:",
        "a:99999",
        "a:0",
        "a,b",
        "a..b",
        ".a",
        "a;b",
        "a%41",
        "[v1.a:b]",
        "[::ffff:1.2.3.4]",
        "a.",
        "~a",
        "1.2.3",
        "999.1.1.1",
    ] {
        let wanted = bad().or(forwarded().field("host", value));
        rows.push(row(
            format!("3986 3.2: {value:?} is refused or passed on as it is"),
            with(&format!("Host: {value}\r\n")),
            wanted,
        ));
    }
    for value in [
        "a b",
        "a/",
        "a/b",
        "/",
        "a?b",
        "a#b",
        "me@a",
        "me:secret@a",
        "@a",
        "a@",
        "a, b",
        "http://a",
        "http://a/",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:80a",
        "a:+80",
        "a: 80",
        "a :80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:x",
        "[::g]",
        "[]",
        "[a]",
        "a%zz",
        "a%",
        "<a>",
        "a\\b",
        "\"a\"",
        "a^b",
        "a|b",
        "a`b",
        "{a}",
        "a\tb",
        ":80",
        ":",
    ] {
        rows.push(row(format!("9112 3.2: {value:?} is no Host"), with(&format!("Host: {value}\r\n")), bad()));
    }
    for (what, byte) in
        [("NUL", 0), ("SOH", 1), ("a bare CR", 0x0d), ("VT", 0x0b), ("DEL", 0x7f), ("an 8-bit character", 0xe9)]
    {
        let sent = [b"GET /x HTTP/1.1\r\nHost: a", &[byte][..], b"b\r\n\r\n"].concat();
        rows.push(row(format!("9112 3.2: a Host with {what}"), sent, bad()));
    }
    rows.push(row(
        "9112 3.2: a Host of 300 characters is refused or passed on",
        with(&format!("Host: {}\r\n", "a".repeat(300))),
        bad().or(forwarded()),
    ));
    rows
}

fn old() -> Vec<Row> {
    let old = |fields: &str| format!("GET /x HTTP/1.0\r\n{fields}\r\n");
    vec![
        row("9112 3.2: HTTP/1.0 without Host", old(""), bad().or(forwarded().target("/x").closes())),
        row("9112 3.2: HTTP/1.0 with Host", old("Host: a\r\n"), forwarded().target("/x").field("host", "a").closes()),
        row("9112 3.2: HTTP/1.0 with two Hosts", old("Host: a\r\nHost: b\r\n"), bad()),
        row("9112 3.2: HTTP/1.0 with an invalid Host", old("Host: a b\r\n"), bad()),
    ]
}
