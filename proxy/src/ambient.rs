//! Stage 0, the composer: whose connections are captured, in which network namespaces, and by which workers they are carried.
//!
//! A namespace appears ([`crate::intercept::watch`]), or the map that discovery sends names one → [`plan`] says what should hold in
//! each → one task per namespace opens the capture, hands its listeners to the workers, keeps its addresses up to date, renews
//! its rules, and gives it back in the end.
//!
//! A namespace is known by its inode: captured once, however many containers share it, and never the host's own (but for
//! [`Own::Host`], and then its virtual IPs alone). With [`Containers::early`] one that just appeared is captured before anybody
//! has said whose it is, since the engine's own news of a container come after the application's first act; when nobody names
//! it for [`EARLY_MAX`], it is given back. Without, only what the map names is ever entered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use mesh_core::model::resource::{CaptureMap, Resources};
use mesh_core::task::drain::{self, Drain, Drainer};
use mesh_core::task::ready::{NotReady, Readiness};
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::app::Handle;
use crate::error::chain;
use crate::intercept::capture::CaptureConfig;
use crate::intercept::netns::{NamespaceError, NamespaceId, NetworkNamespace};
use crate::intercept::watch::{NamespaceEvent, NamespaceWatch, WatchError, docker_folder};

mod interfaces; // which addresses has the namespace we live in, and is it the host's
mod metrics; // how capturing goes
mod namespace; // one namespace, from its capture until it is given back
mod origin; // upstream connections from within it
pub mod plan; // what should hold where (pure)

use metrics::{Failure, Metrics};
use namespace::{Directive, Namespace};
use plan::Wanted;

/// How long a namespace that nobody has named is captured.
pub const EARLY_MAX: Duration = Duration::from_secs(5);

/// How often everything is looked at again: an engine attaches our own container to another network without a word, and a
/// namespace may be long in coming.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long giving back may take when the proxy ends. Each namespace takes some tens of milliseconds.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Which connections are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Those of containers on this host.
    pub containers: Option<Containers>,
    /// Those of the namespace that this process lives in.
    pub own: Option<Own>,
    /// The port of our listeners on loopback inside a namespace; another is taken where an application has it.
    pub port: u16,
    /// How long rules hold when this process hangs.
    pub alive_timeout: Duration,
}

/// How the namespaces of containers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containers {
    /// Where the engine keeps their files.
    pub folder: PathBuf,
    /// Capture one as soon as it appears, before anybody has said whose it is.
    pub early: bool,
}

/// What our own namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Shared with an application, whose calls are captured.
    Sidecar,
    /// The host's: virtual IPs alone are captured.
    Host,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        let CaptureConfig { port, alive_timeout, .. } = CaptureConfig::default();
        Self { containers: None, own: None, port, alive_timeout }
    }
}

impl CaptureOptions {
    /// Containers of the Docker engine on this host.
    #[must_use]
    pub fn docker(early: bool) -> Self {
        let containers = Containers { folder: docker_folder(), early };
        Self { containers: Some(containers), ..Self::default() }
    }

    /// The application beside this process.
    #[must_use]
    pub fn sidecar() -> Self {
        Self { own: Some(Own::Sidecar), ..Self::default() }
    }
}

/// Why nothing can be captured at all.
#[derive(Debug, Error)]
pub enum AmbientError {
    #[error("the folder of network namespaces cannot be watched")]
    Watch { source: WatchError },
    #[error("the network namespace of this process cannot be opened")]
    OwnNamespace { source: NamespaceError },
    #[error("the interfaces of this network namespace cannot be read")]
    Interfaces { source: io::Error },
    #[error(
        "a sidecar captures the namespace it shares with one application, but this one is the host's own ({sign}): give the \
         proxy's container a network of its own, or run it with --capture for all containers of the host"
    )]
    SidecarOnHost { sign: String },
    #[error("metrics cannot be registered")]
    Metrics { source: prometheus::Error },
}

/// All captures of a proxy.
pub struct Ambient {
    /// Its holders are the namespaces that are redirected.
    redirecting: Option<Drainer>,
    supervisor: JoinHandle<()>,
}

impl Ambient {
    /// Starts capturing what the options say, as the resources say it, for as long as this is held.
    ///
    /// # Errors
    /// See [`AmbientError`]. That one namespace cannot be captured is none: it is told, counted, and tried again.
    pub fn start(
        options: CaptureOptions,
        workers: Handle,
        resources: watch::Receiver<Arc<Resources>>,
        registry: &Registry,
        readiness: &Readiness,
    ) -> Result<Self, AmbientError> {
        let metrics = Metrics::register(registry).map_err(|source| AmbientError::Metrics { source })?;
        let folder = options.containers.as_ref().map(|containers| NamespaceWatch::open(&containers.folder));
        let folder = folder.transpose().map_err(|source| AmbientError::Watch { source })?;
        if options.own == Some(Own::Sidecar)
            && let Some(sign) = interfaces::sign_of_host().map_err(|source| AmbientError::Interfaces { source })?
        {
            return Err(AmbientError::SidecarOnHost { sign });
        }
        let own = NetworkNamespace::own().map_err(|source| AmbientError::OwnNamespace { source })?;
        let (drainer, redirecting) = drain::channel();
        let supervisor = Supervisor {
            own: own.id(),
            options,
            workers,
            resources,
            folder,
            metrics: Arc::new(metrics),
            not_ready: Some(Arc::new(readiness.hold("capture"))),
            held: BTreeMap::new(),
            early: BTreeMap::new(),
            missing: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let supervisor = tokio::spawn(supervisor.run(redirecting));
        Ok(Self { redirecting: Some(drainer), supervisor })
    }

    /// Stops redirecting everywhere: new connections to endpoints are direct, those to virtual IPs refused. Connections that
    /// were redirected go on.
    pub async fn release(&mut self) {
        if let Some(redirecting) = self.redirecting.take() {
            // The kernel ends it by itself when this takes too long.
            let _ = tokio::time::timeout(FINISH_MAX, redirecting.drain()).await;
        }
    }

    /// Waits until every namespace is as it was, once its last connection has ended.
    pub async fn finish(mut self) {
        if tokio::time::timeout(FINISH_MAX, &mut self.supervisor).await.is_err() {
            tracing::warn!("some namespaces could not be given back in time; virtual IPs are refused there");
        }
    }
}

impl Drop for Ambient {
    fn drop(&mut self) {
        // Ends every capture: a dropped capture is a released one.
        self.supervisor.abort();
    }
}

/// A namespace that has a task.
struct Held {
    directive: watch::Sender<Directive>,
    /// Keeps its identity from being given to another, and says where it was found; none for our own.
    handle: Option<NetworkNamespace>,
    virtual_ips: Ipv4Net,
}

/// One that nobody has named yet.
struct Early {
    path: Arc<str>,
    until: Instant,
}

struct Supervisor {
    own: NamespaceId,
    options: CaptureOptions,
    workers: Handle,
    resources: watch::Receiver<Arc<Resources>>,
    folder: Option<NamespaceWatch>,
    metrics: Arc<Metrics>,
    not_ready: Option<Arc<NotReady>>,
    held: BTreeMap<NamespaceId, Held>,
    early: BTreeMap<NamespaceId, Early>,
    /// Paths in the map behind which no namespace is found.
    missing: BTreeMap<Arc<str>, Missing>,
    tasks: JoinSet<NamespaceId>,
}

/// Why a namespace cannot be captured that the map names.
struct Missing {
    error: NamespaceError,
    /// How often it was looked for in vain; one whose container just stopped is missing for an instant only.
    looks: u32,
}

/// What was found on disk.
#[derive(Default)]
struct Found {
    /// By path; never the host's own.
    namespaces: BTreeMap<Arc<str>, NetworkNamespace>,
    /// Held ones whose file is still theirs.
    there: BTreeSet<NamespaceId>,
    interfaces: Vec<IpNet>,
    missing: BTreeMap<Arc<str>, NamespaceError>,
}

impl Supervisor {
    async fn run(mut self, mut redirecting: Drain) {
        let mut told = true;
        let mut look = tokio::time::interval(LOOK_EVERY);
        self.replan(&redirecting).await;
        loop {
            let expiry = self.early.values().map(|early| early.until).min();
            tokio::select! {
                changed = self.resources.changed(), if told => told = changed.is_ok(),
                event = next_event(&mut self.folder) => self.note(event),
                Some(ended) = self.tasks.join_next() => self.ended(ended.ok()),
                () = until(expiry) => {}
                _ = look.tick() => self.tell_missing(),
                () = redirecting.started() => break,
            }
            self.replan(&redirecting).await;
        }
        drop(redirecting);
        // Each gives its namespace back, when its connections are over.
        while self.tasks.join_next().await.is_some() {}
    }

    fn note(&mut self, event: Result<NamespaceEvent, WatchError>) {
        let is_early = self.options.containers.as_ref().is_some_and(|containers| containers.early);
        match event {
            Ok(NamespaceEvent::Appeared { path, id }) => {
                // What was there before the first map is named by it, or none of ours.
                if is_early && self.resources.borrow().capture.is_some() {
                    let (path, until) = (path.to_string_lossy().into(), Instant::now() + EARLY_MAX);
                    self.early.insert(id, Early { path, until });
                }
            }
            Ok(NamespaceEvent::Disappeared { id, .. }) => {
                self.early.remove(&id);
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the folder of network namespaces cannot be read"),
        }
    }

    fn note_missing(&mut self, found: BTreeMap<Arc<str>, NamespaceError>) {
        self.missing.retain(|path, _| found.contains_key(path));
        for (path, error) in found {
            self.missing.entry(path).or_insert(Missing { error, looks: 0 });
        }
    }

    /// Says once of each what is missing for longer than an instant.
    fn tell_missing(&mut self) {
        for (path, missing) in &mut self.missing {
            missing.looks += 1;
            if missing.looks == 2 {
                self.metrics.count(Failure::Namespace);
                tracing::warn!(
                    %path,
                    error = %chain(&missing.error),
                    "a meshed container cannot be captured: its network namespace is not found. A proxy in a container sees it \
                     where the engine's folder of namespaces is mounted with propagation rslave"
                );
            }
        }
    }

    /// One whose task ended may be wanted again.
    fn ended(&mut self, id: Option<NamespaceId>) {
        if let Some(id) = id
            && self.held.get(&id).is_some_and(|held| held.directive.is_closed())
        {
            self.held.remove(&id);
        }
    }

    /// Brings what holds to what should hold.
    async fn replan(&mut self, redirecting: &Drain) {
        let map = self.resources.borrow_and_update().capture.clone();
        let Some((map, virtual_ips)) = map.as_deref().and_then(|map| Some((map, ipv4(map.virtual_ip_range)?))) else {
            self.held.values().for_each(|held| {
                held.directive.send_replace(Directive::Release);
            });
            return;
        };
        let mut found = self.look(map).await;
        self.note_missing(std::mem::take(&mut found.missing));
        let now = Instant::now();
        self.early.retain(|_, early| early.until > now);
        let wanted = self.wanted(map, &found);
        for (id, held) in &self.held {
            let directive = match wanted.get(id) {
                _ if held.handle.is_some() && !found.there.contains(id) => Directive::Gone,
                Some(wanted) if held.virtual_ips == virtual_ips => Directive::Capture(Arc::new(wanted.clone())),
                // With another range of virtual IPs it is captured anew when this capture has ended.
                _ => Directive::Release,
            };
            held.directive.send_if_modified(|current| {
                let changed = *current != directive && *current != Directive::Gone;
                if changed {
                    *current = directive;
                }
                changed
            });
        }
        let handles: BTreeMap<NamespaceId, &NetworkNamespace> =
            found.namespaces.values().map(|namespace| (namespace.id(), namespace)).collect();
        for (id, wanted) in wanted {
            if !self.held.contains_key(&id) {
                let handle = handles.get(&id).map(|namespace| (*namespace).clone());
                self.begin(id, handle, virtual_ips, wanted, redirecting);
            }
        }
        self.not_ready = None;
    }

    fn wanted(&mut self, map: &CaptureMap, found: &Found) -> BTreeMap<NamespaceId, Wanted> {
        let mut wanted = BTreeMap::new();
        if self.options.containers.is_some() {
            let ids = found.namespaces.iter().map(|(path, namespace)| (Arc::clone(path), namespace.id())).collect();
            wanted = plan::of_workloads(map, &ids);
            self.early.retain(|id, _| !wanted.contains_key(id));
            let unnamed = self.early.iter().filter(|(_, early)| found.namespaces.contains_key(&early.path));
            let unnamed: Vec<NamespaceId> = unnamed.map(|(id, _)| *id).collect();
            wanted.extend(unnamed.into_iter().map(|id| (id, plan::of_unnamed(map))));
        }
        match self.options.own {
            Some(Own::Sidecar) => wanted.insert(self.own, plan::of_own(map, &found.interfaces)),
            Some(Own::Host) => wanted.insert(self.own, plan::of_host()),
            None => None,
        };
        wanted
    }

    fn begin(
        &mut self,
        id: NamespaceId,
        handle: Option<NetworkNamespace>,
        virtual_ips: Ipv4Net,
        wanted: Wanted,
        redirecting: &Drain,
    ) {
        let (directive, told) = watch::channel(Directive::Capture(Arc::new(wanted)));
        let task = Namespace {
            id,
            handle: handle.clone(),
            config: CaptureConfig {
                port: self.options.port,
                virtual_ips,
                alive_timeout: self.options.alive_timeout,
                workers: self.workers.worker_count(),
                ..CaptureConfig::default()
            },
            directive: told,
            redirecting: redirecting.clone(),
            workers: self.workers.clone(),
            metrics: Arc::clone(&self.metrics),
            not_ready: self.not_ready.clone(),
        };
        self.tasks.spawn(async move {
            namespace::run(task).await;
            id
        });
        self.held.insert(id, Held { directive, handle, virtual_ips });
    }

    /// Looks at files that block for an instant.
    async fn look(&self, map: &CaptureMap) -> Found {
        let mut paths: BTreeSet<Arc<str>> = BTreeSet::new();
        if self.options.containers.is_some() {
            paths.extend(map.workloads.iter().map(|workload| Arc::clone(&workload.namespace_path)));
            paths.extend(self.early.values().map(|early| Arc::clone(&early.path)));
        }
        let held: Vec<NetworkNamespace> = self.held.values().filter_map(|held| held.handle.clone()).collect();
        let is_sidecar = self.options.own == Some(Own::Sidecar);
        let looking = spawn_blocking(move || {
            let mut missing = BTreeMap::new();
            let open = |path: Arc<str>| {
                let opened = NetworkNamespace::open(&*path).and_then(|one| Ok((one.is_host()?, one)));
                let (is_host, namespace) = opened.map_err(|error| missing.insert(Arc::clone(&path), error)).ok()?;
                (!is_host).then_some((path, namespace))
            };
            let namespaces = paths.into_iter().filter_map(open).collect();
            let is_there = |held: &NetworkNamespace| {
                NetworkNamespace::open(held.path()).is_ok_and(|found| found.id() == held.id()).then(|| held.id())
            };
            let read =
                || interfaces::addresses().inspect_err(|error| tracing::warn!(%error, "interfaces cannot be read"));
            Found {
                namespaces,
                missing,
                there: held.iter().filter_map(is_there).collect(),
                interfaces: if is_sidecar { read().unwrap_or_default() } else { Vec::new() },
            }
        });
        looking.await.unwrap_or_default()
    }
}

/// Virtual IPs are of IPv4 alone.
fn ipv4(range: IpNet) -> Option<Ipv4Net> {
    match range {
        IpNet::V4(range) => Some(range),
        IpNet::V6(range) => {
            tracing::error!(%range, "virtual IPs of IPv6 cannot be captured: nothing is");
            None
        }
    }
}

async fn next_event(folder: &mut Option<NamespaceWatch>) -> Result<NamespaceEvent, WatchError> {
    match folder {
        Some(folder) => folder.next().await,
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
