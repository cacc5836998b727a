//! One exchange while it is under way: pieces as they come, answers before their time, and ends of either side (RFC 9110
//! section 7.5, RFC 9112 sections 6 and 8).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use mesh_tests::eventually::until;

use crate::backend::{Act, Script};
use crate::client::{Client, End};
use crate::connection::{OK, POISON, ask, get, silent};
use crate::world::{DEADLINE, Running, SERVICE, World};

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9110 7.5: a final answer to an unfinished request is passed on at once", early_answer),
    ("9110 7.5: a final answer to an unfinished request, and the end", early_answer_and_end),
    ("9110 7.5: a final answer to unfinished chunks", early_answer_to_chunks),
    ("9112 8: a client that breaks off its body", client_resets_in_its_body),
    ("9112 8: a client that breaks off a body that its origin does not take", client_resets_while_blocked),
    ("9112 8: a client that breaks off before its answer", client_resets_before_its_answer),
    ("9112 8: a client that breaks off within its answer", client_resets_within_its_answer),
    ("9112 8: an answer that breaks off behind its first chunk", a_late_break),
    ("9293 3.6: a client that ends its side gets its answer, however late", half_closed_and_late),
    ("9112 6: pieces of a body are passed on as they come", as_they_come),
    ("9112 6: long bodies arrive whole, both ways", long_bodies),
];

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

fn client_resets_while_blocked() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    let service = format!("endpoints: [ {{ address: \"{address}\" }} ], circuit: {{ max_requests: 1 }}, {SERVICE}");
    let proxy = Running::start("limits: { body_idle_timeout: 600s }", &service);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let _untaken = origin.accept().unwrap();
    // The buffers of both connections are full.
    client.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    while client.write(&[b'x'; 1 << 16]).is_ok() {}
    std::thread::spawn(move || {
        while let Ok((mut other, _)) = origin.accept() {
            other.read_exact(&mut [0]).unwrap();
            other.write_all(OK.as_bytes()).unwrap();
        }
    });
    let status = || {
        let mut client = Client::connect(proxy.address);
        client.send(get("/other"));
        client.response("GET").entire().status
    };
    assert_eq!(status(), 503, "the one request that is allowed is under way");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    until("the end of the exchange", DEADLINE, || status() == 200);
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

/// Not the same at any two places that a mistake would mix up.
fn long(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

fn long_bodies() {
    let body = long(300_000);
    let chunks = |body: &[u8]| {
        let pieces =
            body.chunks(7_001).map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        [pieces.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
    };
    let length = (format!("Content-Length: {}\r\n\r\n", body.len()), body.clone());
    let chunked = ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), chunks(&body));
    for (fields, sent) in [&length, &chunked] {
        let answer = [b"HTTP/1.1 200 OK\r\n", fields.as_bytes(), sent.as_slice()].concat();
        let world = World::start(vec![Script { target: "/first", early: false, acts: vec![Act::Send(answer)] }]);
        let mut client = world.client();
        client.send([b"POST /first HTTP/1.1\r\nHost: a\r\n", fields.as_bytes(), sent.as_slice()].concat());
        assert!(client.response("POST").entire().body == body, "the answer differs");
        assert!(world.backend.wait_request("/first").1.body == body, "the request differs");
        ask(&mut client, "/second");
    }
}
