//! Many observations into one catalogue: services united, states joined with verdicts, clashes told and nobody harmed.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::endpoint::{Endpoint, EndpointState};
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::ServicePort;
use mesh_core::model::snapshot::{Arriving, Workload};

use crate::provider::{
    Observation, ObservedEndpoint, ObservedService, ProbeTarget, ProviderName, ReadySource, Verdict, file,
};

/// A service before it has its virtual IP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergedService {
    /// In order of number, then name.
    pub ports: Vec<ServicePort>,
    /// Names of those ports that a person wrote down.
    pub written_down: BTreeSet<Name>,
    pub policy: Policy,
}

/// Everything all providers see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    pub services: BTreeMap<ServiceId, MergedService>,
    /// In order of id within each service; a service without one has no entry.
    pub endpoints: BTreeMap<ServiceId, Arc<[Arc<Endpoint>]>>,
    /// In order of id.
    pub workloads: Vec<Arc<Workload>>,
    pub foreign_namespaces: BTreeSet<Arc<str>>,
    /// By id.
    pub network_names: BTreeMap<Arc<str>, Arc<str>>,
    pub conditions: BTreeSet<Condition>,
    /// Addresses that belong to nobody above.
    pub foreign_addresses: BTreeSet<IpAddr>,
    /// Addresses that endpoints will have in an instant.
    pub arriving: BTreeMap<IpAddr, Arriving>,
}

/// Unites what the providers see. Where two disagree the earlier one holds (by name of the provider, then by its own order),
/// and the later one gets a condition.
///
/// Ports of one service are united by name. A service port that a person wrote down holds over one derived from what a
/// container listens on: with `http` 80 in the file, a container's `http` 8080 serves the calls to 80, as the file's own
/// endpoints do at whatever port they have. A port that is only named by its number is the one of that number, whatever its
/// name elsewhere. What is left is unclear, and a condition: two names for one number, two protocols for one port.
#[must_use]
pub fn merge(observations: &BTreeMap<ProviderName, Observation>, verdicts: &BTreeMap<EndpointId, Verdict>) -> Merged {
    let mut merged = Merged::default();
    let mut endpoints: BTreeMap<ServiceId, BTreeMap<EndpointId, Arc<Endpoint>>> = BTreeMap::new();
    let mut workloads: BTreeMap<EndpointId, Arc<Workload>> = BTreeMap::new();
    for (provider, observation) in observations.iter().filter(|(provider, _)| is_written_down(provider)) {
        observation.services.iter().for_each(|service| unite(&mut merged, provider, service));
    }
    for (provider, observation) in observations {
        if !is_written_down(provider) {
            observation.services.iter().for_each(|service| unite(&mut merged, provider, service));
        }
        for observed in &observation.endpoints {
            let (endpoint, condition) = judged(provider, observed, verdicts.get(&observed.endpoint.id));
            merged.conditions.extend(condition);
            // A service exists as soon as one serves it, even where its provider forgot to say so.
            merged.services.entry(endpoint.service.clone()).or_default();
            let siblings = endpoints.entry(endpoint.service.clone()).or_default();
            if let Some(first) = siblings.get(&endpoint.id) {
                let message = format!("{} is known as {} already; this one is left out", endpoint.id, first.name);
                let object = object(provider, &endpoint.name);
                merged.conditions.insert(Condition::new(object, ConditionKind::NameClash, message));
            } else {
                siblings.insert(endpoint.id.clone(), Arc::new(endpoint));
            }
        }
        for workload in &observation.workloads {
            workloads.entry(workload.id.clone()).or_insert_with(|| workload.clone());
        }
        merged.foreign_namespaces.extend(observation.foreign_namespaces.iter().cloned());
        let names = observation.network_names.iter().map(|(id, name)| (id.clone(), name.clone()));
        merged.network_names.extend(names);
        merged.conditions.extend(observation.conditions.iter().cloned());
        merged.foreign_addresses.extend(&observation.foreign_addresses);
        merged.arriving.extend(observation.arriving.iter().map(|(address, arriving)| (*address, arriving.clone())));
    }
    for service in merged.services.values_mut() {
        service.ports.sort_by(|a, b| (a.port, &a.name).cmp(&(b.port, &b.name)));
    }
    for (id, list) in &mut endpoints {
        let ports = merged.services.get(id).map_or(&[][..], |service| &service.ports);
        list.values_mut().for_each(|endpoint| name_ports(endpoint, ports));
    }
    merged.endpoints = endpoints.into_iter().map(|(id, list)| (id, list.into_values().collect())).collect();
    merged.workloads = workloads.into_values().collect();
    merged
}

/// What is still to come. The first of a service, which nobody knows yet, is told as well: a call to it waits until it is known.
#[must_use]
pub fn not_there_yet(
    mut arriving: BTreeMap<IpAddr, Arriving>,
    endpoints: &BTreeMap<ServiceId, Arc<[Arc<Endpoint>]>>,
) -> BTreeMap<IpAddr, Arriving> {
    let all = endpoints.values().flat_map(|list| list.iter()).flat_map(|endpoint| &endpoint.addresses);
    let alive: BTreeSet<IpAddr> = all.map(|address| address.address).collect();
    arriving.retain(|address, _| !alive.contains(address));
    arriving
}

/// Where to knock for the first accept; none where somebody states the readiness, or nothing listens.
#[must_use]
pub fn probe_target(observed: &ObservedEndpoint) -> Option<ProbeTarget> {
    let endpoint = &observed.endpoint;
    if observed.ready != ReadySource::FirstAccept || endpoint.state != EndpointState::NotReady {
        return None;
    }
    let ports: BTreeSet<u16> = endpoint.ports.values().copied().collect();
    let on_each = |address: &mesh_core::model::endpoint::NetworkAddress| {
        let address = address.address;
        ports.iter().map(move |port| SocketAddr::new(address, *port)).collect::<Vec<_>>()
    };
    let addresses: Vec<SocketAddr> = endpoint.addresses.iter().flat_map(on_each).collect();
    (!addresses.is_empty()).then(|| ProbeTarget { id: endpoint.id.clone(), addresses })
}

/// Adds a service's ports to what is known of it.
fn unite(merged: &mut Merged, provider: ProviderName, observed: &ObservedService) {
    let service = merged.services.entry(observed.id.clone()).or_default();
    if service.policy == Policy::default() {
        service.policy = observed.policy.clone();
    }
    for port in &observed.ports {
        let at = service.ports.iter().position(|known| known.name == port.name);
        let at = at.or_else(|| service.ports.iter().position(|known| known.port == port.port));
        let Some(known) = at.map(|at| &mut service.ports[at]) else {
            service.ports.push(port.clone());
            service.written_down.extend(is_written_down(provider).then(|| port.name.clone()));
            continue;
        };
        let is_derived = service.written_down.contains(&known.name) && !is_written_down(provider);
        if unite_port(known, port, is_derived).is_err() {
            let message = format!(
                "port {} ({}, {}) as {provider} has it clashes with port {} ({}, {}), which holds; give it the same \
                 name, number and protocol, or others altogether",
                port.name, port.port, port.protocol, known.name, known.port, known.protocol
            );
            let object = format!("service/{}", observed.id);
            merged.conditions.insert(Condition::new(object, ConditionKind::NameClash, message));
        }
    }
}

/// Two that are not one port.
struct Clash;

/// Makes `known` stand for `port` too, if both can be one; `is_derived` where the known one alone was written down.
fn unite_port(known: &mut ServicePort, port: &ServicePort, is_derived: bool) -> Result<(), Clash> {
    let name = match (known.name == port.name, known.port == port.port) {
        (true, true) => port.name.clone(),
        // A container port behind a service port of another number that was written down.
        (true, false) if is_derived => known.name.clone(),
        (false, true) if is_number(known) => port.name.clone(),
        (false, true) if is_number(port) => known.name.clone(),
        _ => return Err(Clash),
    };
    let protocol = match (known.protocol, port.protocol) {
        (Protocol::Auto, said) | (said, Protocol::Auto) => said,
        (one, other) if one == other => one,
        _ => return Err(Clash),
    };
    (known.name, known.protocol) = (name, protocol);
    Ok(())
}

/// Whether what this provider tells was written by a person, and not derived from what runs.
fn is_written_down(provider: ProviderName) -> bool {
    provider == file::NAME
}

/// Whether the port's name is only its number.
fn is_number(port: &ServicePort) -> bool {
    port.name.as_str() == port.port.to_string()
}

/// Names each of the endpoint's ports as its service does: one that is named by its number alone may have a name there.
fn name_ports(endpoint: &mut Arc<Endpoint>, ports: &[ServicePort]) {
    let named_elsewhere = |name: &Name| {
        let number = name.as_str().parse::<u16>().ok().filter(|_| ports.iter().all(|port| port.name != *name))?;
        let port = ports.iter().find(|port| port.port == number)?;
        (!endpoint.ports.contains_key(&port.name)).then(|| (name.clone(), port.name.clone()))
    };
    let renamed: Vec<(Name, Name)> = endpoint.ports.keys().filter_map(named_elsewhere).collect();
    for (from, to) in renamed {
        let ports = &mut Arc::make_mut(endpoint).ports;
        if let Some(target) = ports.remove(&from) {
            ports.insert(to, target);
        }
    }
}

/// The endpoint with its state joined with what probing found out.
fn judged(
    provider: ProviderName,
    observed: &ObservedEndpoint,
    verdict: Option<&Verdict>,
) -> (Endpoint, Option<Condition>) {
    let mut endpoint = observed.endpoint.clone();
    if observed.ready != ReadySource::FirstAccept || endpoint.state != EndpointState::NotReady {
        return (endpoint, None);
    }
    if probe_target(observed).is_none() {
        endpoint.state = EndpointState::Ready;
        endpoint.reason = "runs, and has no port that could be tried".into();
        return (endpoint, None);
    }
    match verdict {
        None | Some(Verdict::Waiting) => {
            endpoint.reason = "none of its ports has accepted a connection since it started".into();
            (endpoint, None)
        }
        Some(Verdict::Accepted) => {
            endpoint.state = EndpointState::Ready;
            endpoint.reason = "accepted a connection since it started".into();
            (endpoint, None)
        }
        Some(Verdict::Unreachable { error }) => {
            endpoint.state = EndpointState::Ready;
            endpoint.reason = "runs, and cannot be reached from here to be tried".into();
            let message = format!(
                "discovery cannot reach it to see whether it accepts ({error}), so it counts as ready while it runs; give \
                 it a HEALTHCHECK, or run discovery on the host's network"
            );
            let condition = Condition::new(object(provider, &endpoint.name), ConditionKind::Unreachable, message);
            (endpoint, Some(condition))
        }
    }
}

/// How conditions call an endpoint: `container/shop-web-1`.
fn object(provider: ProviderName, name: &str) -> String {
    let kind = match provider {
        "docker" => "container",
        "process" => "process",
        _ => "endpoint",
    };
    format!("{kind}/{name}")
}
