//! From one version to the other: what a client says in h2 and an origin hears in HTTP/1.1, and the other way round (RFC 9113
//! section 8, RFC 9112). No name, value, method, path, authority or scheme may become a line of its own, and no message may look
//! whole to one end that is not to the other.
//!
//! Every row is tried twice, sent at once and byte by byte. Behind what it sends goes one more request on the same connection.

mod request_lines; // pseudo-headers, and what they become
mod request_fields; // fields, and what they become
mod request_bodies; // lengths, DATA and trailers
mod responses; // from HTTP/1.1 to an h2 client
mod exchanges; // what no table can tell
mod upgrade; // from HTTP/1.1 to an h2 origin, and back

use libtest_mimic::Trial;

use crate::backend::{Backend, Connection};
use crate::client::Delivery;
use crate::h2::client::Client;
use crate::h2::frame::{self, code, flag};
use crate::h2::heard::Said;
use crate::h2::hpack;
use crate::wire::text;
use crate::world::World;

/// One request in h2, and what must become of it in HTTP/1.1.
pub struct Row {
    name: String,
    head: Vec<(String, String)>,
    /// DATA frames; none at all if the head ends the stream.
    body: Vec<String>,
    trailers: Option<Vec<(String, String)>>,
    wanted: Wanted,
}

/// Where an RFC leaves a choice, several are set.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The stream ends with an error, or is refused with a status of the client's fault; nothing reaches the origin.
    refused: bool,
    /// The same of what turns out wrong behind the head: its beginning may have been passed on, and never looks whole.
    cut: bool,
    /// The proxy answers as the last recipient.
    answered: Vec<u16>,
    passed: Vec<Passed>,
}

/// What the origin gets, to the byte: the head's lines, without those that the proxy adds of its own, and what stands behind it.
#[derive(Debug, Clone)]
struct Passed {
    lines: Vec<String>,
    rest: Rest,
}

#[derive(Debug, Clone)]
enum Rest {
    Bytes(String),
    /// A body whose length nobody told: in whatever chunks, or with its length where all of it was there, and its trailers.
    Body {
        body: String,
        trailers: Vec<(String, String)>,
    },
}

/// What a proxy adds by its own policy.
const ADDED: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via", "forwarded"];

pub fn refused() -> Wanted {
    Wanted { refused: true, ..Wanted::default() }
}

pub fn cut() -> Wanted {
    Wanted { cut: true, refused: true, ..Wanted::default() }
}

pub fn answered(statuses: &[u16]) -> Wanted {
    Wanted { answered: statuses.to_vec(), ..Wanted::default() }
}

/// The head's lines, one a line, and the bytes behind it.
pub fn passed(head: &str, rest: &str) -> Wanted {
    let lines = head.lines().map(str::to_owned).collect();
    Wanted { passed: vec![Passed { lines, rest: Rest::Bytes(rest.to_owned()) }], ..Wanted::default() }
}

/// The head's lines but for the framing, one a line, and the body behind it.
pub fn passed_body(head: &str, body: &str, trailers: &[(&str, &str)]) -> Wanted {
    let lines = head.lines().map(str::to_owned).collect();
    let rest = Rest::Body { body: body.to_owned(), trailers: owned(trailers) };
    Wanted { passed: vec![Passed { lines, rest }], ..Wanted::default() }
}

impl Wanted {
    pub fn or(mut self, other: Self) -> Self {
        self.passed.extend(other.passed);
        self.answered.extend(other.answered);
        Self { refused: self.refused || other.refused, cut: self.cut || other.cut, ..self }
    }
}

/// `GET http://a/x`, and these fields.
pub fn get(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    head("GET", fields)
}

pub fn post(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    head("POST", fields)
}

fn head(method: &str, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", "/x"), (":authority", "a")];
    owned(&[&pseudo[..], fields].concat())
}

pub fn owned(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The same head, with another value of one line.
pub fn with(head: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    let change = |(found, old): (String, String)| {
        let value = if found == name { value.to_owned() } else { old };
        (found, value)
    };
    head.into_iter().map(change).collect()
}

pub fn without(head: Vec<(String, String)>, name: &str) -> Vec<(String, String)> {
    head.into_iter().filter(|(found, _)| found != name).collect()
}

pub fn row(name: impl Into<String>, head: Vec<(String, String)>, wanted: Wanted) -> Row {
    Row { name: name.into(), head, body: Vec::new(), trailers: None, wanted }
}

impl Row {
    /// DATA, in these frames.
    pub fn body(self, frames: &[&str]) -> Self {
        Self { body: frames.iter().map(|&frame| frame.to_owned()).collect(), ..self }
    }

    pub fn trailers(self, lines: &[(&str, &str)]) -> Self {
        Self { trailers: Some(owned(lines)), ..self }
    }

    fn frames(&self, stream: u32) -> Vec<u8> {
        let block = |lines: &[(String, String)]| -> Vec<u8> {
            lines.iter().flat_map(|(name, value)| hpack::line(name, value)).collect()
        };
        let ends = |is_last: bool| if is_last { flag::END_STREAM } else { 0 };
        let mut out =
            frame::long_headers(stream, ends(self.body.is_empty() && self.trailers.is_none()), &block(&self.head));
        for (number, piece) in self.body.iter().enumerate() {
            let is_last = number + 1 == self.body.len() && self.trailers.is_none();
            out.extend(frame::data(stream, ends(is_last), piece.as_bytes()));
        }
        if let Some(trailers) = &self.trailers {
            out.extend(frame::long_headers(stream, flag::END_STREAM, &block(trailers)));
        }
        out
    }

    fn check(&self, world: &World, delivery: Delivery) {
        let mut client = Client::connect(world.proxy).torn(delivery);
        let stream = client.stream();
        client.send(self.frames(stream));
        let what = format!("{delivery:?} {:?} {:?} {:?}", self.head, self.body, self.trailers);
        let said = client.over(stream);
        let reached = said.head().is_some_and(|head| head.has("x-origin"));
        let refusal = said.head().is_some_and(|head| head.has("proxy-status"));
        let log = || world.backend.settled(|log| format!("{:?}", log.connections));
        let why = || format!("{what}\nbecame {said:?}\nthe origin had: {}\nwanted: {:?}", log(), self.wanted);
        if reached && said.is_entire() {
            assert!(!self.wanted.passed.is_empty(), "{}", why());
            self.check_passed(world, &said, &why());
        } else if refusal && said.is_entire() && self.wanted.answered.contains(&status(&said)) {
            assert!(self.wanted.passed.is_empty(), "{}", why());
        } else {
            assert!(self.wanted.refused, "{}", why());
            assert!(!reached, "{}", why());
            assert!(said.head().is_none() || (400..500).contains(&status(&said)), "{}", why());
            let codes = [code::PROTOCOL_ERROR, code::NO_ERROR];
            assert!(said.reset.is_none_or(|reset| codes.contains(&reset)), "{}", why());
        }
        // Nobody else is harmed, on the same connection or on another.
        client.serves("/sentinel");
        world.serves("/probe");
        world.sound();
        if !(reached && said.is_entire()) {
            world.backend.settled(|log| log.connections.iter().for_each(|one| self.nothing_whole(one)));
        }
    }

    fn check_passed(&self, world: &World, said: &Said, why: &str) {
        let (lines, rest, request) = world.backend.settled(|log| {
            let with = log.connections.iter().find(|one| !one.bytes.is_empty()).expect("it was reached");
            let end = with.bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a whole head");
            let lines = text(&with.bytes[..end]);
            let lines: Vec<String> = lines.split("\r\n").filter(|line| !is_added(line)).map(str::to_owned).collect();
            (lines, text(&with.bytes[end + 4..]), with.requests.first().cloned())
        });
        let fits = |passed: &Passed| match (&passed.rest, &request) {
            (Rest::Bytes(bytes), _) => passed.lines == lines && *bytes == rest,
            (Rest::Body { body, trailers }, Some(request)) => {
                let (framing, others) = lines.split_last().expect("a request line");
                let chunked = framing == "transfer-encoding: chunked";
                let sized = *framing == format!("content-length: {}", body.len()) && trailers.is_empty();
                let whole = text(&request.body) == *body && request.trailers.0 == *trailers;
                (chunked || sized) && others == passed.lines && whole
            }
            (Rest::Body { .. }, None) => false,
        };
        assert!(self.wanted.passed.iter().any(fits), "{lines:#?}\n{rest:?}\n{why}");
        assert_eq!(status(said), 200, "{why}");
    }

    /// What the origin may have seen of a message that is refused.
    fn nothing_whole(&self, connection: &Connection) {
        let own = |target: &str| !["/probe", "/sentinel"].contains(&target);
        let whole = connection.requests.iter().find(|request| own(&request.target));
        assert!(whole.is_none(), "of what is refused this reached the origin: {connection:?}");
        let partial = connection.partial.is_some();
        if self.wanted.cut {
            assert!(!partial || connection.ended, "a cut message is left to wait: {connection:?}");
        } else {
            assert!(!partial, "of what is refused this reached the origin: {connection:?}");
        }
    }
}

fn status(said: &Said) -> u16 {
    said.status().parse().unwrap_or(0)
}

fn is_added(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    ADDED.iter().any(|added| added.eq_ignore_ascii_case(name))
}

pub fn trials() -> Vec<Trial> {
    let rows = [request_lines::rows(), request_fields::rows(), request_bodies::rows()];
    let trial = |row: Row| {
        Trial::test(format!("h2 to h1: RFC {}", row.name), move || {
            let world = World::between(Backend::start(Vec::new(), Delivery::Whole), crate::world::LIMITS);
            row.check(&world, Delivery::Whole);
            world.backend.begin_anew(Delivery::Whole);
            row.check(&world, Delivery::Torn);
            Ok(())
        })
    };
    let requests = rows.into_iter().flatten().map(trial);
    let exchanges = crate::scenario::trials("h2 to h1", exchanges::SCENARIOS);
    requests.chain(responses::trials()).chain(exchanges).chain(upgrade::trials()).collect()
}
