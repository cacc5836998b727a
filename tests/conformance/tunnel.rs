//! Tunnels on a stream of h2 (RFC 8441), on either side or both: what they are asked for, bytes both ways, and every end.

mod by_upgrade; // for an endpoint of HTTP/1.1
mod by_stream; // for one of h2
mod by_extended_connect; // for one of h2, for a client of HTTP/1.1
mod flow; // whoever does not read holds the other back

use libtest_mimic::Trial;

use crate::h2::client::Client;
use crate::h2::frame::{self, code};
use crate::h2::heard::Said;
use crate::scenario;

pub fn trials() -> Vec<Trial> {
    let all = [by_upgrade::SCENARIOS, by_stream::SCENARIOS, by_extended_connect::SCENARIOS, flow::SCENARIOS];
    all.into_iter().flat_map(|all| scenario::trials("tunnel", all)).collect()
}

/// The head that asks for a tunnel for WebSocket.
fn web_socket(path: &str) -> Vec<(&str, &str)> {
    tunnel("websocket", path)
}

fn tunnel<'a>(protocol: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path), (":authority", "a")]
}

fn with<'a>(head: Vec<(&'a str, &'a str)>, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&head[..], fields].concat()
}

/// The head that answers, as soon as it is there.
fn head_of(client: &mut Client, stream: u32) -> Said {
    client.wait("a head", |heard| heard.on(stream).filter(|said| said.head().is_some()).cloned())
}

fn expect(client: &mut Client, stream: u32, wanted: &str) {
    client.wait(wanted, |heard| heard.on(stream).filter(|said| said.text().ends_with(wanted)).map(drop));
}

/// The client was told that it is over before its time.
fn broke(client: &mut Client, stream: u32) {
    let said = client.over(stream);
    assert!(!said.whole && said.reset == Some(code::CANCEL), "what broke off looks like an end: {said:?}");
}

fn send(client: &mut Client, stream: u32, text: &str) {
    client.send(frame::data(stream, 0, text.as_bytes()));
}

fn refused(client: &mut Client, stream: u32, status: &str) {
    let said = client.answer(stream);
    assert_eq!(said.status(), status, "{said:?}");
    assert!(said.first("proxy-status").contains("error="), "{said:?}");
}
