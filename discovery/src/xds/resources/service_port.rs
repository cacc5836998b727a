//! One service port: its cluster, its endpoints, and its listener for gRPC clients.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::endpoint::Endpoint;
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::{ListenProtocol, Protocol, is_raw_port};
use mesh_core::model::resource::{
    Assignment, Bind, Cluster, EndpointSource, Listener, RouteTable, Target, VirtualHost,
};
use mesh_core::model::service::{Service, ServicePort};
use mesh_core::model::snapshot::Snapshot;

/// By name of the cluster.
pub(super) type Policies<'a> = BTreeMap<Arc<str>, &'a Policy>;

/// One port of one service, with its names.
#[derive(Debug, Clone)]
pub(super) struct ServicePortRef<'a> {
    pub service: &'a Service,
    pub port: &'a ServicePort,
    pub fqdn: Arc<str>,
    pub cluster_name: Arc<str>,
}

/// All of them, in order of service and port.
pub(super) fn service_ports<'a>(snapshot: &'a Snapshot, zone: &str) -> Vec<ServicePortRef<'a>> {
    let services = snapshot.services.values();
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let with_names = ports.map(|(service, port)| ServicePortRef {
        service,
        port,
        fqdn: service.id.fqdn(zone).into(),
        cluster_name: service.id.cluster_name(port.port, zone).into(),
    });
    with_names.collect()
}

impl ServicePortRef<'_> {
    /// As declared; an undeclared one on a port known to be raw is bytes, so that nobody waits there for a first byte.
    pub fn protocol(&self) -> Protocol {
        match self.port.protocol {
            Protocol::Auto if is_raw_port(self.port.port) => Protocol::Tcp,
            declared => declared,
        }
    }

    pub fn may_be_http(&self) -> bool {
        self.protocol().may_be_http()
    }

    pub fn cluster(&self) -> Cluster {
        Cluster {
            name: self.cluster_name.clone(),
            service: Some(self.service.id.clone()),
            protocol: self.protocol().upstream(),
            policy: self.service.policy.clone(),
            source: EndpointSource::Assignment,
        }
    }

    /// Endpoints that have an address and serve this port, in whatever state they are.
    pub fn assignment(&self, snapshot: &Snapshot) -> Assignment {
        let endpoints = snapshot.endpoints_of(&self.service.id);
        assignment(&self.cluster_name, endpoints, |endpoint| endpoint.ports.get(&self.port.name).copied())
    }

    /// `web.shop.svc.mesh.internal:80`, for `xds:///web.shop.svc.mesh.internal:80`.
    pub fn api(&self) -> Option<(Listener, RouteTable)> {
        if !self.may_be_http() {
            return None;
        }
        let name: Arc<str> = format!("{}:{}", self.fqdn, self.port.port).into();
        let table: Arc<str> = format!("api|{name}").into();
        let listener = Listener { routes: Some(table.clone()), ..Listener::new(name, Bind::Api, ListenProtocol::Http) };
        Some((listener, RouteTable { name: table, hosts: vec![self.host(vec!["*".into()])] }))
    }

    pub fn host(&self, domains: Vec<Arc<str>>) -> VirtualHost {
        let name = format!("{}:{}", self.fqdn, self.port.port).into();
        VirtualHost { name, domains, cluster: self.cluster_name.clone() }
    }
}

/// Those of `endpoints` that have an address and a target port.
pub(super) fn assignment(
    cluster: &Arc<str>,
    endpoints: &[Arc<Endpoint>],
    target_port: impl Fn(&Endpoint) -> Option<u16>,
) -> Assignment {
    let endpoints = endpoints.iter().filter_map(|endpoint| {
        let port = target_port(endpoint)?;
        Some(Target {
            id: endpoint.id.clone(),
            address: SocketAddr::new(endpoint.address()?, port),
            networks: endpoint.addresses.clone(),
            weight: endpoint.weight,
            priority: endpoint.priority,
            zone: endpoint.zone.clone(),
            version: endpoint.version.clone(),
            state: endpoint.state,
        })
    });
    Assignment { cluster: Arc::clone(cluster), endpoints: endpoints.collect() }
}
