//! Step 1 for local processes: what the process runtime runs, as services and endpoints. Each process has a loopback address
//! of its own, which every process of this host reaches.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::endpoint::{DEFAULT_WEIGHT, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::replicas::ReplicaState;
use mesh_core::model::service::ServicePort;
use mesh_core::task::drain::Drain;

use super::{Observation, ObservationSender, ObservedEndpoint, ObservedService, ProviderName, ReadySource, label};
use crate::runtime::Runtime as _;
use crate::runtime::process::{HttpProxy, ProcessRuntime, ProcessView};

/// As in conditions and metrics.
pub const NAME: ProviderName = "process";

/// Sends everything the runtime runs, at first and on each of its hints, until drained.
pub async fn run(runtime: Arc<ProcessRuntime>, sender: ObservationSender, mut drain: Drain) {
    let mut hints = runtime.hints();
    loop {
        hints.borrow_and_update();
        let (now, proxy) = (Instant::now(), runtime.http_proxy());
        if sender.send((NAME, observation(&runtime.views(), proxy, now))).await.is_err() {
            return;
        }
        let missed = async {
            match proxy.missed_at().filter(|at| now < *at) {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = drain.started() => return,
            () = missed => {}
            changed = hints.changed() => if changed.is_err() { return },
        }
    }
}

/// Who sends HTTP calls to where no proxy listens. One whose Compose file says where they go is its own affair.
fn unproxied(views: &[ProcessView], proxy: HttpProxy, now: Instant) -> Vec<Condition> {
    let sends = |view: &&ProcessView| {
        let service = &view.service.environment;
        view.replica.state.is_alive() && !["http_proxy", "HTTP_PROXY"].iter().any(|key| service.contains_key(*key))
    };
    let mut sending = views.iter().filter(sends).peekable();
    if sending.peek().is_none() {
        return Vec::new();
    }
    let condition = |object: String, message: String| Condition::new(object, ConditionKind::NoHttpProxy, message);
    if !proxy.is_there() {
        let message = format!(
            "processes send their HTTP calls to {0}, and no mesh-proxy of this host has said that it listens there; start \
             `mesh-proxy --xds HOST:PORT` with the address of discovery's --xds-listen (and `--http-proxy {0}`, where that is not its default)",
            proxy.address()
        );
        let is_missed = proxy.missed_at().is_some_and(|at| at <= now);
        return is_missed.then(|| condition(format!("provider/{NAME}"), message)).into_iter().collect();
    }
    let elsewhere = sending.filter_map(|view| Some((view, view.http_proxy.filter(|told| *told != proxy.address())?)));
    elsewhere
        .map(|(view, told)| {
            let message = format!(
                "it sends its HTTP calls to {told}, where it was told when it was started that a proxy listens; one listens at {}: \
                 kill the process, and another takes its place; or start mesh-proxy with `--http-proxy {told}`",
                proxy.address()
            );
            condition(format!("process/{}", view.replica.id), message)
        })
        .collect()
}

/// All processes as the registry takes them. One that has ended is no endpoint any more.
#[must_use]
pub fn observation(views: &[ProcessView], proxy: HttpProxy, now: Instant) -> Observation {
    let mut observation = Observation { conditions: unproxied(views, proxy, now), ..Observation::default() };
    let mut services: BTreeMap<ServiceId, ObservedService> = BTreeMap::new();
    for view in views.iter().filter(|view| view.replica.state.is_alive()) {
        let object = format!("process/{}", view.replica.id);
        let (settings, problems) = label::read(&view.labels);
        if settings.enable == Some(false) {
            continue;
        }
        let conditions = problems.into_iter().map(|problem| Condition::new(&object, problem.kind, problem.message));
        observation.conditions.extend(conditions);
        let id = ServiceId::new(
            settings.service.clone().unwrap_or_else(|| view.replica.id.service.clone()),
            settings.namespace.clone().unwrap_or_else(|| view.replica.id.project.clone()),
        );
        let ports = ports(view, &settings);
        if ports.is_empty() {
            let message = "nothing says on which port it serves; set `expose`, or the label mesh.port";
            observation.conditions.push(Condition::new(&object, ConditionKind::NoPort, message));
            continue;
        }
        let service = services.entry(id.clone()).or_insert_with(|| ObservedService {
            id: id.clone(),
            ports: Vec::new(),
            policy: Policy::default(),
        });
        service.policy = settings.policy.clone().unwrap_or_else(|| service.policy.clone());
        for port in &ports {
            if service.ports.iter().all(|known| known.port != port.port) {
                service.ports.push(port.clone());
            }
        }
        observation.endpoints.push(endpoint(view, id, &ports, &settings));
    }
    observation.services = services.into_values().collect();
    for service in &mut observation.services {
        service.ports.sort_by_key(|port| port.port);
    }
    observation
}

fn ports(view: &ProcessView, settings: &label::Settings) -> Vec<ServicePort> {
    if !settings.ports.is_empty() {
        let port = |port: &label::PortSetting| ServicePort {
            name: port.name.clone(),
            port: port.port,
            protocol: port.protocol,
        };
        return settings.ports.iter().map(port).collect();
    }
    let protocol = |declared: Protocol| if declared == Protocol::Auto { settings.protocol } else { declared };
    let declared = view.service.service_ports.iter();
    declared
        .map(|port| ServicePort { name: port.name.clone(), port: port.port, protocol: protocol(port.protocol) })
        .collect()
}

fn endpoint(
    view: &ProcessView,
    service: ServiceId,
    ports: &[ServicePort],
    settings: &label::Settings,
) -> ObservedEndpoint {
    let replica = &view.replica;
    let (state, reason) = match replica.state {
        ReplicaState::Healthy => (EndpointState::Ready, "its healthcheck passes"),
        ReplicaState::Stopping => (EndpointState::Draining, "it was told to stop"),
        ReplicaState::Starting => (EndpointState::NotReady, "its healthcheck has not passed yet"),
        ReplicaState::Unhealthy => (EndpointState::NotReady, "its healthcheck fails"),
        ReplicaState::Running => (EndpointState::NotReady, "its port has not accepted a connection yet"),
        ReplicaState::Paused => (EndpointState::NotReady, "it is paused"),
        ReplicaState::NotStarted | ReplicaState::Created | ReplicaState::Exited { .. } => {
            (EndpointState::NotReady, "it does not run")
        }
    };
    let ready = match replica.state {
        ReplicaState::Running => ReadySource::FirstAccept,
        _ => ReadySource::Stated,
    };
    let address = replica.address.map(|address| NetworkAddress { network: "host".into(), address });
    let endpoint = Endpoint {
        id: EndpointId::new(&replica.unit, replica.started_millis.unwrap_or(0)),
        name: replica.name.as_str().into(),
        aliases: vec![replica.id.service.as_str().into()],
        service,
        addresses: address.into_iter().collect(),
        ports: ports.iter().map(|port| (port.name.clone(), port.port)).collect(),
        weight: settings.weight.unwrap_or(DEFAULT_WEIGHT),
        priority: 0,
        zone: settings.zone.clone(),
        version: settings.version.clone(),
        state,
        reason: reason.into(),
        publish_not_ready: settings.publish_not_ready,
        capture: settings.capture,
        own_names: vec![replica.name.as_str().into()],
    };
    ObservedEndpoint { endpoint, ready }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use mesh_core::compose::{self, Overrides};
    use mesh_core::model::names::Name;
    use mesh_core::model::replicas::ReplicaId;

    use super::*;
    use crate::controller::spec::replica_spec;
    use crate::runtime::{ObservedReplica, StopOrder};

    /// Replica `number` of `web` with these keys, in a state.
    fn view(keys: &str, number: u32, state: ReplicaState) -> ProcessView {
        let text =
            format!("name: shop\nx-mesh: {{ runtime: process }}\nservices: {{ web: {{ command: [x], {keys} }} }}");
        let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
        let project = compose::read("compose.yaml", &text, &BTreeMap::new(), &overrides).unwrap();
        let id = ReplicaId::new(project.name.clone(), Name::new("web").unwrap(), number);
        let spec = replica_spec(&project, &id).unwrap();
        let replica = ObservedReplica {
            unit: format!("pid-{number}-7").into(),
            name: id.to_string(),
            id,
            state,
            config_hash: spec.config_hash,
            managed: true,
            address: Some(IpAddr::V4(Ipv4Addr::new(127, 77, 0, u8::try_from(number).unwrap()))),
            ports: Vec::new(),
            started_millis: Some(5),
            stop: StopOrder { signal: None, grace_period: std::time::Duration::ZERO },
        };
        ProcessView { replica, labels: spec.labels, service: spec.service, has_healthcheck: false, http_proxy: None }
    }

    /// As it is seen while a proxy is there.
    fn seen(views: &[ProcessView]) -> Observation {
        observation(views, HttpProxy::there("127.0.0.1:14008".parse().unwrap()), Instant::now())
    }

    #[test]
    fn the_state_of_a_process_is_the_state_of_its_endpoint() {
        let check = |state: ReplicaState, expected: Option<(EndpointState, ReadySource)>| {
            let observed = seen(&[view("expose: [80]", 1, state)]);
            let found = observed.endpoints.first().map(|endpoint| (endpoint.endpoint.state, endpoint.ready));
            assert_eq!(found, expected, "{state}");
        };
        check(ReplicaState::Running, Some((EndpointState::NotReady, ReadySource::FirstAccept)));
        check(ReplicaState::Healthy, Some((EndpointState::Ready, ReadySource::Stated)));
        check(ReplicaState::Starting, Some((EndpointState::NotReady, ReadySource::Stated)));
        check(ReplicaState::Unhealthy, Some((EndpointState::NotReady, ReadySource::Stated)));
        check(ReplicaState::Stopping, Some((EndpointState::Draining, ReadySource::Stated)));
        check(ReplicaState::Exited { code: Some(0) }, None);
    }

    #[test]
    fn labels_say_which_service_share_and_ports_it_has() {
        let plain = view("expose: [80, 81]", 1, ReplicaState::Healthy);
        let labels =
            "labels: { mesh.service: api, mesh.weight: '20', mesh.port: '90', mesh.protocol: grpc, mesh.wieght: 1 }";
        let observed = seen(&[plain, view(labels, 2, ReplicaState::Healthy)]);
        let services: Vec<_> = observed
            .services
            .iter()
            .map(|service| {
                let ports: Vec<_> =
                    service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
                format!("{} {}", service.id, ports.join(" "))
            })
            .collect();
        assert_eq!(services, ["api.shop 90/grpc", "web.shop 80/auto 81/auto"]);
        let canary = &observed.endpoints[1].endpoint;
        assert_eq!((canary.weight, canary.id.to_string().as_str(), &*canary.aliases[0]), (20, "pid-2-7@5", "web"));
        assert_eq!(canary.address(), Some(IpAddr::V4(Ipv4Addr::new(127, 77, 0, 2))));
        let condition = observed.conditions.iter().map(|condition| format!("{} {}", condition.object, condition.kind));
        assert_eq!(condition.collect::<Vec<_>>(), ["process/shop-web-2 UnknownLabel"]);
    }

    #[test]
    fn one_without_a_port_or_outside_the_mesh_is_no_endpoint() {
        let observed = seen(&[view("user:", 1, ReplicaState::Running)]);
        assert!(observed.endpoints.is_empty() && observed.services.is_empty());
        assert_eq!(observed.conditions[0].kind, ConditionKind::NoPort);
        let outside = view("expose: [80], labels: { mesh.enable: 'false' }", 1, ReplicaState::Running);
        assert_eq!(seen(&[outside]), Observation::default());
    }

    #[test]
    fn processes_whose_calls_go_nowhere_are_told_of() {
        let start = Instant::now();
        let [here, there] = ["127.0.0.1:14008", "127.0.0.1:15000"].map(|address| address.parse().unwrap());
        let mut views =
            [view("expose: [80]", 1, ReplicaState::Healthy), view("expose: [80]", 2, ReplicaState::Healthy)];
        (views[0].http_proxy, views[1].http_proxy) = (Some(here), Some(there));
        let told = |views: &[ProcessView], proxy, now| {
            let observed = observation(views, proxy, now);
            let lines = observed.conditions.iter().map(|condition| format!("{} {}", condition.object, condition.kind));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(told(&views, HttpProxy::there(here), start), ["process/shop-web-2 NoHttpProxy"]);
        let away = HttpProxy::away(here, start);
        assert_eq!(told(&views, away, start), [""; 0], "it may be on its way back");
        let missed = away.missed_at().unwrap();
        assert_eq!(told(&views, away, missed), ["provider/process NoHttpProxy"]);
        assert_eq!(told(&[], away, missed), [""; 0]);
        let own = view("expose: [80], environment: { http_proxy: '' }", 1, ReplicaState::Healthy);
        assert_eq!(told(&[own], away, missed), [""; 0], "its file says that it wants none");
    }
}
