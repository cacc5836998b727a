//! What the engine is asked to make of one replica.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, NetworkConnectRequest, NetworkingConfig,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use mesh_core::compose::{Attachment, HealthTest, Healthcheck, Service};

use super::marks;
use crate::runtime::ReplicaSpec;

/// The container, on the first of its networks; and the further networks, by name, with the request to connect it (older
/// engines take one network when a container is made).
pub(super) fn body(
    spec: &ReplicaSpec,
    labels: &BTreeMap<String, String>,
) -> (ContainerCreateBody, Vec<(String, NetworkConnectRequest)>) {
    let service = &spec.service;
    let mut networks = service.networks.iter().map(|(key, attachment)| {
        let name = spec.networks.get(key).map_or(key, |network| &network.name);
        (name.clone(), endpoint(spec, attachment))
    });
    let first = networks.next();
    let further = networks.map(|(name, endpoint)| {
        (name, NetworkConnectRequest { container: String::new(), endpoint_config: Some(endpoint) })
    });
    let further = further.collect();
    let host = HostConfig {
        binds: Some(service.volumes.iter().map(bind).collect()),
        network_mode: first.as_ref().map(|(name, _)| name.clone()),
        port_bindings: Some(port_bindings(service)),
        // Whether it runs again is for the controller to decide; two who restart it would fight.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    };
    let mut all_labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    all_labels.extend(marks(labels));
    let body = ContainerCreateBody {
        image: service.image.clone(),
        entrypoint: service.entrypoint.clone(),
        cmd: service.command.clone(),
        env: Some(service.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        working_dir: service.working_dir.clone(),
        user: service.user.clone(),
        labels: Some(all_labels),
        exposed_ports: Some(exposed_ports(service)),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: Some(i64::try_from(service.stop_grace_period.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)),
        host_config: Some(host),
        networking_config: first
            .map(|(name, endpoint)| NetworkingConfig { endpoints_config: Some(HashMap::from([(name, endpoint)])) }),
        ..ContainerCreateBody::default()
    };
    (body, further)
}

/// The replica under its service's name and the file's further aliases, as Compose does it.
fn endpoint(spec: &ReplicaSpec, attachment: &Attachment) -> EndpointSettings {
    let mut aliases = vec![spec.id.service.to_string()];
    aliases.extend(attachment.aliases.iter().filter(|alias| **alias != *spec.id.service.as_str()).cloned());
    EndpointSettings { aliases: Some(aliases), ..EndpointSettings::default() }
}

fn bind(volume: &mesh_core::compose::Volume) -> String {
    let mode = if volume.read_only { "ro" } else { "rw" };
    format!("{}:{}:{mode}", volume.source.display(), volume.target)
}

fn exposed_ports(service: &Service) -> Vec<String> {
    let declared = service.service_ports.iter().map(|port| format!("{}/tcp", port.port));
    let published = service.published_ports.iter().map(|port| format!("{}/{}", port.target, port.protocol));
    let mut all: Vec<String> = declared.chain(published).collect();
    all.sort();
    all.dedup();
    all
}

fn port_bindings(service: &Service) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.published_ports {
        // Empty: the engine chooses one.
        let host_port = port.published.map(|port| port.to_string()).or_else(|| Some(String::new()));
        let binding = PortBinding { host_ip: port.host_ip.clone(), host_port };
        let key = format!("{}/{}", port.target, port.protocol);
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos =
        |duration: &Option<Duration>| duration.map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    match check {
        Healthcheck::Disabled => HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() },
        Healthcheck::Enabled { test, interval, timeout, retries, start_period, start_interval } => HealthConfig {
            // None keeps the image's.
            test: test.as_ref().map(|test| match test {
                HealthTest::Exec(words) => {
                    std::iter::once("CMD").map(str::to_owned).chain(words.iter().cloned()).collect()
                }
                HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            }),
            interval: nanos(interval),
            timeout: nanos(timeout),
            retries: retries.map(i64::from),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
        },
    }
}
