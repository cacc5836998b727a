//! Fields, which become lines (RFC 9113 section 8.2, RFC 9110 sections 5 and 7.6).

use super::{Row, Wanted, get, passed, post, refused, row};

pub fn rows() -> Vec<Row> {
    [names(), values(), of_connection(), te(), cookies(), others(), sizes()].into_iter().flatten().collect()
}

/// `GET http://a/x` with these lines behind `Host`.
fn lines(lines: &str) -> Wanted {
    passed(&format!("GET /x HTTP/1.1\nhost: a\n{lines}"), "")
}

fn names() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in ["x-a", "x_a", "0", "!#$%&'*+-.^_`|~", "a.b"] {
        rows.push(row(format!("9110 5.1: the name {name}"), get(&[(name, "1")]), lines(&format!("{name}: 1"))));
    }
    for (what, name) in [
        ("an upper-case letter", "X-a"),
        ("an upper-case letter at its end", "x-A"),
        ("nothing but upper-case letters", "CONTENT-LENGTH"),
        ("nothing", ""),
        ("a space", "x a"),
        ("a space in front", " x-a"),
        ("a space behind", "x-a "),
        ("a tab", "x\ta"),
        ("a colon", "x:a"),
        ("a colon behind", "x-a:"),
        ("a colon and a value", "x-a: 1"),
        ("CR", "x\ra"),
        ("LF", "x\na"),
        ("LF behind", "x-a\n"),
        ("CR LF", "x-a\r\n"),
        ("a line of its own", "x-a: 1\r\nx-evil"),
        ("a line of its own by LF", "x-a: 1\nx-evil"),
        ("another request", "x-a: 1\r\n\r\nGET /evil HTTP/1.1\r\nhost"),
        ("NUL", "x\0a"),
        ("ESC", "x\u{1b}a"),
        ("DEL", "x\u{7f}a"),
        ("an 8-bit character", "x\u{e9}a"),
        ("a slash", "x/a"),
        ("an at sign", "x@a"),
        ("a bracket", "x[a]"),
        ("a brace", "x{a}"),
        ("a parenthesis", "x(a)"),
        ("a quotation mark", "\"x\""),
        ("a comma", "x,a"),
        ("a semicolon", "x;a"),
        ("an equals sign", "x=a"),
        ("a question mark", "x?a"),
        ("a backslash", "x\\a"),
        ("less-than", "<x"),
    ] {
        rows.push(row(format!("9113 8.2.1: a name with {what}"), get(&[(name, "1")]), refused()));
        rows.push(row(
            format!("9113 8.2.1: a name with {what}, between others"),
            get(&[("x-b", "1"), (name, "0"), ("x-c", "1")]),
            refused(),
        ));
    }
    rows
}

fn values() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, value) in [
        ("nothing", ""),
        ("a word", "one"),
        ("spaces within", "a  b c"),
        ("a tab within", "a\tb"),
        ("every printable sign", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        ("8-bit characters", "\u{e9}\u{80}\u{ff}"),
        ("what looks like a line", "x-b: 2"),
    ] {
        rows.push(row(format!("9110 5.5: a value of {what}"), get(&[("x-a", value)]), lines(&format!("x-a: {value}"))));
    }
    for (what, text) in [
        ("CR", "\r"),
        ("LF", "\n"),
        ("CR LF", "\r\n"),
        ("LF CR", "\n\r"),
        ("a line of its own", "\r\nx-evil: 1"),
        ("a line of its own by LF", "\nx-evil: 1"),
        ("a folded line", "\r\n evil"),
        ("another framing", "\r\ntransfer-encoding: chunked"),
        ("another request", "\r\n\r\nGET /evil HTTP/1.1\r\nhost: e\r\n\r\n"),
        ("NUL", "\0"),
        ("SOH", "\u{1}"),
        ("VT", "\u{b}"),
        ("ESC", "\u{1b}"),
        ("DEL", "\u{7f}"),
    ] {
        for (where_, value) in
            [("in front of", format!("{text}b")), ("within", format!("b{text}b")), ("behind", format!("b{text}"))]
        {
            for name in ["x-a", "cookie", "user-agent", "te", "content-length", "host", "expect", "x-forwarded-for"] {
                if name != "x-a" && where_ != "within" {
                    continue;
                }
                rows.push(row(
                    format!("9113 8.2.1: {what} {where_} the value of {name}"),
                    get(&[(name, &value)]),
                    refused(),
                ));
            }
        }
    }
    for value in [" b", "b ", "\tb", "b\t", " ", "\t", " b "] {
        rows.push(row(format!("9113 8.2.1: white space around {value:?}"), get(&[("x-a", value)]), refused()));
    }
    rows
}

fn of_connection() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-a"),
        ("connection", "transfer-encoding"),
        ("connection", ""),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", "gzip, chunked"),
        ("transfer-encoding", ""),
        ("transfer-encoding", "xchunked"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
    ] {
        rows.push(row(format!("9113 8.2.2: {name}: {value}"), get(&[(name, value)]), refused()));
        rows.push(
            row(format!("9113 8.2.2: {name}: {value} and a body"), post(&[(name, value)]), refused())
                .body(&["0\r\n\r\nGET /evil HTTP/1.1\r\nhost: e\r\n\r\n"]),
        );
    }
    let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
    rows.push(row("9112 6.3: both framings", post(&both), refused()).body(&["0\r\n\r\n"]));
    let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
    rows.push(row("9112 6.3: both framings, the other way round", post(&both), refused()).body(&["0\r\n\r\n"]));
    rows.push(row(
        "9113 8.2.2: a handshake for WebSocket",
        get(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]),
        refused(),
    ));
    let settings = lines("").or(refused());
    rows.push(row("9113 3.2.1: http2-settings goes no further", get(&[("http2-settings", "AAMAAABk")]), settings));
    rows
}

fn te() -> Vec<Row> {
    let mut rows = vec![
        row(
            "9113 8.2.2: TE: trailers, which is of the next connection then",
            get(&[("te", "trailers")]),
            lines("te: trailers\nconnection: te"),
        ),
        row(
            "9110 10.1.4: TE: trailers in another case",
            get(&[("te", "Trailers")]),
            lines("te: trailers\nconnection: te").or(refused()),
        ),
        row(
            "9113 8.2.2: TE: trailers twice",
            get(&[("te", "trailers"), ("te", "trailers")]),
            lines("te: trailers\nconnection: te").or(refused()),
        ),
    ];
    for value in
        ["gzip", "chunked", "trailers, gzip", "gzip, trailers", "trailers;q=1", "deflate;q=0.5", "", "trailers,"]
    {
        rows.push(row(format!("9113 8.2.2: TE: {value}"), get(&[("te", value)]), refused()));
    }
    rows.push(row("9113 8.2.2: two TE, one of them wrong", get(&[("te", "trailers"), ("te", "gzip")]), refused()));
    rows
}

fn cookies() -> Vec<Row> {
    let crumbs = |values: &[&str]| get(&values.iter().map(|value| ("cookie", *value)).collect::<Vec<_>>());
    vec![
        row("9113 8.2.3: one cookie", crumbs(&["a=b"]), lines("cookie: a=b")),
        row("9113 8.2.3: two crumbs", crumbs(&["a=b", "c=d"]), lines("cookie: a=b; c=d")),
        row("9113 8.2.3: three crumbs", crumbs(&["a=b", "c=d", "e=f"]), lines("cookie: a=b; c=d; e=f")),
        row("9113 8.2.3: crumbs that are joined already", crumbs(&["a=b; c=d", "e"]), lines("cookie: a=b; c=d; e")),
        row(
            "9113 8.2.3: an empty crumb",
            crumbs(&["a=b", "", "c=d"]),
            lines("cookie: a=b; c=d").or(lines("cookie: a=b; ; c=d")),
        ),
        row(
            "9113 8.2.3: crumbs among other fields",
            get(&[("x-a", "1"), ("cookie", "a=b"), ("x-b", "2"), ("cookie", "c=d"), ("x-c", "3")]),
            lines("x-a: 1\ncookie: a=b; c=d\nx-b: 2\nx-c: 3"),
        ),
        row("9113 8.2.3: a crumb with a line of its own", crumbs(&["a=b", "c\r\nx-evil: 1"]), refused()),
    ]
}

fn others() -> Vec<Row> {
    vec![
        row(
            "9110 5.3: order and repetition stay",
            get(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-b", "4")]),
            lines("x-a: 1\nx-b: 2\nx-a: 3\nx-b: 4"),
        ),
        row(
            "9110 7.6.1: what only looks like a field of the connection is passed on",
            get(&[("x-connection", "close"), ("connections", "a"), ("proxy-authorization", "b")]),
            lines("x-connection: close\nconnections: a\nproxy-authorization: b"),
        ),
        row("9110 6.6.2: Trailer is passed on", get(&[("trailer", "x-t")]), lines("trailer: x-t")),
        row(
            "9110 10.1.1: Expect without a body",
            get(&[("expect", "100-continue")]),
            lines("expect: 100-continue").or(lines("")),
        ),
        row(
            "9110 10.1.1: an unknown expectation",
            get(&[("expect", "evil")]),
            lines("expect: evil").or(super::answered(&[417])).or(refused()),
        ),
        row(
            "9110 7.6.2: Max-Forwards of GET is nobody's business",
            get(&[("max-forwards", "0")]),
            lines("max-forwards: 0"),
        ),
    ]
}

fn sizes() -> Vec<Row> {
    let long = "v".repeat(20_000);
    let longer = "v".repeat(70_000);
    let name = "n".repeat(2_000);
    let many: Vec<(String, String)> = (0..300).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let told: Vec<String> = many.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let too_many: Vec<(&str, &str)> = (0..2000).map(|_| ("x", "")).collect();
    vec![
        row("9113 4.3: a head of more than one frame", get(&[("x-a", &long)]), lines(&format!("x-a: {long}"))),
        row("9113 4.3: a name of 2000 characters", get(&[(&name, "1")]), lines(&format!("{name}: 1"))),
        row("9113 4.3: 100 fields", get(&many[..100]), lines(&told[..100].join("\n"))),
        row("6585 5: a head that is too large", get(&[("x-a", &longer)]), super::answered(&[431]).or(refused())),
        row("6585 5: a head of too many fields", get(&too_many), super::answered(&[431]).or(refused())),
        row(
            "6585 5: a head that is too large, and a body",
            post(&[("x-a", &longer), ("content-length", "5")]),
            super::answered(&[431]).or(refused()),
        )
        .body(&["hello"]),
    ]
}
