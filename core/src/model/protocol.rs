//! What is spoken on a port, as a person declares it, and what the proxy speaks on each side because of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a service port speaks (`mesh.protocol`, `ports[].protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Found out per connection; endpoints are spoken to in what the client spoke.
    #[default]
    Auto,
    /// HTTP/1.1 to the endpoints; clients may come with h2c too.
    Http,
    /// h2 with prior knowledge to the endpoints.
    Http2,
    /// h2, and outcomes read from `grpc-status`.
    Grpc,
    /// Bytes.
    Tcp,
}

impl Protocol {
    pub const ALL: [Self; 5] = [Self::Auto, Self::Http, Self::Http2, Self::Grpc, Self::Tcp];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// Whether requests can be told apart on it.
    #[must_use]
    pub fn may_be_http(self) -> bool {
        self != Self::Tcp
    }

    #[must_use]
    pub fn listen(self) -> ListenProtocol {
        match self {
            Self::Auto => ListenProtocol::Auto,
            Self::Http | Self::Http2 | Self::Grpc => ListenProtocol::Http,
            Self::Tcp => ListenProtocol::Tcp,
        }
    }

    #[must_use]
    pub fn upstream(self) -> UpstreamProtocol {
        match self {
            Self::Auto | Self::Tcp => UpstreamProtocol::AsDownstream,
            Self::Http => UpstreamProtocol::Http1,
            Self::Http2 | Self::Grpc => UpstreamProtocol::Http2,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a listener expects of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenProtocol {
    /// HTTP/1.1, and h2c by its preface (RFC 9113 section 3.3).
    Http,
    /// Bytes.
    Tcp,
    /// Detected from the client's first bytes.
    #[default]
    Auto,
}

/// What the proxy speaks to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    Http2,
    /// HTTP/1.1 for a client of HTTP/1.1, h2 for one of h2.
    AsDownstream,
}

/// Ports whose server speaks first: nobody waits there for the client's first bytes (FTP, SSH, SMTP, POP3, IMAP,
/// submission, MySQL).
pub const SERVER_FIRST_PORTS: [u16; 7] = [21, 22, 25, 110, 143, 587, 3306];

/// Ports known to carry bytes of their own kind: PostgreSQL, Redis, memcached, MongoDB.
pub const RAW_PORTS: [u16; 4] = [5432, 6379, 11211, 27017];

/// Whether a port is taken as raw TCP without looking at any byte.
#[must_use]
pub fn is_raw_port(port: u16) -> bool {
    SERVER_FIRST_PORTS.contains(&port) || RAW_PORTS.contains(&port)
}
