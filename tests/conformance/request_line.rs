//! Methods, targets and versions (RFC 9112 sections 2 and 3, RFC 9110 sections 2.5, 4 and 9).

use crate::asked::{Row, Wanted, bad, forwarded, refused, row};

pub fn rows() -> Vec<Row> {
    [methods(), words(), versions(), origin_form(), absolute_form(), other_forms(), before_it()]
        .into_iter()
        .flatten()
        .collect()
}

/// A request with this line, and nothing else of note.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in
        ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PATCH", "PURGE", "M-SEARCH", "REPORT", "x", "!#$%&'*+-.^_`|~9"]
    {
        let wanted = forwarded().method(method).target("/x");
        rows.push(row(
            format!("9110 9.1: method {method} is passed on"),
            line(&format!("{method} /x HTTP/1.1")),
            wanted,
        ));
    }
    for method in ["POST", "PUT", "LONGLONGLONGLONGLONGLONGLONGLONGMETHOD"] {
        let wanted = forwarded().method(method).target("/x").body("");
        let sent = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        rows.push(row(format!("9110 9.1: method {method} without a body is passed on"), sent, wanted));
    }
    let unknown = refused(&[400, 405, 501]).or(forwarded().method("get"));
    rows.push(row("9110 9.1: a method in lower case is another method", line("get / HTTP/1.1"), unknown));
    for (what, method) in [
        ("a parenthesis", "GE(T"),
        ("a NUL", "GE\0T"),
        ("an at sign", "G@T"),
        ("a colon", "GET:"),
        ("a slash", "G/T"),
        ("DEL", "GET\u{7f}"),
    ] {
        rows.push(row(
            format!("9110 9.1: a method with {what} is no token"),
            line(&format!("{method} / HTTP/1.1")),
            bad(),
        ));
    }
    let latin: &[u8] = b"G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n";
    rows.push(row("9110 9.1: a method with an 8-bit character is no token", latin, bad()));
    rows
}

fn words() -> Vec<Row> {
    let spaced = || bad().or(forwarded().target("/x"));
    vec![
        row("9112 3: two spaces before the target", line("GET  /x HTTP/1.1"), spaced()),
        row("9112 3: two spaces before the version", line("GET /x  HTTP/1.1"), spaced()),
        row("9112 3: a space behind the version", line("GET /x HTTP/1.1 "), spaced()),
        row("9112 3: a tab behind the version", line("GET /x HTTP/1.1\t"), spaced()),
        row("9112 3: a tab before the target", line("GET\t/x HTTP/1.1"), spaced()),
        row("9112 3: a tab before the version", line("GET /x\tHTTP/1.1"), spaced()),
        row("9112 3: a vertical tab as a separator", line("GET\u{b}/x HTTP/1.1"), bad()),
        row("9112 3: a form feed as a separator", line("GET /x\u{c}HTTP/1.1"), bad()),
        row("9112 2.2: a bare CR as a separator", line("GET\r/x HTTP/1.1"), bad()),
        row("9112 2.2: a bare CR within the target", line("GET /x\rHTTP/1.1 HTTP/1.1"), bad()),
        row("9112 2.2: a bare CR before the line's end", line("GET /x HTTP/1.1\r"), bad()),
        row("9112 2.2: a bare LF ends the line", "GET /x HTTP/1.1\nHost: a\r\n\r\n", spaced()),
        row("9112 3: words too many", line("GET /x y HTTP/1.1"), bad()),
        row("9112 3: words behind the version", line("GET /x HTTP/1.1 HTTP/1.1"), bad()),
        row("9112 3: the method alone", line("GET"), bad()),
        row("9112 3: the version alone", line("HTTP/1.1"), bad()),
        row("9112 3: no target", line("GET HTTP/1.1"), bad()),
        row("9112 3: an empty target", line("GET  HTTP/1.1"), bad()),
        row("9112 3: no method", line("/x HTTP/1.1"), bad()),
        row("9112 3: an empty method", line(" /x HTTP/1.1"), bad()),
        row("9112 3: nothing but words", "nonsense\r\n\r\n", bad()),
        row("9112 3: a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", bad()),
        row("9112 3: a hello of TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], bad()),
    ]
}

fn versions() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/9.9", "HTTP/0.0"] {
        rows.push(row(
            format!("9110 2.5: {version} is another protocol"),
            line(&format!("GET / {version}")),
            refused(&[505, 400]),
        ));
    }
    for version in [
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.1.1",
        "HTTP/11",
        "HTTP/+1.1",
        "HTTP/1,1",
        "HTTP/1.1x",
        "HTTP/x.y",
        "HTTP/-1.1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "HTTPS/1.1",
        "HTP/1.1",
        "http/1.1",
        "Http/1.1",
        "ICY/1.1",
        "1.1",
        "HTTP",
        "/1.1",
    ] {
        rows.push(row(
            format!("9112 2.3: {version:?} is no version"),
            line(&format!("GET / {version}")),
            refused(&[400, 505]),
        ));
    }
    rows.push(row("9112 2.3: a simple request of HTTP/0.9", "GET /\r\n\r\n", refused(&[400, 505])));
    rows.push(row("9112 2.3: a simple request of HTTP/0.9 with fields", line("GET /"), refused(&[400, 505])));
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        let wanted = refused(&[400, 505]).or(forwarded().target("/x"));
        rows.push(row(format!("9110 2.5: {version} is taken as HTTP/1.1"), line(&format!("GET /x {version}")), wanted));
    }
    rows
}

fn origin_form() -> Vec<Row> {
    let mut rows = Vec::new();
    for target in [
        "/",
        "//",
        "//a/b",
        "/a%2Fb%20c?x=%41%e9",
        "/a/./b/../c",
        "/%2e%2e/",
        "/?",
        "/a?",
        "/a??b",
        "/a?b=/c?d",
        "/a;b=c,d@e:f!g$h'(i)*+~",
        "/?http://b/",
        "/a//b",
        "/%00",
        "/%0d%0aX:y",
    ] {
        let wanted = forwarded().target(target);
        rows.push(row(
            format!("9110 7.7: {target} is passed on as it is"),
            line(&format!("GET {target} HTTP/1.1")),
            wanted,
        ));
    }
    for target in ["/a|b", "/a\"b", "/a<b>", "/a^b", "/a`b", "/{a}", "/a\\b", "/a[b]", "/%", "/%zz", "/a%2"] {
        let wanted = bad().or(forwarded().target(target));
        rows.push(row(
            format!("3986 2: {target} is refused or passed on as it is"),
            line(&format!("GET {target} HTTP/1.1")),
            wanted,
        ));
    }
    for target in ["/a#b", "/#", "/a?b#c", "#"] {
        rows.push(row(format!("9112 3.2.1: {target} has a fragment"), line(&format!("GET {target} HTTP/1.1")), bad()));
    }
    for (what, byte) in
        [("NUL", 0), ("SOH", 1), ("BS", 8), ("VT", 0x0b), ("ESC", 0x1b), ("DEL", 0x7f), ("an 8-bit character", 0xe9)]
    {
        let sent = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        rows.push(row(format!("3986 2: a target with {what}"), sent, bad()));
    }
    rows.push(row("3986 2: a target in UTF-8", line("GET /caf\u{e9} HTTP/1.1"), bad()));
    let long = format!("/{}", "x".repeat(7980));
    rows.push(row("9112 3: a line of 8,000 bytes", line(&format!("GET {long} HTTP/1.1")), forwarded().target(&long)));
    for size in [70_000, 200_000] {
        let sent = line(&format!("GET /{} HTTP/1.1", "x".repeat(size)));
        rows.push(row(format!("9112 3: a target of {size} bytes is too long"), sent, refused(&[414])));
    }
    let query = line(&format!("GET /?{} HTTP/1.1", "q=1&".repeat(20_000)));
    rows.push(row("9112 3: a query of 80,000 bytes is too long", query, refused(&[414])));
    let method = line(&format!("{} / HTTP/1.1", "G".repeat(70_000)));
    rows.push(row("9112 3: a method of 70,000 bytes", method, refused(&[400, 414, 431, 501])));
    rows
}

fn absolute_form() -> Vec<Row> {
    let as_path = |path: &str, host: &str| forwarded().target(path).field("host", host);
    let mut rows = Vec::new();
    for (target, host, path) in [
        ("http://a/x", "a", "/x"),
        ("http://a/", "a", "/"),
        ("http://a", "a", "/"),
        ("http://a?q=1", "a", "/?q=1"),
        ("http://a/?q=http://b/", "a", "/?q=http://b/"),
        ("http://a/x%2Fy?q", "a", "/x%2Fy?q"),
        ("HTTP://a/x", "a", "/x"),
        ("http://a:8080/x", "a:8080", "/x"),
        ("http://[::1]:80/x", "[::1]:80", "/x"),
        ("http://a//x", "a", "//x"),
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rows.push(row(format!("9112 3.2.2: {target} becomes {path}"), sent, as_path(path, host)));
    }
    let asked = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
    let mismatch = || bad().or(as_path("/x", "a"));
    rows.extend([
        row("9112 3.2.2: the target holds over another Host", asked("http://a/x", "Host: b\r\n"), mismatch()),
        row(
            "9112 3.2.2: the target holds over a Host with another port",
            asked("http://a/x", "Host: a:81\r\n"),
            mismatch(),
        ),
        row("9112 3.2.2: the target holds over an empty Host", asked("http://a/x", "Host:\r\n"), mismatch()),
        row("9112 3.2: an absolute target excuses no missing Host", asked("http://a/x", ""), bad()),
        row(
            "9112 3.2: an absolute target excuses no second Host",
            asked("http://a/x", "Host: a\r\nHost: a\r\n"),
            bad(),
        ),
        row("9112 3.2: an absolute target excuses no invalid Host", asked("http://a/x", "Host: a b\r\n"), bad()),
        row("9110 4.2.4: user information in a target", asked("http://me@a/x", "Host: a\r\n"), bad()),
        row("9110 4.2.4: a password in a target", asked("http://me:secret@a/x", "Host: a\r\n"), bad()),
        row("9110 4.2.1: a target with an empty host", asked("http:///x", "Host: a\r\n"), bad()),
        row("9110 4.2.1: a target with a port alone", asked("http://:80/x", "Host: a\r\n"), bad()),
        row("9110 4.2.1: a target without an authority", asked("http:/x", "Host: a\r\n"), bad()),
        row("9110 4.2.1: a target of a scheme alone", asked("http://", "Host: a\r\n"), bad()),
        row("3986 3.2.3: a target with a junk port", asked("http://a:x/", "Host: a\r\n"), bad()),
        row("3986 3.2.2: a target with a broken address", asked("http://[::1/", "Host: a\r\n"), bad()),
        row("9112 3.2.2: an absolute target with a fragment", asked("http://a/x#y", "Host: a\r\n"), bad()),
        row(
            "9110 4.2: a target of a scheme that is not ours",
            asked("ftp://a/x", "Host: a\r\n"),
            refused(&[400, 404, 421, 501]),
        ),
        row(
            "9110 4.2: a target of an unknown scheme",
            asked("coap://a/x", "Host: a\r\n"),
            refused(&[400, 404, 421, 501]),
        ),
        row("9110 4.2: a target of no scheme", asked("://a/x", "Host: a\r\n"), bad()),
        row(
            "9110 4.3.3: an https target over plain TCP",
            asked("https://a/x", "Host: a\r\n"),
            refused(&[400, 421]).or(as_path("/x", "a")),
        ),
        row(
            "9112 3.2.4: OPTIONS of an absolute target without a path",
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
            forwarded().method("OPTIONS").target("*").field("host", "a"),
        ),
        row(
            "9112 3.2.4: OPTIONS of an absolute target with a path",
            "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            as_path("/", "a"),
        ),
        row(
            "9112 3.2.4: OPTIONS of an absolute target with a query",
            "OPTIONS http://a?q HTTP/1.1\r\nHost: a\r\n\r\n",
            as_path("/?q", "a"),
        ),
    ]);
    rows
}

fn other_forms() -> Vec<Row> {
    let tunnel = || refused(&[400, 403, 405, 501]);
    let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    vec![
        row("9112 3.2.4: OPTIONS of everything", line("OPTIONS * HTTP/1.1"), forwarded().method("OPTIONS").target("*")),
        row("9112 3.2.4: GET of everything", line("GET * HTTP/1.1"), bad()),
        row("9112 3.2.4: OPTIONS of everything and more", line("OPTIONS *x HTTP/1.1"), bad()),
        row("9112 3.2: a target without a slash", line("GET x HTTP/1.1"), bad()),
        row("9112 3.2: a relative target", line("GET x/y HTTP/1.1"), bad()),
        row("9112 3.2: a query alone", line("GET ?q HTTP/1.1"), bad()),
        row("9112 3.2.3: an authority without CONNECT", line("GET a:80 HTTP/1.1"), bad()),
        row("9110 9.3.6: CONNECT opens no tunnel", connect("a:80"), tunnel()),
        row("9110 9.3.6: CONNECT to an address", connect("127.0.0.1:22"), tunnel()),
        row("9110 9.3.6: CONNECT without a port", connect("a"), tunnel()),
        row("9110 9.3.6: CONNECT with an empty port", connect("a:"), tunnel()),
        row("9112 3.2.3: CONNECT to a path", line("CONNECT / HTTP/1.1"), tunnel()),
        row("9112 3.2.3: CONNECT to a URI", line("CONNECT http://a/ HTTP/1.1"), tunnel()),
        row("9112 3.2.3: CONNECT to everything", line("CONNECT * HTTP/1.1"), tunnel()),
    ]
}

fn before_it() -> Vec<Row> {
    let get = line("GET /x HTTP/1.1");
    let after = |before: &str| format!("{before}{get}");
    let skipped = || bad().or(forwarded().target("/x"));
    let posted = "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let two = || -> Wanted { forwarded().target("/one").body("ab").requests(2) };
    vec![
        row("9112 2.2: one empty line before a request is ignored", after("\r\n"), forwarded().target("/x")),
        row("9112 2.2: empty lines before a request", after("\r\n\r\n\r\n"), skipped()),
        row("9112 2.2: a bare LF before a request", after("\n"), skipped()),
        row("9112 2.2: a bare CR before a request", after("\r"), bad()),
        row("9112 2.2: a space before a request", after(" "), bad()),
        row("9112 2.2: a tab before a request", after("\t"), bad()),
        row("9112 2.2: a line of spaces before a request", after("  \r\n"), bad()),
        row("9112 2.2: a NUL before a request", after("\0"), bad()),
        row("9112 2.2: junk before a request", after("junk\r\n"), bad()),
        row("9112 2.2: a byte order mark before a request", after("\u{feff}"), bad()),
        row("9112 2.2: an empty line behind a body is ignored", format!("{posted}\r\n{get}"), two()),
        row("9112 2.2: two requests without a line between", format!("{posted}{get}"), two()),
    ]
}
