//! For a capturing client: a listener per virtual IP and port, behind the one that captured connections arrive at; and what to
//! capture.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::endpoint::{CaptureMode, Endpoint};
use mesh_core::model::forwarded::ForwardedHeaders;
use mesh_core::model::names::ServiceId;
use mesh_core::model::protocol::{ListenProtocol, Protocol};
use mesh_core::model::resource::{
    ANY_PORT, Bind, CaptureMap, CaptureWorkload, CapturedAddress, CapturedPort, Cluster, EndpointSource, Listener,
    RouteTable,
};
use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;
use mesh_xds::{Kind, encode};

use super::Builder;
use super::names::names;
use super::service_port::{ServicePortRef, assignment};

impl Builder<'_> {
    pub(super) fn add_captured(&mut self, ports: &[ServicePortRef<'_>], outbound: SocketAddr) {
        let listener = Listener::new("outbound".into(), Bind::OriginalDestination(outbound), ListenProtocol::Auto);
        self.add_listener(&Listener { forwarded_headers: ForwardedHeaders::captured(), ..listener });
        for port in ports {
            let socket = SocketAddr::new(port.service.virtual_ip, port.port.port);
            self.add_virtual(port, Bind::Captured(socket), ForwardedHeaders::captured());
        }
        for service in self.snapshot.services.values().filter(|service| service.ports.is_empty()) {
            self.add_any_port(service);
        }
        let map = capture_map(self.snapshot, ports, self.settings.virtual_ip_range);
        self.set.offer(Kind::Capture, encode::capture(&map));
    }

    /// A virtual IP names the service, whatever the authority says.
    pub(super) fn add_virtual(&mut self, port: &ServicePortRef<'_>, bind: Bind, forwarded_headers: ForwardedHeaders) {
        let socket = SocketAddr::new(port.service.virtual_ip, port.port.port);
        let protocol = port.protocol();
        let routes = protocol.may_be_http().then(|| {
            let name: Arc<str> = format!("{}:{}", port.fqdn, port.port.port).into();
            self.add_table(&RouteTable { name: name.clone(), hosts: vec![port.host(vec!["*".into()])] });
            name
        });
        let bytes = matches!(protocol, Protocol::Auto | Protocol::Tcp);
        let tcp_cluster = bytes.then(|| port.cluster_name.clone());
        let listener = Listener::new(socket.to_string().into(), bind, protocol.listen());
        self.add_listener(&Listener { routes, tcp_cluster, forwarded_headers, ..listener });
    }

    /// A service of which nobody has said a port: whatever port is dialled, it is that of one of its endpoints, which the proxy puts
    /// in the place of port 0. What comes over it is not looked at.
    fn add_any_port(&mut self, service: &Service) {
        let cluster_name: Arc<str> = service.id.cluster_name(ANY_PORT, &self.settings.zone).into();
        let cluster = Cluster {
            name: cluster_name.clone(),
            service: Some(service.id.clone()),
            protocol: Protocol::Tcp.upstream(),
            policy: service.policy.clone(),
            source: EndpointSource::Assignment,
        };
        let endpoints = assignment(&cluster_name, self.snapshot.endpoints_of(&service.id), |_| Some(ANY_PORT));
        self.add_cluster(&cluster, &endpoints);
        let socket = SocketAddr::new(service.virtual_ip, ANY_PORT);
        let listener = Listener::new(socket.to_string().into(), Bind::Captured(socket), ListenProtocol::Tcp);
        self.add_listener(&Listener { tcp_cluster: Some(cluster_name), ..listener });
    }
}

fn capture_map(snapshot: &Snapshot, ports: &[ServicePortRef<'_>], virtual_ip_range: ipnet::IpNet) -> CaptureMap {
    let workloads = snapshot.workloads.iter().map(|workload| CaptureWorkload {
        id: workload.id.clone(),
        name: workload.name.clone(),
        service: workload.service.clone(),
        namespace_path: workload.namespace_path.clone(),
        networks: workload.networks.iter().cloned().collect(),
    });
    let endpoints = snapshot.endpoints.values().flat_map(|list| list.iter());
    let present = endpoints.flat_map(|endpoint| present_addresses(snapshot, ports, endpoint));
    let left = snapshot.departed.iter().map(|(address, service)| vacant(snapshot, ports, *address, service));
    let coming = snapshot.arriving.iter().map(|(address, arriving)| CapturedAddress {
        network: arriving.network.clone(),
        endpoint: Some(arriving.id.clone()),
        ..vacant(snapshot, ports, *address, &arriving.service)
    });
    let (mut workloads, mut addresses): (Vec<_>, Vec<_>) =
        (workloads.collect(), present.chain(left).chain(coming).collect());
    // Equal content has to be equal bytes, in whatever order it was found.
    workloads.sort();
    addresses.sort();
    let foreign = snapshot.foreign_namespaces.iter().cloned().collect();
    CaptureMap { virtual_ip_range, workloads, foreign, addresses }
}

/// Each address of an endpoint, on each of its networks.
fn present_addresses(snapshot: &Snapshot, ports: &[ServicePortRef<'_>], endpoint: &Endpoint) -> Vec<CapturedAddress> {
    let of_service = ports.iter().filter(|port| port.service.id == endpoint.service);
    let captured: Vec<CapturedPort> = of_service
        .filter_map(|port| {
            let target = *endpoint.ports.get(&port.port.name)?;
            Some(CapturedPort { target, service_port: port.port.port, protocol: port.protocol() })
        })
        .collect();
    let service_names = service_names(snapshot, ports, &endpoint.service, &endpoint.aliases);
    let address = |at: &mesh_core::model::endpoint::NetworkAddress| CapturedAddress {
        address: at.address,
        network: at.network.clone(),
        service: endpoint.service.clone(),
        endpoint: Some(endpoint.id.clone()),
        mode: endpoint.capture,
        ports: captured.clone(),
        own_names: endpoint.own_names.clone(),
        service_names: service_names.clone(),
    };
    endpoint.addresses.iter().map(address).collect()
}

/// An address that no endpoint has any more, or yet: whoever dials it gets another one. Its ports are those of the endpoints that
/// are there; without any, the service's own.
fn vacant(snapshot: &Snapshot, ports: &[ServicePortRef<'_>], address: IpAddr, service: &ServiceId) -> CapturedAddress {
    let siblings = snapshot.endpoints_of(service);
    let mut captured = BTreeSet::new();
    for port in ports.iter().filter(|port| port.service.id == *service) {
        let service_port = port.port.port;
        let mut targets: BTreeSet<u16> =
            siblings.iter().filter_map(|endpoint| endpoint.ports.get(&port.port.name).copied()).collect();
        if targets.is_empty() {
            targets.insert(service_port);
        }
        let protocol = port.protocol();
        captured.extend(targets.into_iter().map(|target| CapturedPort { target, service_port, protocol }));
    }
    let aliases: Vec<Arc<str>> = siblings.iter().flat_map(|endpoint| endpoint.aliases.iter().cloned()).collect();
    CapturedAddress {
        address,
        // On which network it was is no longer known; every caller may still have it.
        network: "".into(),
        service: service.clone(),
        endpoint: None,
        mode: CaptureMode::Auto,
        ports: captured.into_iter().collect(),
        own_names: Vec::new(),
        service_names: service_names(snapshot, ports, service, &aliases),
    }
}

/// Aliases on its networks, and the names the mesh itself gives it.
fn service_names(
    snapshot: &Snapshot,
    ports: &[ServicePortRef<'_>],
    service: &ServiceId,
    aliases: &[Arc<str>],
) -> Vec<Arc<str>> {
    let mut all: BTreeSet<Arc<str>> = aliases.iter().cloned().collect();
    all.insert(service.name.as_str().into());
    if let Some(port) = ports.iter().find(|port| port.service.id == *service) {
        all.extend(names(snapshot, port.service, &port.fqdn).iter().map(|name| Arc::from(name.as_str())));
    }
    all.into_iter().collect()
}
