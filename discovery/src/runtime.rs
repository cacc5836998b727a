//! What the controller acts through: an engine that runs units (containers, or processes of this host) and says what it runs.
//! Two engines implement [`Runtime`]; nothing above this file knows which one it talks to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mesh_core::compose::{Network, Service};
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{ReplicaId, ReplicaState, RuntimeKind};
use thiserror::Error;
use tokio::sync::watch;

pub mod docker; // containers
pub mod process; // processes on loopback addresses of their own

/// What an engine calls one unit: the full container id, or `pid-<pid>-<start ticks>`. It is the `unit` of the endpoint's
/// `EndpointId`, so that a replica is found in the snapshot.
pub type UnitId = Arc<str>;

/// All that is needed to make one replica. The unit is named `id.to_string()`: `shop-web-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSpec {
    pub id: ReplicaId,
    pub service: Arc<Service>,
    /// The networks that `service.networks` names, by their key.
    pub networks: BTreeMap<String, Network>,
    /// Every label the unit has to carry: the service's own, Compose's, and the mark of who made it.
    pub labels: BTreeMap<String, String>,
    /// Of everything that makes the replica what it is; another hash is another replica. Also among the labels.
    pub config_hash: Arc<str>,
    /// The project's folder, absolute.
    pub directory: std::path::PathBuf,
}

/// How a unit is asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOrder {
    /// `TERM`, `SIGINT`, `10`; none: the unit's own (the image's), else SIGTERM.
    pub signal: Option<String>,
    /// How long it may take before it is killed.
    pub grace_period: Duration,
}

/// One unit, as its engine sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedReplica {
    pub unit: UnitId,
    pub id: ReplicaId,
    /// What people call it: `shop-web-1`, or whatever somebody else named it.
    pub name: String,
    pub state: ReplicaState,
    /// Empty where nothing says it.
    pub config_hash: Arc<str>,
    /// Carries `mesh.managed-by=weft`: made by a controller. Others are reported, and never touched.
    pub managed: bool,
    /// The first one, for people.
    pub address: Option<IpAddr>,
    pub ports: Vec<u16>,
    /// Milliseconds since the epoch.
    pub started_millis: Option<u64>,
    /// How to end it should the project's file not say so any more.
    pub stop: StopOrder,
}

/// Why an engine could not do what it was asked.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error("the {runtime} runtime does not answer: {message}")]
    Unavailable { runtime: RuntimeKind, message: String },
    #[error("{unit}: {operation}: {message}")]
    Refused { unit: String, operation: &'static str, message: String },
    #[error("{unit}: {operation}")]
    Io {
        unit: String,
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// What it needs is not there: its image, its program. No further try brings it.
    #[error("{unit}: {operation}: {message}")]
    Lacking { unit: String, operation: &'static str, message: String },
    /// Something else already has the name.
    #[error("{name} exists already and is not ours to replace; remove it, or choose another project name")]
    NameTaken { name: String },
}

impl RuntimeError {
    /// The next try ends like this one unless somebody does something: there is nothing to wait for.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Lacking { .. } | Self::NameTaken { .. } => true,
            Self::Unavailable { .. } | Self::Refused { .. } | Self::Io { .. } => false,
        }
    }
}

/// An engine. Every operation is idempotent: a plan may be executed twice, or half, or by two.
pub trait Runtime: Send + Sync + 'static {
    fn kind(&self) -> RuntimeKind;

    /// Every unit with a Compose project, service and number, whoever made it, ended ones included; one-offs are left out.
    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>>;

    /// What a start needs and could lack (its image), looked at while the unit that the replica is to replace still serves.
    fn prepare(&self, _spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Makes and starts one replica, with what it needs (networks, image, folders), and answers as soon as it has started,
    /// ready or not. A living unit of that name and `config_hash` is the answer as it is; one that has ended is removed
    /// first; any other is [`RuntimeError::NameTaken`].
    fn start(&self, spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<UnitId, RuntimeError>>;

    /// Says that the unit drains, so that proxies turn away from it, then asks it to end, and answers when it has: by itself, or
    /// killed with all it started after the grace period. A unit that has ended, or that nobody knows, is no error.
    fn stop(&self, unit: UnitId, order: StopOrder) -> BoxFuture<'_, Result<(), RuntimeError>>;

    /// Forgets an ended unit. One that nobody knows is no error; one that lives is refused.
    fn remove(&self, unit: UnitId) -> BoxFuture<'_, Result<(), RuntimeError>>;

    /// After the last replica of a project has gone: removes what was made beside it (its networks), unless used by others.
    fn forget_project(&self, _project: Name, _networks: Vec<Network>) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Changes whenever something happened. Only a hint: what happened is found out by [`Self::observe`].
    fn hints(&self) -> watch::Receiver<u64>;
}
