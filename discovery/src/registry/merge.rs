//! Many observations into one catalogue: services united, states joined with verdicts, clashes told and nobody harmed.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::endpoint::{Endpoint, EndpointState};
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::service::ServicePort;
use mesh_core::model::snapshot::Workload;

use crate::provider::{
    Observation, ObservedEndpoint, ObservedService, ProbeTarget, ProviderName, ReadySource, Verdict,
};

/// A service before it has its virtual IP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergedService {
    /// In order of number, then name.
    pub ports: Vec<ServicePort>,
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
    pub conditions: BTreeSet<Condition>,
}

/// Unites what the providers see. Where two disagree the earlier one holds (by name of the provider, then by its own order),
/// and the later one gets a condition.
#[must_use]
pub fn merge(observations: &BTreeMap<ProviderName, Observation>, verdicts: &BTreeMap<EndpointId, Verdict>) -> Merged {
    let mut merged = Merged::default();
    let mut endpoints: BTreeMap<ServiceId, BTreeMap<EndpointId, Arc<Endpoint>>> = BTreeMap::new();
    let mut workloads: BTreeMap<EndpointId, Arc<Workload>> = BTreeMap::new();
    for (provider, observation) in observations {
        for service in &observation.services {
            unite(&mut merged, provider, service);
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
        merged.conditions.extend(observation.conditions.iter().cloned());
    }
    for service in merged.services.values_mut() {
        service.ports.sort_by(|a, b| (a.port, &a.name).cmp(&(b.port, &b.name)));
    }
    merged.endpoints = endpoints.into_iter().map(|(id, list)| (id, list.into_values().collect())).collect();
    merged.workloads = workloads.into_values().collect();
    merged
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
        let clash = service.ports.iter().find(|known| known.name == port.name || known.port == port.port);
        match clash {
            None => service.ports.push(port.clone()),
            Some(known) if known == port => {}
            Some(known) => {
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
