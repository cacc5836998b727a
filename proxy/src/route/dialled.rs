//! Stage 7 for captured connections: what does the address say that the application dialled, and what the authority it then
//! asks for? A virtual IP names the service. A connection to an endpoint's own address is balanced only where the caller named
//! the service; whatever else it is goes exactly where it was dialled.
//!
//! | dialled | what comes over it | goes to |
//! | --- | --- | --- |
//! | virtual IP and a service port | anything | the service, as its listener says |
//! | virtual IP of a service without ports, any port | anything | that port of the service's endpoints, as bytes |
//! | virtual IP, any other port | anything | nobody |
//! | endpoint, `mesh.capture=off` or a port it does not serve | anything | there |
//! | endpoint, `mesh.capture=pinned`, or of the caller's own service | anything | exactly that endpoint |
//! | endpoint, `mesh.capture=service` | anything | the service |
//! | endpoint | HTTP that names the service, port equal or absent | the service |
//! | endpoint | HTTP with any other authority (address, container name) | exactly that endpoint |
//! | endpoint | bytes | that endpoint while it is ready, else another of the service |
//! | address of an endpoint that left | bytes, or HTTP that names the service | the service |
//! | anything else | anything | there |
//!
//! Where nobody of the service takes requests, a dialled endpoint does: capture fails no call that would have come through
//! without it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::model::endpoint::CaptureMode;
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::protocol::Protocol;
use mesh_core::model::resource::{ANY_PORT, Bind, CapturedAddress, CapturedPort, Resources};

use super::without_final_dot;

/// Everything that is known about captured addresses. Made once for each view.
#[derive(Debug, Default)]
pub struct AddressBook {
    virtual_ips: Option<IpNet>,
    /// Virtual IP and port to the name of the listener behind it.
    listeners: HashMap<SocketAddr, Arc<str>>,
    /// An address may stand for one endpoint on each of several networks.
    endpoints: HashMap<IpAddr, Vec<Known>>,
}

/// One endpoint's address on one network.
#[derive(Debug)]
struct Known {
    network: Arc<str>,
    service: ServiceId,
    endpoint: Option<EndpointId>,
    mode: CaptureMode,
    names: Arc<Names>,
    /// By the port that is dialled.
    ports: HashMap<u16, KnownPort>,
}

#[derive(Debug)]
struct KnownPort {
    cluster: Arc<str>,
    service_port: u16,
    protocol: Protocol,
}

/// What stands in an authority: the endpoint itself, or its service.
#[derive(Debug)]
struct Names {
    own: Vec<Arc<str>>,
    service: Vec<Arc<str>>,
}

/// Whose connection it is, as far as anybody knows.
#[derive(Debug, Clone, Copy)]
pub struct CallerView<'a> {
    /// Its services; none when nobody knows.
    pub services: &'a [ServiceId],
    /// Its networks; none when nobody knows, and then every address is taken as if it were on them.
    pub networks: &'a [Arc<str>],
}

/// Where a captured connection goes, before anything is read of it.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Where the listener of this name leads.
    Virtual(Arc<str>),
    /// A virtual IP and port that no service has: refused.
    Nobody,
    /// An endpoint's own address: what comes over the connection decides.
    Endpoint(Dialled),
    /// An address that the first endpoint of a service is about to have: nobody knows its ports yet.
    Coming,
    /// Nothing of ours: carried as it was dialled.
    Elsewhere,
}

/// An endpoint that was dialled by its own address.
#[derive(Debug, Clone)]
pub struct Dialled {
    pub address: SocketAddr,
    /// Where it has that address; empty where nobody knows.
    pub network: Arc<str>,
    /// The cluster of the service port behind it.
    pub cluster: Arc<str>,
    pub protocol: Protocol,
    /// None when it left.
    pub endpoint: Option<EndpointId>,
    service_port: u16,
    rule: Rule,
    names: Arc<Names>,
}

/// How it is decided between the endpoint and its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Named,
    Service,
    Pinned,
}

/// Which endpoints may take what was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Any of the service.
    Balanced,
    /// Only the one that was dialled, in whatever state it is.
    Exactly,
    /// The one that was dialled while it is ready, else any of the service.
    DialledFirst,
}

impl AddressBook {
    /// What `resources` say about captured addresses. An endpoint's port whose cluster is not known (yet) is none of ours.
    #[must_use]
    pub fn build(resources: &Resources) -> Self {
        let Some(map) = &resources.capture else { return Self::default() };
        let listeners = resources.listeners.values().filter_map(|listener| match listener.bind {
            Bind::Captured(address) => Some((address, Arc::clone(&listener.name))),
            Bind::Address(_) | Bind::OriginalDestination(_) | Bind::Api => None,
        });
        let clusters = resources
            .clusters
            .values()
            .filter_map(|cluster| Some(((cluster.service.as_ref()?, service_port_of(&cluster.name)?), &cluster.name)));
        let clusters: HashMap<(&ServiceId, u16), &Arc<str>> = clusters.collect();
        let mut endpoints: HashMap<IpAddr, Vec<Known>> = HashMap::new();
        for address in &map.addresses {
            endpoints.entry(address.address).or_default().push(Known::of(address, &clusters));
        }
        Self { virtual_ips: Some(map.virtual_ip_range), listeners: listeners.collect(), endpoints }
    }

    /// Where a connection to `address` goes.
    #[must_use]
    pub fn look_up(&self, address: SocketAddr, caller: CallerView<'_>) -> Destination {
        if self.virtual_ips.is_some_and(|range| range.contains(&address.ip())) {
            let any_port = SocketAddr::new(address.ip(), ANY_PORT);
            return match self.listeners.get(&address).or_else(|| self.listeners.get(&any_port)) {
                Some(listener) => Destination::Virtual(Arc::clone(listener)),
                None => Destination::Nobody,
            };
        }
        let known = self.endpoints.get(&address.ip()).and_then(|known| nearest(known, caller.networks));
        let Some(known) = known else { return Destination::Elsewhere };
        let rule = match known.mode {
            CaptureMode::Off => return Destination::Elsewhere,
            CaptureMode::Pinned => Rule::Pinned,
            CaptureMode::Service => Rule::Service,
            CaptureMode::Auto if caller.services.contains(&known.service) => Rule::Pinned,
            CaptureMode::Auto => Rule::Named,
        };
        let Some(port) = known.ports.get(&address.port()) else {
            return if known.is_coming() { Destination::Coming } else { Destination::Elsewhere };
        };
        Destination::Endpoint(Dialled {
            address,
            network: Arc::clone(&known.network),
            cluster: Arc::clone(&port.cluster),
            protocol: port.protocol,
            endpoint: known.endpoint.clone(),
            service_port: port.service_port,
            rule,
            names: Arc::clone(&known.names),
        })
    }
}

impl Known {
    /// A container that has not started has no start yet.
    fn is_coming(&self) -> bool {
        self.ports.is_empty() && self.endpoint.as_ref().is_some_and(|id| id.start == 0)
    }

    fn of(address: &CapturedAddress, clusters: &HashMap<(&ServiceId, u16), &Arc<str>>) -> Self {
        let port = |port: &CapturedPort| {
            let cluster = clusters.get(&(&address.service, port.service_port))?;
            let CapturedPort { target, service_port, protocol } = *port;
            Some((target, KnownPort { cluster: Arc::clone(cluster), service_port, protocol }))
        };
        Self {
            network: Arc::clone(&address.network),
            service: address.service.clone(),
            endpoint: address.endpoint.clone(),
            mode: address.mode,
            names: Arc::new(Names { own: address.own_names.clone(), service: address.service_names.clone() }),
            ports: address.ports.iter().filter_map(port).collect(),
        }
    }
}

/// The one on a network of the caller; one that is reached from everywhere; and any, for a caller whose networks nobody knows.
fn nearest<'k>(known: &'k [Known], networks: &[Arc<str>]) -> Option<&'k Known> {
    let shared = known.iter().find(|known| networks.contains(&known.network));
    let everywhere = || known.iter().find(|known| known.network.is_empty());
    let any = || known.first().filter(|_| networks.is_empty());
    shared.or_else(everywhere).or_else(any)
}

/// `8080` of `outbound|8080||web.shop.svc.mesh.internal`.
fn service_port_of(cluster: &str) -> Option<u16> {
    cluster.split('|').nth(1)?.parse().ok()
}

impl Dialled {
    /// Who takes a request for `authority`.
    #[must_use]
    pub fn choose(&self, authority: &str) -> Choice {
        match self.rule {
            Rule::Service => Choice::Balanced,
            Rule::Pinned => Choice::Exactly,
            Rule::Named if self.names_service(authority) => Choice::Balanced,
            Rule::Named => Choice::Exactly,
        }
    }

    /// Who takes a connection that is no HTTP.
    #[must_use]
    pub fn choose_raw(&self) -> Choice {
        match self.rule {
            Rule::Pinned => Choice::Exactly,
            Rule::Named if self.endpoint.is_some() => Choice::DialledFirst,
            Rule::Named | Rule::Service => Choice::Balanced,
        }
    }

    fn names_service(&self, authority: &str) -> bool {
        let (host, port) = match authority.rsplit_once(':') {
            None => (authority, None),
            Some((host, port)) => match port.parse::<u16>() {
                Ok(port) => (host, Some(port)),
                Err(_) => return false,
            },
        };
        let fits = port.is_none_or(|port| port == self.address.port() || port == self.service_port);
        let host = without_final_dot(host);
        let named = |names: &[Arc<str>]| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        fits && named(&self.names.service) && !named(&self.names.own)
    }
}

#[cfg(test)]
mod tests;
