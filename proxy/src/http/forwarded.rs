//! Who called, and through whom, as services are told: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via` (RFC 9110 section 7.6.3).
//!
//! Whom to believe is decided once per connection, and what we say of it is written then. What comes from somebody who is not believed
//! never goes on, in whatever field of that kind it stands.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};

use crate::message::fields::Fields;
use crate::message::name::{Name, Names};
use crate::message::{RequestHead, ResponseHead};

/// All that says who called in the way that grew before there was `Forwarded`.
const X_FORWARDED: Names =
    Names::of(&[Name::XForwardedFor, Name::XForwardedHost, Name::XForwardedOther, Name::XForwardedProto]);

/// What the requests of one connection tell.
#[derive(Debug)]
pub struct Forwarding {
    /// These two hold for this very peer: what is not believed is never kept.
    x_forwarded: ForwardPolicy,
    forwarded: ForwardPolicy,
    via: ForwardPolicy,
    /// The peer's, as `X-Forwarded-For` has it; empty where it is not told there.
    address: Box<[u8]>,
    scheme: &'static [u8],
    /// `for=…;proto=…`; empty where there is none of ours.
    element: Box<[u8]>,
    via_name: Option<Arc<str>>,
}

impl Forwarding {
    /// For the connection of `peer`, which is who it is behind whatever spoke for it before.
    #[must_use]
    pub fn of(headers: &ForwardedHeaders, peer: IpAddr, tls: bool) -> Self {
        let peer = peer.to_canonical();
        let trusts = headers.trusts(peer);
        let (x_forwarded, forwarded) = (held(headers.x_forwarded, trusts), held(headers.forwarded, trusts));
        let scheme = if tls { "https" } else { "http" };
        let element = match peer {
            IpAddr::V4(peer) => format!("for={peer};proto={scheme}"),
            // What is no token is quoted (RFC 7239 section 6).
            IpAddr::V6(peer) => format!("for=\"[{peer}]\";proto={scheme}"),
        };
        let where_told = |policy, text: String| if is_told(policy) { text.into_bytes().into() } else { Box::default() };
        Self {
            x_forwarded,
            forwarded,
            via: headers.via,
            address: where_told(x_forwarded, peer.to_string()),
            scheme: scheme.as_bytes(),
            element: where_told(forwarded, element),
            via_name: is_told(headers.via).then(|| Arc::clone(&headers.via_name)),
        }
    }

    /// For calls that were captured: nothing of it is touched.
    #[must_use]
    pub fn captured() -> Self {
        use ForwardPolicy::Keep;
        Self {
            x_forwarded: Keep,
            forwarded: Keep,
            via: Keep,
            address: Box::default(),
            scheme: b"",
            element: Box::default(),
            via_name: None,
        }
    }

    /// What goes on with a request.
    pub fn request(&self, head: &mut RequestHead) {
        let fields = &mut head.fields;
        match self.x_forwarded {
            ForwardPolicy::Append => {
                fields.append(Name::XForwardedFor, &self.address);
                if !fields.has(Name::XForwardedProto) {
                    fields.add(Name::XForwardedProto, self.scheme);
                }
            }
            ForwardPolicy::Replace => {
                fields.remove_all(X_FORWARDED);
                fields.add(Name::XForwardedFor, &self.address);
                fields.add(Name::XForwardedProto, self.scheme);
            }
            ForwardPolicy::Keep => {}
            ForwardPolicy::Drop => fields.remove_all(X_FORWARDED),
        }
        match self.forwarded {
            ForwardPolicy::Append => self.append_element(head),
            ForwardPolicy::Replace => {
                fields.remove(Name::Forwarded);
                self.append_element(head);
            }
            ForwardPolicy::Keep => {}
            ForwardPolicy::Drop => fields.remove(Name::Forwarded),
        }
        self.pass(head.version, &mut head.fields);
    }

    /// What goes on with a response. Gateways may tell there through whom it came, and do where they tell it of requests.
    pub fn response(&self, head: &mut ResponseHead) {
        self.pass(head.version, &mut head.fields);
    }

    /// Behind all others. What cannot be read is left out: ours would be taken for a part of it.
    fn append_element(&self, head: &mut RequestHead) {
        if !head.fields.all(Name::Forwarded).all(quotes_match) {
            head.fields.remove(Name::Forwarded);
        }
        match head.authority().filter(|authority| !authority.is_empty()) {
            // No authority has a quote or a backslash in it (RFC 3986 section 3.2).
            Some(authority) => {
                let authority = authority.to_vec();
                head.fields.append_parts(Name::Forwarded, &[&self.element, b";host=\"", &authority, b"\""]);
            }
            None => head.fields.append(Name::Forwarded, &self.element),
        }
    }

    /// `received` is how the message came to us.
    fn pass(&self, received: Version, fields: &mut Fields) {
        match self.via {
            ForwardPolicy::Keep => return,
            ForwardPolicy::Append => {}
            ForwardPolicy::Replace | ForwardPolicy::Drop => fields.remove(Name::Via),
        }
        if let Some(name) = &self.via_name {
            let received: &[u8] = match received {
                Version::HTTP_2 => b"2 ",
                Version::HTTP_10 => b"1.0 ",
                _ => b"1.1 ",
            };
            fields.append_parts(Name::Via, &[received, name.as_bytes()]);
        }
    }
}

/// What a policy comes to for somebody.
fn held(policy: ForwardPolicy, trusts: bool) -> ForwardPolicy {
    match policy {
        ForwardPolicy::Append if !trusts => ForwardPolicy::Replace,
        ForwardPolicy::Keep if !trusts => ForwardPolicy::Drop,
        policy => policy,
    }
}

fn is_told(policy: ForwardPolicy) -> bool {
    matches!(policy, ForwardPolicy::Append | ForwardPolicy::Replace)
}

/// Whether every quoted string in it ends (RFC 9110 section 5.6.4).
fn quotes_match(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests;
