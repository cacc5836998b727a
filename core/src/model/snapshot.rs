//! The whole catalogue in one immutable, numbered value. Readers hold an `Arc` of it and never lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::condition::Condition;
use super::endpoint::{Endpoint, EndpointState};
use super::names::{EndpointId, Name, ServiceId};
use super::service::Service;

/// A place whose outgoing connections can be captured: one container's network namespace, seen from the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Container id and start, as the endpoint has it.
    pub id: EndpointId,
    pub name: Arc<str>,
    /// Whose calls these are; the same service as its endpoint's, for a container that serves.
    pub service: ServiceId,
    /// The engine's name for the namespace file (`/run/docker/netns/1a2b3c`).
    pub namespace_path: Arc<str>,
    /// Ids of the networks it is on.
    pub networks: BTreeSet<Arc<str>>,
}

/// Whose an address is that no endpoint has yet: a container is about to start with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arriving {
    /// Container id, and 0 for a start that has not been.
    pub id: EndpointId,
    pub service: ServiceId,
    /// Id of the network it has the address on.
    pub network: Arc<str>,
}

/// The catalogue at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows by one with each change, for as long as one discovery runs.
    pub number: u64,
    pub services: BTreeMap<ServiceId, Arc<Service>>,
    /// Every known endpoint, ready or not; in order of id within its service.
    pub endpoints: BTreeMap<ServiceId, Arc<[Arc<Endpoint>]>>,
    /// Addresses of endpoints that left, still known as their service's.
    pub departed: BTreeMap<IpAddr, ServiceId>,
    /// Addresses of endpoints to be.
    pub arriving: BTreeMap<IpAddr, Arriving>,
    pub workloads: Vec<Arc<Workload>>,
    /// Namespace files of running containers that take no part.
    pub foreign_namespaces: BTreeSet<Arc<str>>,
    /// What people call the networks, by id.
    pub network_names: BTreeMap<Arc<str>, Arc<str>>,
    pub conditions: BTreeSet<Condition>,
}

impl Snapshot {
    /// All endpoints of a service, in stable order; none for a service nobody knows.
    #[must_use]
    pub fn endpoints_of(&self, service: &ServiceId) -> &[Arc<Endpoint>] {
        self.endpoints.get(service).map_or(&[], |list| list)
    }

    pub fn ready_endpoints_of(&self, service: &ServiceId) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints_of(service).iter().filter(|endpoint| endpoint.state == EndpointState::Ready)
    }

    /// The service called `name`, where exactly one namespace has it.
    #[must_use]
    pub fn service_by_short_name(&self, name: &Name) -> Option<&Arc<Service>> {
        let mut found = self.services.values().filter(|service| service.id.name == *name);
        match (found.next(), found.next()) {
            (Some(service), None) => Some(service),
            _ => None,
        }
    }

    /// What must hold of every snapshot; run after each change in debug builds.
    ///
    /// # Panics
    /// When an endpoint's service is unknown, two services share a virtual IP, or a departed or arriving address is alive.
    pub fn check_invariants(&self) {
        let virtual_ips: BTreeSet<_> = self.services.values().map(|service| service.virtual_ip).collect();
        assert_eq!(virtual_ips.len(), self.services.len(), "two services share a virtual IP");
        for (service, endpoints) in &self.endpoints {
            assert!(self.services.contains_key(service), "endpoints of unknown service {service}");
            assert!(endpoints.windows(2).all(|two| two[0].id < two[1].id), "endpoints of {service} not in order of id");
            for endpoint in endpoints.iter() {
                assert_eq!(endpoint.service, *service, "endpoint {} filed under {service}", endpoint.id);
                for address in &endpoint.addresses {
                    let departed = self.departed.contains_key(&address.address);
                    assert!(!departed, "{} of {} counts as departed", address.address, endpoint.id);
                    let arriving = self.arriving.contains_key(&address.address);
                    assert!(!arriving, "{} of {} counts as arriving", address.address, endpoint.id);
                }
            }
        }
    }
}
