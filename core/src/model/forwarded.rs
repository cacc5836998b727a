//! What a listener tells services of who called: whose word on that it takes, and what goes on in which fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// What becomes of a field on its way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardPolicy {
    /// What came goes on, with ours behind it.
    Append,
    /// What came goes on, and nothing of ours.
    Keep,
    /// Ours alone goes on.
    Replace,
    /// Nothing goes on.
    Drop,
}

/// The fields that say who called, and through whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedHeaders {
    /// Whose `X-Forwarded-*` and `Forwarded` are believed. What others say there never goes on.
    pub trusted: Vec<IpNet>,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`; what more there is of that kind comes from others.
    pub x_forwarded: ForwardPolicy,
    /// `Forwarded` (RFC 7239).
    pub forwarded: ForwardPolicy,
    /// `Via` (RFC 9110 section 7.6.3), of requests and responses. It says nothing that anybody had to believe, so that no trust is asked
    /// for.
    pub via: ForwardPolicy,
    /// How we call ourselves there.
    pub via_name: Arc<str>,
}

/// It goes with every message.
const VIA_NAME_BYTES_MAX: usize = 64;

static VIA_NAME: LazyLock<Arc<str>> = LazyLock::new(|| "mesh".into());

impl Default for ForwardedHeaders {
    /// For a listener of which nobody says who reaches it: nobody is believed, and services hear from us who called.
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            x_forwarded: ForwardPolicy::Append,
            forwarded: ForwardPolicy::Keep,
            via: ForwardPolicy::Keep,
            via_name: Arc::clone(&VIA_NAME),
        }
    }
}

impl ForwardedHeaders {
    /// For calls that nobody knows to be carried by us: they arrive as they were sent, and from where they were sent.
    #[must_use]
    pub fn captured() -> Self {
        let trusted = vec![IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        Self { trusted, x_forwarded: ForwardPolicy::Keep, ..Self::default() }
    }

    /// For a listener that a control plane opens at `address`. A loopback address is reached by nobody but the applications beside us.
    #[must_use]
    pub fn bound_to(address: IpAddr) -> Self {
        let loopback = || {
            let v4 = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 bits are a prefix");
            vec![IpNet::from(v4), IpNet::from(Ipv6Net::from(Ipv6Addr::LOCALHOST))]
        };
        let trusted = if address.to_canonical().is_loopback() { loopback() } else { Vec::new() };
        Self { trusted, ..Self::default() }
    }

    /// Whether somebody can be called that in `Via`: a pseudonym, or a host with or without a port.
    #[must_use]
    pub fn is_via_name(text: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&byte);
        (1..=VIA_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
    }

    /// Whether what `peer` says of who called is believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_believed_who_is_not_named() {
        let check = |headers: &ForwardedHeaders, peer: &str, expected: bool| {
            assert_eq!(headers.trusts(peer.parse().unwrap()), expected, "{peer}");
        };
        check(&ForwardedHeaders::default(), "127.0.0.1", false);
        let named = ForwardedHeaders { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..ForwardedHeaders::default() };
        check(&named, "10.1.2.3", true);
        check(&named, "::ffff:10.1.2.3", true);
        check(&named, "11.0.0.1", false);
        for everybody in ["8.8.8.8", "2001:db8::1"] {
            check(&ForwardedHeaders::captured(), everybody, true);
        }
        let beside = ForwardedHeaders::bound_to("127.0.0.53".parse().unwrap());
        check(&beside, "127.0.0.1", true);
        check(&beside, "::1", true);
        check(&beside, "10.0.0.1", false);
        check(&ForwardedHeaders::bound_to("0.0.0.0".parse().unwrap()), "127.0.0.1", false);
    }

    #[test]
    fn a_name_in_via_cannot_be_read_as_more_than_a_name() {
        let check = |name: &str, expected: bool| assert_eq!(ForwardedHeaders::is_via_name(name), expected, "{name:?}");
        for name in ["mesh", "edge.example:8080", "[2001:db8::1]", "a_b"] {
            check(name, true);
        }
        for name in ["", "a b", "a,b", "a(b)", "a\r\nb", "\u{e9}", "a\"", &"x".repeat(65)] {
            check(name, false);
        }
    }
}
