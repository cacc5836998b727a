//! Listeners bound to an address, one per service port, and the HTTP proxy listener. HTTP services that share a port are told
//! apart by authority; bytes cannot be, so a TCP service has its port alone.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::forwarded::ForwardedHeaders;
use mesh_core::model::names::DEFAULT_ZONE;
use mesh_core::model::protocol::{ListenProtocol, Protocol};
use mesh_core::model::resource::{Bind, Listener, RouteTable};
use mesh_core::model::snapshot::Snapshot;

use super::Builder;
use super::names::{domains, names};
use super::service_port::{ServicePortRef, service_ports};

/// Who gets a port number that one or more services want.
#[derive(Debug)]
struct Claim<'a> {
    /// One TCP service, or all HTTP services.
    holders: Vec<&'a ServicePortRef<'a>>,
    losers: Vec<&'a ServicePortRef<'a>>,
}

/// By port number. The first service by name decides: TCP has the port alone, HTTP shares it with all other HTTP.
fn claims<'a>(ports: &'a [ServicePortRef<'a>]) -> BTreeMap<u16, Claim<'a>> {
    let mut wanted: BTreeMap<u16, Vec<&ServicePortRef<'_>>> = BTreeMap::new();
    for port in ports {
        wanted.entry(port.port.port).or_default().push(port);
    }
    let claim = |mut all: Vec<&'a ServicePortRef<'a>>| {
        all.sort_by(|one, other| {
            let by_name = |port: &ServicePortRef<'_>| (port.service.id.name.clone(), port.service.id.namespace.clone());
            by_name(one).cmp(&by_name(other))
        });
        let http = all.first().is_some_and(|first| first.may_be_http());
        let (holders, losers) = if http {
            all.into_iter().partition(|port| port.may_be_http())
        } else {
            let losers = all.split_off(1.min(all.len()));
            (all, losers)
        };
        Claim { holders, losers }
    };
    wanted.into_iter().map(|(number, all)| (number, claim(all))).collect()
}

/// Services that get no bound listener, because another one has their port.
#[must_use]
pub fn port_conflicts(snapshot: &Snapshot) -> Vec<Condition> {
    let ports = service_ports(snapshot, DEFAULT_ZONE);
    let mut conditions = Vec::new();
    for (number, claim) in claims(&ports) {
        for loser in &claim.losers {
            let holders: Vec<_> = claim.holders.iter().map(|holder| holder.service.id.to_string()).collect();
            let message = format!(
                "port {number} is taken by {}; on a shared address only HTTP services share a port. It is still reached at \
                 its virtual IP; give it another port, or declare `protocol: http` if that is what it speaks",
                holders.join(", ")
            );
            let object = format!("service/{}", loser.service.id);
            conditions.push(Condition::new(object, ConditionKind::PortConflict, message));
        }
    }
    conditions
}

impl Builder<'_> {
    /// One listener per service port. The proxy listener was asked for by address and port, so it wins over a service port.
    pub(super) fn add_bound(&mut self, ports: &[ServicePortRef<'_>], address: IpAddr, taken: Option<SocketAddr>) {
        for (number, claim) in claims(ports) {
            let socket = SocketAddr::new(address, number);
            if taken.is_some_and(|taken| overlap(taken, socket)) {
                continue;
            }
            let Some(first) = claim.holders.first() else { continue };
            let listener = |protocol, routes, tcp_cluster| {
                let forwarded_headers = ForwardedHeaders::bound_to(address);
                let plain = Listener::new(socket.to_string().into(), Bind::Address(socket), protocol);
                Listener { routes, tcp_cluster, forwarded_headers, ..plain }
            };
            if !first.may_be_http() {
                self.add_listener(&listener(ListenProtocol::Tcp, None, Some(first.cluster_name.clone())));
                continue;
            }
            let table = self.shared_table(number, &claim.holders);
            let routes = Some(table.name.clone());
            self.add_table(&table);
            // Bytes have somewhere to go only where one service has the port.
            let bytes = claim.holders.len() == 1 && first.protocol() == Protocol::Auto;
            let tcp_cluster = bytes.then(|| first.cluster_name.clone());
            let protocol = if bytes { ListenProtocol::Auto } else { ListenProtocol::Http };
            self.add_listener(&listener(protocol, routes, tcp_cluster));
        }
    }

    /// The only HTTP service on a port is also its default.
    fn shared_table(&self, number: u16, holders: &[&ServicePortRef<'_>]) -> RouteTable {
        let hosts = holders.iter().map(|holder| {
            let mut domains = domains(&names(self.snapshot, holder.service, &holder.fqdn), number, true);
            if holders.len() == 1 {
                domains.push("*".into());
            }
            holder.host(domains)
        });
        RouteTable { name: number.to_string().into(), hosts: hosts.collect() }
    }

    /// All HTTP services of all ports, told apart by authority with port; without one, port 80 or the only port is meant.
    pub(super) fn add_http_proxy(&mut self, ports: &[ServicePortRef<'_>], address: SocketAddr) {
        const NAME: &str = "http_proxy";
        let http: Vec<_> = ports.iter().filter(|port| port.may_be_http()).collect();
        let hosts = http.iter().map(|port| {
            let number = port.port.port;
            let only = http.iter().filter(|other| other.service.id == port.service.id).count() == 1;
            let has_80 = http.iter().any(|other| other.service.id == port.service.id && other.port.port == 80);
            let bare = number == 80 || (only && !has_80);
            port.host(domains(&names(self.snapshot, port.service, &port.fqdn), number, bare))
        });
        let table = RouteTable { name: NAME.into(), hosts: hosts.collect() };
        self.add_table(&table);
        let routes: Option<Arc<str>> = Some(table.name.clone());
        let listener = Listener::new(NAME.into(), Bind::Address(address), ListenProtocol::Http);
        let forwarded_headers = ForwardedHeaders::bound_to(address.ip());
        self.add_listener(&Listener { routes, forwarded_headers, ..listener });
    }
}

/// Whether one socket would take what the other one listens for.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (any || one.ip() == other.ip())
}
