//! The heart of the composer: takes what providers and probes say, lets the registry make the next snapshot, saves what must
//! survive, and publishes with one swap.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use mesh_core::task::ready::{NotReady, Readiness};
use tokio::sync::{mpsc, watch};

use super::declared;
use crate::admin::metrics::Metrics;
use crate::health::Prober;
use crate::provider::{Observation, ProviderName, Verdict, docker, file};
use crate::registry::Registry;
use crate::registry::diff::{Change, diff};
use crate::registry::first_look::{FirstLooks, Source};
use crate::registry::virtual_ip::AllotmentChange;
use crate::store::{Expect, SharedStore, StoreError, Write};
use crate::xds::port_conflicts;

/// How long a start waits for first probes, once every provider has been looked at (`registry/first_look.rs` says who is
/// awaited, and why without an end).
pub const SETTLE_MAX: Duration = Duration::from_secs(10);

/// A wait for a provider that is longer than this is told.
const TELL_WAITING_AFTER: Duration = Duration::from_secs(1);

const VIRTUAL_IP_PREFIX: &str = "virtual-ip/";
/// `provider/docker`: the place where that provider saw what was published last.
const PROVIDER_PREFIX: &str = "provider/";
const NUMBER_KEY: &str = "snapshot/reserved";

/// Snapshot numbers are reserved in blocks, so that they grow over restarts too without a write for each.
const NUMBERS_RESERVED: u64 = 1000;

/// What comes in.
pub struct Inputs {
    pub observations: mpsc::Receiver<(ProviderName, Observation)>,
    pub verdicts: mpsc::Receiver<(EndpointId, Verdict)>,
    /// Who must have looked before the first snapshot, and where they look.
    pub expected: BTreeMap<ProviderName, String>,
}

/// What is told, and to whom.
pub struct Outputs {
    pub published: watch::Sender<Arc<Snapshot>>,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Some provider has not been looked at.
    Looking,
    /// Some endpoint has not been probed once.
    Probing {
        until: Instant,
    },
    Telling,
}

/// The loop and what it holds.
pub struct Catalogue {
    registry: Registry,
    looks: FirstLooks,
    /// Providers of which the store knows already that they were published.
    marked: BTreeSet<ProviderName>,
    store: SharedStore,
    inputs: Inputs,
    prober: Prober,
    published: watch::Sender<Arc<Snapshot>>,
    metrics: Metrics,
    /// Held until each has looked.
    awaited: BTreeMap<ProviderName, NotReady>,
    /// Held until the first snapshot is out.
    not_ready: Option<NotReady>,
    numbers_reserved: u64,
    /// What could not be saved yet.
    unsaved: Vec<Write>,
}

impl Catalogue {
    /// Reads what an earlier run left.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(
        store: SharedStore,
        range: IpNet,
        inputs: Inputs,
        prober: Prober,
        outputs: Outputs,
    ) -> Result<Self, StoreError> {
        let Outputs { published, metrics, readiness } = outputs;
        let allotted = read_allotted(&store).await?;
        let reserved = store.get(NUMBER_KEY).await?.and_then(|entry| String::from_utf8(entry.value).ok()?.parse().ok());
        let numbers_reserved = reserved.unwrap_or(0);
        tell_moved(&allotted, range);
        let registry = Registry::new(range, allotted, numbers_reserved, Instant::now()).also_telling(port_conflicts);
        let (sources, unsaved) = read_sources(&store, &inputs.expected).await?;
        let awaited = inputs.expected.keys().map(|name| (*name, readiness.hold(awaited_as(name)))).collect();
        let not_ready = Some(readiness.hold("the first snapshot"));
        Ok(Self {
            registry,
            marked: sources.iter().filter(|(_, source)| source.told_before).map(|(name, _)| *name).collect(),
            looks: FirstLooks::new(sources),
            store,
            inputs,
            prober,
            published,
            metrics,
            awaited,
            not_ready,
            numbers_reserved,
            unsaved,
        })
    }

    /// Until the drain.
    pub async fn run(mut self, mut drain: Drain) {
        let tell_waiting_at = Instant::now() + TELL_WAITING_AFTER;
        let mut phase = Phase::Looking;
        loop {
            let now = Instant::now();
            phase = self.advance(phase, now);
            match phase {
                Phase::Looking if now >= tell_waiting_at => self.tell_waiting(),
                Phase::Looking | Phase::Probing { .. } => {}
                Phase::Telling => self.publish_next().await,
            }
            self.prober.probe_only(self.registry.probe_targets());
            let look_again_at = match phase {
                Phase::Looking => Some(tell_waiting_at).filter(|at| now < *at),
                Phase::Probing { until } => Some(until),
                Phase::Telling => self.registry.next_expiry(),
            };
            tokio::select! {
                () = drain.started() => return,
                Some((provider, observation)) = self.inputs.observations.recv() => {
                    self.observe(provider, observation);
                    // Several may have come while the last snapshot was saved; they make one.
                    while let Ok((provider, observation)) = self.inputs.observations.try_recv() {
                        self.observe(provider, observation);
                    }
                }
                Some((id, verdict)) = self.inputs.verdicts.recv() => {
                    self.registry.judge(id, verdict);
                    while let Ok((id, verdict)) = self.inputs.verdicts.try_recv() {
                        self.registry.judge(id, verdict);
                    }
                }
                () = until(look_again_at) => {}
            }
        }
    }

    /// How far the start is now.
    fn advance(&mut self, phase: Phase, now: Instant) -> Phase {
        let phase = match phase {
            Phase::Looking => {
                let awaited = self.looks.awaited(&self.registry);
                self.awaited.retain(|name, _| awaited.contains(name));
                if awaited.is_empty() { Phase::Probing { until: now + SETTLE_MAX } } else { phase }
            }
            Phase::Probing { .. } | Phase::Telling => phase,
        };
        match phase {
            Phase::Probing { .. } if self.registry.is_probed() => Phase::Telling,
            Phase::Probing { until } if now >= until => {
                let seconds = SETTLE_MAX.as_secs();
                tracing::warn!("not every endpoint was probed within {seconds} s; going on");
                Phase::Telling
            }
            phase => phase,
        }
    }

    /// Says why nothing is told: in the log, and as the conditions of snapshot 0, which nobody but people take notice of.
    fn tell_waiting(&self) {
        let conditions = self.looks.conditions(&self.registry);
        self.published.send_if_modified(|snapshot| {
            for condition in conditions.difference(&snapshot.conditions) {
                tracing::warn!(object = %condition.object, kind = %condition.kind, "{}", condition.message);
            }
            let is_news = snapshot.conditions != conditions;
            if is_news {
                *snapshot = Arc::new(Snapshot { conditions, ..Snapshot::default() });
            }
            is_news
        });
    }

    fn observe(&mut self, provider: ProviderName, observation: Observation) {
        self.metrics.observed(provider);
        self.registry.observe(provider, observation);
    }

    async fn publish_next(&mut self) {
        let before = self.registry.snapshot().clone();
        let Some(snapshot) = self.registry.next(Instant::now()) else { return };
        // Saved first: a virtual IP that was told to anybody must not be another one after a crash.
        self.save(snapshot.number).await;
        for change in diff(&before, &snapshot) {
            self.tell(snapshot.number, &change);
        }
        self.published.send_replace(snapshot);
        self.not_ready = None;
    }

    async fn save(&mut self, number: u64) {
        for (name, place) in self.looks.seen(&self.registry) {
            if self.marked.insert(name) {
                self.unsaved.push(Write::put(format!("{PROVIDER_PREFIX}{name}"), place, Expect::Anything));
            }
        }
        let changes = self.registry.take_allotment_changes();
        self.unsaved.extend(changes.into_iter().map(write_of));
        let reserve = number.saturating_add(NUMBERS_RESERVED);
        let reserves = number > self.numbers_reserved;
        if self.unsaved.is_empty() && !reserves {
            return;
        }
        let mut writes = self.unsaved.clone();
        if reserves {
            writes.push(Write::put(NUMBER_KEY, reserve.to_string(), Expect::Anything));
        }
        match self.store.apply(writes).await {
            Ok(_) => {
                self.unsaved.clear();
                if reserves {
                    self.numbers_reserved = reserve;
                }
            }
            // A full disk must not stop the mesh; the next snapshot tries again.
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "virtual IPs cannot be saved"),
        }
    }

    fn tell(&self, snapshot: u64, change: &Change) {
        self.metrics.changed(change.kind());
        match change {
            Change::ConditionAdded(_) => tracing::warn!(snapshot, "{change}"),
            _ => tracing::info!(snapshot, "{change}"),
        }
    }
}

/// How `/readyz` calls a provider that is awaited.
fn awaited_as(name: ProviderName) -> &'static str {
    match name {
        docker::NAME => "the first look at the Docker engine",
        file::NAME => "the first reading of the file",
        declared::NAME => "what was asked for, from the store",
        other => other,
    }
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

fn key_of(service: &ServiceId) -> String {
    format!("{VIRTUAL_IP_PREFIX}{}/{}", service.namespace, service.name)
}

fn write_of(change: AllotmentChange) -> Write {
    match change {
        AllotmentChange::Allotted { service, address } => {
            Write::put(key_of(&service), address.to_string(), Expect::Anything)
        }
        AllotmentChange::Reclaimed { service } => Write::delete(key_of(&service), Expect::Anything),
    }
}

/// What is known of the places where providers look, with the writes that forget those that are not configured any more.
async fn read_sources(
    store: &SharedStore,
    expected: &BTreeMap<ProviderName, String>,
) -> Result<(BTreeMap<ProviderName, Source>, Vec<Write>), StoreError> {
    let source = |place: &String| Source { place: place.clone(), told_before: false };
    let mut sources: BTreeMap<_, _> = expected.iter().map(|(name, place)| (*name, source(place))).collect();
    let mut forget = Vec::new();
    for entry in store.list(PROVIDER_PREFIX).await?.entries {
        let name = entry.key.strip_prefix(PROVIDER_PREFIX).unwrap_or_default();
        match sources.get_mut(name) {
            Some(source) => source.told_before = source.place.as_bytes() == entry.value,
            None => forget.push(Write::delete(entry.key, Expect::Anything)),
        }
    }
    Ok((sources, forget))
}

async fn read_allotted(store: &SharedStore) -> Result<BTreeMap<ServiceId, IpAddr>, StoreError> {
    let listing = store.list(VIRTUAL_IP_PREFIX).await?;
    let mut allotted = BTreeMap::new();
    for entry in listing.entries {
        match read_allotment(&entry.key, &entry.value) {
            Some((service, address)) => {
                allotted.insert(service, address);
            }
            None => tracing::warn!(key = entry.key, "holds no virtual IP and is passed over"),
        }
    }
    Ok(allotted)
}

/// Whoever still has such an address from a resolver or a file finds nobody there.
fn tell_moved(allotted: &BTreeMap<ServiceId, IpAddr>, range: IpNet) {
    let mut outside = allotted.iter().filter(|(_, address)| !range.contains(*address));
    if let Some((service, was)) = outside.next() {
        let services = outside.count() + 1;
        tracing::warn!(services, example = %service, %was, %range, "virtual IPs of an earlier run are not of --vip-range; new ones are given");
    }
}

fn read_allotment(key: &str, value: &[u8]) -> Option<(ServiceId, IpAddr)> {
    let (namespace, name) = key.strip_prefix(VIRTUAL_IP_PREFIX)?.split_once('/')?;
    let service = ServiceId::new(Name::new(name).ok()?, Name::new(namespace).ok()?);
    Some((service, std::str::from_utf8(value).ok()?.parse().ok()?))
}
