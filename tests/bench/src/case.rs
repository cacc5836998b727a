//! The cases, by name, and what is wanted of each.

use clap::ValueEnum;

use crate::backend::SMALL;
use crate::bench::Bench;
use crate::load::{Kind, Plan};
use crate::proxies::{ClientSide, Shape, UpstreamSide};
use crate::table::Report;

mod request; // CPU per request, of several shapes
mod latency; // what a proxy adds
mod memory; // idle, and by idle connection
mod workers; // two beside one
mod pick; // picking an endpoint

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Case {
    /// HTTP/1.1 keep-alive, 64 connections, 1 KiB
    H1,
    /// h2 in, HTTP/1.1 out, 8 connections of 32 streams
    #[value(name = "h2-h1")]
    H2H1,
    /// h2 in and out
    #[value(name = "h2-h2")]
    H2H2,
    /// HTTP/1.1 keep-alive in TLS 1.3 with client certificates
    Mtls,
    /// A new TLS connection for each request
    Handshake,
    /// Bytes, the same load as h1
    Tcp,
    /// Responses of 10 MiB
    Body,
    /// What a proxy adds to the latency of 1,000 requests/s
    Latency,
    /// Resident memory, idle and by idle connection
    Memory,
    /// Two workers beside one
    Workers,
    /// Picking an endpoint among 10, 1,000 and 100,000
    Pick,
}

impl Case {
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Runs it.
    ///
    /// # Errors
    /// When something did not run, or responses were wrong.
    pub fn run(self, bench: &Bench) -> anyhow::Result<Report> {
        match self {
            Self::H1 | Self::H2H1 | Self::H2H2 | Self::Mtls | Self::Handshake | Self::Tcp | Self::Body => {
                request::run(self, bench)
            }
            Self::Latency => latency::run(bench),
            Self::Memory => memory::run(bench),
            Self::Workers => workers::run(bench),
            Self::Pick => pick::run(bench),
        }
    }
}

/// HTTP/1.1 on both sides.
const HTTP1: Shape = Shape { client: ClientSide::Http1, upstream: UpstreamSide::Http1, workers: 1 };

/// A closed load of small responses over HTTP/1.1; the target is filled in later.
fn small(kind: Kind, connections: usize) -> Plan {
    let target = ([127, 0, 0, 1], 0).into();
    Plan { kind, target, connections, path: "/", body: SMALL, tls: None, cores: Vec::new(), rate: None }
}
