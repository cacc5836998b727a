//! One unit of the simulated engine: a container, as those see it that look at it, and those that call it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::names::EndpointId;
use mesh_core::model::replicas::{MANAGED_BY_LABEL, ReplicaState};
use mesh_discovery::provider::docker::inspect::{Attachment, Container, Health, NetworkMode, Phase};
use mesh_discovery::runtime::{ObservedReplica, ReplicaSpec, StopOrder};

use crate::sky::{STEP, Sky};

pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A healthcheck says `unhealthy` after so long.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(2);

/// How a unit treats its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Good,
    Answers500,
    /// Accepts, and never answers.
    Hangs,
    /// Runs, and accepts no connection.
    Refuses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Up,
    Stopping { until: Duration },
    Ended { code: i32 },
}

#[derive(Debug, Clone)]
pub struct Unit {
    pub id: EndpointId,
    pub spec: Arc<ReplicaSpec>,
    pub address: IpAddr,
    pub life: Life,
    pub behaviour: Behaviour,
    pub is_paused: bool,
    pub listens_from: Duration,
    pub started: Duration,
    bad_since: Option<Duration>,
    /// Since then it was neither bad nor paused.
    well_since: Duration,
}

impl Unit {
    pub fn new(sky: &Sky, id: EndpointId, spec: Arc<ReplicaSpec>, address: IpAddr, takes: Duration) -> Self {
        Self {
            id,
            spec,
            address,
            life: Life::Up,
            behaviour: Behaviour::Good,
            is_paused: false,
            listens_from: sky.now + takes,
            started: sky.now,
            bad_since: None,
            well_since: sky.now,
        }
    }

    pub fn is_up(&self) -> bool {
        !matches!(self.life, Life::Ended { .. })
    }

    /// Whether its port accepts connections. The kernel accepts for one that is paused.
    pub fn accepts(&self, sky: &Sky) -> bool {
        self.is_up() && sky.now >= self.listens_from && self.behaviour != Behaviour::Refuses
    }

    pub fn answers(&self) -> bool {
        self.is_up() && !self.is_paused && matches!(self.behaviour, Behaviour::Good | Behaviour::Answers500)
    }

    /// Up, and nothing has been wrong with it for longer than a message takes.
    pub fn has_long_been_well(&self, sky: &Sky) -> bool {
        let since = self.well_since.max(self.listens_from);
        self.life == Life::Up && self.behaviour == Behaviour::Good && sky.now >= since + Duration::from_secs(10)
    }

    /// Time passes. True when its state changed by itself.
    pub fn advance(&mut self, sky: &Sky) -> bool {
        let before = self.bad_since;
        let is_bad = self.behaviour != Behaviour::Good;
        if is_bad || self.is_paused || self.life != Life::Up {
            self.well_since = sky.now;
        }
        self.bad_since = if is_bad { self.bad_since.or(Some(sky.now)) } else { None };
        let noticed = self.bad_since.is_some_and(|since| is_now(sky, since + UNHEALTHY_AFTER));
        noticed || is_now(sky, self.listens_from) || before != self.bad_since
    }

    fn health(&self, sky: &Sky) -> Option<Health> {
        self.spec.service.healthcheck.as_ref()?;
        let bad_for = self.bad_since.map(|since| sky.now.saturating_sub(since));
        Some(match bad_for {
            _ if sky.now < self.listens_from => Health::Starting,
            Some(bad_for) if bad_for >= UNHEALTHY_AFTER => Health::Unhealthy,
            _ => Health::Healthy,
        })
    }

    /// As the engine's API tells it, which knows no word for "is being stopped".
    fn state(&self, sky: &Sky) -> ReplicaState {
        match (self.life, self.health(sky)) {
            (Life::Ended { code }, _) => ReplicaState::Exited { code: Some(code) },
            _ if self.is_paused => ReplicaState::Paused,
            (_, None) => ReplicaState::Running,
            (_, Some(Health::Starting)) => ReplicaState::Starting,
            (_, Some(Health::Healthy)) => ReplicaState::Healthy,
            (_, Some(Health::Unhealthy)) => ReplicaState::Unhealthy,
        }
    }

    /// As a provider reads it.
    pub fn container(&self, sky: &Sky) -> Container {
        let name: Arc<str> = self.spec.id.to_string().into();
        let attachment = Attachment {
            network_id: "net1".into(),
            addresses: vec![self.address],
            gateways: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254))],
            aliases: vec![self.spec.id.service.as_str().into()],
        };
        let ports: BTreeSet<u16> = self.spec.service.service_ports.iter().map(|port| port.port).collect();
        Container {
            id: self.id.clone(),
            hostname: self.id.unit[52..].into(),
            labels: self.spec.labels.clone(),
            exposed_tcp: ports,
            phase: if self.is_paused { Phase::Paused } else { Phase::Running },
            health: self.health(sky),
            network: NetworkMode::Own,
            attachments: [("shop_default".to_owned(), attachment)].into(),
            namespace_path: Some(format!("/run/docker/netns/{name}").into()),
            stop_signal: None,
            stop_timeout: STOP_TIMEOUT,
            name,
        }
    }

    /// As a runtime reads it.
    pub fn replica(&self, sky: &Sky) -> ObservedReplica {
        ObservedReplica {
            unit: self.id.unit.clone(),
            id: self.spec.id.clone(),
            name: self.spec.id.to_string(),
            state: self.state(sky),
            config_hash: self.spec.config_hash.clone(),
            managed: self.spec.labels.contains_key(MANAGED_BY_LABEL),
            address: Some(self.address),
            ports: Vec::new(),
            started_millis: None,
            stop: StopOrder { signal: None, grace_period: STOP_TIMEOUT },
        }
    }
}

/// Whether the moment falls into this step.
fn is_now(sky: &Sky, moment: Duration) -> bool {
    moment <= sky.now && sky.now < moment + STEP
}
