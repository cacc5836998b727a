//! What ends at a proxy, both ways, and what it adds (RFC 9110 sections 7.6, 7.8, 10.1 and 11.7).

use crate::answered::{self, passed};
use crate::asked::{Row, bad, forwarded, local, refused, row};
use crate::wire::Request;

pub fn requests() -> Vec<Row> {
    [named(), known(), closing(), added(), max_forwards(), expectations(), end_to_end()].into_iter().flatten().collect()
}

/// A request with these field lines.
fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

fn named() -> Vec<Row> {
    let gone =
        || forwarded().without("x-foo").that("Connection names it no more", |r| !r.fields.lists("connection", "x-foo"));
    let mut rows = Vec::new();
    for lines in [
        "Connection: X-Foo",
        "Connection: x-foo",
        "connection: X-FOO",
        "Connection: keep-alive, X-Foo",
        "Connection: X-Foo , keep-alive",
        "Connection: ,X-Foo,,",
        "Connection: keep-alive\r\nConnection: X-Foo",
        "Connection:X-Foo",
        "Connection: \t X-Foo \t",
        "Connection: X-Bar, X-Foo, X-Baz",
    ] {
        rows.push(row(
            format!("9110 7.6.1: a field named by {lines:?} ends here"),
            with(&format!("X-Foo: 1\r\n{lines}")),
            gone(),
        ));
        rows.push(row(
            format!("9110 7.6.1: a field behind {lines:?} ends here"),
            with(&format!("{lines}\r\nX-Foo: 1\r\nX-Foo: 2")),
            gone(),
        ));
    }
    let closed = || forwarded().without("x-foo").closes();
    rows.push(row(
        "9110 7.6.1: a field named beside close ends here",
        with("Connection: close, X-Foo\r\nX-Foo: 1"),
        closed(),
    ));
    for name in
        ["Cookie", "Authorization", "Cache-Control", "Accept", "X-Request-Id", "Via", "Keep-Alive", "Proxy-Connection"]
    {
        let gone =
            || forwarded().that("what was named is gone", |r| !r.fields.0.iter().any(|(_, value)| value == "mine"));
        rows.push(row(
            format!("9110 7.6.1: {name} ends here where it is named"),
            with(&format!("Connection: {name}\r\n{name}: mine")),
            bad().or(gone()),
        ));
    }
    rows.push(row(
        "9110 7.6.1: Host cannot be declared away",
        with("Connection: Host"),
        bad().or(forwarded().field("host", "a")),
    ));
    rows.push(row(
        "9110 7.6.1: X-Forwarded-For cannot be declared away",
        with("Connection: X-Forwarded-For"),
        bad().or(forwarded().field("x-forwarded-for", "127.0.0.1")),
    ));
    let post = |lines: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}");
    let hello = || bad().or(forwarded().body("hello"));
    rows.push(row(
        "9110 7.6.1: Content-Length cannot be declared away",
        post("Connection: Content-Length\r\nContent-Length: 5", "hello"),
        hello(),
    ));
    rows.push(row(
        "9110 7.6.1: Transfer-Encoding cannot be declared away",
        post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        hello(),
    ));
    rows.push(row("9110 7.6.1: Connection names itself", with("Connection: Connection"), bad().or(forwarded())));
    for value in ["", ",", "\"X-Foo\"", "a b", "@", "X-Foo;a=b"] {
        rows.push(row(
            format!("9110 7.6.1: Connection {value:?}"),
            with(&format!("Connection: {value}")),
            bad().or(forwarded()),
        ));
    }
    rows
}

fn known() -> Vec<Row> {
    let te = |r: &Request| !r.fields.has("te") || r.fields.lists("connection", "te");
    let mut rows = Vec::new();
    for line in [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Connection: close",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "TE: gzip",
        "TE: deflate;q=0.5",
    ] {
        let name = line.split(':').next().unwrap();
        rows.push(row(
            format!("9110 7.6.1: {line:?} ends here unnamed"),
            with(line),
            forwarded().without(name).may_close(),
        ));
    }
    for lines in [
        "TE: trailers",
        "TE: trailers\r\nConnection: TE",
        "TE: trailers, gzip\r\nConnection: TE",
        "TE: gzip, trailers;q=1\r\nConnection: TE",
    ] {
        let wanted = forwarded()
            .that("10.1.4: TE is named by Connection, and says trailers alone", te)
            .that("no coding is asked for that we do not know", |r| !r.fields.lists("te", "gzip"));
        rows.push(row(format!("9110 10.1.4: {lines:?}"), with(lines), wanted));
    }
    rows.push(row(
        "9112 3.1: HTTP2-Settings ends here",
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        forwarded().without("upgrade").without("http2-settings"),
    ));
    rows
}

fn closing() -> Vec<Row> {
    let mut rows = Vec::new();
    for lines in [
        "Connection: close",
        "Connection: Close",
        "Connection: CLOSE",
        "Connection: keep-alive, close",
        "Connection: close, keep-alive",
        "Connection: close\r\nConnection: keep-alive",
        "Connection: x\r\nConnection: close",
    ] {
        rows.push(row(format!("9112 9.6: {lines:?} closes"), with(lines), forwarded().closes()));
        let sent = with(lines) + &with("X-B: 1").replace("/x", "/y");
        rows.push(row(
            format!("9112 9.6: nothing behind {lines:?} is looked at"),
            sent,
            forwarded().target("/x").closes(),
        ));
    }
    for lines in [
        "Connection: keep-alive",
        "Connection: not-close",
        "Connection: closed",
        "Connection: close-not",
        "X-Connection: close",
        "Proxy-Connection: close",
    ] {
        rows.push(row(
            format!("9112 9.3: {lines:?} does not close"),
            with(lines),
            if lines.starts_with("Proxy") { forwarded().may_close() } else { forwarded() },
        ));
    }
    let old = |lines: &str| format!("GET /x HTTP/1.0\r\nHost: a\r\n{lines}\r\n");
    rows.push(row("9112 9.3: HTTP/1.0 closes", old(""), forwarded().closes()));
    rows.push(row(
        "9112 9.3: HTTP/1.0 with Connection: close closes",
        old("Connection: close\r\n"),
        forwarded().closes(),
    ));
    rows.push(row(
        "9112 C.2.2: HTTP/1.0 with Proxy-Connection alone closes",
        old("Proxy-Connection: keep-alive\r\n"),
        forwarded().without("proxy-connection").closes(),
    ));
    rows.push(row(
        "9112 9.3: HTTP/1.0 with keep-alive and close closes",
        old("Connection: keep-alive, close\r\n"),
        forwarded().closes(),
    ));
    rows.push(row(
        "9110 7.8: Upgrade in HTTP/1.0 is ignored",
        old("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        forwarded().without("upgrade").closes(),
    ));
    rows
}

/// The last address that is told is that of who really called.
fn told_truly(request: &Request) -> bool {
    let all = request.fields.all("x-forwarded-for").join(",");
    all.rsplit(',').next().is_some_and(|last| last.trim() == "127.0.0.1")
}

fn added() -> Vec<Row> {
    let mut rows = Vec::new();
    for lines in [
        "X-Other: 1",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8",
        "X-Forwarded-For:",
        "X-Forwarded-For: junk, ,",
        "x-forwarded-for: 127.0.0.1\r\nX-A: 1\r\nX-FORWARDED-FOR: 9.9.9.9",
    ] {
        rows.push(row(
            format!("7239 4: the true caller is told last behind {lines:?}"),
            with(lines),
            forwarded().that("the last address is the caller's", told_truly),
        ));
    }
    rows.push(row(
        "9110 7.6.3: Via is kept",
        with("Via: 1.0 fred, 1.1 p.example"),
        forwarded().that("the received ones come first", |r| {
            r.fields.all("via").join(",").replace(' ', "").starts_with("1.0fred,1.1p.example")
        }),
    ));
    rows.push(row(
        "9110 7.6.3: Via in two lines keeps its order",
        with("Via: 1.0 fred\r\nX-A: 1\r\nVia: 1.1 p"),
        forwarded().that("the received ones come first", |r| {
            r.fields.all("via").join(",").replace(' ', "").starts_with("1.0fred,1.1p")
        }),
    ));
    rows
}

fn max_forwards() -> Vec<Row> {
    let asked = |method: &str, value: &str| format!("{method} /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
    let mut rows = Vec::new();
    for method in ["OPTIONS", "TRACE"] {
        rows.push(row(
            format!("9110 7.6.2: {method} with Max-Forwards 0 goes no further"),
            asked(method, "0"),
            local(&[200, 204]).or(refused(&[403, 405, 501])),
        ));
        rows.push(row(
            format!("9110 7.6.2: {method} with Max-Forwards 1 goes on with 0"),
            asked(method, "1"),
            forwarded().field("max-forwards", "0"),
        ));
        rows.push(row(
            format!("9110 7.6.2: {method} with Max-Forwards 10 goes on with 9"),
            asked(method, "10"),
            forwarded().field("max-forwards", "9"),
        ));
        rows.push(row(
            format!("9110 7.6.2: {method} with a great Max-Forwards"),
            asked(method, "99999999999999999999999"),
            bad().or(forwarded()),
        ));
        rows.push(row(
            format!("9110 7.6.2: {method} with a Max-Forwards of words"),
            asked(method, "many"),
            bad().or(forwarded()),
        ));
        rows.push(row(
            format!("9110 7.6.2: {method} without Max-Forwards goes on"),
            format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"),
            forwarded().without("max-forwards"),
        ));
    }
    rows.push(row(
        "9110 7.6.2: OPTIONS of everything with Max-Forwards 0 goes no further",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        local(&[200, 204]).or(refused(&[403, 405, 501])),
    ));
    rows.push(row("9110 7.6.2: GET with Max-Forwards 0 may go on", asked("GET", "0"), forwarded()));
    rows
}

fn expectations() -> Vec<Row> {
    let post = |lines: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{lines}\r\n\r\nhello");
    let mut rows = Vec::new();
    for line in ["Expect: 100-continue", "Expect: 100-Continue", "expect: 100-CONTINUE"] {
        rows.push(row(format!("9110 10.1.1: {line:?} with the body behind it"), post(line), forwarded().body("hello")));
        rows.push(row(format!("9110 10.1.1: {line:?} without a body"), with(line), forwarded().body("")));
    }
    for value in ["200-ok", "something", "100-continue, else", "100", "", "100-continue;a=b"] {
        rows.push(row(
            format!("9110 10.1.1: Expect {value:?} is refused or passed on"),
            post(&format!("Expect: {value}")),
            refused(&[400, 417]).or(forwarded().body("hello")),
        ));
    }
    let old = "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    rows.push(row("9110 10.1.1: Expect in HTTP/1.0 is ignored", old, forwarded().body("hello").closes()));
    rows
}

fn end_to_end() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, value) in [
        ("Accept", "text/html, */*;q=0.1"),
        ("Accept-Encoding", "gzip, br"),
        ("Authorization", "Basic YTpi"),
        ("Cookie", "a=b; c=\"d\""),
        ("Content-Type", "text/plain"),
        ("Range", "bytes=0-"),
        ("If-None-Match", "\"a\", W/\"b\""),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("User-Agent", "x/1 (y; z)"),
        ("Referer", "http://a/x?y"),
        ("Origin", "null"),
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("From", "a@b"),
        ("Forwarded", "for=1.2.3.4"),
        ("Trailer", "X-T"),
        ("Sec-WebSocket-Key", "AAAA"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/admin"),
        ("Priority", "u=1"),
    ] {
        let kept = if name == "Forwarded" { forwarded() } else { forwarded().field(name, value) };
        rows.push(row(format!("9110 7.6.1: {name} is passed on as it is"), with(&format!("{name}: {value}")), kept));
    }
    rows.push(row(
        "6265 5.4: Cookies in two lines keep their order",
        with("Cookie: a=1\r\nX-A: 1\r\nCookie: b=2"),
        forwarded().that("both are there, in order", |r| {
            ["a=1;b=2", "a=1; b=2"].contains(&r.fields.all("cookie").join("; ").as_str())
        }),
    ));
    rows
}

pub fn responses() -> Vec<answered::Row> {
    use answered::row;
    let with = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 2\r\n\r\nok");
    let ok = || passed(200).body("ok");
    let mut rows = Vec::new();
    for lines in [
        "Connection: X-Foo",
        "Connection: close, X-Foo",
        "connection: x-foo",
        "Connection: ,X-Foo,",
        "Connection: keep-alive\r\nConnection: X-Foo",
        "Connection: X-Bar,X-Foo",
    ] {
        rows.push(row(
            format!("9110 7.6.1: a response's field named by {lines:?} ends here"),
            with(&format!("X-Foo: 1\r\n{lines}\r\nX-Foo: 2")),
            ok().without("x-foo"),
        ));
    }
    for line in ["Keep-Alive: timeout=5, max=100", "Proxy-Connection: keep-alive", "Upgrade: h2c", "TE: trailers"] {
        let name = line.split(':').next().unwrap();
        rows.push(row(format!("9110 7.6.1: a response's {line:?} ends here unnamed"), with(line), ok().without(name)));
    }
    for name in ["Content-Length", "Connection", "Transfer-Encoding"] {
        rows.push(row(
            format!("9110 7.6.1: {name} cannot be declared away by a response"),
            with(&format!("Connection: {name}")),
            answered::broken().or(ok()),
        ));
    }
    rows.push(row(
        "9110 7.6.1: Set-Cookie ends here where a response names it",
        with("Connection: Set-Cookie\r\nSet-Cookie: a=b"),
        ok().without("set-cookie"),
    ));
    let required = "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, X-Foo\r\nUpgrade: a/1, b\r\nX-Foo: 1\r\nContent-Length: 2\r\n\r\nok";
    let told = passed(426).body("ok").without("x-foo").field("upgrade", "a/1, b").field("connection", "upgrade");
    rows.push(row("9110 15.5.22: what a 426 requires is told", required, told));
    rows.push(row("9110 7.6.3: a response's Via is kept", with("Via: 1.0 fred"), ok()));
    rows.push(row(
        "9112 9.6: an origin's close is not the client's",
        with("Connection: close"),
        ok().without("keep-alive"),
    ));
    rows
}
