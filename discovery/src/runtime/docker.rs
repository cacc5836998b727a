//! Replicas as containers of a Docker engine. They carry Compose's own labels, so that `docker compose ps` shows them, and the
//! mark of who made them: nothing without that mark is ever touched.

mod link; // the way to the engine, made anew when it was lost
mod create; // what the engine is asked to make (pure)
mod network; // what containers meet on
mod image; // an image out of one static binary
mod state; // what the engine says about one container (pure)
mod sweep; // what an earlier run left behind

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    WaitContainerOptions,
};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use mesh_core::compose::Network;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL, ReplicaState, RuntimeKind, compose_label};
use mesh_core::task::backoff::Backoff;
use mesh_core::task::drain::Drain;
use tokio::sync::watch;

use super::{ObservedReplica, ReplicaSpec, Runtime, RuntimeError, StopOrder, UnitId};
pub use image::image_from_binary;
pub use link::Connect;
use link::Link;
pub use sweep::{Swept, sweep};

/// Beyond the grace period: what the engine itself needs to kill and to clean up.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// Inspections under way at once.
const INSPECTIONS_MAX: usize = 8;

/// What the runtime needs to know.
#[derive(Debug, Clone, Default)]
pub struct DockerSettings {
    /// On everything made, besides what the replica asks for: the demo finds its own by it.
    pub labels: BTreeMap<String, String>,
    /// Told of each container before it is asked to stop, so that proxies turn away first.
    pub announce: Option<Announce>,
    /// Between the announcement and the stop signal: longer than a proxy takes to hear it. Not waited without `announce`.
    pub drain_wait: Duration,
}

/// Says that a container is about to be stopped; ends when proxies are told of it, or when that takes too long.
#[derive(Clone)]
pub struct Announce(Arc<dyn Fn(UnitId) -> BoxFuture<'static, ()> + Send + Sync>);

impl Announce {
    #[must_use]
    pub fn new(tell: impl Fn(UnitId) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl std::fmt::Debug for Announce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announce")
    }
}

/// The engine. Cheap to share; [`Self::watch_over`] has to run beside it.
#[derive(Debug)]
pub struct DockerRuntime {
    link: Link,
    settings: DockerSettings,
    hints: watch::Sender<u64>,
    /// Told to stop by us, and not ended yet; inspection does not say it.
    stopping: Mutex<BTreeSet<UnitId>>,
    /// One at a time: older engines make two networks of one name when asked twice at once.
    networks: tokio::sync::Mutex<()>,
}

impl DockerRuntime {
    /// With a client that has agreed on the API's version already (`provider::docker::client::Engine`).
    #[must_use]
    pub fn new(docker: Docker, settings: DockerSettings) -> Self {
        Self::over(Link::made(docker), settings)
    }

    /// With an engine that need not be there yet: until [`Self::watch_over`] has reached it, and while it is lost, everything
    /// that is asked is [`RuntimeError::Unavailable`] at once.
    #[must_use]
    pub fn connecting(connect: Connect, settings: DockerSettings) -> Self {
        Self::over(Link::later(connect), settings)
    }

    fn over(link: Link, settings: DockerSettings) -> Self {
        let (hints, _) = watch::channel(0);
        Self { link, settings, hints, stopping: Mutex::default(), networks: tokio::sync::Mutex::new(()) }
    }

    /// Reaches the engine, again and again where need be, and turns its events into hints, until the drain. A lost stream is a
    /// hint as well.
    pub async fn watch_over(self: Arc<Self>, mut drain: Drain) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), fastrand::u64(..));
        loop {
            let docker = tokio::select! {
                () = drain.started() => return,
                docker = self.link.renew() => docker,
            };
            // Here or gone: whoever waits for it wants to know.
            self.hint();
            if let Ok(docker) = docker {
                tokio::select! {
                    () = drain.started() => return,
                    () = self.hint_of_events(&docker, &mut backoff) => {}
                }
            }
            tokio::select! {
                () = drain.started() => return,
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }

    /// Until the stream of events is lost.
    async fn hint_of_events(&self, docker: &Docker, backoff: &mut Backoff) {
        let filters = HashMap::from([("type", vec!["container"])]);
        let mut events = docker.events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
        while let Some(Ok(_)) = events.next().await {
            self.hint();
            backoff.reset();
        }
        self.hint();
    }

    fn hint(&self) {
        self.hints.send_modify(|number| *number += 1);
    }

    fn stopping(&self) -> std::sync::MutexGuard<'_, BTreeSet<UnitId>> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn observe_all(&self) -> Result<Vec<ObservedReplica>, RuntimeError> {
        let docker = &self.link.docker()?;
        let mut wanted = vec![compose_label::PROJECT.to_owned(), compose_label::SERVICE.to_owned()];
        wanted.extend(self.settings.labels.iter().map(|(key, value)| format!("{key}={value}")));
        let filters = HashMap::from([("label".to_owned(), wanted)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = docker.list_containers(Some(options)).await.map_err(unavailable)?;
        let ids = listed.into_iter().filter_map(|summary| summary.id);
        let inspect = |id: String| async move { docker.inspect_container(&id, None::<InspectContainerOptions>).await };
        let mut answers = stream::iter(ids.map(inspect)).buffer_unordered(INSPECTIONS_MAX);
        let mut replicas = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(inspected) => replicas.extend(state::replica(inspected)),
                // Gone since the list, or odd: the others are none the worse.
                Err(Error::DockerResponseServerError { .. } | Error::JsonDataError { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        let mut stopping = self.stopping();
        stopping.retain(|unit| replicas.iter().any(|replica| replica.unit == *unit && replica.state.is_alive()));
        for replica in replicas.iter_mut().filter(|replica| stopping.contains(&replica.unit)) {
            replica.state = ReplicaState::Stopping;
        }
        replicas.sort_by(|a, b| (&a.id, &a.unit).cmp(&(&b.id, &b.unit)));
        Ok(replicas)
    }

    /// Its image, and the networks it is to be on.
    async fn prepare_one(&self, spec: &ReplicaSpec) -> Result<(), RuntimeError> {
        let docker = &self.link.docker()?;
        check_image(docker, &spec.id.to_string(), spec.service.image.as_deref().unwrap_or_default()).await?;
        for (key, network) in &spec.networks {
            if spec.service.networks.contains_key(key) {
                let _one_at_a_time = self.networks.lock().await;
                network::ensure(docker, &spec.id.project, key, network, &self.settings.labels).await?;
            }
        }
        Ok(())
    }

    async fn start_one(&self, spec: &ReplicaSpec) -> Result<UnitId, RuntimeError> {
        let docker = &self.link.docker()?;
        let name = spec.id.to_string();
        if let Some(unit) = self.take_over(docker, spec, &name).await? {
            return Ok(unit);
        }
        self.prepare_one(spec).await?;
        let (body, further) = create::body(spec, &self.settings.labels);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = docker.create_container(Some(options), body).await;
        let id = match created {
            Ok(created) => created.id,
            Err(error) if status(&error) == Some(409) => return Err(RuntimeError::NameTaken { name }),
            Err(error) => return Err(refused(&name, "create", error)),
        };
        if let Err(error) = connect_and_start(docker, &name, &id, further).await {
            // Left behind, it would have the name that the next try wants.
            let forced = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            if let Err(error) = docker.remove_container(&id, Some(forced)).await {
                tracing::warn!(container = %name, %error, "cannot be removed after it did not start");
            }
            return Err(error);
        }
        Ok(id.into())
    }

    /// What has the replica's name already: the replica itself, or something ended that makes room, or somebody else's.
    async fn take_over(&self, docker: &Docker, spec: &ReplicaSpec, name: &str) -> Result<Option<UnitId>, RuntimeError> {
        let inspected = match docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(inspected) => inspected,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(refused(name, "inspect", error)),
        };
        let taken = || RuntimeError::NameTaken { name: name.to_owned() };
        let replica = state::replica(inspected).filter(|replica| replica.managed).ok_or_else(taken)?;
        if replica.state.is_alive() {
            let same = replica.config_hash == spec.config_hash;
            return if same { Ok(Some(replica.unit)) } else { Err(taken()) };
        }
        self.remove_one(&replica.unit).await?;
        Ok(None)
    }

    async fn stop_one(&self, unit: &UnitId, order: &StopOrder) -> Result<(), RuntimeError> {
        let docker = &self.link.docker()?;
        let inspected = match docker.inspect_container(unit, None::<InspectContainerOptions>).await {
            Ok(inspected) => inspected,
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(refused(unit, "stop", error)),
        };
        let state = inspected.state.unwrap_or_default();
        if state.running != Some(true) {
            return Ok(());
        }
        self.stopping().insert(unit.clone());
        self.hint();
        if let Some(announce) = &self.settings.announce {
            announce.0(unit.clone()).await;
            tokio::time::sleep(self.settings.drain_wait).await;
        }
        if state.paused == Some(true) {
            // A frozen process hears no signal; it may have been thawed meanwhile, which is just as well.
            let _ = docker.unpause_container(unit).await;
        }
        let own = inspected.config.and_then(|config| config.stop_signal).filter(|signal| !signal.is_empty());
        let own = own.as_deref().unwrap_or("SIGTERM");
        let stopped = match order.signal.as_deref().filter(|signal| !same_signal(signal, own)) {
            None => stop_by_engine(docker, unit, order.grace_period).await,
            Some(signal) => stop_with(docker, unit, signal, order.grace_period).await,
        };
        self.stopping().remove(unit);
        self.hint();
        match stopped {
            Err(error) if !matches!(status(&error), Some(304 | 404)) => Err(refused(unit, "stop", error)),
            _ => Ok(()),
        }
    }

    async fn remove_one(&self, unit: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        match self.link.docker()?.remove_container(unit, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody else removes it at this moment.
            Err(Error::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            Err(error) => Err(refused(unit, "remove", error)),
        }
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>> {
        Box::pin(self.observe_all())
    }

    fn prepare(&self, spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.prepare_one(&spec).await })
    }

    fn start(&self, spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<UnitId, RuntimeError>> {
        Box::pin(async move { self.start_one(&spec).await })
    }

    fn stop(&self, unit: UnitId, order: StopOrder) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.stop_one(&unit, &order).await })
    }

    fn remove(&self, unit: UnitId) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.remove_one(&unit).await })
    }

    fn forget_project(&self, project: Name, networks: Vec<Network>) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move {
            let docker = self.link.docker()?;
            for network in networks.iter().filter(|network| !network.external) {
                network::forget(&docker, &project, network).await?;
            }
            Ok(())
        })
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }
}

async fn connect_and_start(
    docker: &Docker,
    name: &str,
    id: &str,
    further: Vec<(String, bollard::models::NetworkConnectRequest)>,
) -> Result<(), RuntimeError> {
    for (network, mut request) in further {
        request.container = id.to_owned();
        let connected = docker.connect_network(&network, request).await;
        connected.map_err(|error| refused(name, "connect to its network", error))?;
    }
    let started = docker.start_container(id, None::<StartContainerOptions>).await;
    started.map_err(|error| match (status(&error), refused(name, "start", error)) {
        // How the engine says that the command cannot be run.
        (Some(400), RuntimeError::Refused { unit, operation, message }) => {
            RuntimeError::Lacking { unit, operation, message }
        }
        (_, error) => error,
    })
}

async fn check_image(docker: &Docker, name: &str, image: &str) -> Result<(), RuntimeError> {
    match docker.inspect_image(image).await {
        Ok(_) => Ok(()),
        Err(error) if status(&error) == Some(404) => {
            let message = format!(
                "image {image:?} is not on this engine; `docker pull {image}` or `docker build -t {image} …` brings it"
            );
            Err(RuntimeError::Lacking { unit: name.to_owned(), operation: "create", message })
        }
        Err(error) => Err(refused(name, "look for its image", error)),
    }
}

async fn stop_by_engine(docker: &Docker, unit: &str, grace_period: Duration) -> Result<(), Error> {
    // Whole seconds are all that the engine's API knows; rounded up, so that nobody is killed early.
    let seconds = i32::try_from(grace_period.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::default().t(seconds).build();
    // The answer comes when it has ended: the client's ordinary patience is shorter.
    let patient = docker.clone().with_timeout(grace_period + STOP_MARGIN);
    patient.stop_container(unit, Some(options)).await
}

/// Another signal than the container's own; engines before API 1.42 cannot be asked for it when stopping.
async fn stop_with(docker: &Docker, unit: &str, signal: &str, grace_period: Duration) -> Result<(), Error> {
    let kill = |signal: &str| {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        docker.kill_container(unit, Some(options))
    };
    kill(signal).await?;
    let patient = docker.clone().with_timeout(grace_period + STOP_MARGIN);
    let mut ended = Box::pin(patient.wait_container(unit, None::<WaitContainerOptions>));
    if tokio::time::timeout(grace_period, ended.next()).await.is_err() {
        kill("SIGKILL").await?;
        let _ = tokio::time::timeout(STOP_MARGIN, ended.next()).await;
    }
    Ok(())
}

/// Ours: made by a controller, on behalf of whoever gave `labels`.
fn marks(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    let mut marks: HashMap<String, String> = labels.clone().into_iter().collect();
    marks.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    marks
}

fn same_signal(a: &str, b: &str) -> bool {
    let bare = |signal: &str| signal.to_ascii_uppercase().trim_start_matches("SIG").to_owned();
    bare(a) == bare(b)
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's own words where it answered; else that it did not.
fn refused(unit: &str, operation: &'static str, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { message, .. } => {
            RuntimeError::Refused { unit: unit.to_owned(), operation, message: message.trim().to_owned() }
        }
        other => unavailable(other),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "passed by name to map_err")]
fn unavailable(error: Error) -> RuntimeError {
    RuntimeError::Unavailable { runtime: RuntimeKind::Docker, message: error.to_string() }
}
