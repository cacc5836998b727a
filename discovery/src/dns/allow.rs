//! Who may ask: loopback and private sources unless told otherwise, so that nobody finds an open resolver here (RFC 5358).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::IpAddr;

use ipnet::IpNet;

/// Loopback, private (RFC 1918), link-local (RFC 3927), shared (RFC 6598); the same of IPv6 (RFC 4193, RFC 4291).
const PRIVATE_SOURCES: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The source networks that get an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow(Vec<IpNet>);

impl Allow {
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    #[must_use]
    pub fn permits(&self, source: IpAddr) -> bool {
        // A dual-stack socket sees an IPv4 client as ::ffff:a.b.c.d.
        let source = source.to_canonical();
        self.0.iter().any(|network| network.contains(&source))
    }
}

impl Default for Allow {
    fn default() -> Self {
        let networks = PRIVATE_SOURCES.iter().map(|text| text.parse().expect("the constant holds networks"));
        Self(networks.collect())
    }
}
