//! What a row of a request table says, and how it is tried: bytes from a client, and what may become of them.
//!
//! Every row is tried twice, sent at once and byte by byte. Behind what it sends goes one more request, so that a disagreement
//! about where a message ends shows as a wrong answer, and never as a wait.

use libtest_mimic::Trial;

use crate::backend::{Backend, Connection};
use crate::client::{Client, Delivery};
use crate::wire::{Fields, Request, Response, shown};
use crate::world::World;

/// One test: what is sent, and what must become of it.
pub struct Row {
    /// The section of the RFC, and what it is about.
    name: String,
    sent: Vec<u8>,
    /// The client ends its side behind it.
    finished: bool,
    wanted: Wanted,
}

/// What may become of a request. Where an RFC leaves a choice, both are set.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Refused by the proxy with one of these, and the connection closed; nothing of it reaches the origin.
    refused: Vec<u16>,
    /// Answered by the proxy as the last recipient.
    answered: Vec<u16>,
    /// As before, but of a message that turns out wrong behind its head the beginning may have been passed on; it never looks whole.
    cut: bool,
    /// Passed on as exactly this.
    forwarded: Option<Forwarded>,
}

/// Requests as the origin must get them.
#[derive(Debug, Clone, Default)]
struct Forwarded {
    /// Of which each is answered; the checks are for the first.
    requests: usize,
    checks: Vec<Check>,
    /// Behind them the proxy refuses what follows with one of these.
    then_refused: Vec<u16>,
    /// The proxy closes the client's connection behind its last answer.
    closes: bool,
    /// Or it may, if it says so.
    may_close: bool,
}

#[derive(Debug, Clone)]
enum Check {
    Method(String),
    Target(String),
    /// All values of that name.
    Field(String, Vec<String>),
    Body(String),
    Trailer(String, Vec<String>),
    /// Anything else.
    That(&'static str, fn(&Request) -> bool),
}

/// A request that nobody may see as part of another.
const SENTINEL: &str = "GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n";

pub fn row(name: impl Into<String>, sent: impl Into<Vec<u8>>, wanted: Wanted) -> Row {
    Row { name: name.into(), sent: sent.into(), finished: false, wanted }
}

/// The same, of a client that then ends its side.
pub fn row_and_end(name: impl Into<String>, sent: impl Into<Vec<u8>>, wanted: Wanted) -> Row {
    Row { finished: true, ..row(name, sent, wanted) }
}

pub fn refused(statuses: &[u16]) -> Wanted {
    Wanted { refused: statuses.to_vec(), ..Wanted::default() }
}

/// Malformed, and refused as such.
pub fn bad() -> Wanted {
    refused(&[400])
}

/// Malformed behind its head.
pub fn cut() -> Wanted {
    Wanted { cut: true, ..bad() }
}

/// Not passed on, and no mistake: the proxy is who answers.
pub fn local(statuses: &[u16]) -> Wanted {
    Wanted { answered: statuses.to_vec(), ..Wanted::default() }
}

pub fn forwarded() -> Wanted {
    Wanted { forwarded: Some(Forwarded { requests: 1, ..Forwarded::default() }), ..Wanted::default() }
}

impl Wanted {
    /// Either of both.
    pub fn or(self, other: Self) -> Self {
        let refused = [self.refused, other.refused].concat();
        let answered = [self.answered, other.answered].concat();
        Self { refused, answered, cut: self.cut || other.cut, forwarded: self.forwarded.or(other.forwarded) }
    }

    fn with(mut self, change: impl FnOnce(&mut Forwarded)) -> Self {
        change(self.forwarded.as_mut().expect("checks are of what is forwarded"));
        self
    }

    pub fn method(self, method: &str) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::Method(method.into())))
    }

    pub fn target(self, target: &str) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::Target(target.into())))
    }

    pub fn field(self, name: &str, value: &str) -> Self {
        self.fields(name, &[value])
    }

    /// All field lines of that name, in order.
    pub fn fields(self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).into()).collect();
        self.with(|forwarded| forwarded.checks.push(Check::Field(name.into(), values)))
    }

    pub fn without(self, name: &str) -> Self {
        self.fields(name, &[])
    }

    pub fn body(self, body: &str) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::Body(body.into())))
    }

    pub fn trailer(self, name: &str, value: &str) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::Trailer(name.into(), vec![value.into()])))
    }

    pub fn without_trailer(self, name: &str) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::Trailer(name.into(), vec![])))
    }

    pub fn that(self, what: &'static str, holds: fn(&Request) -> bool) -> Self {
        self.with(|forwarded| forwarded.checks.push(Check::That(what, holds)))
    }

    pub fn requests(self, requests: usize) -> Self {
        self.with(|forwarded| forwarded.requests = requests)
    }

    pub fn then_refused(self, statuses: &[u16]) -> Self {
        self.with(|forwarded| forwarded.then_refused = statuses.to_vec())
    }

    pub fn may_close(self) -> Self {
        self.with(|forwarded| forwarded.may_close = true)
    }

    pub fn closes(self) -> Self {
        self.with(|forwarded| forwarded.closes = true)
    }
}

/// One trial a row.
pub fn trials(theme: &str, rows: Vec<Row>) -> Vec<Trial> {
    let trial = |row: Row| {
        Trial::test(format!("{theme}: RFC {}", row.name), move || {
            let world = World::start(Vec::new());
            row.check(&world, Delivery::Whole);
            world.backend.begin_anew(Delivery::Whole);
            row.check(&world, Delivery::Torn);
            Ok(())
        })
    };
    rows.into_iter().map(trial).collect()
}

impl Row {
    fn check(&self, world: &World, delivery: Delivery) {
        let mut client = world.client();
        client.deliver(&self.sent, delivery);
        if self.finished {
            client.finish();
        } else {
            client.send(SENTINEL);
        }
        let what = format!("{delivery:?} {}", shown(&self.sent));
        let methods = self.methods();
        let first = client.response(&methods[0]);
        let mut reached = false;
        match &first.response {
            Some(response) if !response.fields.has("x-origin") => {
                assert!(first.interim.is_empty(), "{what}\nnobody wants the body of what is refused: {first:?}");
                assert!(first.whole, "a refusal is whole: {response:?}");
                let Wanted { refused, answered, .. } = &self.wanted;
                if answered.contains(&response.status) && !response.fields.has("proxy-status") {
                    assert!(response.closes() || client.response("GET").entire().text() == "GET /sentinel", "{what}");
                } else {
                    let known = refused.contains(&response.status);
                    assert!(known, "{what}\nwas refused: {response:?}; wanted: {:?}", self.wanted);
                    check_refused(response, &mut client);
                }
            }
            Some(response) => {
                let forwarded = self.wanted.forwarded.as_ref();
                let log = world.backend.settled(|log| format!("{:?}", log.connections));
                let why =
                    || format!("{what}\nwas answered: {response:?}\nthe origin had: {log}\nwanted: {:?}", self.wanted);
                let forwarded = forwarded.unwrap_or_else(|| panic!("{}", why()));
                assert!(first.whole, "{}", why());
                reached = true;
                forwarded.check(response, &methods, self.finished, &mut client, &world.backend, &what);
            }
            None if self.wanted.cut && self.finished => (),
            None => panic!("{what}\nthe connection ended without an answer; wanted: {:?}", self.wanted),
        }
        world.serves("/probe");
        if !reached {
            world.backend.settled(|log| log.connections.iter().for_each(|one| self.nothing_whole(one)));
        }
    }

    /// The methods of the requests in it, as far as their lines can be read.
    fn methods(&self) -> Vec<String> {
        let lines = self.sent.split(|byte| *byte == b'\n').filter(|line| line.windows(6).any(|part| part == b" HTTP/"));
        let mut methods: Vec<String> =
            lines.map(|line| crate::wire::text(line.split(|byte| *byte == b' ').next().unwrap_or(b""))).collect();
        methods.push("GET".into());
        methods
    }

    /// What the origin may have seen of a message that is refused.
    fn nothing_whole(&self, connection: &Connection) {
        let whole =
            connection.requests.iter().find(|request| !["/probe", "/sentinel"].contains(&request.target.as_str()));
        assert!(whole.is_none(), "of what is refused this reached the origin: {connection:?}");
        if self.wanted.cut {
            assert!(connection.partial.is_none() || connection.ended, "a cut message is left to wait: {connection:?}");
        } else {
            assert!(connection.partial.is_none(), "of what is refused this reached the origin: {connection:?}");
        }
        assert_eq!(connection.broken, None, "the origin got what has no one meaning: {connection:?}");
    }
}

/// A refusal says that the connection ends, has its length, and ends it.
fn check_refused(response: &Response, client: &mut Client) {
    // What was understood, and is refused all the same, leaves the connection in order.
    let understood = [403, 404, 405, 417, 421].contains(&response.status);
    if understood && !response.closes() {
        assert_eq!(client.response("GET").entire().text(), "GET /sentinel");
    } else {
        assert!(response.closes(), "RFC 9112 9.6: what closes says so: {response:?}");
        client.end();
    }
    let length = response.fields.first("content-length").map(str::to_owned);
    assert!(length.is_some(), "a refusal has its length: {response:?}");
    assert!(response.fields.has("proxy-status"), "RFC 9209 2: a refusal says why: {response:?}");
}

impl Forwarded {
    fn check(
        &self,
        first: &Response,
        methods: &[String],
        finished: bool,
        client: &mut Client,
        backend: &Backend,
        what: &str,
    ) {
        let mut last = first.clone();
        for number in 1..self.requests {
            last = client.response(methods.get(number).map_or("GET", String::as_str)).entire();
        }
        let before = self.requests;
        if !self.then_refused.is_empty() {
            let refusal = client.response("GET").entire();
            assert!(self.then_refused.contains(&refusal.status), "{what}\nthen: {refusal:?}");
            check_refused(&refusal, client);
        } else if self.closes || finished || self.may_close && last.closes() {
            let says = last.closes() || last.version == "HTTP/1.0";
            assert!(!self.closes || says, "RFC 9112 9.6: what closes says so: {last:?}");
            client.end();
        } else {
            assert!(!last.closes(), "{what}\nnothing asks for a close: {last:?}");
            let answer = client.response("GET").entire();
            assert_eq!(answer.text(), "GET /sentinel", "{what}\nthe next request got another's answer: {answer:?}");
        }
        backend.settled(|log| {
            let requests: Vec<&Request> = log.connections.iter().flat_map(|one| &one.requests).collect();
            let own = requests.iter().filter(|request| request.target != "/sentinel").count();
            assert_eq!(own, before, "{what}\nthe origin got: {requests:?}");
            for connection in &log.connections {
                assert_eq!(connection.broken, None, "{what}\nthe origin got what has no one meaning: {connection:?}");
                assert!(connection.partial.is_none(), "{what}\nthe origin got half a message: {connection:?}");
            }
            for check in &self.checks {
                check.hold(requests[0], what);
            }
        });
    }
}

impl Check {
    fn hold(&self, request: &Request, what: &str) {
        let compare = |fields: &Fields, name: &str, wanted: &[String]| {
            assert_eq!(fields.all(name), wanted, "{self:?}\n{what}\nof {fields:?}");
        };
        match self {
            Self::Method(method) => assert_eq!(&request.method, method, "{what}\n{request:?}"),
            Self::Target(target) => assert_eq!(&request.target, target, "{what}\n{request:?}"),
            Self::That(wanted, holds) => assert!(holds(request), "{wanted}: {what}\n{request:?}"),
            Self::Body(body) => assert_eq!(&crate::wire::text(&request.body), body, "{what}\n{request:?}"),
            Self::Field(name, wanted) => compare(&request.fields, name, wanted),
            Self::Trailer(name, wanted) => compare(&request.trailers, name, wanted),
        }
    }
}
