//! What changed between two snapshots, one line each with its reason: for the log, and for people who ask why.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mesh_core::model::condition::Condition;
use mesh_core::model::endpoint::{Endpoint, EndpointState};
use mesh_core::model::names::EndpointId;
use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    ServiceAdded(Arc<Service>),
    ServiceRemoved(Arc<Service>),
    ServiceChanged(Arc<Service>),
    EndpointAdded(Arc<Endpoint>),
    EndpointRemoved(Arc<Endpoint>),
    /// Became ready, not ready or draining; `from` is what it was.
    EndpointState {
        endpoint: Arc<Endpoint>,
        from: EndpointState,
    },
    /// Anything else: weight, addresses, labels.
    EndpointChanged(Arc<Endpoint>),
    ConditionAdded(Condition),
    ConditionRemoved(Condition),
}

/// Everything that makes `after` different from `before`, services first.
#[must_use]
pub fn diff(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, service) in &after.services {
        match before.services.get(id) {
            None => changes.push(Change::ServiceAdded(service.clone())),
            Some(old) if old != service => changes.push(Change::ServiceChanged(service.clone())),
            Some(_) => {}
        }
    }
    let (old, new) = (by_id(before), by_id(after));
    for (key, endpoint) in &new {
        match old.get(key) {
            None => changes.push(Change::EndpointAdded((*endpoint).clone())),
            Some(was) if was.state != endpoint.state => {
                changes.push(Change::EndpointState { endpoint: (*endpoint).clone(), from: was.state });
            }
            Some(was) if was != endpoint => changes.push(Change::EndpointChanged((*endpoint).clone())),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    changes.extend(gone.map(|(_, endpoint)| Change::EndpointRemoved((*endpoint).clone())));
    let gone = before.services.iter().filter(|(id, _)| !after.services.contains_key(*id));
    changes.extend(gone.map(|(_, service)| Change::ServiceRemoved(service.clone())));
    changes.extend(after.conditions.difference(&before.conditions).cloned().map(Change::ConditionAdded));
    changes.extend(before.conditions.difference(&after.conditions).cloned().map(Change::ConditionRemoved));
    changes
}

impl Change {
    /// One word for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServiceAdded(_) => "service_added",
            Self::ServiceRemoved(_) => "service_removed",
            Self::ServiceChanged(_) => "service_changed",
            Self::EndpointAdded(_) => "endpoint_added",
            Self::EndpointRemoved(_) => "endpoint_removed",
            Self::EndpointState { .. } => "endpoint_state",
            Self::EndpointChanged(_) => "endpoint_changed",
            Self::ConditionAdded(_) => "condition_added",
            Self::ConditionRemoved(_) => "condition_removed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAdded(service) => {
                write!(f, "service {} added at {}, {}", service.id, service.virtual_ip, ports_of(service))
            }
            Self::ServiceRemoved(service) => write!(f, "service {} removed: nobody serves or declares it", service.id),
            Self::ServiceChanged(service) => write!(f, "service {} changed: {}", service.id, ports_of(service)),
            Self::EndpointAdded(endpoint) => {
                write!(f, "endpoint {} added, {}: {}", called(endpoint), endpoint.state, endpoint.reason)
            }
            Self::EndpointRemoved(endpoint) => write!(f, "endpoint {} removed: no provider sees it", called(endpoint)),
            Self::EndpointState { endpoint, from } => {
                write!(f, "endpoint {} was {from}, is {}: {}", called(endpoint), endpoint.state, endpoint.reason)
            }
            Self::EndpointChanged(endpoint) => {
                write!(f, "endpoint {} changed: weight {}, {}", called(endpoint), endpoint.weight, endpoint.reason)
            }
            Self::ConditionAdded(condition) => {
                write!(f, "condition {} on {}: {}", condition.kind, condition.object, condition.message)
            }
            Self::ConditionRemoved(condition) => {
                write!(f, "condition {} on {} is over: {}", condition.kind, condition.object, condition.message)
            }
        }
    }
}

fn by_id(snapshot: &Snapshot) -> BTreeMap<(&mesh_core::model::names::ServiceId, &EndpointId), &Arc<Endpoint>> {
    let all =
        snapshot.endpoints.iter().flat_map(|(service, list)| list.iter().map(move |endpoint| (service, endpoint)));
    all.map(|(service, endpoint)| ((service, &endpoint.id), endpoint)).collect()
}

/// `shop-web-1 (0f3a9c2b1d4e) of web.shop`.
fn called(endpoint: &Endpoint) -> String {
    if *endpoint.name == *endpoint.id.unit {
        return format!("{} of {}", endpoint.name, endpoint.service);
    }
    format!("{} ({}) of {}", endpoint.name, endpoint.id.short(), endpoint.service)
}

fn ports_of(service: &Service) -> String {
    if service.ports.is_empty() {
        return "no port".to_owned();
    }
    let one = |port: &mesh_core::model::service::ServicePort| {
        if port.name.as_str() == port.port.to_string() {
            format!("{} {}", port.port, port.protocol)
        } else {
            format!("{} {} {}", port.name, port.port, port.protocol)
        }
    };
    format!("ports {}", service.ports.iter().map(one).collect::<Vec<_>>().join(", "))
}
