//! What holds is brought to what should hold: whenever the map changes, a namespace appears or goes, a capture ends, or time has
//! passed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use mesh_core::model::resource::{CaptureMap, Resources};
use mesh_core::task::drain::Drain;
use mesh_core::task::ready::NotReady;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::gate::Gate;
use super::metrics::{Failure, Metrics};
use super::namespace::{self, Directive, Namespace};
use super::plan::{self, Wanted};
use super::{CaptureOptions, EARLY_MAX, Own, interfaces};
use crate::app::Handle;
use crate::error::chain;
use crate::intercept::capture::CaptureConfig;
use crate::intercept::netns::{NamespaceError, NamespaceId, NetworkNamespace};
use crate::intercept::watch::{NamespaceEvent, NamespaceWatch, WatchError};

/// How often everything is looked at again: an engine attaches our own container to another network without a word, and a
/// namespace may be long in coming.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A namespace that has a task.
struct Held {
    directive: watch::Sender<Directive>,
    /// Keeps its identity from being given to another, and says where it was found; none for our own.
    handle: Option<NetworkNamespace>,
    virtual_ips: Ipv4Net,
    /// Its first try to capture is over.
    is_settled: bool,
}

/// One that nobody has named yet.
struct Early {
    path: Arc<str>,
    until: Instant,
}

/// What captures are made with.
pub(super) struct Parts {
    pub(super) options: CaptureOptions,
    pub(super) workers: Handle,
    pub(super) resources: watch::Receiver<Arc<Resources>>,
    /// None: no containers.
    pub(super) folder: Option<NamespaceWatch>,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Supervisor {
    own: NamespaceId,
    options: CaptureOptions,
    workers: Handle,
    resources: watch::Receiver<Arc<Resources>>,
    folder: Option<NamespaceWatch>,
    metrics: Arc<Metrics>,
    /// Dropped when everything that is there at the start was tried once.
    not_ready: Option<Arc<NotReady>>,
    held: BTreeMap<NamespaceId, Held>,
    early: BTreeMap<NamespaceId, Early>,
    /// Paths in the map behind which no namespace is found.
    missing: BTreeMap<Arc<str>, Missing>,
    tasks: JoinSet<NamespaceId>,
    gate: Gate,
    /// The resources as requests should see them.
    seen: watch::Sender<Arc<Resources>>,
    /// Each task says when its first try to capture is over.
    settled: mpsc::UnboundedSender<NamespaceId>,
    settling: mpsc::UnboundedReceiver<NamespaceId>,
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
    /// With the resources as requests should see them. `own` is the namespace that this process lives in.
    pub(super) fn new(own: NamespaceId, parts: Parts, not_ready: NotReady) -> (Self, watch::Receiver<Arc<Resources>>) {
        let Parts { options, workers, resources, folder, metrics } = parts;
        let (settled, settling) = mpsc::unbounded_channel();
        let (seen, to_be_seen) = watch::channel(Arc::clone(&resources.borrow()));
        let supervisor = Self {
            own,
            options,
            workers,
            resources,
            folder,
            metrics,
            not_ready: Some(Arc::new(not_ready)),
            held: BTreeMap::new(),
            early: BTreeMap::new(),
            missing: BTreeMap::new(),
            tasks: JoinSet::new(),
            gate: Gate::default(),
            seen,
            settled,
            settling,
        };
        (supervisor, to_be_seen)
    }

    pub(super) async fn run(mut self, mut redirecting: Drain) {
        let mut told = true;
        let mut look = tokio::time::interval(LOOK_EVERY);
        self.replan(&redirecting).await;
        loop {
            let expiry = self.early.values().map(|early| early.until).chain(self.gate.deadline()).min();
            tokio::select! {
                changed = self.resources.changed(), if told => told = changed.is_ok(),
                event = next_event(&mut self.folder) => self.note(event),
                Some(ended) = self.tasks.join_next() => self.ended(ended.ok()),
                Some(id) = self.settling.recv() => self.settle(id),
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

    fn settle(&mut self, id: NamespaceId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.is_settled = true;
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
        let resources = Arc::clone(&self.resources.borrow_and_update());
        let map = resources.capture.clone();
        // What has nothing to do with captures does not wait for them.
        if let Some(map) = &map {
            self.gate.follow(&resources, map, Instant::now());
        }
        self.show(&resources);
        let Some((map, virtual_ips)) = map.as_deref().and_then(|map| Some((map, ipv4(map.virtual_ip_range)?))) else {
            self.held.values().for_each(|held| {
                held.directive.send_replace(Directive::Release);
            });
            return;
        };
        let mut found = self.look(map).await;
        self.note_missing(std::mem::take(&mut found.missing));
        let now = Instant::now();
        self.early.retain(|_, early| early.until > now && !plan::is_foreign(map, &early.path));
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
        self.gate.settle(map, |path| match found.namespaces.get(path) {
            Some(namespace) => self.held.get(&namespace.id()).is_some_and(|held| held.is_settled),
            None => true,
        });
        self.show(&resources);
    }

    /// To requests.
    fn show(&mut self, resources: &Arc<Resources>) {
        self.gate.expire(Instant::now());
        let seen = self.gate.hold_back(resources);
        self.seen.send_if_modified(|current| {
            let changed = **current != *seen;
            if changed {
                *current = seen;
            }
            changed
        });
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
            settled: self.settled.clone(),
        };
        self.tasks.spawn(async move {
            namespace::run(task).await;
            id
        });
        self.held.insert(id, Held { directive, handle, virtual_ips, is_settled: false });
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
