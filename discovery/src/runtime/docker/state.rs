//! What the engine says about one container, as a replica.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HealthStatusEnum};
use mesh_core::compose::DEFAULT_STOP_GRACE_PERIOD;
use mesh_core::config::timestamp::millis_since_epoch;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL, ReplicaId, ReplicaState, compose_label};

use crate::runtime::{ObservedReplica, StopOrder};

/// None for a container that is no replica: without project, service and number, or a one-off.
pub(super) fn replica(inspected: ContainerInspectResponse) -> Option<ObservedReplica> {
    let config = inspected.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let label = |key: &str| labels.get(key).map(String::as_str);
    if label(compose_label::ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let id = ReplicaId::new(
        Name::new(label(compose_label::PROJECT)?).ok()?,
        Name::new(label(compose_label::SERVICE)?).ok()?,
        label(compose_label::NUMBER)?.parse().ok()?,
    );
    let state = inspected.state.unwrap_or_default();
    let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut addresses: Vec<_> =
        networks.into_iter().filter_map(|(name, at)| Some((name, at.ip_address?.parse().ok()?))).collect();
    addresses.sort();
    let mut ports: Vec<u16> = config
        .exposed_ports
        .unwrap_or_default()
        .iter()
        .filter_map(|port| port.strip_suffix("/tcp")?.parse().ok())
        .collect();
    ports.sort_unstable();
    let seconds = config.stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
    Some(ObservedReplica {
        unit: inspected.id?.into(),
        id,
        name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        config_hash: label(compose_label::CONFIG_HASH).unwrap_or_default().into(),
        managed: label(MANAGED_BY_LABEL) == Some(MANAGED_BY),
        address: addresses.into_iter().next().map(|(_, address)| address),
        ports,
        started_millis: state.started_at.as_deref().and_then(millis_since_epoch),
        stop: StopOrder {
            signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            grace_period: seconds.map_or(DEFAULT_STOP_GRACE_PERIOD, Duration::from_secs),
        },
        state: lifecycle(&state),
    })
}

fn lifecycle(state: &ContainerState) -> ReplicaState {
    use ContainerStateStatusEnum::{CREATED, EMPTY, PAUSED, REMOVING, RESTARTING, RUNNING, STOPPING};
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    match state.status {
        Some(CREATED) => ReplicaState::Created,
        Some(PAUSED) => ReplicaState::Paused,
        Some(STOPPING | REMOVING) if state.running == Some(true) => ReplicaState::Stopping,
        // Somebody else's restart policy is about to start it again.
        Some(RESTARTING) => ReplicaState::Starting,
        Some(RUNNING) => health(state),
        Some(EMPTY) | None if state.running == Some(true) => health(state),
        _ => ReplicaState::Exited { code },
    }
}

fn health(state: &ContainerState) -> ReplicaState {
    match state.health.as_ref().and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => ReplicaState::Starting,
        Some(HealthStatusEnum::HEALTHY) => ReplicaState::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => ReplicaState::Unhealthy,
        Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => ReplicaState::Running,
    }
}
