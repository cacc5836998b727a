//! A snapshot as one kind of client gets it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod bound; // listeners on an address, shared by authority; the HTTP proxy listener
mod loopback; // listeners at virtual IPs of this very host
mod captured; // listeners behind virtual IPs; what to capture
mod names; // under which authorities a service is known
mod service_port; // one service port: its cluster, its endpoints, its gRPC listener

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::model::names::DEFAULT_ZONE;
use mesh_core::model::resource::{Assignment, Cluster, Listener, RouteTable};
use mesh_core::model::snapshot::Snapshot;
use mesh_xds::encode::EncodeError;
use mesh_xds::encode::route::Reader;
use mesh_xds::{Kind, Packed, ResourceSet, encode};

use super::node::ClientKind;
pub use bound::port_conflicts;
use service_port::{Policies, ServicePortRef, service_ports};

/// What holds for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub zone: Arc<str>,
    pub virtual_ip_range: IpNet,
}

impl Settings {
    #[must_use]
    pub fn new(virtual_ip_range: IpNet) -> Self {
        Self { zone: DEFAULT_ZONE.into(), virtual_ip_range }
    }
}

/// Everything a client of `client`'s kind may have of `snapshot`.
#[must_use]
pub fn build(snapshot: &Snapshot, client: &ClientKind, settings: &Settings) -> ResourceSet {
    let ports = service_ports(snapshot, &settings.zone);
    let policies: Policies<'_> = ports.iter().map(|port| (port.cluster_name.clone(), &port.service.policy)).collect();
    let mut builder = Builder { set: ResourceSet::default(), policies, snapshot, settings };
    for port in &ports {
        builder.add_clusters(port);
    }
    if let Some(address) = client.bind_address {
        builder.add_bound(&ports, address, client.http_proxy);
    }
    if let Some(address) = client.http_proxy {
        builder.add_http_proxy(&ports, address);
    }
    if let Some(address) = client.outbound {
        builder.add_captured(&ports, address);
    } else if client.virtual_ips {
        builder
            .add_loopback(&ports, [client.bind_address.map(|address| SocketAddr::new(address, 0)), client.http_proxy]);
    }
    builder.set
}

struct Builder<'a> {
    set: ResourceSet,
    policies: Policies<'a>,
    snapshot: &'a Snapshot,
    settings: &'a Settings,
}

impl Builder<'_> {
    fn add_listener(&mut self, listener: &Listener) {
        if let Some(packed) = wire(encode::listener::listener(listener)) {
            self.set.offer(Kind::Listener, packed);
        }
    }

    fn add_table(&mut self, table: &RouteTable) {
        self.set.offer(Kind::Route, encode::route::route_table(table, &self.policies, Reader::Proxy));
    }

    fn add_cluster(&mut self, cluster: &Cluster, endpoints: &Assignment) {
        if let Some(packed) = wire(encode::cluster::cluster(cluster)) {
            self.set.offer(Kind::Cluster, packed);
        }
        self.set.offer(Kind::Assignment, encode::assignment::assignment(endpoints));
    }

    /// Clusters and endpoints for everybody; a gRPC listener for whoever asks by name.
    fn add_clusters(&mut self, port: &ServicePortRef<'_>) {
        self.add_cluster(&port.cluster(), &port.assignment(self.snapshot));
        if let Some((listener, table)) = port.api() {
            if let Some(packed) = wire(encode::listener::listener(&listener)) {
                self.set.offer_on_demand(Kind::Listener, packed);
            }
            let packed = encode::route::route_table(&table, &self.policies, Reader::Grpc);
            self.set.offer_on_demand(Kind::Route, packed);
        }
    }
}

/// Nothing that is built here comes from a file with TLS or from DNS, so nothing is ever refused; if it is, one resource is
/// left out and the others go on.
fn wire(encoded: Result<Packed, EncodeError>) -> Option<Packed> {
    encoded.inspect_err(|error| tracing::error!(%error, "a resource cannot be encoded")).ok()
}

#[cfg(test)]
mod tests;
