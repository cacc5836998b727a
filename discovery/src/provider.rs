//! Step 1 of a container event: who says what runs. A provider never tells a change; it tells everything it sees, each time
//! whole, and the registry finds out what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::condition::Condition;
use mesh_core::model::endpoint::Endpoint;
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::service::ServicePort;
use mesh_core::model::snapshot::{Arriving, Workload};
use tokio::sync::mpsc;

pub mod docker; // the engine
pub mod label; // its labels, typed (pure)
pub mod file; // mesh.yaml
pub mod process; // the processes we started

/// A provider's name, as in conditions and metrics: `docker`, `file`, `process`.
pub type ProviderName = &'static str;

/// How it is known whether an endpoint is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadySource {
    /// The endpoint's `state` says it: a HEALTHCHECK, a file, a draining container.
    Stated,
    /// Ready once one of its ports has accepted a connection since this start; then never asked again. Until then its
    /// `state` is `NotReady`.
    FirstAccept,
}

/// An endpoint as a provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedEndpoint {
    pub endpoint: Endpoint,
    pub ready: ReadySource,
}

/// A service as a provider sees it; it exists even without an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedService {
    pub id: ServiceId,
    pub ports: Vec<ServicePort>,
    pub policy: Policy,
}

/// Whether a provider has ever seen what it tells of. Before it has, its empty list means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sight {
    /// It has looked; when it cannot any more, its last good list stays.
    #[default]
    Seen,
    /// It has not: what it watches is there, and does not answer.
    Blind,
    /// It has not: what it watches is not there. No engine takes connections at its socket; no file can be read.
    Absent,
}

/// Everything one provider sees, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    pub services: Vec<ObservedService>,
    pub endpoints: Vec<ObservedEndpoint>,
    pub workloads: Vec<Arc<Workload>>,
    /// Namespace files of running containers that take no part, so that a proxy leaves them alone at once.
    pub foreign_namespaces: BTreeSet<Arc<str>>,
    /// What people call the networks that any of them is on, by id.
    pub network_names: BTreeMap<Arc<str>, Arc<str>>,
    pub conditions: Vec<Condition>,
    /// Addresses that belong to others than its endpoints: containers outside the mesh, gateways of networks. Whoever had
    /// one of them before has it no more.
    pub foreign_addresses: BTreeSet<IpAddr>,
    /// Addresses that endpoints will have in an instant.
    pub arriving: BTreeMap<IpAddr, Arriving>,
    pub sight: Sight,
}

/// What probing found out about an endpoint that says [`ReadySource::FirstAccept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Tried, and nothing accepted yet.
    Waiting,
    /// One of its ports accepted since this start; it is never asked again.
    Accepted,
    /// Discovery has no way to it, so nobody can tell; it counts as ready while it runs.
    Unreachable { error: Arc<str> },
}

/// An endpoint whose first accept is awaited, and where to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    pub id: EndpointId,
    /// Never empty.
    pub addresses: Vec<SocketAddr>,
}

/// Where providers send what they see. The receiver takes the newest of each provider; a bounded queue is enough.
pub type ObservationSender = mpsc::Sender<(ProviderName, Observation)>;
