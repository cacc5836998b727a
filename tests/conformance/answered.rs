//! What a row of a response table says, and how it is tried: bytes from the origin, and what the client may get of them.
//!
//! Every row is tried twice, answered at once and byte by byte. Behind it go more requests, of this client and of others: none
//! may get anything but its own answer.

use libtest_mimic::Trial;

use crate::backend::{Act, Script};
use crate::client::Delivery;
use crate::wire::{Response, shown};
use crate::world::World;

/// One test: what the origin answers, and what the client gets.
pub struct Row {
    /// The section of the RFC, and what it is about.
    name: String,
    /// The request line's method and version, and further field lines.
    asked: (&'static str, &'static str, &'static str),
    acts: Vec<Act>,
    at_once: bool,
    wanted: Wanted,
}

/// What the client may get. Where an RFC leaves a choice, several are set.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A refusal of the proxy's own, with one of these.
    gateway: Vec<u16>,
    /// What cannot be mistaken for a whole message.
    broken: bool,
    passed: Option<Passed>,
}

/// The origin's answer, whole.
#[derive(Debug, Clone, Default)]
struct Passed {
    status: u16,
    body: Option<String>,
    /// All values of a name.
    fields: Vec<(String, Vec<String>)>,
    trailers: Vec<(String, Vec<String>)>,
}

/// The origin sends this, and waits for the next request.
pub fn row(name: impl Into<String>, sent: impl Into<Vec<u8>>, wanted: Wanted) -> Row {
    let acts = vec![Act::Send(sent.into())];
    Row { name: name.into(), asked: ("GET", "HTTP/1.1", ""), acts, at_once: false, wanted }
}

/// The origin sends this, and ends the connection.
pub fn row_and_end(name: impl Into<String>, sent: impl Into<Vec<u8>>, wanted: Wanted) -> Row {
    row(name, sent, wanted).and_end()
}

/// The origin sends this, and breaks the connection.
pub fn row_and_reset(name: impl Into<String>, sent: impl Into<Vec<u8>>, wanted: Wanted) -> Row {
    let mut row = row(name, sent, wanted);
    row.acts.push(Act::Reset);
    // What was not read by then is lost with the connection.
    row.wanted.gateway.push(503);
    row
}

impl Row {
    /// Asked with this method instead of GET.
    pub fn to(self, method: &'static str) -> Self {
        Self { asked: (method, self.asked.1, self.asked.2), ..self }
    }

    /// The origin then ends the connection.
    pub fn and_end(mut self) -> Self {
        self.acts.push(Act::Finish);
        self
    }

    /// Tried at once alone: bytes behind a response that come while the next request is on its way are its answer for all anybody
    /// can tell.
    pub fn at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    /// Asked with these field lines.
    pub fn with_fields(self, fields: &'static str) -> Self {
        Self { asked: (self.asked.0, self.asked.1, fields), ..self }
    }

    /// Asked by a client of HTTP/1.0, with these field lines.
    pub fn by_old(self, fields: &'static str) -> Self {
        Self { asked: (self.asked.0, "HTTP/1.0", fields), ..self }
    }
}

/// The origin's fault, told as such.
pub fn gateway() -> Wanted {
    Wanted { gateway: vec![502], ..Wanted::default() }
}

/// The origin did not answer at all.
pub fn unanswered() -> Wanted {
    Wanted { gateway: vec![502, 503], ..Wanted::default() }
}

/// Told as the origin's fault, or broken off so that it cannot look whole.
pub fn broken() -> Wanted {
    Wanted { broken: true, ..gateway() }
}

pub fn passed(status: u16) -> Wanted {
    Wanted { passed: Some(Passed { status, ..Passed::default() }), ..Wanted::default() }
}

impl Wanted {
    /// Any of both.
    pub fn or(self, other: Self) -> Self {
        let gateway = [self.gateway, other.gateway].concat();
        Self { gateway, broken: self.broken || other.broken, passed: self.passed.or(other.passed) }
    }

    fn with(mut self, change: impl FnOnce(&mut Passed)) -> Self {
        change(self.passed.as_mut().expect("checks are of what is passed on"));
        self
    }

    pub fn body(self, body: &str) -> Self {
        self.with(|passed| passed.body = Some(body.into()))
    }

    pub fn field(self, name: &str, value: &str) -> Self {
        self.fields(name, &[value])
    }

    pub fn fields(self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).into()).collect();
        self.with(|passed| passed.fields.push((name.into(), values)))
    }

    pub fn without(self, name: &str) -> Self {
        self.fields(name, &[])
    }

    pub fn trailer(self, name: &str, value: &str) -> Self {
        self.with(|passed| passed.trailers.push((name.into(), vec![value.into()])))
    }

    pub fn without_trailer(self, name: &str) -> Self {
        self.with(|passed| passed.trailers.push((name.into(), vec![])))
    }
}

/// One trial a row.
pub fn trials(theme: &str, rows: Vec<Row>) -> Vec<Trial> {
    let trial = |row: Row| {
        Trial::test(format!("{theme}: RFC {}", row.name), move || {
            let script = Script { target: "/first", early: false, acts: row.acts.clone() };
            let world = World::start(vec![script]);
            row.check(&world, Delivery::Whole);
            if !row.at_once {
                world.backend.begin_anew(Delivery::Torn);
                row.check(&world, Delivery::Torn);
            }
            Ok(())
        })
    };
    rows.into_iter().map(trial).collect()
}

impl Row {
    fn check(&self, world: &World, delivery: Delivery) {
        let (method, version, fields) = self.asked;
        let mut client = world.client();
        client.send(format!("{method} /first {version}\r\nHost: a\r\n{fields}\r\n"));
        let heard = client.response(method);
        let sent: Vec<String> = self.acts.iter().map(|act| act.to_string()).collect();
        let why = format!("{delivery:?} {}\nbecame {heard:?}\nwanted: {:?}", sent.join(", "), self.wanted);
        match &heard.response {
            Some(response) if response.fields.has("proxy-status") => {
                assert!(self.wanted.gateway.contains(&response.status) && heard.whole, "{why}");
            }
            Some(response) if heard.whole => {
                let passed = self.wanted.passed.as_ref().unwrap_or_else(|| panic!("{why}"));
                passed.check(response, version, &why);
            }
            _ => assert!(self.wanted.broken, "{why}"),
        }
        assert!(heard.interim.is_empty(), "nothing interim was sent: {why}");
        let usable = heard.response.as_ref().is_some_and(|response| heard.whole && client.may_go_on(response, version));
        if usable {
            client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
            let second = client.response("GET");
            world.sound();
            let second = second.entire();
            let found = (second.status, second.text());
            assert_eq!(found, (200, "GET /second".into()), "the same client's next answer: {why}");
        } else {
            client.end();
        }
        world.serves("/third");
        world.serves("/fourth");
    }
}

impl Passed {
    fn check(&self, response: &Response, version: &str, why: &str) {
        assert_eq!(response.status, self.status, "{why}");
        if let Some(body) = &self.body {
            assert_eq!(&response.text(), body, "{why}");
        }
        for (name, values) in &self.fields {
            assert_eq!(&response.fields.all(name), values, "{name}: {why}");
        }
        for (name, values) in &self.trailers {
            assert_eq!(&response.trailers.all(name), values, "{name}: {why}");
        }
        let old = version == "HTTP/1.0";
        assert!(!old || !response.fields.has("transfer-encoding"), "RFC 9112 6.1: HTTP/1.0 knows no chunks: {why}");
        assert!(response.fields.has("date"), "RFC 9110 6.6.1: who forwards a response without Date adds one: {why}");
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(bytes) => write!(out, "{}", shown(bytes)),
            Self::Finish => write!(out, "(end)"),
            Self::Reset => write!(out, "(reset)"),
        }
    }
}
