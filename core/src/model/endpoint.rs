//! One place that serves: its addresses, its share, its state, and how it wants to be dialled.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{EndpointId, Name, ServiceId};

/// The weight of an endpoint that says nothing about it.
pub const DEFAULT_WEIGHT: u32 = 100;

/// Where an endpoint can be reached, on one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The network's id at the engine; `host` for the host's own; empty where every caller reaches it (a file).
    pub network: Arc<str>,
    pub address: IpAddr,
}

/// Where a caller on `networks` reaches an endpoint that has `places`; none when they have no network in common. `first` is where
/// it is reached by a caller whose networks nobody knows, and if it tells no place.
#[must_use]
pub fn reached_at(first: IpAddr, places: &[NetworkAddress], networks: &[Arc<str>]) -> Option<IpAddr> {
    if networks.is_empty() || places.is_empty() {
        return Some(first);
    }
    // A place without a network is reached from all of them.
    let is_shared = |network: &Arc<str>| network.is_empty() || networks.contains(network);
    places.iter().find(|place| is_shared(&place.network)).map(|place| place.address)
}

/// Whether an endpoint takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Takes requests.
    Ready,
    /// Starting, unhealthy or paused: takes none.
    NotReady,
    /// On its way out: finishes what it has, takes nothing new.
    Draining,
}

impl EndpointState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection to the endpoint's own address is treated by a proxy that captured it (`mesh.capture`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureMode {
    /// What was dialled decides: HTTP that names the service is balanced, all else goes where it was dialled.
    #[default]
    Auto,
    /// Always balanced over the service.
    Service,
    /// Always exactly the dialled endpoint.
    Pinned,
    /// Never captured.
    Off,
}

/// One place that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    /// What a person calls it: the container's name, the process, or its address.
    pub name: Arc<str>,
    pub service: ServiceId,
    /// In stable order; the first one is shown to people.
    pub addresses: Vec<NetworkAddress>,
    /// Service port name to the port it listens on.
    pub ports: BTreeMap<Name, u16>,
    /// Share of the traffic relative to its service's other endpoints; 0 takes none.
    pub weight: u32,
    /// 0 is used first; others only while no endpoint of a lower number is ready.
    pub priority: u32,
    pub zone: Option<Arc<str>>,
    pub version: Option<Arc<str>>,
    pub state: EndpointState,
    /// Why it is in that state, for people: `healthcheck says unhealthy`.
    pub reason: Arc<str>,
    /// Named by `tasks.` even while it is not ready.
    pub publish_not_ready: bool,
    pub capture: CaptureMode,
    /// Names that name exactly this endpoint when they stand in an authority: container name, hostname.
    pub own_names: Vec<Arc<str>>,
    /// Names that name its service on a network: Compose's service name and other aliases.
    pub aliases: Vec<Arc<str>>,
}

impl Endpoint {
    /// The address shown to people and used by callers that share no network with it knowingly.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().map(|a| a.address)
    }

    #[must_use]
    pub fn takes_requests(&self) -> bool {
        self.state == EndpointState::Ready && self.weight > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_reached_on_a_network_that_both_are_on() {
        let place = |(network, address): &(&str, &str)| NetworkAddress {
            network: (*network).into(),
            address: address.parse().unwrap(),
        };
        let check = |places: &[(&str, &str)], networks: &[&str], expected: Option<&str>| {
            let places: Vec<NetworkAddress> = places.iter().map(place).collect();
            let networks: Vec<Arc<str>> = networks.iter().map(|network| (*network).into()).collect();
            let reached = reached_at("10.9.9.9".parse().unwrap(), &places, &networks);
            assert_eq!(reached.map(|address| address.to_string()).as_deref(), expected, "{places:?} from {networks:?}");
        };
        check(&[("a", "10.1.0.2"), ("b", "10.2.0.2")], &["b"], Some("10.2.0.2"));
        check(&[("a", "10.1.0.2"), ("b", "10.2.0.2")], &["c"], None);
        check(&[("", "10.3.0.2")], &["c"], Some("10.3.0.2"));
        check(&[("a", "10.1.0.2")], &[], Some("10.9.9.9"));
        check(&[], &["c"], Some("10.9.9.9"));
    }
}
