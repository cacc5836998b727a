//! What a row of h2 says, and how it is tried: frames behind a greeting, and what may become of them. A stream error may be told as
//! such, or by the end of the connection; a connection error is told, and ends it.
//!
//! Every row is tried three times: sent at once, byte by byte, and over TLS to a proxy with two workers. Where the connection goes
//! on, it must be of use.

use libtest_mimic::Trial;

use super::client::{Client, get};
use super::frame::{code, flag, headers};
use super::hpack;
use super::transport::IDENTITY;
use crate::client::Delivery;
use crate::world::World;

pub struct Row {
    name: String,
    sent: Vec<u8>,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
pub enum Wanted {
    /// GOAWAY with one of these, and the end.
    Connection(Vec<u32>),
    /// An error of this stream, with one of these.
    Stream(u32, Vec<u32>),
    /// Nothing but the usual answers on these streams.
    Answered(Vec<u32>),
    /// The end of the connection, however it comes.
    Ended,
}

/// Streams below are for rows.
const SENTINEL_STREAM: u32 = 1001;

pub fn row(name: impl Into<String>, sent: impl AsRef<[u8]>, wanted: Wanted) -> Row {
    Row { name: name.into(), sent: sent.as_ref().to_vec(), wanted }
}

pub fn connection(code: u32) -> Wanted {
    Wanted::Connection(vec![code])
}

pub fn stream(code: u32) -> Wanted {
    Wanted::Stream(1, vec![code])
}

/// Malformed (RFC 9113 section 8.1.1).
pub fn malformed() -> Wanted {
    stream(code::PROTOCOL_ERROR)
}

pub fn answered() -> Wanted {
    Wanted::Answered(vec![1])
}

pub fn ignored() -> Wanted {
    Wanted::Answered(vec![])
}

/// A whole GET on that stream.
pub fn asked(stream: u32) -> Vec<u8> {
    headers(stream, flag::END_STREAM, &hpack::block(&get("/one")))
}

/// A GET whose end is still to come.
pub fn opened(stream: u32) -> Vec<u8> {
    headers(stream, 0, &hpack::block(&get("/one")))
}

/// A POST whose body is still to come.
pub fn posting(stream: u32) -> Vec<u8> {
    headers(stream, 0, &hpack::block(&super::client::post("/one")))
}

impl Row {
    fn check(&self, world: &World, mut client: Client) {
        client.send(&self.sent);
        match &self.wanted {
            Wanted::Connection(codes) => client.connection_error(codes),
            Wanted::Ended => client.end(),
            Wanted::Stream(stream, codes) => client.stream_error(*stream, codes),
            Wanted::Answered(streams) => {
                for stream in streams {
                    let said = client.answer(*stream);
                    assert_eq!(said.status(), "200", "{said:?}");
                }
            }
        }
        if client.heard.goaways.is_empty() && !client.heard.ended {
            client.begin_at(SENTINEL_STREAM);
            client.serves("/sentinel");
            client.settle();
        } else {
            assert!(!matches!(self.wanted, Wanted::Answered(_)), "an end without need: {:?}", client.heard.frames);
            client.end();
        }
        world.serves("/probe");
        world.sound();
    }
}

pub fn trials(theme: &'static str, rows: Vec<Row>) -> impl Iterator<Item = Trial> {
    rows.into_iter().map(move |row| {
        Trial::test(format!("{theme}: RFC {}", row.name), move || {
            let world = World::start(Vec::new());
            row.check(&world, Client::connect(world.proxy));
            row.check(&world, Client::connect(world.proxy).torn(Delivery::Torn));
            let (world, secured) = World::secured(&IDENTITY.settings());
            row.check(&world, Client::connect_tls(secured));
            Ok(())
        })
    })
}

/// What no row can tell: its name, and what is done with a proxy and an HTTP/1.1 origin.
pub type Scenario = (&'static str, fn(&World));

/// One test a function, each with a world of its own.
pub fn scenarios(theme: &'static str, all: &'static [Scenario]) -> impl Iterator<Item = Trial> {
    all.iter().map(move |&(name, test)| {
        Trial::test(format!("{theme}: RFC {name}"), move || {
            let world = World::start(Vec::new());
            test(&world);
            world.serves("/probe");
            world.sound();
            Ok(())
        })
    })
}
