//! Connections of both sides over more than one message (RFC 9112 section 9).

use std::time::{Duration, Instant};

use mesh_tests::eventually::until;

use crate::asked::{self, bad, forwarded, row, row_and_end};
use crate::backend::{Act, Backend, Script};
use crate::client::{Client, Delivery, End};
use crate::world::{DEADLINE, LIMITS, Running, SERVICE, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9112 9.3.2: pipelined requests are answered in order, the first slowly", a_slow_first),
    ("9112 9.3.2: two hundred pipelined requests", two_hundred),
    ("9112 9.2: what comes on an idle connection is the answer to nothing", unsolicited),
    ("9112 9.2: bytes on an idle connection, and its end", unsolicited_and_end),
    ("9112 9.5: an idle connection that ends harms no request", idle_end),
    ("9112 9.5: an idle connection that breaks harms no request", idle_reset),
    ("9112 9.3: a sound connection is used again", used_again),
    ("9112 9.6: a connection is not used again behind Connection: close", not_used_again),
    ("9112 9.3: a connection is not used again behind a response that was cut", not_used_behind_a_cut),
    ("9110 9.3.2: HEAD between others", head_between_others),
    ("9112 9.3: everybody gets the answers to his own requests", to_whom_they_belong),
    ("9112 9.6: a connection in use when the proxy leaves hears of it with its next response", in_use_when_it_leaves),
    ("9112 9.6: a connection that nobody uses when the proxy leaves is ended", unused_when_it_leaves),
];

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Requests in a row, as the table has them.
pub fn rows() -> Vec<asked::Row> {
    let post =
        |target: &str, lines: &str, body: &str| format!("POST {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}");
    let one = || forwarded().target("/x");
    vec![
        row("9112 9.3.2: three requests at once", get("/x") + &get("/y") + &get("/z"), one().requests(3)),
        row(
            "9112 9.3.2: a body between requests",
            get("/x") + &post("/y", "Content-Length: 5", "hello") + &get("/z"),
            one().requests(3),
        ),
        row(
            "9112 9.3.2: chunks between requests",
            get("/x") + &post("/y", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n") + &get("/z"),
            one().requests(3),
        ),
        row(
            "9112 9.3.2: HEAD between requests",
            get("/x") + "HEAD /y HTTP/1.1\r\nHost: a\r\n\r\n" + &get("/z"),
            one().requests(3),
        ),
        row(
            "9112 9.3.2: a good request, then a bad one",
            get("/x") + "GET /y HTTP/1.1\r\n\r\n" + &get("/z"),
            one().then_refused(&[400]),
        ),
        row(
            "9112 9.3.2: a good request, then junk",
            get("/x") + "junk\r\n\r\n" + &get("/z"),
            one().then_refused(&[400]),
        ),
        row(
            "9112 9.3.2: a good request, then both framings",
            get("/x") + &post("/y", "Content-Length: 5\r\nTransfer-Encoding: x", "hello"),
            one().then_refused(&[400, 501]),
        ),
        row(
            "9112 9.3.2: a body, then a bad request",
            post("/x", "Content-Length: 5", "hello") + "GET /y HTTP/1.1\r\nHost: a b\r\n\r\n",
            one().body("hello").then_refused(&[400]),
        ),
        row(
            "9112 6.3: a body longer than its length is the next request",
            post("/x", "Content-Length: 5", "hello)") + &get("/y"),
            one().body("hello").then_refused(&[400, 405, 501]),
        ),
        row(
            "9112 9.3.2: nothing behind a bad request is looked at",
            "GET /x HTTP/1.1\r\n\r\n".to_owned() + &get("/y"),
            bad(),
        ),
        row(
            "9112 9.6: nothing behind HTTP/1.0 is looked at",
            "GET /x HTTP/1.0\r\nHost: a\r\n\r\n".to_owned() + &get("/y"),
            one().closes(),
        ),
        row_and_end("9293 3.6: a client that ends its side behind a request is answered", get("/x"), one()),
        row_and_end(
            "9293 3.6: a client that ends its side behind a body is answered",
            post("/x", "Content-Length: 5", "hello"),
            one().body("hello"),
        ),
        row_and_end(
            "9293 3.6: a client that ends its side behind chunks is answered",
            post("/x", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
            one().body("hello"),
        ),
        row_and_end(
            "9293 3.6: a client that ends its side behind two requests is answered twice",
            get("/x") + &get("/y"),
            one().requests(2),
        ),
        row("9110 9.3.2: a refusal of HEAD has no body", "HEAD /x HTTP/1.1\r\n\r\n", bad()),
        row(
            "9110 9.3.2: a refusal of HEAD with a bad length has no body",
            "HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            bad(),
        ),
        row(
            "9110 10.1.1: what is refused is not told to go on",
            post("/x", "Host: b\r\nExpect: 100-continue\r\nContent-Length: 5", "hello"),
            bad(),
        ),
        row(
            "9112 6.2: a body of every byte",
            [b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 256\r\n\r\n".as_slice(), &every_byte()].concat(),
            one().body(&crate::wire::text(&every_byte())),
        ),
        row(
            "9112 7.1: a chunk of every byte",
            [
                b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n".as_slice(),
                &every_byte(),
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
            one().body(&crate::wire::text(&every_byte())),
        ),
        row(
            "9112 9.6: a refusal can be read though 4 MiB come behind",
            post("/x", "Content-Length: 5, 6", &"x".repeat(4 << 20)),
            bad(),
        ),
        row(
            "9112 9.6: a refusal of chunks can be read though 4 MiB come behind",
            post("/x", "Transfer-Encoding: chunked", &format!("x\r\n{}", "x".repeat(4 << 20))),
            asked::cut(),
        ),
        row(
            "9112 9.6: a refused line can be read though 4 MiB come behind",
            format!("nonsense\r\n\r\n{}", "x".repeat(4 << 20)),
            bad(),
        ),
    ]
}

fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// An origin that says nothing by itself to `/first`.
pub fn silent() -> World {
    World::start(vec![Script { target: "/first", early: false, acts: vec![] }])
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

pub fn ask(client: &mut Client, target: &str) {
    client.send(get(target));
    assert_eq!(client.response("GET").entire().text(), format!("GET {target}"));
}

fn a_slow_first() {
    let world = silent();
    let mut client = world.client();
    client.send(get("/first") + &get("/second") + &get("/third"));
    let (origin, _) = world.backend.wait_request("/first");
    world.serves("/probe");
    world.backend.send(origin, OK);
    assert_eq!(client.response("GET").entire().text(), "ok");
    assert_eq!(client.response("GET").entire().text(), "GET /second");
    assert_eq!(client.response("GET").entire().text(), "GET /third");
}

fn two_hundred() {
    let world = silent();
    let mut client = world.client();
    let all: String = (0..200).map(|n| get(&format!("/{n}"))).collect();
    client.send(all);
    for n in 0..200 {
        assert_eq!(client.response("GET").entire().text(), format!("GET /{n}"));
    }
}

/// After one exchange, does something on the idle connection to the origin, and asks again: as the same client and as others.
fn on_an_idle_connection(acts: &[Act]) {
    for method in ["GET", "POST"] {
        let world = silent();
        let mut client = world.client();
        ask(&mut client, "/one");
        let (origin, _) = world.backend.wait_request("/one");
        acts.iter().for_each(|act| world.backend.act(origin, act));
        client.send(format!("{method} /two HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        let answer = client.response(method).entire();
        assert_eq!((answer.status, answer.text()), (200, format!("{method} /two")), "behind {acts:?}");
        world.serves("/three");
    }
}

fn unsolicited() {
    on_an_idle_connection(&[Act::Send(POISON.into())]);
    on_an_idle_connection(&[Act::Send("x".into())]);
    on_an_idle_connection(&[Act::Send("HTTP/1.1 100 Continue\r\n\r\n".into())]);
    on_an_idle_connection(&[Act::Send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n".into())]);
}

fn unsolicited_and_end() {
    on_an_idle_connection(&[Act::Send(POISON.into()), Act::Finish]);
    on_an_idle_connection(&[
        Act::Send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n".into()),
        Act::Finish,
    ]);
}

fn idle_end() {
    on_an_idle_connection(&[Act::Finish]);
}

fn idle_reset() {
    on_an_idle_connection(&[Act::Reset]);
}

fn used_again() {
    let world = silent();
    let mut client = world.client();
    ask(&mut client, "/one");
    ask(&mut client, "/two");
    world.serves("/three");
    assert_eq!(world.backend.settled(|log| log.connections.len()), 1);
}

fn not_used_again() {
    let closing = Act::Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".into());
    let world = World::start(vec![Script { target: "/first", early: false, acts: vec![closing] }]);
    let mut client = world.client();
    client.send(get("/first"));
    assert_eq!(client.response("GET").entire().text(), "ok");
    world.serves("/second");
    let (first, second) = (world.backend.wait_head("/first"), world.backend.wait_head("/second"));
    assert_ne!(first, second, "the origin said that it closes");
    world.backend.wait_end(first);
}

fn not_used_behind_a_cut() {
    let half = Act::Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".into());
    let world = World::start(vec![Script { target: "/first", early: false, acts: vec![half] }]);
    let mut client = world.client();
    client.send(get("/first"));
    let heard = client.response("GET");
    assert!(heard.response.is_none_or(|response| !heard.whole || response.status == 502), "what was cut looks whole");
    world.serves("/second");
    assert_ne!(world.backend.wait_head("/first"), world.backend.wait_head("/second"));
    world.backend.wait_end(world.backend.wait_head("/first"));
}

fn head_between_others() {
    let acts = vec![Act::Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into())];
    let world = World::start(vec![Script { target: "/first", early: false, acts }]);
    let mut client = world.client();
    client.send(get("/one") + "HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n" + &get("/two"));
    assert_eq!(client.response("GET").entire().text(), "GET /one");
    assert_eq!(client.response("HEAD").entire().status, 200);
    assert_eq!(client.response("GET").entire().text(), "GET /two");
}

fn to_whom_they_belong() {
    let world = silent();
    std::thread::scope(|scope| {
        for client in 0..16 {
            let world = &world;
            scope.spawn(move || {
                let mut connection = world.client();
                for n in 0..40 {
                    let target = format!("/{client}-{n}");
                    let (method, body) = if n % 3 == 0 { ("GET", "") } else { ("POST", "5\r\nhello\r\n0\r\n\r\n") };
                    let chunked = if body.is_empty() { "" } else { "Transfer-Encoding: chunked\r\n" };
                    connection.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{chunked}\r\n{body}"));
                    let answer = connection.response(method).entire();
                    assert_eq!(answer.text(), format!("{method} {target}"), "another's answer");
                }
            });
        }
    });
    world.sound();
}

/// A proxy that has answered one request on each of these connections, and was told to leave. When.
fn leaving(backend: &Backend, clients: usize) -> (Running, Vec<Client>, Instant) {
    let service = format!("endpoints: [ {{ address: \"{}\" }} ], {SERVICE}", backend.address);
    let mut running = Running::patient(LIMITS, &service, DEADLINE);
    let mut clients: Vec<Client> = (0..clients).map(|_| Client::connect(running.address)).collect();
    clients.iter_mut().enumerate().for_each(|(n, client)| ask(client, &format!("/first-{n}")));
    let asked = Instant::now();
    running.leave();
    // Its connections hear of it when nobody is let in any more.
    until("the proxy's leave", DEADLINE, || std::net::TcpStream::connect(running.address).is_err());
    (running, clients, asked)
}

fn in_use_when_it_leaves() {
    // A machine that is too busy to ask again at once shows nothing: it is tried once more.
    for _ in 0..20 {
        let backend = Backend::start(Vec::new(), Delivery::Whole);
        let (_running, mut clients, asked) = leaving(&backend, 4);
        for client in &mut clients {
            client.send(get("/second"));
        }
        if asked.elapsed() > Duration::from_millis(150) {
            continue;
        }
        for client in &mut clients {
            let answer = client.response("GET").entire();
            assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (200, "GET /second", true));
            assert_eq!(client.end(), End::Orderly);
        }
        return;
    }
    panic!("this machine is too busy for a connection to be in use");
}

fn unused_when_it_leaves() {
    let backend = Backend::start(Vec::new(), Delivery::Whole);
    let (_running, mut clients, _) = leaving(&backend, 1);
    assert_eq!(clients[0].end(), End::Orderly, "long before its idle timeout");
}
