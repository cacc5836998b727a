//! The composer's second half: the controller, and the runtimes it acts through, put together from what is configured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::replicas::RuntimeKind;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use tokio::sync::{mpsc, watch};

use super::{AppError, Tasks, declared, spawn};
use crate::config::Config;
use crate::controller::Controller;
use crate::controller::execute::Runtimes;
use crate::controller::metrics::Metrics;
use crate::provider::docker::DockerProviderConfig;
use crate::provider::docker::client::{Engine, describe};
use crate::provider::{ObservationSender, process};
use crate::runtime::UnitId;
use crate::runtime::docker::{Announce, Connect, DockerRuntime, DockerSettings};
use crate::runtime::process::ProcessRuntime;
use crate::store::SharedStore;

/// From the snapshot in which a container drains to its stop signal: proxies have turned away long before this is over.
const DRAIN_WAIT: Duration = Duration::from_millis(300);

/// How long that snapshot is waited for; it takes milliseconds, unless the engine keeps the provider waiting.
const ANNOUNCE_MAX: Duration = Duration::from_secs(2);

/// Such words under way; one beyond them is not lost, since the engine's own event says the same a moment later.
const ANNOUNCEMENTS_MAX: usize = 64;

/// Who plans, and through what it acts.
pub struct Acting {
    pub controller: Arc<Controller>,
    pub process: Option<Arc<ProcessRuntime>>,
    docker: Option<Arc<DockerRuntime>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Containers that are about to be stopped: for the provider, which lets them drain.
    pub announced: Option<mpsc::Receiver<UnitId>>,
}

impl Acting {
    /// Opens what is configured, and waits for nothing: an engine that does not answer costs containers, not the start.
    ///
    /// # Errors
    /// When the folder of the processes is another's, or a metric is there already.
    pub fn open(
        config: &Config,
        store: SharedStore,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, AppError> {
        let process = config.process.clone().map(ProcessRuntime::open).transpose()?;
        let (docker, announced) = config.docker.as_ref().map(|docker| runtime_of(docker, &snapshots)).unzip();
        let mut runtimes = Runtimes::new();
        if let Some(process) = &process {
            runtimes.insert(RuntimeKind::Process, process.clone());
        }
        if let Some(docker) = &docker {
            runtimes.insert(RuntimeKind::Docker, docker.clone());
        }
        let metrics = Metrics::register(metrics)?;
        let controller = Controller::new(runtimes, store, snapshots.clone(), metrics, fastrand::u64(..));
        Ok(Self { controller, process, docker, snapshots, announced })
    }

    /// Starts the tasks of all of them.
    pub(super) fn run(
        self,
        tasks: &mut Tasks,
        observations: &ObservationSender,
        http_proxy: watch::Receiver<Option<SocketAddr>>,
        drain: &Drain,
    ) {
        if let Some(runtime) = self.process {
            spawn(tasks, follow_proxy(http_proxy, runtime.clone(), drain.clone()));
            spawn(tasks, process::run(runtime.clone(), observations.clone(), drain.clone()));
            let drain = drain.clone();
            spawn(tasks, async move { runtime.watch_over(drain).await });
        }
        if let Some(runtime) = self.docker {
            spawn(tasks, runtime.watch_over(drain.clone()));
        }
        let (projects, snapshots) = (self.controller.declared(), self.snapshots);
        spawn(tasks, declared::run(projects, snapshots, observations.clone(), drain.clone()));
        spawn(tasks, self.controller.run(drain.clone()));
    }
}

/// Tells the runtime where the proxy of this host listens. Before the first has come nothing is said: whoever runs the proxy in this
/// very process knows better.
async fn follow_proxy(
    mut http_proxy: watch::Receiver<Option<SocketAddr>>,
    runtime: Arc<ProcessRuntime>,
    mut drain: Drain,
) {
    let mut has_come = false;
    loop {
        let address = *http_proxy.borrow_and_update();
        has_come |= address.is_some();
        if has_come {
            runtime.set_http_proxy(address);
        }
        tokio::select! {
            () = drain.started() => return,
            changed = http_proxy.changed() => if changed.is_err() { return },
        }
    }
}

/// The runtime, and whom it tells before it stops a container. The engine is reached while everything else runs already.
fn runtime_of(
    config: &DockerProviderConfig,
    snapshots: &watch::Receiver<Arc<Snapshot>>,
) -> (Arc<DockerRuntime>, mpsc::Receiver<UnitId>) {
    let (announcing, announced) = mpsc::channel(ANNOUNCEMENTS_MAX);
    let snapshots = snapshots.clone();
    let announce = Announce::new(move |unit| Box::pin(announce(announcing.clone(), snapshots.clone(), unit)));
    let url = config.url.clone();
    let connect: Connect = Box::new(move || {
        let url = url.clone();
        Box::pin(async move {
            let engine = Engine::connect(&url).await;
            engine.map(|engine| engine.docker).map_err(|error| describe(&error))
        })
    });
    // What only shows containers with a certain label has to put it on those it makes.
    let labels = config.only_label.iter().cloned().collect();
    let settings = DockerSettings { labels, announce: Some(announce), drain_wait: DRAIN_WAIT };
    (Arc::new(DockerRuntime::connecting(connect, settings)), announced)
}

/// Tells the provider, and waits until nobody is sent to the container any more.
async fn announce(provider: mpsc::Sender<UnitId>, mut snapshots: watch::Receiver<Arc<Snapshot>>, unit: UnitId) {
    // A full queue or a provider that is gone delays nothing: the engine's own event says it a moment later.
    let _ = provider.try_send(unit.clone());
    let turned_away = snapshots.wait_for(|snapshot| {
        let mut endpoints = snapshot.endpoints.values().flat_map(|list| list.iter());
        !endpoints.any(|endpoint| endpoint.id.unit == unit && endpoint.state == EndpointState::Ready)
    });
    if tokio::time::timeout(ANNOUNCE_MAX, turned_away).await.is_err() {
        tracing::warn!(%unit, "stopped though proxies were not told in time");
    }
}
