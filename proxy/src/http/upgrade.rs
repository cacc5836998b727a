//! What is to become another protocol: what a client asked for, in either version, what an endpoint is asked for instead, and whether it
//! agreed.
//!
//! A client of HTTP/1.1 asks with `Upgrade` (RFC 9110 section 7.8), and is answered 101. One of h2 asks for a tunnel on a stream, by an
//! extended CONNECT (RFC 8441 section 4), and is answered with a 2xx. For an endpoint of HTTP/1.1 a tunnel becomes an upgrade, and for
//! one of h2 WebSocket's upgrade a tunnel. The key of WebSocket, which h2 does not have, is then ours to give, or to answer (RFC 6455
//! section 4).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, StatusCode};
use mesh_core::model::protocol::UpstreamProtocol;

use super::headers;
use crate::message::fields::Fields;
use crate::message::name::Name;
use crate::message::{RequestHead, ResponseHead};

const WEBSOCKET: &[u8] = b"websocket";
const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";
const VERSION: &[u8] = b"sec-websocket-version";

/// RFC 6455 section 1.3.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request asks to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// Its connection, one of these protocols.
    Connection { wanted: Vec<u8> },
    /// Its stream, this protocol.
    Stream { protocol: Vec<u8> },
    /// Its stream, this protocol, by an upgrade of a connection to an endpoint. `accept` is what it has to answer to our key.
    StreamByConnection { protocol: Vec<u8>, accept: Option<String> },
    /// Its connection, WebSocket, by a tunnel to an endpoint. `accept` answers the client's key.
    ConnectionByStream { accept: String },
}

/// What an endpoint made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered in HTTP, for whatever reason.
    Answered,
    /// What follows is the other protocol.
    Switched,
    /// Its answer makes no sense.
    Broken { problem: &'static str },
}

impl Upgrade {
    /// What a request asks for, if it does, as long as its head is as it came.
    ///
    /// # Errors
    /// What is wrong with the request, for a 400.
    pub fn wanted(head: &RequestHead) -> Result<Option<Self>, &'static str> {
        match head.protocol().filter(|_| head.method == Method::CONNECT) {
            None => Ok(headers::wanted_upgrade(head).map(|wanted| Self::Connection { wanted })),
            // Whoever asks for that wants to speak to the endpoint past us.
            Some(protocol) if protocol.eq_ignore_ascii_case(b"h2c") => {
                Err("h2 is not switched to (RFC 9113 section 3.1)")
            }
            Some(protocol) => Ok(Some(Self::Stream { protocol: protocol.to_vec() })),
        }
    }

    /// The same, as an endpoint of that protocol can be asked for it, as long as the head of the request is as it came. One that
    /// speaks h2 switches no connection: but for WebSocket it takes the request as it would be without (RFC 9110 section 7.8).
    #[must_use]
    pub fn of_endpoint(self, of: UpstreamProtocol, head: &RequestHead) -> Option<Self> {
        let Self::Connection { wanted } = &self else { return Some(self) };
        if of != UpstreamProtocol::Http2 {
            return Some(self);
        }
        let mut protocols = wanted.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let is_wanted =
            protocols.any(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET)) && head.method == Method::GET;
        let key = std::str::from_utf8(head.fields.named(KEY)?).ok()?;
        is_wanted.then(|| Self::ConnectionByStream { accept: accept_of(key) })
    }

    /// Whether an endpoint is asked for a connection of its own.
    #[must_use]
    pub fn takes_connection(&self) -> bool {
        matches!(self, Self::Connection { .. })
    }

    /// Asks an endpoint of that protocol. The fields of the client's connection are gone already.
    pub fn ask(&mut self, head: &mut RequestHead, of: UpstreamProtocol, nonce: impl FnOnce() -> u128) {
        if let Self::Stream { protocol } = self {
            // What comes before the answer is no body: it waits.
            head.fields.remove(Name::ContentLength);
            head.fields.remove(Name::Expect);
            remove(&mut head.fields, KEY);
            if of == UpstreamProtocol::Http2 {
                return;
            }
            head.method = Method::GET;
            let accept = protocol.eq_ignore_ascii_case(WEBSOCKET).then(|| {
                let key = BASE64.encode(nonce().to_be_bytes());
                head.fields.push(KEY, key.as_bytes());
                if head.fields.named(VERSION).is_none() {
                    head.fields.push(VERSION, b"13");
                }
                accept_of(&key)
            });
            *self = Self::StreamByConnection { protocol: std::mem::take(protocol), accept };
        }
        if let Self::ConnectionByStream { .. } = self {
            head.fields.remove(Name::ContentLength);
            remove(&mut head.fields, KEY);
            head.method = Method::CONNECT;
            head.set_protocol(WEBSOCKET);
        }
        if let Self::Connection { wanted: protocol } | Self::StreamByConnection { protocol, .. } = self {
            head.fields.append(Name::Connection, b"upgrade");
            head.fields.add(Name::Upgrade, protocol);
        }
    }

    /// What the endpoint's answer comes to, whose head becomes what the client is told.
    pub fn settle(self, head: &mut ResponseHead) -> Outcome {
        let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let switched_to = |fields: &Fields, wanted| is_switch.then(|| headers::switched_to(fields, wanted)).flatten();
        match self {
            Self::Stream { .. } if head.status.is_success() => {
                leave_only_message(head);
                Outcome::Switched
            }
            Self::ConnectionByStream { accept } if head.status.is_success() => {
                leave_only_message(head);
                remove(&mut head.fields, ACCEPT);
                head.status = StatusCode::SWITCHING_PROTOCOLS;
                head.fields.add(Name::Upgrade, WEBSOCKET);
                head.fields.push(ACCEPT, accept.as_bytes());
                Outcome::Switched
            }
            Self::Connection { .. } | Self::Stream { .. } | Self::ConnectionByStream { .. } if !is_switch => {
                Outcome::Answered
            }
            Self::Connection { wanted } => match switched_to(&head.fields, wanted) {
                Some(protocol) => {
                    leave_only_message(head);
                    head.fields.add(Name::Upgrade, &protocol);
                    Outcome::Switched
                }
                None => UNASKED,
            },
            Self::Stream { .. } | Self::ConnectionByStream { .. } => UNASKED,
            Self::StreamByConnection { protocol, accept } if is_switch => {
                if switched_to(&head.fields, protocol).is_none() {
                    return UNASKED;
                }
                if accept.is_some_and(|accept| head.fields.named(ACCEPT) != Some(accept.as_bytes())) {
                    return Outcome::Broken {
                        problem: "the endpoint's Sec-WebSocket-Accept is wrong (RFC 6455 section 4.1)",
                    };
                }
                leave_only_message(head);
                remove(&mut head.fields, ACCEPT);
                head.status = StatusCode::OK;
                Outcome::Switched
            }
            Self::StreamByConnection { .. } if head.status.is_success() => Outcome::Broken {
                problem: "the endpoint did not switch, but its status would mean that to a client of h2",
            },
            Self::StreamByConnection { .. } => Outcome::Answered,
        }
    }
}

/// What a 426 says that is wanted, which is its whole point, and so goes on to a client of HTTP/1.1 (RFC 9110 section 15.5.22).
#[must_use]
pub fn required(head: &ResponseHead) -> Option<Vec<u8>> {
    let protocols = || head.fields.members(Name::Upgrade).collect::<Vec<_>>().join(&b", "[..]);
    (head.status == StatusCode::UPGRADE_REQUIRED).then(protocols).filter(|protocols| !protocols.is_empty())
}

/// A 101 to a request that asked for nothing of that kind.
pub const UNASKED: Outcome = Outcome::Broken { problem: "the endpoint switched protocols, which nobody asked for" };

/// What carries another protocol has no length (RFC 9110 sections 8.6 and 9.3.6).
fn leave_only_message(head: &mut ResponseHead) {
    headers::strip_hop_by_hop_of_response(&mut head.fields);
    head.fields.remove(Name::ContentLength);
}

fn remove(fields: &mut Fields, letters: &[u8]) {
    if fields.named(letters).is_some() {
        fields.retain(|field| !field.letters.eq_ignore_ascii_case(letters));
    }
}

/// What answers a key of WebSocket (RFC 6455 section 4.2.2).
fn accept_of(key: &str) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{ACCEPT_SUFFIX}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn the_example_of_rfc_6455() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn settled(upgrade: &Upgrade, status: u16, fields: &[(&str, &str)]) -> (Outcome, u16, Vec<String>) {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap(), Version::HTTP_11, Fields::default());
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let outcome = upgrade.clone().settle(&mut head);
        let names = head.fields.iter().map(|field| String::from_utf8_lossy(field.letters).into_owned()).collect();
        (outcome, head.status.as_u16(), names)
    }

    #[test]
    fn an_answer_is_told_by_what_was_asked() {
        let by_connection = Upgrade::Connection { wanted: b"a, b".to_vec() };
        let stream = Upgrade::Stream { protocol: b"websocket".to_vec() };
        let accept = Some("yes".to_owned());
        let web_socket = Upgrade::StreamByConnection { protocol: b"websocket".to_vec(), accept };
        let other = Upgrade::StreamByConnection { protocol: b"other".to_vec(), accept: None };
        let check = |upgrade: &Upgrade, status, fields: &[(&str, &str)], expected: Outcome| {
            assert_eq!(settled(upgrade, status, fields).0, expected, "{upgrade:?} {status} {fields:?}");
        };
        let is_broken = |upgrade: &Upgrade, status, fields: &[(&str, &str)]| {
            let outcome = settled(upgrade, status, fields).0;
            assert!(matches!(outcome, Outcome::Broken { .. }), "{upgrade:?} {status} {fields:?}");
        };
        for upgrade in [&by_connection, &stream, &web_socket, &other] {
            for status in [302, 403, 426, 503] {
                check(upgrade, status, &[("upgrade", "b")], Outcome::Answered);
            }
        }
        check(&by_connection, 101, &[("upgrade", "B")], Outcome::Switched);
        check(&by_connection, 200, &[], Outcome::Answered);
        is_broken(&by_connection, 101, &[("upgrade", "c")]);
        check(&stream, 200, &[], Outcome::Switched);
        check(&web_socket, 101, &[("upgrade", "WebSocket"), ("sec-websocket-accept", "yes")], Outcome::Switched);
        is_broken(&web_socket, 101, &[("upgrade", "websocket"), ("sec-websocket-accept", "Yes")]);
        is_broken(&web_socket, 101, &[("upgrade", "websocket")]);
        is_broken(&web_socket, 101, &[("upgrade", "other"), ("sec-websocket-accept", "yes")]);
        is_broken(&web_socket, 200, &[]);
        check(&other, 101, &[("upgrade", "other")], Outcome::Switched);
        let by_stream = Upgrade::ConnectionByStream { accept: "yes".to_owned() };
        check(&by_stream, 403, &[], Outcome::Answered);
        is_broken(&by_stream, 101, &[("upgrade", "websocket")]);
        let names = ["x-a", "upgrade", "sec-websocket-accept"].map(str::to_owned).to_vec();
        assert_eq!(settled(&by_stream, 200, &[("x-a", "1")]), (Outcome::Switched, 101, names));
        let fields =
            [("connection", "upgrade"), ("upgrade", "websocket"), ("Sec-WebSocket-Accept", "yes"), ("x-a", "1")];
        assert_eq!(settled(&web_socket, 101, &fields), (Outcome::Switched, 200, vec!["x-a".to_owned()]));
    }
}
