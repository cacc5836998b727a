//! Pseudo-headers, which become a request line and `Host` (RFC 9113 sections 8.3 and 8.5, RFC 9112 section 3, RFC 9110 section 7.2).

use super::{Row, Wanted, answered, get, owned, passed, post, refused, row, with, without};

pub fn rows() -> Vec<Row> {
    [characters(), methods(), paths(), authorities(), schemes(), presence(), order(), connect()]
        .into_iter()
        .flatten()
        .collect()
}

/// What may begin a line of its own, or end one, in whatever part of a request line.
const NOWHERE: [(&str, &str); 14] = [
    ("CR", "\r"),
    ("LF", "\n"),
    ("CR LF", "\r\n"),
    ("a line of its own", "\r\nx-evil: 1"),
    ("a line of its own by LF", "\nx-evil: 1"),
    ("a line of its own by CR", "\rx-evil: 1"),
    ("the end of the head", "\r\n\r\n"),
    ("another request", " HTTP/1.1\r\nhost: e\r\n\r\nGET /evil HTTP/1.1\r\nhost: e"),
    ("NUL", "\0"),
    ("a space", " "),
    ("a tab", "\t"),
    ("ESC", "\u{1b}"),
    ("DEL", "\u{7f}"),
    ("an 8-bit character", "\u{e9}"),
];

fn characters() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, value) in [(":method", "GET"), (":path", "/x"), (":authority", "a"), (":scheme", "http")] {
        for (what, text) in NOWHERE {
            let (half, rest) = value.split_at(value.len() / 2);
            for (where_, value) in [
                ("in front of", format!("{text}{value}")),
                ("within", format!("{half}{text}{rest}")),
                ("behind", format!("{value}{text}")),
            ] {
                if where_ == "within" && half.is_empty() {
                    continue;
                }
                let title = format!("9113 8.3.1: {what} {where_} {name}");
                rows.push(row(title, with(get(&[]), name, &value), refused()));
            }
        }
        rows.push(row(
            format!("9113 8.3.1: {name} with a line of its own, and a body"),
            with(post(&[("content-length", "5")]), name, &format!("{value}\r\nx-evil: 1")),
            refused(),
        ));
    }
    rows
}

fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in ["OPTIONS", "TRACE", "DELETE", "PURGE", "M-SEARCH", "x", "!#$%&'*+-.^_`|~9"] {
        let wanted = passed(&format!("{method} /x HTTP/1.1\nhost: a"), "");
        rows.push(row(format!("9110 9.1: method {method} is passed on"), with(get(&[]), ":method", method), wanted));
    }
    for method in ["POST", "PUT", "PATCH"] {
        let wanted = passed(&format!("{method} /x HTTP/1.1\nhost: a\ncontent-length: 0"), "");
        rows.push(row(format!("9110 8.6: {method} without a body says so"), with(get(&[]), ":method", method), wanted));
    }
    for method in ["", "GET /evil", "GET:", "G(T", "G/T", "\"GET\"", "GET,", "G@T", "G[T"] {
        rows.push(row(format!("9110 9.1: {method:?} is no method"), with(get(&[]), ":method", method), refused()));
    }
    let head = passed("HEAD /x HTTP/1.1\nhost: a", "");
    rows.push(row("9110 9.3.2: HEAD is HEAD", with(get(&[]), ":method", "HEAD"), head));
    let lower = refused().or(passed("get /x HTTP/1.1\nhost: a", ""));
    rows.push(row("9110 9.1: a method in lower case is another method", with(get(&[]), ":method", "get"), lower));
    rows
}

fn at(path: &str) -> Wanted {
    passed(&format!("GET {path} HTTP/1.1\nhost: a"), "")
}

fn paths() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in [
        "/",
        "//",
        "//b/c",
        "/a/./b/../c",
        "/%2e%2e/%2F",
        "/%0d%0aX:y",
        "/%00",
        "/?",
        "/a?b=/c?d",
        "/a;b=c,d@e:f!g$h'(i)*+~",
        "/?http://b/",
        "/http://b/",
        "/:80",
        "/a|b\"<>{}^`\\",
    ] {
        let wanted = if path.contains('|') { refused().or(at(path)) } else { at(path) };
        rows.push(row(format!("9113 8.3.1: the path {path} as it is"), with(get(&[]), ":path", path), wanted));
    }
    for path in [
        "",
        "x",
        "x/y",
        "?x",
        "*",
        "**",
        "/x#y",
        "#",
        "http://a/x",
        "http://b/x",
        "http://a",
        "//b /c",
        "/x HTTP/1.1",
        "a:80",
        ":80",
        "@",
        "\\x",
        "%2Fx",
    ] {
        rows.push(row(format!("9113 8.3.1: {path:?} is no path of a GET"), with(get(&[]), ":path", path), refused()));
    }
    let options = with(get(&[]), ":method", "OPTIONS");
    rows.push(row(
        "9113 8.3.1: OPTIONS for the whole server",
        with(options.clone(), ":path", "*"),
        passed("OPTIONS * HTTP/1.1\nhost: a", ""),
    ));
    rows.push(row("9113 8.3.1: OPTIONS and an empty path", with(options.clone(), ":path", ""), refused()));
    rows.push(row("9113 8.3.1: OPTIONS and another star", with(options, ":path", "*/x"), refused()));
    let long = format!("/{}", "p".repeat(8000));
    rows.push(row("9112 3: a path of 8000 characters", with(get(&[]), ":path", &long), at(&long)));
    rows
}

fn authorities() -> Vec<Row> {
    let mut rows = Vec::new();
    let by = |host: &str| passed(&format!("GET /x HTTP/1.1\nhost: {host}"), "");
    for host in ["a", "a.b.c", "a:80", "A.Example", "127.0.0.1:8080", "[::1]", "[::1]:80", "a-b_c", "a:"] {
        rows.push(row(
            format!("9113 8.3.1: the authority {host}"),
            with(get(&[]), ":authority", host),
            by(host).or(if host == "a:" { refused() } else { Wanted::default() }),
        ));
    }
    for host in [
        "",
        "a b",
        "a/b",
        "/",
        "a?b",
        "a#b",
        "me@a",
        "me:secret@a",
        "@a",
        "a,b",
        "a, b",
        "http://a",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:99999",
        "[::1",
        "::1",
        "[a]",
        "<a>",
        "a\\b",
        "\"a\"",
        "{a}",
        "a^b",
        "a|b",
        "a%zz",
        ":80",
        ":",
    ] {
        rows.push(row(format!("3986 3.2: {host:?} is no authority"), with(get(&[]), ":authority", host), refused()));
        rows.push(row(
            format!("3986 3.2: {host:?} is no Host either"),
            without(get(&[("host", host)]), ":authority"),
            refused(),
        ));
    }
    let host = |value: &str| get(&[("host", value)]);
    rows.extend([
        row("9113 8.3.1: Host beside an equal :authority", host("a"), by("a")),
        row("9113 8.3.1: Host in front of nothing else", without(host("b"), ":authority"), by("b")),
        row("9113 8.3.1: Host in another case", host("A"), by("a").or(by("A")).or(refused())),
        row("9113 8.3.1: Host with the usual port", host("a:80"), by("a").or(by("a:80")).or(refused())),
        row("9113 8.3.1: another Host", host("b"), refused()),
        row("9113 8.3.1: another Host with the same beginning", host("a.b"), refused()),
        row("9113 8.3.1: an empty Host", host(""), refused()),
        row("9113 8.3.1: another port in Host", host("a:8080"), refused()),
        row("9112 3.2: two Hosts", get(&[("host", "a"), ("host", "a")]), refused()),
        row(
            "9112 3.2: two Hosts and no :authority",
            without(get(&[("host", "a"), ("host", "a")]), ":authority"),
            refused(),
        ),
        row("9112 3.2: two different Hosts", without(get(&[("host", "a"), ("host", "b")]), ":authority"), refused()),
        row("9113 8.3.1: neither :authority nor Host", without(get(&[]), ":authority"), refused()),
        row("9113 8.3.1: an empty :authority beside a Host", with(host("b"), ":authority", ""), refused().or(by("b"))),
    ]);
    rows
}

fn schemes() -> Vec<Row> {
    let mut rows = Vec::new();
    let plain = || passed("GET /x HTTP/1.1\nhost: a", "");
    for scheme in ["https", "HTTP"] {
        let wanted = plain().or(refused());
        rows.push(row(format!("9113 8.3.1: the scheme {scheme}"), with(get(&[]), ":scheme", scheme), wanted));
    }
    for scheme in ["", "1http", "http:", "http://", "ht/tp", ":", "ht_tp", "http://b", "http\\", "-"] {
        rows.push(row(format!("3986 3.1: {scheme:?} is no scheme"), with(get(&[]), ":scheme", scheme), refused()));
    }
    rows
}

fn presence() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in [":method", ":scheme", ":path"] {
        rows.push(row(format!("9113 8.3.1: no {name}"), without(get(&[]), name), refused()));
        rows.push(row(format!("9113 8.3.1: an empty {name}"), with(get(&[]), name, ""), refused()));
    }
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a")] {
        let twice = [owned(&[(name, value)]), get(&[])].concat();
        rows.push(row(format!("9113 8.3: {name} twice, equal"), twice, refused()));
        let other = if name == ":path" { "/evil" } else { "evil" };
        let twice = [get(&[]), owned(&[(name, other)])].concat();
        rows.push(row(format!("9113 8.3: {name} twice, different"), twice, refused()));
    }
    for (name, value) in [
        (":status", "200"),
        (":host", "a"),
        (":evil", "1"),
        (":", "1"),
        (":version", "HTTP/1.1"),
        (":protocol", "websocket"),
        (":METHOD", "GET"),
        (":Path", "/x"),
        (":method ", "GET"),
        ("::method", "GET"),
        (":content-length", "5"),
        (":path\r\nx-evil", "1"),
    ] {
        let head = [get(&[]), owned(&[(name, value)])].concat();
        rows.push(row(format!("9113 8.3: the pseudo-header {name:?} in a request"), head, refused()));
    }
    rows.push(row("9113 8.3: no line at all", Vec::new(), refused()));
    rows.push(row("9113 8.3: fields alone", owned(&[("x-a", "1"), ("host", "a")]), refused()));
    rows
}

fn order() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in [":method", ":scheme", ":path", ":authority"] {
        let value = get(&[]).into_iter().find(|(found, _)| found == name).map(|(_, value)| value).unwrap_or_default();
        let late = [without(get(&[("x-a", "1")]), name), owned(&[(name, &value)])].concat();
        rows.push(row(format!("9113 8.3: {name} behind a field"), late, refused()));
        let again = [get(&[("x-a", "1")]), owned(&[(name, &value)])].concat();
        rows.push(row(format!("9113 8.3: {name} once more behind a field"), again, refused()));
    }
    let mut turned = get(&[]);
    turned.reverse();
    rows.push(row(
        "9113 8.3: pseudo-headers in any order",
        [turned, owned(&[("x-a", "1")])].concat(),
        passed("GET /x HTTP/1.1\nhost: a\nx-a: 1", ""),
    ));
    rows
}

fn connect() -> Vec<Row> {
    let connect = |lines: &[(&str, &str)]| [owned(&[(":method", "CONNECT")]), owned(lines)].concat();
    let not_here = || refused().or(answered(&[403, 405, 501]));
    vec![
        row("9113 8.5: CONNECT by policy only", connect(&[(":authority", "a:80")]), not_here()),
        row("9113 8.5: CONNECT and DATA", connect(&[(":authority", "a:80")]), not_here())
            .body(&["GET /evil HTTP/1.1\r\n"]),
        row("9113 8.5: CONNECT with a length", connect(&[(":authority", "a:80"), ("content-length", "3")]), not_here())
            .body(&["abc"]),
        row("9113 8.5: CONNECT without an authority", connect(&[]), refused()),
        row("9113 8.5: CONNECT without a port", connect(&[(":authority", "a")]), refused()),
        row("9113 8.5: CONNECT with a path", connect(&[(":authority", "a:80"), (":path", "/x")]), refused()),
        row("9113 8.5: CONNECT with a scheme", connect(&[(":authority", "a:80"), (":scheme", "http")]), refused()),
        row(
            "9113 8.5: CONNECT as if it were GET",
            connect(&[(":authority", "a:80"), (":scheme", "http"), (":path", "/x")]),
            refused(),
        ),
        row("9113 8.5: CONNECT with a line of its own", connect(&[(":authority", "a:80\r\nx-evil: 1")]), refused()),
    ]
}
