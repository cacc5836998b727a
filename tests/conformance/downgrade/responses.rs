//! Responses of an HTTP/1.1 origin, as an h2 client gets them (RFC 9113 sections 8.1 to 8.3, RFC 9110 sections 6.4 and 15). What is
//! malformed never reaches the client as a message, and what is cut never looks whole.

use libtest_mimic::Trial;

use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::h2::client::Client;
use crate::world::{LIMITS, World};

struct Row {
    name: &'static str,
    method: &'static str,
    sent: String,
    end: Option<Act>,
    wanted: Wanted,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    /// 502, or another of these.
    gateway: Vec<u16>,
    /// Ends with an error.
    broken: bool,
    passed: Option<Passed>,
}

#[derive(Debug, Clone, Default)]
struct Passed {
    status: u16,
    interims: Vec<u16>,
    body: String,
    /// All lines behind `:status`, but `date`.
    fields: Option<Vec<(String, String)>>,
    trailers: Vec<(String, String)>,
}

fn gateway() -> Wanted {
    Wanted { gateway: vec![502], ..Wanted::default() }
}

/// The origin did not answer at all.
fn unanswered() -> Wanted {
    Wanted { gateway: vec![502, 503], ..Wanted::default() }
}

/// Told as the origin's fault, or broken off.
fn broken() -> Wanted {
    Wanted { broken: true, ..gateway() }
}

fn passed(status: u16, body: &str) -> Wanted {
    Wanted { passed: Some(Passed { status, body: body.into(), ..Passed::default() }), ..Wanted::default() }
}

impl Wanted {
    fn with(mut self, change: impl FnOnce(&mut Passed)) -> Self {
        change(self.passed.as_mut().expect("checks are of what is passed on"));
        self
    }

    fn fields(self, lines: &[(&str, &str)]) -> Self {
        self.with(|passed| passed.fields = Some(super::owned(lines)))
    }

    fn trailers(self, lines: &[(&str, &str)]) -> Self {
        self.with(|passed| passed.trailers = super::owned(lines))
    }

    fn interims(self, statuses: &[u16]) -> Self {
        self.with(|passed| passed.interims = statuses.to_vec())
    }

    fn or(self, other: Self) -> Self {
        let gateway = [self.gateway, other.gateway].concat();
        Self { gateway, broken: self.broken || other.broken, passed: self.passed.or(other.passed) }
    }
}

fn row(name: &'static str, sent: &str, wanted: Wanted) -> Row {
    Row { name, method: "GET", sent: sent.into(), end: None, wanted }
}

fn row_and_end(name: &'static str, sent: &str, wanted: Wanted) -> Row {
    Row { end: Some(Act::Finish), ..row(name, sent, wanted) }
}

impl Row {
    fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn check(&self, world: &World) {
        let mut client = Client::connect(world.proxy);
        let stream =
            client.ask(&[(":method", self.method), (":scheme", "http"), (":path", "/first"), (":authority", "a")]);
        let said = client.over(stream);
        let why = format!("{}\nbecame {said:?}\nwanted: {:?}", self.sent.escape_debug(), self.wanted);
        let status: u16 = said.status().parse().unwrap_or(0);
        if !said.is_entire() {
            assert!(self.wanted.broken, "{why}");
        } else if said.head().is_some_and(|head| head.has("proxy-status")) {
            assert!(self.wanted.gateway.contains(&status), "{why}");
        } else {
            let wanted = self.wanted.passed.as_ref().unwrap_or_else(|| panic!("{why}"));
            let interims: Vec<u16> = said.heads[..said.heads.len() - 1]
                .iter()
                .map(|head| head.first(":status").unwrap().parse().unwrap())
                .collect();
            assert_eq!(
                (status, said.text(), interims),
                (wanted.status, wanted.body.clone(), wanted.interims.clone()),
                "{why}"
            );
            let own = |(name, _): &&(String, String)| !["date", "via", ":status"].contains(&name.as_str());
            let fields: Vec<_> = said.head().unwrap().0.iter().filter(own).cloned().collect();
            assert!(wanted.fields.as_ref().is_none_or(|wanted| *wanted == fields), "{fields:?}\n{why}");
            let trailers = said.trailers.clone().unwrap_or_default();
            assert_eq!(trailers.0, wanted.trailers, "{why}");
        }
        client.serves("/second");
        world.serves("/third");
    }
}

pub fn trials() -> Vec<Trial> {
    let trial = |row: Row| {
        Trial::test(format!("h1 response to h2: RFC {}", row.name), move || {
            let acts = [vec![Act::Send(row.sent.clone().into_bytes())], row.end.clone().into_iter().collect()].concat();
            let script = Script { target: "/first", early: false, acts };
            let world = World::between(Backend::start(vec![script], Delivery::Whole), LIMITS);
            row.check(&world);
            world.backend.begin_anew(Delivery::Torn);
            row.check(&world);
            Ok(())
        })
    };
    let all = [plain(), bodiless(), hop_by_hop(), interims(), malformed(), cuts(), trailers()];
    all.into_iter().flatten().map(trial).collect()
}

fn plain() -> Vec<Row> {
    vec![
        row("9113 8.3.2: a status and a length", "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\nhello", {
            passed(200, "hello").fields(&[("content-length", "5")])
        }),
        row("9113 8.2.1: names become lower case", "HTTP/1.1 404 X\r\nX-A: B\r\nCONTENT-LENGTH: 0\r\n\r\n", {
            passed(404, "").fields(&[("x-a", "B"), ("content-length", "0")])
        }),
        row(
            "9112 7.1: chunks become DATA",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            passed(200, "hello").fields(&[]),
        ),
        row_and_end("9112 6.3: a body that ends with the connection", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nhello", {
            passed(200, "hello").fields(&[("x-a", "1")])
        }),
        row_and_end("9112 6.3: HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", passed(200, "hello").fields(&[])),
        row(
            "9110 5.3: Set-Cookie stays apart",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n",
            passed(200, "").fields(&[("set-cookie", "a=b"), ("set-cookie", "c=d"), ("content-length", "0")]),
        ),
        row("9110 5.5: 8-bit characters of a value", "HTTP/1.1 200 OK\r\nX-A: \u{e9}\r\nContent-Length: 0\r\n\r\n", {
            passed(200, "").fields(&[("x-a", "\u{c3}\u{a9}"), ("content-length", "0")])
        }),
        row("9110 5.5: an empty value", "HTTP/1.1 200 OK\r\nX-A:\r\nContent-Length: 0\r\n\r\n", {
            passed(200, "").fields(&[("x-a", ""), ("content-length", "0")])
        }),
        row("9110 15: a status nobody knows", "HTTP/1.1 299 X\r\nContent-Length: 2\r\n\r\nhi", passed(299, "hi")),
        row("9110 15: 599", "HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nhi", passed(599, "hi")),
    ]
}

fn bodiless() -> Vec<Row> {
    vec![
        row("9110 9.3.2: HEAD with a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", {
            passed(200, "").fields(&[("content-length", "5")])
        })
        .to("HEAD"),
        row(
            "9110 9.3.2: HEAD with chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            passed(200, "").fields(&[]),
        )
        .to("HEAD"),
        row("9110 15.4.5: 304 with a length", "HTTP/1.1 304 X\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", {
            passed(304, "").fields(&[("content-length", "5"), ("etag", "\"a\"")])
        }),
        row("9110 15.3.5: 204", "HTTP/1.1 204 X\r\nX-A: 1\r\n\r\n", passed(204, "").fields(&[("x-a", "1")])),
        row("9110 8.6: 204 with a length, which goes no further", "HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", {
            passed(204, "").fields(&[]).or(gateway())
        }),
        row("9110 15.3.6: 205", "HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n", passed(205, "")),
        row("9112 6.3: no body at all", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", passed(200, "")),
        row(
            "9112 7.1: no chunk at all",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            passed(200, ""),
        ),
    ]
}

fn hop_by_hop() -> Vec<Row> {
    let with = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nhi");
    let only = |lines: &[(&str, &str)]| passed(200, "hi").fields(&[lines, &[("content-length", "2")]].concat());
    vec![
        row(
            "9113 8.2.2: Connection: keep-alive",
            &with("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"),
            only(&[]),
        ),
        row("9113 8.2.2: Connection: close", &with("Connection: close\r\n"), only(&[])),
        row(
            "9110 7.6.1: what Connection names",
            &with("X-A: 1\r\nConnection: x-a, close\r\nX-B: 2\r\n"),
            only(&[("x-b", "2")]),
        ),
        row("9113 8.2.2: Proxy-Connection", &with("Proxy-Connection: close\r\n"), only(&[])),
        row("9113 8.2.2: Upgrade", &with("Upgrade: h2c\r\n"), only(&[])),
        row("9113 8.2.2: TE", &with("TE: gzip\r\n"), only(&[])),
        row("9110 6.6.2: Trailer stays", &with("Trailer: x\r\n"), only(&[("trailer", "x")])),
    ]
}

fn interims() -> Vec<Row> {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    vec![
        row("9110 15.2.1: 100", &format!("HTTP/1.1 100 Continue\r\n\r\n{ok}"), passed(200, "hi").interims(&[100])),
        row(
            "8297 2: 103",
            &format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{ok}"),
            passed(200, "hi").interims(&[103]),
        ),
        row(
            "9110 15.2: several",
            &format!("HTTP/1.1 102 X\r\n\r\nHTTP/1.1 103 X\r\nConnection: x\r\nX: 1\r\n\r\nHTTP/1.1 199 X\r\n\r\n{ok}"),
            passed(200, "hi").interims(&[102, 103, 199]),
        ),
        row(
            "9113 8.6: 101, which h2 does not have",
            &format!("HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{ok}"),
            gateway(),
        ),
        row_and_end("9110 15.2: nothing but an interim one", "HTTP/1.1 103 X\r\n\r\n", unanswered()),
    ]
}

fn malformed() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, lines) in [
        ("9112 5.1: a name with a space within", "X A: 1\r\n"),
        ("9110 5.1: a pseudo-header", ":status: 200\r\n"),
        ("9110 5.1: no name", ": 1\r\n"),
        ("9112 5: no colon", "X-A\r\n"),
        ("9112 5.2: a folded line", "X-A: 1\r\n 2\r\n"),
        ("9112 2.2: a bare CR", "X-A: 1\rX-B: 2\r\n"),
        ("9112 2.2: a bare LF", "X-A: 1\nX-B: 2\r\n"),
        ("9110 5.5: NUL", "X-A: 1\0\r\n"),
        ("9112 6.3: two lengths", "Content-Length: 3\r\n"),
        ("9112 6.3: both framings", "Transfer-Encoding: chunked\r\n"),
        ("9112 6.3: an unknown coding", "Transfer-Encoding: evil\r\n"),
    ] {
        rows.push(row(name, &format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nhi"), gateway()));
    }
    for (name, line) in [
        ("9112 4: no version", "200 OK"),
        ("9112 4: another protocol", "ICY 200 OK"),
        ("9112 4: a status of four digits", "HTTP/1.1 2000 OK"),
        ("9112 4: a status of two digits", "HTTP/1.1 20 OK"),
        ("9112 4: a status of 600", "HTTP/1.1 600 OK"),
        ("9112 4: a status of 099", "HTTP/1.1 099 OK"),
    ] {
        rows.push(row(name, &format!("{line}\r\nContent-Length: 2\r\n\r\nhi"), gateway()));
    }
    for (name, length) in [
        ("9110 8.6: a length with a sign", "+2"),
        ("9110 8.6: a list of lengths", "2, 2"),
        ("9110 8.6: no number", "x"),
    ] {
        rows.push(row(name, &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhi"), gateway()));
    }
    rows.push(row(
        "9112 5.1: a name with a space behind loses it",
        "HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nhi",
        passed(200, "hi").fields(&[("x-a", "1"), ("content-length", "2")]).or(gateway()),
    ));
    rows
}

fn cuts() -> Vec<Row> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        row_and_end("9112 8: less than its length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", broken()),
        row_and_end("9112 8: nothing of its length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", broken()),
        row_and_end("9112 8: no last chunk", &format!("{chunked}5\r\nhello\r\n"), broken()),
        row_and_end("9112 8: half a chunk", &format!("{chunked}5\r\nhel"), broken()),
        row_and_end("9112 8: no end of trailers", &format!("{chunked}5\r\nhello\r\n0\r\nX-T: 1\r\n"), broken()),
        row_and_end("9112 8: half a head", "HTTP/1.1 200 OK\r\nContent-Le", unanswered()),
        row("9112 7.1: a chunk longer than its size", &format!("{chunked}4\r\nhello\r\n0\r\n\r\n"), broken()),
        row("9112 7.1: a chunk size that is none", &format!("{chunked}x\r\nhello\r\n0\r\n\r\n"), broken()),
        row(
            "9112 7.1: a chunk size that overflows",
            &format!("{chunked}10000000000000005\r\nhello\r\n0\r\n\r\n"),
            broken(),
        ),
    ]
}

fn trailers() -> Vec<Row> {
    let with =
        |lines: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{lines}\r\n");
    vec![
        row(
            "9113 8.1: trailers",
            &with("X-T: 1\r\nX-U: 2\r\n"),
            passed(200, "hi").trailers(&[("x-t", "1"), ("x-u", "2")]),
        ),
        row("9110 6.5.1: a length in trailers", &with("Content-Length: 7\r\n"), passed(200, "hi").or(broken())),
        row(
            "9110 6.5.1: a framing in trailers",
            &with("Transfer-Encoding: chunked\r\n"),
            passed(200, "hi").or(broken()),
        ),
        row("9113 8.1: a pseudo-header in trailers", &with(":status: 200\r\n"), broken()),
        row("9113 8.1: a bare CR in trailers", &with("X-T: 1\rX-U: 2\r\n"), broken()),
        row("9113 8.1: a name with a space in trailers", &with("X T: 1\r\n"), broken()),
    ]
}
