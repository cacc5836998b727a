//! Where a connection comes from, and where it was going, as far as that holds for everything that comes over it. Made once per
//! connection, shared by its requests.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::resource::Target;
use mesh_core::task::drain::Drain;

use crate::endpoint::{LiveCluster, LiveEndpoint};
use crate::route::dialled::Dialled;
use crate::upstream::connect::Origin;

/// One connection's way.
#[derive(Debug)]
pub struct Way {
    pub origin: Origin,
    pub toward: Toward,
    /// Begins when the network it came from is gone, and with it whoever called; none for the proxy's own network.
    pub gone: Option<Drain>,
}

/// Where it was going.
#[derive(Debug)]
pub enum Toward {
    /// Wherever its listener leads.
    Listener,
    /// An endpoint, by its own address. `unlisted` stands for it while the endpoint is in no cluster.
    Endpoint { dialled: Dialled, unlisted: Arc<LiveEndpoint> },
    /// To an address that means nothing to us.
    Elsewhere(SocketAddr),
}

/// The one endpoint that was meant, at the very address that was dialled.
#[derive(Debug, Clone)]
pub struct Exact {
    pub endpoint: Arc<LiveEndpoint>,
    pub address: SocketAddr,
}

impl Way {
    /// To an endpoint by its own address. A caller whose networks nobody knows is on the one it dialled into.
    #[must_use]
    pub fn to_endpoint(mut origin: Origin, dialled: Dialled, gone: Option<Drain>) -> Self {
        if origin.networks.is_empty() && !dialled.network.is_empty() {
            origin.networks = Arc::new([Arc::clone(&dialled.network)]);
        }
        let target = Target {
            id: EndpointId::new(&dialled.address.to_string(), 0),
            address: dialled.address,
            networks: Vec::new(),
            weight: 0,
            priority: 0,
            zone: None,
            version: None,
            state: EndpointState::Ready,
        };
        let unlisted = Arc::new(LiveEndpoint { target, stats: Arc::default() });
        Self { origin, toward: Toward::Endpoint { dialled, unlisted }, gone }
    }

    /// Exactly what was dialled; none where no endpoint was.
    #[must_use]
    pub fn exact(&self, cluster: &LiveCluster) -> Option<Exact> {
        let Toward::Endpoint { dialled, unlisted } = &self.toward else { return None };
        let listed = dialled.endpoint.as_ref().and_then(|id| cluster.endpoint(id));
        Some(Exact { endpoint: Arc::clone(listed.unwrap_or(unlisted)), address: dialled.address })
    }

    /// What was dialled, where nobody of its service takes requests: capture fails no call that would have come through without
    /// it. None where that endpoint has left.
    #[must_use]
    pub fn last_resort(&self, cluster: &LiveCluster) -> Option<Exact> {
        let Toward::Endpoint { dialled, .. } = &self.toward else { return None };
        dialled.endpoint.as_ref().and_then(|_| self.exact(cluster))
    }
}

/// Waits until the network is gone; for ever where there is none to go.
pub async fn gone(network: Option<Drain>) {
    match network {
        Some(mut network) => network.started().await,
        None => std::future::pending().await,
    }
}
