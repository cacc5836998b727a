//! gRPC through the proxy, frame by frame (its protocol over HTTP/2): what a client sends its endpoint gets, what that answers the
//! client gets, and whatever goes wrong in between comes as a status and never as an answer that looks whole.
//!
//! In each case the test plays both ends. Calls by a real implementation are in `tests/e2e/grpc.rs`.

mod calls; // messages and metadata, unchanged
mod failures; // cancellation, death, and refusal
mod flow; // large, slow, many

use libtest_mimic::Trial;

use crate::h2::client::Client;
use crate::h2::frame::{self, flag};
use crate::h2::heard::Said;
use crate::h2::origin::Place;
use crate::h2::world::World;

/// What begins so is answered by the test.
const METHOD: &str = "/held.Echo/Call";

/// How a good answer begins, and ends.
const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const DONE: &[(&str, &str)] = &[("grpc-status", "0")];

type Case = (&'static str, fn());

pub fn trials() -> Vec<Trial> {
    let trial = |&(name, test): &Case| {
        Trial::test(format!("grpc: {name}"), move || {
            test();
            Ok(())
        })
    };
    [calls::CASES, failures::CASES, flow::CASES].into_iter().flatten().map(trial).collect()
}

/// A message as it stands in DATA.
fn message(text: &[u8]) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text].concat()
}

/// The head of a call of some method.
fn calling<'h>(method: &'h str, metadata: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "a"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    [&head[..], metadata].concat()
}

/// A call that has begun, with both of its ends.
struct Call<'w> {
    world: &'w World,
    stream: u32,
    place: Place,
}

impl<'w> Call<'w> {
    fn begin(world: &'w World, client: &mut Client) -> Self {
        Self::of(world, client, METHOD)
    }

    fn of(world: &'w World, client: &mut Client, method: &str) -> Self {
        let stream = client.begin(&calling(method, &[]));
        Self { world, stream, place: world.origin.wait_head(method) }
    }

    fn ask(&self, client: &mut Client, text: &[u8]) {
        client.send(frame::data(self.stream, 0, &message(text)));
    }

    /// Until the endpoint has so many bytes.
    fn asked(&self, bytes: usize) {
        let Place { connection, stream } = self.place;
        self.world.origin.wait("a message", |log| {
            let said = log.connections[connection].heard.on(stream)?;
            (said.body.len() >= bytes).then_some(())
        });
    }

    fn end(&self, client: &mut Client) {
        client.send(frame::data(self.stream, flag::END_STREAM, b""));
    }

    fn head(&self) {
        self.world.origin.head(self.place, OK);
    }

    fn answer(&self, text: &[u8]) {
        self.world.origin.data(self.place, &message(text));
    }

    /// Until the client has so many bytes.
    fn answered(&self, client: &mut Client, bytes: usize) {
        client.wait("an answer", |heard| heard.on(self.stream).filter(|said| said.body.len() >= bytes).map(drop));
    }

    fn done(&self) {
        self.world.origin.only_head(self.place, DONE);
    }
}

/// A whole call with an answer of its own, among whatever else is under way.
fn echoes(world: &World, client: &mut Client, method: &str) {
    let call = Call::of(world, client, method);
    call.ask(client, method.as_bytes());
    call.end(client);
    let (_, said) = world.origin.wait_request(method);
    assert_eq!(said.body, message(method.as_bytes()));
    call.head();
    call.answer(method.as_bytes());
    call.done();
    let said = client.answer(call.stream);
    assert_eq!((said.body, status_of(&client.heard.streams[&call.stream])), (message(method.as_bytes()), "0".into()));
}

/// The status of a call, wherever it stands.
fn status_of(said: &Said) -> String {
    let trailers = said.trailers.as_ref().and_then(|trailers| trailers.first("grpc-status"));
    trailers.unwrap_or(said.first("grpc-status")).to_owned()
}

/// The proxy tells the failure as gRPC tells things, and says why.
fn failed_with(said: &Said, statuses: &[&str]) {
    assert!(said.is_entire(), "{said:?}");
    assert_eq!((said.status(), said.first("content-type")), ("200", "application/grpc"), "{said:?}");
    assert!(statuses.contains(&status_of(said).as_str()), "{statuses:?} was to come: {said:?}");
    assert!(!said.first("proxy-status").is_empty() && !said.first("grpc-message").is_empty(), "{said:?}");
    assert!(said.body.is_empty() && said.trailers.is_none(), "trailers alone: {said:?}");
}
