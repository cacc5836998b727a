//! What the API says of a snapshot: the contract of `mesh/v1`, in the order people read it. Clients read the same types.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::condition::Condition;
use mesh_core::model::endpoint::{Endpoint, NetworkAddress};
use mesh_core::model::names::{Name, ServiceId};
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use super::ejections::Ejections;

/// Goes with every answer.
pub const API_VERSION: &str = "mesh/v1";

/// Every answer with content: which version of the contract, which snapshot, and the items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    pub api_version: Cow<'static, str>,
    pub snapshot: u64,
    pub items: Vec<T>,
}

impl<T> List<T> {
    #[must_use]
    pub fn new(snapshot: u64, items: Vec<T>) -> Self {
        Self { api_version: API_VERSION.into(), snapshot, items }
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceItem {
    pub name: String,
    pub namespace: String,
    pub virtual_ip: String,
    pub ports: Vec<PortItem>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortItem {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

/// One port of one endpoint; an endpoint without a port is one item too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointItem {
    pub id: String,
    /// What a person calls it: the container's name.
    pub name: String,
    pub service: String,
    pub namespace: String,
    /// `10.0.0.5:8080`; without a port where it has none, empty where it has no address.
    pub address: String,
    /// The name of the service port; empty where it has none.
    pub port: String,
    pub weight: u32,
    pub priority: u32,
    /// `ready`, `not-ready`, `draining` or `ejected`.
    pub state: String,
    pub reason: String,
    /// Its addresses on each of its networks, by their ids.
    #[serde(default)]
    pub networks: Vec<NetworkAddress>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
}

/// Everything at once: the one item of `/v1/snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotItem {
    pub services: Vec<ServiceItem>,
    pub endpoints: Vec<EndpointItem>,
    pub conditions: Vec<Condition>,
    /// Addresses of endpoints that left, still known as their service's.
    pub departed: Vec<DepartedItem>,
    /// Whose calls a node proxy captures.
    pub workloads: Vec<WorkloadItem>,
    /// What people call the networks, by id.
    #[serde(default)]
    pub network_names: BTreeMap<Arc<str>, Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepartedItem {
    pub address: String,
    pub service: String,
    pub namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadItem {
    pub id: String,
    pub name: String,
    pub service: String,
    pub namespace: String,
    pub namespace_path: String,
    pub networks: Vec<Arc<str>>,
}

/// What is asked for; nothing given means everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    pub namespace: Option<String>,
    pub service: Option<String>,
}

impl Filter {
    #[must_use]
    pub fn takes(&self, id: &ServiceId) -> bool {
        let fits =
            |wanted: &Option<String>, name: &Name| wanted.as_deref().is_none_or(|wanted| wanted == name.as_str());
        fits(&self.namespace, &id.namespace) && fits(&self.service, &id.name)
    }

    /// A condition on a service or one of its containers is found by the service's name; others only without a filter.
    fn takes_condition(&self, condition: &Condition, snapshot: &Snapshot) -> bool {
        if *self == Self::default() {
            return true;
        }
        let Some((kind, name)) = condition.object.split_once('/') else { return false };
        if kind == "service" {
            return snapshot.services.keys().any(|id| id.to_string() == name && self.takes(id));
        }
        let mut endpoints = snapshot.endpoints.values().flat_map(|list| list.iter());
        endpoints.any(|endpoint| *endpoint.name == *name && self.takes(&endpoint.service))
    }
}

#[must_use]
pub fn services(snapshot: &Snapshot, filter: &Filter) -> Vec<ServiceItem> {
    snapshot
        .services
        .values()
        .filter(|service| filter.takes(&service.id))
        .map(|service| service_item(service))
        .collect()
}

/// The endpoints, with what proxies say laid over: ready here, but ejected there.
#[must_use]
pub fn endpoints(snapshot: &Snapshot, filter: &Filter, ejections: &Ejections, now: Instant) -> Vec<EndpointItem> {
    let listed = snapshot.endpoints.iter().filter(|(id, _)| filter.takes(id));
    let all = listed.flat_map(|(_, endpoints)| endpoints.iter());
    all.flat_map(|endpoint| endpoint_items(endpoint, ejections, now)).collect()
}

#[must_use]
pub fn conditions(snapshot: &Snapshot, filter: &Filter) -> Vec<Condition> {
    let taken = snapshot.conditions.iter().filter(|condition| filter.takes_condition(condition, snapshot));
    taken.cloned().collect()
}

#[must_use]
pub fn whole(snapshot: &Snapshot, filter: &Filter, ejections: &Ejections, now: Instant) -> SnapshotItem {
    let departed = snapshot.departed.iter().filter(|(_, service)| filter.takes(service));
    let workloads = snapshot.workloads.iter().filter(|workload| filter.takes(&workload.service));
    SnapshotItem {
        services: services(snapshot, filter),
        endpoints: endpoints(snapshot, filter, ejections, now),
        conditions: conditions(snapshot, filter),
        departed: departed
            .map(|(address, service)| DepartedItem {
                address: address.to_string(),
                service: service.name.to_string(),
                namespace: service.namespace.to_string(),
            })
            .collect(),
        workloads: workloads
            .map(|workload| WorkloadItem {
                id: workload.id.to_string(),
                name: workload.name.to_string(),
                service: workload.service.name.to_string(),
                namespace: workload.service.namespace.to_string(),
                namespace_path: workload.namespace_path.to_string(),
                networks: workload.networks.iter().cloned().collect(),
            })
            .collect(),
        network_names: snapshot.network_names.clone(),
    }
}

fn service_item(service: &Service) -> ServiceItem {
    let port = |port: &mesh_core::model::service::ServicePort| PortItem {
        name: port.name.to_string(),
        port: port.port,
        protocol: port.protocol,
    };
    ServiceItem {
        name: service.id.name.to_string(),
        namespace: service.id.namespace.to_string(),
        virtual_ip: service.virtual_ip.to_string(),
        ports: service.ports.iter().map(port).collect(),
    }
}

fn endpoint_items(endpoint: &Endpoint, ejections: &Ejections, now: Instant) -> Vec<EndpointItem> {
    let ejected = endpoint.takes_requests().then(|| ejections.reason(&endpoint.id, now)).flatten();
    let (state, reason) = match ejected {
        Some(reason) => ("ejected".to_owned(), reason),
        None => (endpoint.state.to_string(), endpoint.reason.to_string()),
    };
    let item = |port: Option<(&Name, u16)>| EndpointItem {
        id: endpoint.id.to_string(),
        name: endpoint.name.to_string(),
        service: endpoint.service.name.to_string(),
        namespace: endpoint.service.namespace.to_string(),
        address: match (endpoint.address(), port) {
            (Some(address), Some((_, port))) => SocketAddr::new(address, port).to_string(),
            (Some(address), None) => address.to_string(),
            (None, _) => String::new(),
        },
        port: port.map(|(name, _)| name.to_string()).unwrap_or_default(),
        weight: endpoint.weight,
        priority: endpoint.priority,
        state: state.clone(),
        reason: reason.clone(),
        networks: endpoint.addresses.clone(),
        zone: endpoint.zone.as_deref().map(str::to_owned),
        version: endpoint.version.as_deref().map(str::to_owned),
    };
    if endpoint.ports.is_empty() {
        return vec![item(None)];
    }
    endpoint.ports.iter().map(|(name, port)| item(Some((name, *port)))).collect()
}
