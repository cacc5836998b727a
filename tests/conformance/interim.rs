//! Interim responses and `Expect` (RFC 9110 sections 10.1.1 and 15.2).

use crate::answered::{Row, gateway, passed, row, row_and_end, unanswered};
use crate::backend::{Act, Script};
use crate::world::World;

pub const SCENARIOS: &[(&str, fn())] = &[
    ("9110 10.1.1: an expectation is passed on before the body comes", an_expectation_goes_on_at_once),
    ("9110 10.1.1: who is refused sends no body", a_refused_expectation),
    ("9110 10.1.1: a final answer instead of 100 leaves the connection in order", a_final_answer_instead),
    ("9110 15.2.1: 100 is passed on once", continue_is_passed_on_once),
    ("9110 15.2: interim responses are passed on as they come", interim_responses_as_they_come),
    ("9110 15.2: their fields are passed on, those of the connection are not", fields_of_interim_responses),
    ("9110 15.2: HTTP/1.0 gets none", none_for_old_clients),
    ("9110 15.2: HEAD gets them too", interim_to_head),
    ("9110 15.2: a hundred of them", a_hundred),
    ("9110 15.2: interim responses without end are cut", endless),
    ("9110 15.2: one that is malformed is not passed on", malformed),
];

/// Single responses, as the table of the others has them.
pub fn rows() -> Vec<Row> {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let switch = "HTTP/1.1 101 Switching Protocols\r\n";
    vec![
        row_and_end(
            "9110 15.2.2: 101 that nobody asked for",
            format!("{switch}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            gateway(),
        ),
        row_and_end("9110 15.2.2: 101 that nobody asked for, and a response", format!("{switch}\r\n{ok}"), gateway()),
        row_and_end(
            "9110 15.2.2: 101 in HTTP/1.0",
            "HTTP/1.0 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            gateway(),
        ),
        row(
            "9110 15.2.2: 101 that nobody asked for, kept open",
            format!("{switch}Upgrade: x\r\nConnection: upgrade\r\n\r\n"),
            gateway(),
        ),
        row(
            "9110 15.2: 100 to HTTP/1.0 is dropped",
            format!("HTTP/1.1 100 Continue\r\n\r\n{ok}"),
            passed(200).body("ok"),
        )
        .by_old(""),
        row(
            "9110 15.2: 103 to HTTP/1.0 is dropped",
            format!("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n{ok}"),
            passed(200).body("ok").without("link"),
        )
        .by_old(""),
        row_and_end(
            "9110 15.2: an interim response with a body is none",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello",
            unanswered(),
        )
        .by_old(""),
    ]
}

fn post(lines: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{lines}\r\n")
}

/// An origin that says nothing by itself.
fn silent() -> World {
    World::start(vec![Script { target: "/first", early: false, acts: vec![] }])
}

fn an_expectation_goes_on_at_once() {
    let world = silent();
    let mut client = world.client();
    client.send(post("Expect: 100-continue\r\n"));
    // Without one byte of the body.
    let origin = world.backend.wait_head("/first");
    let expected = world
        .backend
        .settled(|log| log.connections[origin].all().next().unwrap().fields.first("expect").map(str::to_owned));
    world.backend.send(origin, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().status, 100, "the origin was told {expected:?}");
    client.send("hello");
    let (_, request) = world.backend.wait_request("/first");
    assert_eq!(request.body, b"hello");
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("POST").entire().text(), "ok");
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").entire().text(), "GET /second");
}

fn a_refused_expectation() {
    for status in ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"] {
        let world = silent();
        let mut client = world.client();
        client.send(post("Expect: 100-continue\r\n"));
        let origin = world.backend.wait_head("/first");
        world.backend.send(origin, &format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"));
        world.backend.act(origin, &Act::Finish);
        let heard = client.response("POST");
        assert!(heard.interim.is_empty(), "nobody wants the body any more: {heard:?}");
        let answer = heard.entire();
        assert!(status.starts_with(&answer.status.to_string()), "{answer:?}");
        assert_eq!(answer.text(), "no");
        drop(client);
        world.serves("/probe");
        let whole = world.backend.settled(|log| log.connections[origin].requests.len());
        assert_eq!(whole, 0, "a body that never came");
    }
}

/// The client may have begun its body, or may leave it out and close: what it sends behind it is never part of the body's place.
fn a_final_answer_instead() {
    let world = silent();
    let mut client = world.client();
    client.send(post("Expect: 100-continue\r\n"));
    let origin = world.backend.wait_head("/first");
    world.backend.send(origin, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.response("POST").entire();
    assert_eq!((answer.status, answer.text()), (403, "no".into()));
    if answer.closes() {
        client.end();
    } else {
        client.send("helloGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").entire().text(), "GET /second");
    }
    world.serves("/probe");
}

fn continue_is_passed_on_once() {
    let world = silent();
    let mut client = world.client();
    client.send(post("Expect: 100-continue\r\n"));
    let origin = world.backend.wait_head("/first");
    world.backend.send(origin, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("hello");
    world.backend.wait_request("/first");
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let heard = client.response("POST");
    assert!(heard.interim.is_empty(), "the origin sent one 100: {heard:?}");
    assert_eq!(heard.entire().status, 200);
}

fn interim_responses_as_they_come() {
    let world = silent();
    let mut client = world.client();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let (origin, _) = world.backend.wait_request("/first");
    for status in [102, 103, 103, 199] {
        world.backend.send(origin, &format!("HTTP/1.1 {status} Still\r\nX-N: {status}\r\n\r\n"));
        let interim = client.head();
        assert_eq!((interim.status, interim.fields.first("x-n")), (status, Some(status.to_string().as_str())));
    }
    world.backend.send(origin, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").entire().text(), "ok");
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").entire().text(), "GET /second");
}

/// What a client gets where the origin answers with `sent` and ends.
fn answered(request: &str, sent: &str) -> (World, crate::client::Heard) {
    let acts = vec![Act::Send(sent.as_bytes().to_vec()), Act::Finish];
    let world = World::start(vec![Script { target: "/first", early: false, acts }]);
    let mut client = world.client();
    client.send(request);
    let heard = client.response(request.split(' ').next().unwrap());
    world.serves("/probe");
    (world, heard)
}

const GET: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn fields_of_interim_responses() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: timeout=1\r\nLink: </b>\r\n\r\n";
    let (_world, heard) = answered(GET, &format!("{hints}{OK}"));
    let interim = &heard.interim[0];
    assert_eq!(interim.fields.all("link"), ["</a>; rel=preload", "</b>"]);
    assert!(!interim.fields.has("x-foo") && !interim.fields.has("keep-alive"), "{interim:?}");
    let answer = heard.entire();
    assert!(!answer.fields.has("link"), "a hint is no field of the answer: {answer:?}");
}

fn none_for_old_clients() {
    let (_world, heard) = answered(
        "GET /first HTTP/1.0\r\nHost: a\r\n\r\n",
        &format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{OK}"),
    );
    assert!(heard.interim.is_empty(), "{heard:?}");
    assert_eq!(heard.entire().text(), "ok");
}

fn interim_to_head() {
    let (_world, heard) = answered(
        "HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    );
    assert_eq!(heard.interim.len(), 1);
    assert_eq!(heard.entire().status, 200);
}

fn a_hundred() {
    let (_world, heard) = answered(GET, &format!("{}{OK}", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(100)));
    assert_eq!(heard.interim.len(), 100);
    assert_eq!(heard.entire().text(), "ok");
}

fn endless() {
    let (_world, heard) = answered(GET, &"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(5_000));
    let refusal = heard.entire();
    assert!([502, 503].contains(&refusal.status), "{refusal:?}");
}

fn malformed() {
    for sent in [
        "HTTP/1.1 103 Early Hints\r\nX A: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nX-A: 1\0\r\n\r\n",
        "HTTP/1.1 10 Early\r\n\r\n",
        "HTTP/1.1 099 Early\r\n\r\n",
    ] {
        let (_world, heard) = answered(GET, &format!("{sent}{OK}"));
        let unmarred = heard.interim.iter().all(|one| one.fields.first("x-a").is_none_or(|value| value.trim() == "1"));
        assert!(unmarred, "{heard:?}");
        let answer = heard.entire();
        assert!(answer.status == 502 || sent.contains('\0') && answer.text() == "ok", "{sent:?}: {answer:?}");
    }
}
