//! Which authority a request means, which fields end at a proxy, and which it adds (RFC 9110 section 7.6, RFC 9112 section 3.2,
//! RFC 9113 section 8).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::{Method, StatusCode, Version};

use crate::error::ProxyError;
use crate::h1::target::is_authority;

use crate::message::fields::{Fields, trimmed};
use crate::message::name::{Name, Names};
use crate::message::{RequestHead, ResponseHead};

/// What belongs to one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: Names = Names::of(&[
    Name::Connection,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// What carries the message itself, and cannot be declared away (RFC 9110 section 7.6.1).
const KEPT: Names = Names::of(&[
    Name::ContentLength,
    Name::ContentType,
    Name::Host,
    // Decided on by itself.
    Name::Te,
    // Who called: nobody gets rid of that by declaring it a matter of his connection.
    Name::Forwarded,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedOther,
    Name::XForwardedProto,
]);

/// Finds out whom a request is for, and notes it as its authority.
///
/// An absolute target holds over a `Host` field (RFC 9112 section 3.2.2). An empty authority is one of an HTTP/1.0 client that names
/// nobody.
///
/// # Errors
/// What is wrong with the request, for a 400.
pub fn settle_authority(head: &mut RequestHead) -> Result<(), &'static str> {
    let mut hosts = head.fields.all(Name::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("more than one Host field (RFC 9112 section 3.2)");
    }
    if host.is_some_and(|host| !is_authority(host)) {
        return Err("Host is no authority (RFC 9112 section 3.2)");
    }
    match (head.authority(), host) {
        // An absolute target excuses no missing Host.
        (_, None) if head.version == Version::HTTP_11 => return Err("no Host field (RFC 9112 section 3.2)"),
        (Some(authority), _) if !is_authority(authority) => return Err("the authority is none (RFC 3986 section 3.2)"),
        (Some(authority), Some(host)) if head.version == Version::HTTP_2 && !host.eq_ignore_ascii_case(authority) => {
            return Err("Host and :authority differ (RFC 9113 section 8.3.1)");
        }
        (Some(_), _) => return Ok(()),
        (None, None) if head.version == Version::HTTP_2 => return Err("no authority (RFC 9113 section 8.3.1)"),
        (None, _) => {}
    }
    drop(hosts);
    head.take_authority_of_host();
    Ok(())
}

/// The protocol a client of HTTP/1.1 wants to switch to. h2 is not switched to in the middle of a connection (RFC 9113 section 3.1 took
/// that back).
#[must_use]
pub fn wanted_upgrade(head: &RequestHead) -> Option<Vec<u8>> {
    if head.version != Version::HTTP_11 || !head.fields.has_member(Name::Connection, b"upgrade") {
        return None;
    }
    let mut wanted = Vec::new();
    for protocol in head.fields.members(Name::Upgrade).filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c")) {
        if !wanted.is_empty() {
            wanted.extend_from_slice(b", ");
        }
        wanted.extend_from_slice(protocol);
    }
    (!wanted.is_empty()).then_some(wanted)
}

/// What an endpoint switches to with its 101; none where nobody asked for that. `wanted` is what was asked for.
#[must_use]
pub fn switched_to(fields: &Fields, wanted: Vec<u8>) -> Option<Vec<u8>> {
    let mut switched = fields.members(Name::Upgrade).peekable();
    if switched.peek().is_none() {
        return Some(wanted);
    }
    let is_wanted =
        |protocol: &[u8]| wanted.split(|byte| *byte == b',').any(|one| trimmed(one).eq_ignore_ascii_case(protocol));
    if !switched.all(is_wanted) {
        return None;
    }
    fields.get(Name::Upgrade).map(<[u8]>::to_vec)
}

/// TRACE and OPTIONS say how many more may forward them (RFC 9110 section 7.6.2); one less goes on.
///
/// # Errors
/// [`ProxyError::ForwardsExceeded`] when it may go no further.
pub fn count_forward(head: &mut RequestHead) -> Result<(), ProxyError> {
    if !matches!(head.method, Method::TRACE | Method::OPTIONS) {
        return Ok(());
    }
    let Some(text) = head.fields.get(Name::MaxForwards) else { return Ok(()) };
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse::<u64>().ok());
    match number.map(|number| number.checked_sub(1)) {
        None => Err(ProxyError::BadRequest { problem: "Max-Forwards is no number (RFC 9110 section 7.6.2)" }),
        Some(None) => Err(ProxyError::ForwardsExceeded { method: head.method.clone() }),
        Some(Some(left)) => {
            head.fields.set(Name::MaxForwards, left.to_string().as_bytes());
            Ok(())
        }
    }
}

/// Removes what ends here: the fields of the connection, and those that `Connection` names. `TE: trailers`
/// stays, since gRPC needs it; `Trailer` stays, since it belongs to the message.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if fields.may_have(Names::of(&[Name::Te])) {
        let trailers = fields.has_member(Name::Te, b"trailers");
        fields.remove(Name::Te);
        if trailers {
            fields.add(Name::Te, b"trailers");
        }
    }
    strip(fields);
}

/// The same for a response, which has no use for `TE`.
pub fn strip_hop_by_hop_of_response(fields: &mut Fields) {
    fields.remove(Name::Te);
    strip(fields);
}

fn strip(fields: &mut Fields) {
    if fields.may_have(HOP_BY_HOP) {
        strip_named(fields);
        fields.remove_all(HOP_BY_HOP);
    }
}

fn strip_named(fields: &mut Fields) {
    let usual = |member: &[u8]| {
        [b"keep-alive".as_slice(), b"close", b"upgrade", b"te"].iter().any(|usual| member.eq_ignore_ascii_case(usual))
    };
    let named: Vec<Vec<u8>> =
        fields.members(Name::Connection).filter(|member| !usual(member)).map(<[u8]>::to_vec).collect();
    if !named.is_empty() {
        let is_named = |letters: &[u8]| named.iter().any(|name| name.eq_ignore_ascii_case(letters));
        fields.retain(|field| KEPT.has(field.name) || !is_named(field.letters));
    }
}

/// Tells a client that waits for it to send its body (RFC 9110 section 15.2.1).
#[must_use]
pub fn go_on() -> ResponseHead {
    ResponseHead::new(StatusCode::CONTINUE, Version::HTTP_11, Fields::default())
}

/// Adds an id for the request where it has none.
pub fn ensure_request_id(fields: &mut Fields, request_id: impl FnOnce() -> [u8; 36]) {
    if !fields.has(Name::XRequestId) {
        fields.add(Name::XRequestId, &request_id());
    }
}

#[cfg(test)]
mod tests;
