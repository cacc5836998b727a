//! What of a container matters to the mesh, taken out of the engine's inspection. Everything after this file speaks of
//! [`Container`] and knows nothing of the engine's API.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, EndpointSettings, HealthStatusEnum};
use mesh_core::config::timestamp::millis_since_epoch;
use mesh_core::model::names::EndpointId;

use super::drain::STOP_TIMEOUT_DEFAULT;

/// One container, as it was when it was inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Full id, and the start of this life in milliseconds.
    pub id: EndpointId,
    /// Without the leading slash.
    pub name: Arc<str>,
    pub hostname: Arc<str>,
    /// Its own and its image's.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that image or container expose.
    pub exposed_tcp: BTreeSet<u16>,
    pub phase: Phase,
    /// None without a HEALTHCHECK.
    pub health: Option<Health>,
    pub network: NetworkMode,
    /// By the network's name, with an address.
    pub attachments: BTreeMap<String, Attachment>,
    /// The engine's name for the namespace file; none on the host's network and in another container's.
    pub namespace_path: Option<Arc<str>>,
    /// As image or container write it.
    pub stop_signal: Option<String>,
    pub stop_timeout: Duration,
}

/// Where in its life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Running,
    Paused,
    /// Ended, and about to be started again by its restart policy.
    Restarting,
    /// Not started yet, ended, or being removed.
    Gone,
}

/// What its HEALTHCHECK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// Whose network namespace it lives in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    Own,
    Host,
    None,
    /// Another container's, by id or name.
    Container(Arc<str>),
}

/// It on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub network_id: Arc<str>,
    /// IPv4 first; never none.
    pub addresses: Vec<IpAddr>,
    /// The host's own addresses there; internal networks have none.
    pub gateways: Vec<IpAddr>,
    pub aliases: Vec<Arc<str>>,
}

impl Container {
    /// Takes what matters out of the engine's answer. None for an answer without an id.
    #[must_use]
    pub fn from_inspect(inspected: ContainerInspectResponse) -> Option<Self> {
        let id = inspected.id.filter(|id| !id.is_empty())?;
        let config = inspected.config.unwrap_or_default();
        let state = inspected.state.unwrap_or_default();
        let settings = inspected.network_settings.unwrap_or_default();
        let mode = inspected.host_config.and_then(|host| host.network_mode).unwrap_or_default();
        let network = network_mode(&mode);
        let own_namespace = matches!(network, NetworkMode::Own | NetworkMode::None);
        let started = state.started_at.as_deref().and_then(millis_since_epoch).unwrap_or(0);
        let name = inspected.name.unwrap_or_default();
        Some(Self {
            hostname: config.hostname.unwrap_or_default().into(),
            name: name.trim_start_matches('/').into(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            exposed_tcp: config.exposed_ports.unwrap_or_default().iter().filter_map(|port| tcp_port(port)).collect(),
            phase: phase(state.status, state.running, state.paused, state.restarting),
            health: state.health.and_then(|health| health.status).and_then(health),
            attachments: settings
                .networks
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, endpoint)| Some((name, attachment(endpoint)?)))
                .collect(),
            namespace_path: settings.sandbox_key.filter(|key| own_namespace && !key.is_empty()).map(Into::into),
            network,
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout.map_or(STOP_TIMEOUT_DEFAULT, |seconds| {
                // -1 waits for ever; a day is as good, and has a sum with any instant.
                Duration::from_secs(u64::try_from(seconds).unwrap_or(86_400).min(86_400))
            }),
            id: EndpointId::new(&id, started),
        })
    }

    /// As `docker ps` prints it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.unit.get(..12).unwrap_or(&self.id.unit)
    }

    /// Whether `reference`, an id, the beginning of one, or a name, means this container.
    #[must_use]
    pub fn is_called(&self, reference: &str) -> bool {
        let by_id = reference.len() >= 12 && self.id.unit.starts_with(reference);
        by_id || *self.name == *reference.trim_start_matches('/')
    }
}

fn phase(
    status: Option<ContainerStateStatusEnum>,
    running: Option<bool>,
    paused: Option<bool>,
    restarting: Option<bool>,
) -> Phase {
    // The flags overlap (a paused one runs too), so the most telling comes first.
    match status {
        _ if paused == Some(true) => Phase::Paused,
        _ if restarting == Some(true) => Phase::Restarting,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => Phase::Running,
        Some(ContainerStateStatusEnum::EMPTY) | None if running == Some(true) => Phase::Running,
        _ => Phase::Gone,
    }
}

fn health(status: HealthStatusEnum) -> Option<Health> {
    match status {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

fn network_mode(mode: &str) -> NetworkMode {
    match mode {
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        _ => match mode.strip_prefix("container:") {
            Some(owner) => NetworkMode::Container(owner.into()),
            None => NetworkMode::Own,
        },
    }
}

/// `8080/tcp` and plain `8080`; none for another protocol.
fn tcp_port(exposed: &str) -> Option<u16> {
    let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
    if protocol == "tcp" { port.parse().ok().filter(|port| *port > 0) } else { None }
}

fn attachment(endpoint: EndpointSettings) -> Option<Attachment> {
    let those = |texts: [Option<String>; 2]| -> Vec<IpAddr> {
        texts.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
    };
    let addresses = those([endpoint.ip_address, endpoint.global_ipv6_address]);
    (!addresses.is_empty()).then(|| Attachment {
        network_id: endpoint.network_id.unwrap_or_default().into(),
        addresses,
        gateways: those([endpoint.gateway, endpoint.ipv6_gateway]),
        aliases: endpoint.aliases.unwrap_or_default().into_iter().map(Into::into).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_answer_is_no_container_and_an_odd_one_does_no_harm() {
        assert_eq!(Container::from_inspect(ContainerInspectResponse::default()), None);
        let odd = ContainerInspectResponse { id: Some("x".to_owned()), ..Default::default() };
        let container = Container::from_inspect(odd).unwrap();
        assert_eq!((container.phase, container.short_id()), (Phase::Gone, "x"));
    }

    #[test]
    fn ports_of_other_protocols_are_left_out() {
        let ports = ["80/tcp", "53/udp", "8080", "0/tcp", "x/tcp"];
        assert_eq!(ports.iter().filter_map(|port| tcp_port(port)).collect::<Vec<_>>(), [80, 8080]);
    }

    #[test]
    fn a_paused_container_is_paused_though_it_runs() {
        use ContainerStateStatusEnum::{CREATED, RESTARTING, RUNNING};
        assert_eq!(phase(Some(RUNNING), Some(true), Some(true), None), Phase::Paused);
        assert_eq!(phase(Some(RESTARTING), Some(true), None, Some(true)), Phase::Restarting);
        assert_eq!(phase(Some(RUNNING), Some(true), None, None), Phase::Running);
        assert_eq!(phase(Some(CREATED), None, None, None), Phase::Gone);
    }
}
