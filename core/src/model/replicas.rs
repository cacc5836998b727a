//! Replicas: what was asked for, what runs, and the numbered plan that leads from one to the other. These are also the words
//! in which the controller's HTTP API speaks.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{Name, ServiceId};

/// On every unit that the controller made, with [`MANAGED_BY`] as its value; nothing without it is ever touched.
pub const MANAGED_BY_LABEL: &str = "mesh.managed-by";
/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "weft";

/// Compose's own labels, which keep `docker compose ps` working on what the controller made.
pub mod compose_label {
    pub const PROJECT: &str = "com.docker.compose.project";
    pub const SERVICE: &str = "com.docker.compose.service";
    pub const NUMBER: &str = "com.docker.compose.container-number";
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    pub const ONEOFF: &str = "com.docker.compose.oneoff";
    pub const NETWORK: &str = "com.docker.compose.network";
    pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
}

/// What replicas are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Containers.
    Docker,
    /// Processes on this host.
    Process,
}

impl RuntimeKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One slot of a service: it stays the same while what fills it is replaced. Written `shop-web-1`, as Compose names
/// containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    pub project: Name,
    /// Compose's service, which `mesh.service` may publish under another name.
    pub service: Name,
    /// From 1.
    pub number: u32,
}

impl ReplicaId {
    #[must_use]
    pub fn new(project: Name, service: Name, number: u32) -> Self {
        Self { project, service, number }
    }

    #[must_use]
    pub fn compose_service(&self) -> ServiceId {
        ServiceId::new(self.service.clone(), self.project.clone())
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.project, self.service, self.number)
    }
}

/// What a runtime says about one unit. Whether it is *ready* is for the snapshot to say, unless a healthcheck says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum ReplicaState {
    /// Wanted, and nothing of it is there. No runtime says this.
    NotStarted,
    /// Made, and not started yet.
    Created,
    /// Runs; its healthcheck has not passed yet.
    Starting,
    /// Runs, and has no healthcheck.
    Running,
    /// Runs, and its healthcheck passes.
    Healthy,
    /// Runs, and its healthcheck failed as often as `retries` allows.
    Unhealthy,
    /// Frozen by somebody; left alone.
    Paused,
    /// Was told to stop, and has not ended yet.
    Stopping,
    /// Ended. `code` is none where nobody saw it end; a signal counts as 128 plus its number.
    Exited { code: Option<i32> },
}

impl ReplicaState {
    /// Has not ended.
    #[must_use]
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::NotStarted | Self::Created | Self::Exited { .. })
    }
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("not started"),
            Self::Created => f.write_str("created"),
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy => f.write_str("unhealthy"),
            Self::Paused => f.write_str("paused"),
            Self::Stopping => f.write_str("stopping"),
            Self::Exited { code: Some(code) } => write!(f, "exited ({code})"),
            Self::Exited { code: None } => f.write_str("exited"),
        }
    }
}

/// What a step does to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Fill an empty slot.
    Start,
    /// Take out what is in the slot, and fill it anew.
    Replace,
    /// Take out what is in the slot, for good.
    Remove,
}

impl Action {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Replace => "replace",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing to do. The steps of a plan do not depend on each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub action: Action,
    pub replica: ReplicaId,
    /// What the runtime calls the unit that is taken out; none for [`Action::Start`].
    pub unit: Option<Arc<str>>,
    /// `exited (137)`, `2 of 3 replicas run`.
    pub reason: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.replica, self.reason)
    }
}

/// Something that one might expect in the plan, and why it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTaken {
    pub action: Action,
    pub replica: ReplicaId,
    /// `waits until db is healthy`, `back-off: next try in 1.5s`.
    pub reason: String,
}

/// What is to be done now. When it is done, or anything else changes, the next plan is made: what has to wait for
/// something stands in `not_taken`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Grows by one with each plan; execution refuses an older one than the newest.
    pub number: u64,
    /// The snapshot whose readiness it rests on.
    pub snapshot: u64,
    pub steps: Vec<Step>,
    pub not_taken: Vec<NotTaken>,
}

impl Plan {
    /// Nothing to do and nothing waited for: what runs is what was asked for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.not_taken.is_empty()
    }
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum StepOutcome {
    Begun,
    Done,
    /// It is tried again with back-off.
    Failed {
        error: String,
        /// Every further try will fail like this one, unless somebody does something.
        #[serde(default)]
        lasting: bool,
    },
}

/// One line of the controller's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Grows by one with each event, from 1.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub at_millis: u64,
    /// The plan that had the step.
    pub plan: u64,
    pub step: Step,
    pub outcome: StepOutcome,
}

/// One replica, as `mesh-ctl ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub name: String,
    pub project: Name,
    pub service: Name,
    pub number: u32,
    pub runtime: RuntimeKind,
    /// What the runtime calls it: container id, or `pid-<pid>-<start>`; empty while nothing of it is there.
    pub unit: Arc<str>,
    pub state: ReplicaState,
    pub ready: bool,
    pub address: Option<IpAddr>,
    pub ports: Vec<u16>,
    /// Milliseconds since the epoch; none while it has not started.
    pub started_millis: Option<u64>,
    /// How often its slot was filled anew, since the controller started.
    pub restarts: u32,
    /// The reason of the last step on its slot; of one that is not there, why not.
    pub last_reason: Option<String>,
    /// False for one that somebody else started under the project's name.
    pub managed: bool,
    /// Of the configuration that is asked for now; false for one that is to be replaced or removed.
    #[serde(default)]
    pub current: bool,
}
