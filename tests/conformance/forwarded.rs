//! Who called, as an origin hears it: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via` (RFC 9110 section 7.6.3), by the policy of the
//! listener and by whether the client is believed. Every row is tried over HTTP/1.1, at once and byte by byte, and over h2.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use libtest_mimic::Trial;

use crate::backend::{Act, Backend, Script};
use crate::client::Delivery;
use crate::wire::Request;
use crate::world::{RUNTIME, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("7239 8.1: behind a PROXY protocol the client is who it names, believed or not", behind_a_balancer),
    ("9110 7.6.3: a response says through whom it came, where requests do", responses),
    ("9110 7.6.3: a refusal of ours came through nobody", refusals),
];

/// A client that is believed, and one that is not, to put in front of a policy. All clients are on loopback.
const TRUSTED: &str = "trusted: [127.0.0.0/8]";
const STRANGER: &str = "trusted: [10.0.0.0/8, '::1']";

/// One request, and what the origin gets of this kind: exactly that. `{v}` is the version that the client speaks.
struct Row {
    name: &'static str,
    /// The keys of `forwarded_headers`.
    policy: String,
    sent: &'static [(&'static str, &'static str)],
    wanted: &'static [(&'static str, &'static str)],
}

/// What somebody may say who wants to be somebody else.
const SAID: &[(&str, &str)] = &[
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-FORWARDED-FOR", "192.0.2.2, 192.0.2.3"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "bank.example"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Prefix", "/admin"),
    ("X_Forwarded_For", "192.0.2.4"),
    ("X-Real-IP", "192.0.2.5"),
    ("Forwarded", "for=192.0.2.6;proto=https"),
    ("forwarded", "for=\"[2001:db8::1]:4711\""),
    ("Via", "1.0 fred"),
    ("via", "1.1 p.example"),
];

/// Of these, all but `Forwarded` and what follows.
const X_KEPT: [(&str, &str); 6] = [
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "bank.example"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-prefix", "/admin"),
    ("x_forwarded_for", "192.0.2.4"),
    ("x-real-ip", "192.0.2.5"),
];
const X_OURS: [(&str, &str); 2] = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http")];
const X_APPENDED: [(&str, &str); 2] =
    [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 192.0.2.3, 127.0.0.1")];
const X_AS_IT_WAS: [(&str, &str); 2] = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 192.0.2.3")];
const FORWARDED_KEPT: [(&str, &str); 2] =
    [("forwarded", "for=192.0.2.6;proto=https"), ("forwarded", "for=\"[2001:db8::1]:4711\"")];
const FORWARDED_APPENDED: [(&str, &str); 2] = [
    ("forwarded", "for=192.0.2.6;proto=https"),
    ("forwarded", "for=\"[2001:db8::1]:4711\", for=127.0.0.1;proto=http;host=\"a\""),
];
const FORWARDED_OURS: [(&str, &str); 1] = [("forwarded", "for=127.0.0.1;proto=http;host=\"a\"")];
const VIA_KEPT: [(&str, &str); 2] = [("via", "1.0 fred"), ("via", "1.1 p.example")];

type Lines = &'static [(&'static str, &'static str)];

fn lines(parts: &[&[(&'static str, &'static str)]]) -> Lines {
    parts.concat().leak()
}

/// Each policy of each field, of both clients, where all is said and where nothing is.
fn policies() -> Vec<Row> {
    let none: Lines = &[];
    let x_forwarded: [(&str, Lines, Lines, Lines); 4] = [
        ("append", lines(&[&X_APPENDED, &X_KEPT]), &X_OURS, &X_OURS),
        ("keep", lines(&[&X_AS_IT_WAS, &X_KEPT]), none, none),
        ("replace", &X_OURS, &X_OURS, &X_OURS),
        ("drop", none, none, none),
    ];
    let forwarded: [(&str, Lines, Lines, Lines); 4] = [
        ("append", &FORWARDED_APPENDED, &FORWARDED_OURS, &FORWARDED_OURS),
        ("keep", &FORWARDED_KEPT, none, none),
        ("replace", &FORWARDED_OURS, &FORWARDED_OURS, &FORWARDED_OURS),
        ("drop", none, none, none),
    ];
    let mut rows = Vec::new();
    let mut row = |name: String, policy: String, sent, wanted| {
        rows.push(Row { name: name.leak(), policy, sent, wanted });
    };
    for (policy, of_trusted, of_stranger, unsaid) in x_forwarded {
        let keys = |who: &str| format!("{who}, x_forwarded: {policy}, forwarded: drop, via: drop");
        row(format!("X-Forwarded-* {policy}, said by somebody believed"), keys(TRUSTED), SAID, of_trusted);
        row(format!("X-Forwarded-* {policy}, said by a stranger"), keys(STRANGER), SAID, of_stranger);
        row(format!("X-Forwarded-* {policy}, not said by somebody believed"), keys(TRUSTED), none, unsaid);
        row(format!("X-Forwarded-* {policy}, not said by a stranger"), keys(STRANGER), none, unsaid);
    }
    for (policy, of_trusted, of_stranger, unsaid) in forwarded {
        let keys = |who: &str| format!("{who}, x_forwarded: drop, forwarded: {policy}, via: drop");
        row(format!("Forwarded {policy}, said by somebody believed"), keys(TRUSTED), SAID, of_trusted);
        row(format!("Forwarded {policy}, said by a stranger"), keys(STRANGER), SAID, of_stranger);
        row(format!("Forwarded {policy}, not said by somebody believed"), keys(TRUSTED), none, unsaid);
        row(format!("Forwarded {policy}, not said by a stranger"), keys(STRANGER), none, unsaid);
    }
    let via: [(&str, Lines, Lines); 4] = [
        ("append, via_name: edge", &[("via", "1.0 fred"), ("via", "1.1 p.example, {v} edge")], &[("via", "{v} edge")]),
        ("keep", &VIA_KEPT, none),
        ("replace", &[("via", "{v} mesh")], &[("via", "{v} mesh")]),
        ("drop", none, none),
    ];
    for (policy, said, unsaid) in via {
        for (whose, who) in [("somebody believed", TRUSTED), ("a stranger", STRANGER)] {
            let keys = || format!("{who}, x_forwarded: drop, forwarded: drop, via: {policy}");
            row(format!("Via {policy}, said by {whose}"), keys(), SAID, said);
            row(format!("Via {policy}, not said by {whose}"), keys(), none, unsaid);
        }
    }
    row("nothing is configured".into(), String::new(), SAID, lines(&[&X_OURS, &VIA_KEPT]));
    let kept = lines(&[&X_APPENDED, &X_KEPT, &FORWARDED_KEPT, &VIA_KEPT]);
    row("somebody is believed, and nothing else configured".into(), TRUSTED.into(), SAID, kept);
    rows
}

/// What is no list, or ends where it should not, and what `Connection` names.
fn oddities() -> Vec<Row> {
    let append = || format!("{TRUSTED}, forwarded: append");
    let ours = "for=127.0.0.1;proto=http;host=\"a\"";
    let row = |name, policy: String, sent, wanted| Row { name, policy, sent, wanted };
    let with_proto = |value: &'static str| lines(&[&[("x-forwarded-for", value)], &[("x-forwarded-proto", "http")]]);
    vec![
        row(
            "an empty list has no member in front of ours",
            TRUSTED.into(),
            &[("X-Forwarded-For", "")],
            with_proto("127.0.0.1"),
        ),
        row(
            "junk is no part of our member",
            TRUSTED.into(),
            &[("X-Forwarded-For", "junk; \"1, ,")],
            with_proto("junk; \"1, ,, 127.0.0.1"),
        ),
        row(
            "a scheme that is not known is the believed one's word",
            TRUSTED.into(),
            &[("X-Forwarded-Proto", "wss")],
            lines(&[&[("x-forwarded-proto", "wss")], &[("x-forwarded-for", "127.0.0.1")]]),
        ),
        row(
            "a string that does not end would swallow our element",
            append(),
            &[("Forwarded", "for=\"192.0.2.1")],
            lines(&[&X_OURS, &[("forwarded", ours)]]),
        ),
        row(
            "a string that ends with an escaped quote does not end",
            append(),
            &[("Forwarded", "for=192.0.2.1"), ("Forwarded", "by=\"x\\\"")],
            lines(&[&X_OURS, &[("forwarded", ours)]]),
        ),
        row(
            "a comma within a string is none",
            append(),
            &[("Forwarded", "for=\"_a,\\\"b\"")],
            lines(&[&X_OURS, &[("forwarded", "for=\"_a,\\\"b\", for=127.0.0.1;proto=http;host=\"a\"")]]),
        ),
        row(
            "what the believed one says cannot be declared away",
            TRUSTED.into(),
            &[
                ("Connection", "X-Forwarded-For, x-forwarded-host, X-Forwarded-Port, forwarded, x-real-ip"),
                ("X-Forwarded-For", "192.0.2.1"),
                ("X-Forwarded-Host", "shop.example"),
                ("X-Forwarded-Port", "443"),
                ("X-Real-IP", "192.0.2.1"),
                ("Forwarded", "for=192.0.2.1"),
            ],
            lines(&[
                &[("x-forwarded-for", "192.0.2.1, 127.0.0.1"), ("x-forwarded-proto", "http")],
                &[("x-forwarded-host", "shop.example"), ("x-forwarded-port", "443"), ("x-real-ip", "192.0.2.1")],
                &[("forwarded", "for=192.0.2.1")],
            ]),
        ),
        row(
            "what we say cannot be declared away",
            "forwarded: append, via: append".into(),
            &[("Connection", "x-forwarded-for, X-Forwarded-Proto, Forwarded, Via")],
            lines(&[&X_OURS, &[("forwarded", ours), ("via", "1.1 mesh")]]),
        ),
        row(
            "HTTP/1.1 and h2 agree on what is too much to be spoofed",
            STRANGER.into(),
            &[("x-forwarded-client-cert", "Subject=\"CN=admin\""), ("X_REAL_IP", "192.0.2.1"), ("X-Forwarded", "1")],
            &X_OURS,
        ),
    ]
}

pub fn trials() -> Vec<Trial> {
    let rows = || policies().into_iter().chain(oddities());
    let mut trials = Vec::new();
    for (over, tried) in
        [("HTTP/1.1", Over::Http1(Delivery::Whole)), ("pieces", Over::Http1(Delivery::Torn)), ("h2", Over::Http2)]
    {
        // h2 has no field that names others.
        let fits = |row: &Row| tried != Over::Http2 || !row.sent.iter().any(|(name, _)| *name == "Connection");
        trials.extend(rows().filter(fits).map(|row| {
            Trial::test(format!("forwarded: RFC 7239 8.1: over {over}: {}", row.name), move || {
                row.check(tried);
                Ok(())
            })
        }));
    }
    trials
}

#[derive(Clone, Copy, PartialEq)]
enum Over {
    Http1(Delivery),
    Http2,
}

impl Row {
    fn check(&self, over: Over) {
        let world = listening(&format!("forwarded_headers: {{ {} }}", self.policy), Vec::new());
        match over {
            Over::Http1(delivery) => {
                let fields: String = self.sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let mut client = world.client();
                client.deliver(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes(), delivery);
                assert_eq!(client.response("GET").entire().status, 200);
            }
            Over::Http2 => assert_eq!(ask_h2(&world, self.sent).status(), 200),
        }
        let (_, request) = world.backend.wait_request("/x");
        let version = if over == Over::Http2 { "2" } else { "1.1" };
        let mut names: Vec<&str> = self.wanted.iter().map(|(name, _)| *name).collect();
        names.dedup();
        for name in names {
            let wanted = self.wanted.iter().filter(|(one, _)| *one == name);
            let wanted: Vec<String> = wanted.map(|(_, value)| value.replace("{v}", version)).collect();
            assert_eq!(request.fields.all(name), wanted, "{name} of {:?}", request.fields);
        }
        let told = told(&request);
        assert_eq!(told.len(), self.wanted.len(), "more is told, or less: {told:?}");
    }
}

/// All that says who called, or through whom.
fn told(request: &Request) -> Vec<&(String, String)> {
    let fits = |(name, _): &&(String, String)| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        name.starts_with("x-forwarded-") || ["x-real-ip", "forwarded", "via"].contains(&name.as_str())
    };
    request.fields.0.iter().filter(fits).collect()
}

fn listening(keys: &str, scripts: Vec<Script>) -> World {
    World::between(Backend::start(scripts, Delivery::Whole), keys)
}

/// `GET /x` over h2.
fn ask_h2(world: &World, fields: &[(&str, &str)]) -> http::Response<()> {
    let mut request = http::Request::builder().uri("http://a/x");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    RUNTIME.block_on(async {
        let stream = tokio::net::TcpStream::connect(world.proxy).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        body.collect().await.unwrap();
        http::Response::from_parts(head, ())
    })
}

/// Who connects is the balancer, whom nobody asks about fields: the client behind it wrote them.
fn behind_a_balancer() {
    let balanced = |trusted: &str| {
        listening(
            &format!("proxy_protocol: {{ trusted: [127.0.0.1] }}, forwarded_headers: {{ trusted: [{trusted}] }}"),
            vec![],
        )
    };
    let hears = |world: &World| {
        let mut client = world.client();
        client.send("PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\nGET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
        assert_eq!(client.response("GET").entire().status, 200);
        let (_, request) = world.backend.wait_request("/x");
        request.fields.all("x-forwarded-for").join("|")
    };
    assert_eq!(hears(&balanced("127.0.0.1")), "192.0.2.7");
    assert_eq!(hears(&balanced("192.0.2.0/24")), "192.0.2.1, 192.0.2.7");
}

fn responses() {
    let answer = |version: &str| format!("{version} 200 OK\r\nVia: 1.0 fred\r\nContent-Length: 0\r\n\r\n").into_bytes();
    for (version, policy, wanted) in [
        ("HTTP/1.1", "via: append", "1.0 fred, 1.1 mesh"),
        ("HTTP/1.0", "via: append", "1.0 fred, 1.0 mesh"),
        ("HTTP/1.1", "via: replace, via_name: edge", "1.1 edge"),
        ("HTTP/1.1", "via: keep", "1.0 fred"),
        ("HTTP/1.1", "via: drop", ""),
    ] {
        let script = Script { target: "/x", early: false, acts: vec![Act::Send(answer(version))] };
        let world = listening(&format!("forwarded_headers: {{ {policy} }}"), vec![script]);
        let mut client = world.client();
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").entire().fields.all("via").join("|"), wanted, "{policy}");
        // How the client asks makes no difference to how the answer came.
        let heard = ask_h2(&world, &[]);
        let via: Vec<&[u8]> = heard.headers().get_all("via").iter().map(http::HeaderValue::as_bytes).collect();
        assert_eq!(via.join(&b'|'), wanted.as_bytes(), "{policy} over h2");
    }
}

fn refusals() {
    let world = listening("forwarded_headers: { via: append }", Vec::new());
    let mut client = world.client();
    client.send("GET /x HTTP/1.1\r\n\r\n");
    let refusal = client.response("GET").entire();
    assert_eq!((refusal.status, refusal.fields.has("via")), (400, false));
}
