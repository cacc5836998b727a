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
use mesh_core::task::ready::NotReady;
use tokio::sync::{mpsc, watch};

use crate::admin::metrics::Metrics;
use crate::health::Prober;
use crate::provider::{Observation, ProviderName, Verdict};
use crate::registry::Registry;
use crate::registry::diff::{Change, diff};
use crate::registry::virtual_ip::AllotmentChange;
use crate::store::{Expect, SharedStore, StoreError, Write};
use crate::xds::port_conflicts;

/// How long a start waits for all providers and first probes before it publishes what it has: an engine that does not answer
/// must not keep a file's services from being served.
pub const SETTLE_MAX: Duration = Duration::from_secs(10);

const VIRTUAL_IP_PREFIX: &str = "virtual-ip/";
const NUMBER_KEY: &str = "snapshot/reserved";

/// Snapshot numbers are reserved in blocks, so that they grow over restarts too without a write for each.
const NUMBERS_RESERVED: u64 = 1000;

/// What comes in.
pub struct Inputs {
    pub observations: mpsc::Receiver<(ProviderName, Observation)>,
    pub verdicts: mpsc::Receiver<(EndpointId, Verdict)>,
    /// Who must have spoken before the first snapshot.
    pub expected: BTreeSet<ProviderName>,
}

/// The loop and what it holds.
pub struct Catalogue {
    registry: Registry,
    store: SharedStore,
    inputs: Inputs,
    prober: Prober,
    published: watch::Sender<Arc<Snapshot>>,
    metrics: Metrics,
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
        (published, metrics, not_ready): (watch::Sender<Arc<Snapshot>>, Metrics, NotReady),
    ) -> Result<Self, StoreError> {
        let allotted = read_allotted(&store).await?;
        let reserved = store.get(NUMBER_KEY).await?.and_then(|entry| String::from_utf8(entry.value).ok()?.parse().ok());
        let numbers_reserved = reserved.unwrap_or(0);
        let registry = Registry::new(range, allotted, numbers_reserved, Instant::now()).also_telling(port_conflicts);
        let not_ready = Some(not_ready);
        Ok(Self {
            registry,
            store,
            inputs,
            prober,
            published,
            metrics,
            not_ready,
            numbers_reserved,
            unsaved: Vec::new(),
        })
    }

    /// Until the drain.
    pub async fn run(mut self, mut drain: Drain) {
        let settle_until = tokio::time::Instant::now() + SETTLE_MAX;
        let mut settled = false;
        loop {
            settled = settled || self.registry.is_settled(&self.inputs.expected);
            if settled {
                self.publish_next().await;
            }
            self.prober.probe_only(self.registry.probe_targets());
            let expiry = self.registry.next_expiry();
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
                () = until(expiry) => {}
                () = tokio::time::sleep_until(settle_until), if !settled => {
                    let seconds = SETTLE_MAX.as_secs();
                    tracing::warn!(expected = ?self.inputs.expected, "not everyone spoke within {seconds} s; going on");
                    settled = true;
                }
            }
        }
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

fn read_allotment(key: &str, value: &[u8]) -> Option<(ServiceId, IpAddr)> {
    let (namespace, name) = key.strip_prefix(VIRTUAL_IP_PREFIX)?.split_once('/')?;
    let service = ServiceId::new(Name::new(name).ok()?, Name::new(namespace).ok()?);
    Some((service, std::str::from_utf8(value).ok()?.parse().ok()?))
}
