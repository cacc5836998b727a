//! From containers to services, endpoints, workloads and conditions: who takes part, under which name, at which addresses and
//! ports, and in which state.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod place; // where a container is reached, and whose network namespace it is in
mod service; // the members of a service agree on its ports and its policy
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::endpoint::{CaptureMode, DEFAULT_WEIGHT, Endpoint, EndpointState};
use mesh_core::model::names::{EndpointId, Name, NameError, ServiceId};
use mesh_core::model::snapshot::{Arriving, Workload};

use super::arrive::Arrival;
use super::drain::DrainBook;
use super::inspect::{Container, Health, Phase};
use crate::provider::label::{
    self, COMPOSE_ONEOFF, COMPOSE_PROJECT, COMPOSE_SERVICE, IMAGE_VERSION, PortSetting, Settings,
};
use crate::provider::{Observation, ObservedEndpoint, ReadySource};
use place::Place;

/// The namespace of containers that Compose knows nothing of.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Which containers are looked at, and what of the host is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Without `mesh.enable` a container takes part.
    pub exposed_by_default: bool,
    /// Others than those with this label do not exist. Without it, those that another mesh made for itself do not: their label
    /// [`label::RUN_KEY`] says so.
    pub only_label: Option<(String, String)>,
    /// How containers on the host's own network are reached.
    pub host_address: Option<IpAddr>,
}

impl Scope {
    #[must_use]
    pub fn contains(&self, container: &Container) -> bool {
        self.wants(&container.labels)
    }

    fn wants(&self, labels: &BTreeMap<String, String>) -> bool {
        match &self.only_label {
            Some((key, value)) => labels.get(key) == Some(value),
            None => !labels.contains_key(label::RUN_KEY),
        }
    }
}

/// Containers by id, as they were inspected.
pub type Containers = BTreeMap<Arc<str>, Container>;

/// A container that takes part, on its way to an endpoint.
struct Member<'a> {
    container: &'a Container,
    settings: Settings,
    service: ServiceId,
    place: Place,
    ports: Vec<PortSetting>,
}

/// Everything that `containers` say.
#[must_use]
pub fn observe(containers: &Containers, scope: &Scope, drains: &DrainBook, now: Instant) -> Observation {
    let mut conditions = Vec::new();
    // In order of age: on a clash of names, the later one is told.
    let mut by_age: Vec<&Container> = containers.values().filter(|container| scope.contains(container)).collect();
    by_age.sort_by(|a, b| (a.id.start, &a.id.unit).cmp(&(b.id.start, &b.id.unit)));
    let mut names = Names::default();
    let mut members = Vec::new();
    for container in by_age {
        if let Some(member) = member(container, containers, scope, &mut names, &mut conditions) {
            members.push(member);
        }
    }
    let services = service::agree(&mut members);
    let workloads = workloads(&members);
    let network_names = network_names(containers);
    let foreign_namespaces = foreign_namespaces(containers, &workloads);
    let mut endpoints: Vec<ObservedEndpoint> =
        members.into_iter().map(|member| endpoint(member, drains, now)).collect();
    endpoints.sort_by(|a, b| a.endpoint.id.cmp(&b.endpoint.id));
    conditions.sort();
    let foreign_addresses = foreign_addresses(containers, &endpoints);
    Observation {
        services,
        endpoints,
        workloads,
        foreign_namespaces,
        network_names,
        conditions,
        foreign_addresses,
        ..Observation::default()
    }
}

fn foreign_namespaces(containers: &Containers, workloads: &[Arc<Workload>]) -> BTreeSet<Arc<str>> {
    let ours: BTreeSet<&Arc<str>> = workloads.iter().map(|workload| &workload.namespace_path).collect();
    let running = containers.values().filter(|container| container.phase == Phase::Running);
    let paths = running.filter_map(|container| container.namespace_path.clone());
    paths.filter(|path| !ours.contains(path)).collect()
}

fn network_names(containers: &Containers) -> BTreeMap<Arc<str>, Arc<str>> {
    let live = containers.values().filter(|container| matches!(container.phase, Phase::Running | Phase::Paused));
    let attachments = live.flat_map(|container| &container.attachments);
    attachments.map(|(name, attachment)| (attachment.network_id.clone(), name.as_str().into())).collect()
}

/// The addresses of containers that are no endpoints, and the host's own on each network: an endpoint that left may have had
/// one of them, or its network another's range.
fn foreign_addresses(containers: &Containers, endpoints: &[ObservedEndpoint]) -> BTreeSet<IpAddr> {
    let own: BTreeSet<IpAddr> = endpoints
        .iter()
        .flat_map(|observed| &observed.endpoint.addresses)
        .filter(|address| &*address.network != place::HOST_NETWORK)
        .map(|address| address.address)
        .collect();
    let live = containers.values().filter(|container| matches!(container.phase, Phase::Running | Phase::Paused));
    let attachments = live.flat_map(|container| container.attachments.values());
    let addresses = attachments.flat_map(|attachment| attachment.addresses.iter().chain(&attachment.gateways));
    addresses.filter(|address| !own.contains(address)).copied().collect()
}

/// The container as a member of its service, or none, with conditions that say why.
fn member<'a>(
    container: &'a Container,
    containers: &Containers,
    scope: &Scope,
    names: &mut Names,
    conditions: &mut Vec<Condition>,
) -> Option<Member<'a>> {
    let object = format!("container/{}", container.name);
    let mut complain = |kind, message: &str| conditions.push(Condition::new(&object, kind, message));
    // Told whether it takes part or not: a typo may be the very reason why it does not.
    let (settings, problems) = label::read(&container.labels);
    for problem in problems {
        complain(problem.kind, &problem.message);
    }
    if !takes_part(&container.labels, &settings, scope) || matches!(container.phase, Phase::Gone | Phase::Restarting) {
        return None;
    }
    let service = match service_id(&container.name, &container.labels, &settings) {
        Ok((service, written)) => match names.claim(&service, written) {
            Ok(()) => service,
            Err(message) => {
                complain(ConditionKind::NameClash, &message);
                return None;
            }
        },
        Err(error) => {
            complain(
                ConditionKind::InvalidName,
                &format!("{error}; mesh.service and mesh.namespace can give it others"),
            );
            return None;
        }
    };
    let place = match place::find(container, &settings, containers, scope) {
        Ok((place, remarks)) => {
            remarks.iter().for_each(|(kind, message)| complain(*kind, message));
            place
        }
        Err(message) => {
            complain(ConditionKind::NoSharedNetwork, &message);
            return None;
        }
    };
    let ports = ports(container, &settings);
    if ports.is_empty() {
        let message = "it exposes no TCP port, and neither mesh.port nor mesh.ports.<name>.port names one; \
                       a dialled port is carried as it is";
        complain(ConditionKind::NoPort, message);
    }
    Some(Member { container, settings, service, place, ports })
}

/// How each service's names were written before they were brought into shape: two different writings are two services, and
/// only one of them can have the name.
#[derive(Default)]
struct Names {
    written: BTreeMap<ServiceId, (String, String)>,
}

impl Names {
    fn claim(&mut self, service: &ServiceId, written: (String, String)) -> Result<(), String> {
        let holder = self.written.entry(service.clone()).or_insert_with(|| written.clone());
        if *holder == written {
            return Ok(());
        }
        let (theirs, ours) = (&*holder, &written);
        Err(format!(
            "{:?} in {:?} becomes {service}, which is {:?} in {:?} already; mesh.service can give it another name",
            ours.0, ours.1, theirs.0, theirs.1
        ))
    }
}

/// The addresses of those that are about to start, and will take part. One that is not to stand for its service is left alone.
#[must_use]
pub fn arriving<'a>(arrivals: impl Iterator<Item = &'a Arrival>, scope: &Scope) -> BTreeMap<IpAddr, Arriving> {
    let mut found = BTreeMap::new();
    for arrival in arrivals.filter(|arrival| scope.wants(&arrival.labels)) {
        let (settings, _told_when_it_runs) = label::read(&arrival.labels);
        let stands_for_service = matches!(settings.capture, CaptureMode::Auto | CaptureMode::Service);
        if !takes_part(&arrival.labels, &settings, scope) || !stands_for_service {
            continue;
        }
        let Ok((service, _)) = service_id(&arrival.name, &arrival.labels, &settings) else { continue };
        let (id, network) = (EndpointId::new(&arrival.container, 0), arrival.network.clone());
        let arriving = Arriving { id, service, network };
        found.extend(arrival.addresses.iter().map(|address| (*address, arriving.clone())));
    }
    found
}

/// A one-off (`docker compose run`) carries every label of its service and yet serves nobody.
fn takes_part(labels: &BTreeMap<String, String>, settings: &Settings, scope: &Scope) -> bool {
    let one_off = labels.get(COMPOSE_ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    settings.enable.unwrap_or(scope.exposed_by_default) && !one_off
}

/// Its service, and service and namespace as they were written.
fn service_id(
    name: &str,
    labels: &BTreeMap<String, String>,
    settings: &Settings,
) -> Result<(ServiceId, (String, String)), NameError> {
    let label = |key| labels.get(key).filter(|value| !value.is_empty()).cloned();
    let said = |name: &Option<Name>| name.as_ref().map(|name| name.as_str().to_owned());
    let service = said(&settings.service).or_else(|| label(COMPOSE_SERVICE)).unwrap_or_else(|| name.to_owned());
    let namespace =
        said(&settings.namespace).or_else(|| label(COMPOSE_PROJECT)).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let id = ServiceId::new(Name::from_foreign(&service)?, Name::from_foreign(&namespace)?);
    Ok((id, (service, namespace)))
}

/// The ports that labels name; without any, all TCP ports that are exposed.
fn ports(container: &Container, settings: &Settings) -> Vec<PortSetting> {
    if !settings.ports.is_empty() {
        return settings.ports.clone();
    }
    let exposed = container.exposed_tcp.iter();
    exposed
        .map(|port| PortSetting { name: label::number_name(*port), port: *port, protocol: settings.protocol })
        .collect()
}

fn endpoint(member: Member<'_>, drains: &DrainBook, now: Instant) -> ObservedEndpoint {
    let Member { container, settings, service, place, ports } = member;
    let (state, reason, ready) = state(container, drains.is_draining(&container.id, now), !ports.is_empty());
    let image_version = || container.labels.get(IMAGE_VERSION).filter(|text| !text.is_empty());
    let endpoint = Endpoint {
        id: container.id.clone(),
        name: container.name.clone(),
        service,
        addresses: place.addresses,
        ports: ports.into_iter().map(|port| (port.name, port.port)).collect(),
        weight: settings.weight.unwrap_or(DEFAULT_WEIGHT),
        priority: 0,
        zone: settings.zone,
        version: settings.version.or_else(|| image_version().map(|text| text.as_str().into())),
        state,
        reason: reason.into(),
        publish_not_ready: settings.publish_not_ready,
        capture: settings.capture,
        own_names: place.own_names,
        aliases: place.aliases,
    };
    ObservedEndpoint { endpoint, ready }
}

/// Its state, why, and who has the last word on it.
fn state(container: &Container, draining: bool, has_port: bool) -> (EndpointState, &'static str, ReadySource) {
    use EndpointState::{Draining, NotReady, Ready};
    use ReadySource::{FirstAccept, Stated};
    match (container.phase, container.health) {
        _ if draining => (Draining, "it was told to stop", Stated),
        (Phase::Paused, _) => (NotReady, "paused", Stated),
        (Phase::Restarting | Phase::Gone, _) => (NotReady, "it does not run", Stated),
        (Phase::Running, Some(Health::Healthy)) => (Ready, "its healthcheck says healthy", Stated),
        (Phase::Running, Some(Health::Starting)) => (NotReady, "its healthcheck says starting", Stated),
        (Phase::Running, Some(Health::Unhealthy)) => (NotReady, "its healthcheck says unhealthy", Stated),
        (Phase::Running, None) if has_port => (NotReady, "its port has not accepted a connection yet", FirstAccept),
        (Phase::Running, None) => (Ready, "it runs; no port is known to try", Stated),
    }
}

/// One for each network namespace: its owner's where the owner takes part, else the eldest one's that lives in it.
fn workloads(members: &[Member<'_>]) -> Vec<Arc<Workload>> {
    let mut by_path: BTreeMap<&str, (&Member<'_>, bool)> = BTreeMap::new();
    for member in members {
        let Some(path) = &member.place.namespace_path else { continue };
        let owns = member.container.namespace_path.is_some();
        match by_path.get(&**path) {
            Some((_, true)) => {}
            Some(_) if !owns => {}
            _ => _ = by_path.insert(path, (member, owns)),
        }
    }
    let workload = |(path, (member, _)): (&str, (&Member<'_>, bool))| {
        Arc::new(Workload {
            id: member.container.id.clone(),
            name: member.container.name.clone(),
            service: member.service.clone(),
            namespace_path: path.into(),
            networks: member.place.networks.clone(),
        })
    };
    by_path.into_iter().map(workload).collect()
}
