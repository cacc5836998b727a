//! Services that were asked for exist, whether one of their replicas is there or not: `scale web=0` leaves the name and its
//! virtual IP, and a call is told that nobody serves. What providers see of the replicas is added to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::compose::Service as Wanted;
use mesh_core::model::names::{Name, ServiceId};
use mesh_core::model::protocol::Protocol;
use mesh_core::model::replicas::RuntimeKind;
use mesh_core::model::service::ServicePort;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use tokio::sync::watch;

use crate::controller::spec::DesiredProjects;
use crate::provider::label::{self, Settings};
use crate::provider::{Observation, ObservationSender, ObservedService, ProviderName};

/// As in conditions and metrics.
pub const NAME: ProviderName = "declared";

/// Ports that only replicas told of (their image exposes them), for as long as there is none.
type Seen = BTreeMap<ServiceId, Vec<ServicePort>>;

/// Sends every service that was asked for, at first and on each change, until drained.
pub(super) async fn run(
    mut projects: watch::Receiver<Option<DesiredProjects>>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    sender: ObservationSender,
    mut drain: Drain,
) {
    let (mut seen, mut told) = (Seen::new(), None);
    loop {
        let wanted = projects.borrow_and_update().clone();
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let observation = observe(&wanted, &snapshot, &mut seen);
            if told.as_ref() != Some(&observation) {
                told = Some(observation.clone());
                if sender.send((NAME, observation)).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            () = drain.started() => return,
            changed = projects.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

fn observe(projects: &DesiredProjects, snapshot: &Snapshot, seen: &mut Seen) -> Observation {
    let mut services: BTreeMap<ServiceId, ObservedService> = BTreeMap::new();
    let desired = projects.values().filter(|desired| !desired.is_down).map(|desired| &desired.project);
    for (project, name, wanted) in
        desired.flat_map(|project| project.services.iter().map(|(n, s)| (&project.name, n, s)))
    {
        // Its problems are told of each replica.
        let (settings, _told_elsewhere) = label::read(&wanted.labels);
        if settings.enable == Some(false) {
            continue;
        }
        let id = service_id(project, name, &settings);
        let service = services.entry(id.clone()).or_insert_with(|| ObservedService {
            id: id.clone(),
            ports: Vec::new(),
            policy: settings.policy.clone().unwrap_or_default(),
        });
        for port in ports(wanted, &settings) {
            if service.ports.iter().all(|known| known.port != port.port && known.name != port.name) {
                service.ports.push(port);
            }
        }
    }
    remember(&services, snapshot, seen);
    for (id, ports) in seen.iter().filter(|(id, _)| snapshot.endpoints_of(id).is_empty()) {
        if let Some(service) = services.get_mut(id).filter(|service| service.ports.is_empty()) {
            service.ports.clone_from(ports);
        }
    }
    let is_process = |id: &ServiceId| {
        let project = projects.get(&id.namespace).map(|desired| &desired.project);
        let wanted = project.and_then(|project| project.services.get(&id.name));
        wanted.is_some_and(|wanted| wanted.runtime == RuntimeKind::Process)
    };
    // A process that says no port serves nobody; of a container's own port its image may say more.
    services.retain(|id, service| !service.ports.is_empty() || !is_process(id));
    Observation { services: services.into_values().collect(), ..Observation::default() }
}

fn remember(services: &BTreeMap<ServiceId, ObservedService>, snapshot: &Snapshot, seen: &mut Seen) {
    seen.retain(|id, _| services.contains_key(id));
    for id in services.keys().filter(|id| !snapshot.endpoints_of(id).is_empty()) {
        if let Some(service) = snapshot.services.get(id) {
            seen.insert(id.clone(), service.ports.clone());
        }
    }
}

/// As its replicas are called.
fn service_id(project: &Name, name: &Name, settings: &Settings) -> ServiceId {
    ServiceId::new(
        settings.service.clone().unwrap_or_else(|| name.clone()),
        settings.namespace.clone().unwrap_or_else(|| project.clone()),
    )
}

/// Those that labels name; without any, what the file declares otherwise.
fn ports(wanted: &Wanted, settings: &Settings) -> Vec<ServicePort> {
    let of_label =
        |port: &label::PortSetting| ServicePort { name: port.name.clone(), port: port.port, protocol: port.protocol };
    if !settings.ports.is_empty() {
        return settings.ports.iter().map(of_label).collect();
    }
    let protocol = |declared: Protocol| if declared == Protocol::Auto { settings.protocol } else { declared };
    let declared = wanted.service_ports.iter();
    declared
        .map(|port| ServicePort { name: port.name.clone(), port: port.port, protocol: protocol(port.protocol) })
        .collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::compose::{self, Overrides};
    use mesh_core::model::endpoint::{CaptureMode, Endpoint, EndpointState};
    use mesh_core::model::names::EndpointId;
    use mesh_core::model::service::Service;

    use super::*;
    use crate::controller::spec::Desired;

    fn projects(services: &str, is_down: bool) -> DesiredProjects {
        let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
        let text = format!("name: shop\nservices:\n{services}");
        let project = compose::read("compose.yaml", &text, &BTreeMap::new(), &overrides).unwrap();
        [(project.name.clone(), Arc::new(Desired { project, is_down }))].into()
    }

    fn told(observation: &Observation) -> Vec<String> {
        let ports = |service: &ObservedService| {
            service.ports.iter().map(|port| format!(" {}/{}", port.name, port.port)).collect::<String>()
        };
        observation.services.iter().map(|service| format!("{}{}", service.id, ports(service))).collect()
    }

    #[test]
    fn what_was_asked_for_exists_without_a_replica() {
        let file = "  web: { image: w, expose: [80], scale: 0 }\n  \
                    canary: { image: w, expose: [80], labels: { mesh.service: web } }\n  \
                    db: { image: d, labels: { mesh.port: '5432' } }\n  \
                    out: { image: o, expose: [80], labels: { mesh.enable: 'false' } }\n  \
                    job: { command: [sleep, '1'], x-mesh: { runtime: process } }\n";
        let (snapshot, mut seen) = (Snapshot::default(), Seen::new());
        let all = observe(&projects(file, false), &snapshot, &mut seen);
        assert_eq!(told(&all), ["db.shop 5432/5432", "web.shop 80/80"]);
        assert!(observe(&projects(file, true), &snapshot, &mut seen).services.is_empty());
    }

    #[test]
    fn ports_that_an_image_exposes_are_known_once_a_replica_was_there() {
        let wanted = projects("  web: { image: w }\n", false);
        let id = ServiceId::new(Name::new("web").unwrap(), Name::new("shop").unwrap());
        let port = ServicePort { name: Name::new("8080").unwrap(), port: 8080, protocol: Protocol::Auto };
        let service = Service {
            id: id.clone(),
            virtual_ip: "10.0.0.1".parse().unwrap(),
            ports: vec![port],
            policy: Default::default(),
        };
        let endpoint = Endpoint {
            id: EndpointId::new("one", 1),
            name: "shop-web-1".into(),
            service: id.clone(),
            addresses: Vec::new(),
            ports: BTreeMap::new(),
            weight: 1,
            priority: 0,
            zone: None,
            version: None,
            state: EndpointState::Ready,
            reason: "".into(),
            publish_not_ready: false,
            capture: CaptureMode::Auto,
            own_names: Vec::new(),
            aliases: Vec::new(),
        };
        let mut seen = Seen::new();
        let with = Snapshot {
            services: [(id.clone(), Arc::new(service))].into(),
            endpoints: [(id, Arc::from([Arc::new(endpoint)]))].into(),
            ..Snapshot::default()
        };
        assert_eq!(told(&observe(&wanted, &Snapshot::default(), &mut seen)), ["web.shop"]);
        assert_eq!(told(&observe(&wanted, &with, &mut seen)), ["web.shop"]);
        assert_eq!(told(&observe(&wanted, &Snapshot::default(), &mut seen)), ["web.shop 8080/8080"]);
    }
}
