//! Step 1 from a Docker engine. An event is only a hint: the provider subscribes first, lists second, reads again on every
//! hint, and reads everything again on every error, reconnect and period. One thing is learnt from an event alone: that a
//! container was told to stop, since inspection does not say it.

pub mod client; // the way to the engine: URL, transport, API version
pub mod inspect; // its answer about one container, as what matters to us (pure)
pub mod drain; // who is on the way out (pure)
pub mod arrive; // who is on the way in
pub mod observe; // containers to services, endpoints, workloads, conditions (pure)
mod read; // one look at the engine
mod watch; // when to look, and what is told
pub mod metrics; // how well the engine is heard

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;

use mesh_core::task::drain::Drain;
use tokio::sync::mpsc;

use super::{ObservationSender, ProviderName};
pub use client::{EngineUrl, EngineUrlError};
pub use metrics::{Metrics, Resync};
pub use observe::Scope;

/// As in conditions and metrics.
pub const NAME: ProviderName = "docker";

/// Which engine, and what of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerProviderConfig {
    pub url: EngineUrl,
    /// Containers without `mesh.enable` take part.
    pub exposed_by_default: bool,
    /// Only containers with this label exist at all; none: all of them.
    pub only_label: Option<(String, String)>,
}

/// Everything that runs on one engine.
#[derive(Debug)]
pub struct DockerProvider {
    config: DockerProviderConfig,
    metrics: Metrics,
    /// Ids of containers that are about to be told to stop.
    announced: Option<mpsc::Receiver<Arc<str>>>,
}

impl DockerProvider {
    #[must_use]
    pub fn new(config: DockerProviderConfig, metrics: Metrics) -> Self {
        Self { config, metrics, announced: None }
    }

    /// Containers whose id comes this way drain from then on, as if the engine had told of their stop signal: whoever is about
    /// to stop one says so first, and proxies have turned away when the signal comes.
    #[must_use]
    pub fn with_announced(mut self, announced: mpsc::Receiver<Arc<str>>) -> Self {
        self.announced = Some(announced);
        self
    }

    /// Tells what it sees, whenever that changes, until the drain or until nobody listens. An engine that does not answer ends
    /// nothing: the last good list stays, with a condition.
    pub async fn run(self, observations: ObservationSender, drain: Drain) {
        let scope = Scope {
            exposed_by_default: self.config.exposed_by_default,
            only_label: self.config.only_label,
            host_address: host_address(),
        };
        watch::Watch::new(self.config.url, scope, observations, self.metrics).run(self.announced, drain).await;
    }
}

/// The address by which this host leaves for elsewhere; none without a default route. Nothing is sent: connecting a datagram
/// socket only looks the route up (192.0.2.1 is nobody's, RFC 5737).
fn host_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}
