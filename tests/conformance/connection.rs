//! Connections of both sides over more than one message (RFC 9112 section 9).

use crate::asked::{self, bad, forwarded, row, row_and_end};
use crate::backend::{Act, Script};
use crate::client::{Client, End};
use crate::world::World;

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
    ("9110 7.5: a final answer to an unfinished request is passed on at once", early_answer),
    ("9110 7.5: a final answer to an unfinished request, and the end", early_answer_and_end),
    ("9110 7.5: a final answer to unfinished chunks", early_answer_to_chunks),
    ("9112 8: a client that breaks off its body", client_resets_in_its_body),
    ("9112 8: a client that breaks off before its answer", client_resets_before_its_answer),
    ("9112 8: a client that breaks off within its answer", client_resets_within_its_answer),
    ("9112 8: an answer that breaks off behind its first chunk", a_late_break),
    ("9293 3.6: a client that ends its side gets its answer, however late", half_closed_and_late),
    ("9110 9.3.2: HEAD between others", head_between_others),
    ("9112 6: pieces of a body are passed on as they come", as_they_come),
];

fn get(target: &str) -> String {
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

/// An origin that says nothing by itself to `/first`.
fn silent() -> World {
    World::start(vec![Script { target: "/first", early: false, acts: vec![] }])
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn ask(client: &mut Client, target: &str) {
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

/// What a client hears that has not finished its body, and that the next request is not part of it.
fn answered_early(head: &str, rest: &str, acts: Vec<Act>) {
    let world = World::start(vec![Script { target: "/first", early: true, acts }]);
    let mut client = world.client();
    client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{head}"));
    let answer = client.response("POST").entire();
    assert_eq!((answer.status, answer.text()), (413, "no".into()));
    if !answer.closes() {
        client.send(format!("{rest}{}", get("/second")));
        assert_eq!(client.response("GET").entire().text(), "GET /second");
    }
    world.serves("/third");
    world.sound();
}

const TOO_MUCH: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";

fn early_answer() {
    answered_early("Content-Length: 10\r\n\r\nhello", "hello", vec![Act::Send(TOO_MUCH.into())]);
    answered_early("Content-Length: 1000000\r\n\r\nhello", &"x".repeat(999_995), vec![Act::Send(TOO_MUCH.into())]);
}

fn early_answer_and_end() {
    let closing = TOO_MUCH.replace("Content-Length", "Connection: close\r\nContent-Length");
    answered_early("Content-Length: 10\r\n\r\nhello", "hello", vec![Act::Send(closing.into()), Act::Finish]);
}

fn early_answer_to_chunks() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    answered_early(chunked, "5\r\nhello\r\n0\r\n\r\n", vec![Act::Send(TOO_MUCH.into())]);
    answered_early(chunked, "0\r\nX-T: 1\r\n\r\n", vec![Act::Send(TOO_MUCH.into())]);
}

fn client_resets_in_its_body() {
    for head in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let world = silent();
        let mut client = world.client();
        client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{head}"));
        let origin = world.backend.wait_head("/first");
        client.reset();
        world.backend.wait_end(origin);
        let whole = world.backend.settled(|log| log.connections[origin].requests.len());
        assert_eq!(whole, 0, "what was cut looks whole to the origin");
        world.serves("/probe");
    }
}

fn client_resets_before_its_answer() {
    let world = silent();
    let mut client = world.client();
    client.send(get("/first"));
    let (origin, _) = world.backend.wait_request("/first");
    client.reset();
    // Its answer is nobody's.
    world.backend.send(origin, POISON);
    world.serves("/second");
    world.serves("/third");
}

fn client_resets_within_its_answer() {
    let world = silent();
    let mut client = world.client();
    client.send(get("/first"));
    let (origin, _) = world.backend.wait_request("/first");
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    assert_eq!(client.head().status, 200);
    client.expect(b"hello");
    client.reset();
    world.serves("/second");
    world.backend.send(origin, &"x".repeat(95));
    world.serves("/third");
}

fn a_late_break() {
    for (head, piece) in
        [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n"), ("X-A: 1", "hello")]
    {
        for version in ["1.1", "1.0"] {
            let world = silent();
            let mut client = world.client();
            client.send(format!("GET /first HTTP/{version}\r\nHost: a\r\n\r\n"));
            let (origin, _) = world.backend.wait_request("/first");
            world.backend.send(origin, &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{piece}"));
            let answer = client.head();
            client.expect(if answer.fields.has("transfer-encoding") { b"5\r\nhello\r\n" } else { b"hello" });
            world.backend.act(origin, &Act::Reset);
            let end = client.end();
            let told = answer.fields.has("transfer-encoding") || answer.fields.has("content-length");
            assert!(told || end == End::Reset, "{head} to HTTP/{version}: what was cut looks whole");
        }
    }
}

fn half_closed_and_late() {
    let world = silent();
    let mut client = world.client();
    client.send(get("/first"));
    client.finish();
    let (origin, _) = world.backend.wait_request("/first");
    world.serves("/probe");
    world.backend.send(origin, OK);
    assert_eq!(client.response("GET").entire().text(), "ok");
    client.end();
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

fn as_they_come() {
    let world = silent();
    let mut client = world.client();
    client.send("POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    let origin = world.backend.wait_head("/first");
    for piece in ["b", "c"] {
        client.send(format!("1\r\n{piece}\r\n"));
        world.backend.wait(piece, |log| {
            let body = &log.connections[origin].partial.as_ref()?.body;
            body.ends_with(piece.as_bytes()).then_some(())
        });
    }
    client.send("0\r\n\r\n");
    assert_eq!(world.backend.wait_request("/first").1.body, b"abc");
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(client.head().status, 200);
    client.expect(b"1\r\na\r\n");
    for piece in ["b", "c"] {
        world.backend.send(origin, &format!("1\r\n{piece}\r\n"));
        client.expect(format!("1\r\n{piece}\r\n").as_bytes());
    }
    world.backend.send(origin, "0\r\n\r\n");
    client.expect(b"0\r\n\r\n");
    ask(&mut client, "/second");
}
