//! Discovery without its shells: providers, prober, registry, and what it keeps over a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::snapshot::Snapshot;
use mesh_discovery::health::PROBE_INTERVAL;
use mesh_discovery::health::verdict::{Outcome, Tries};
use mesh_discovery::provider::{ProviderName, Verdict, docker};
use mesh_discovery::registry::Registry;
use mesh_discovery::registry::diff::diff;
use mesh_discovery::registry::first_look::{FirstLooks, Source};
use mesh_discovery::registry::virtual_ip::{AllotmentChange, RECLAIM_AFTER};
use mesh_discovery::xds::{Settings, cache::Cache, port_conflicts};

use crate::engine::Engine;
use crate::resolver::Resolver;
use crate::sky::Sky;
use crate::watch::{STALE_MAX, Told, Watch};

/// Six addresses: they run out, and come round.
const RANGE: &str = "240.240.0.0/29";
/// As `app::catalogue` waits for first probes.
pub const SETTLE_MAX: Duration = Duration::from_secs(10);
const EXPECTED: [ProviderName; 2] = [docker::NAME, "file"];

/// What the store holds.
#[derive(Default)]
struct Kept {
    virtual_ips: BTreeMap<ServiceId, IpAddr>,
    number: u64,
    /// Something was published: each provider had looked.
    was_told: bool,
}

/// How far the start is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Looking,
    Probing { until: Duration },
    Telling,
}

/// One run of the process.
struct Run {
    registry: Registry,
    watch: Watch,
    /// What each provider told last.
    seen: BTreeMap<ProviderName, Vec<EndpointId>>,
    probes: BTreeMap<EndpointId, (Tries, Duration)>,
    /// Endpoints that said no once, in this run.
    refused: BTreeSet<EndpointId>,
    /// Endpoints that probing judged to be ready, in this run.
    judged_ready: BTreeSet<EndpointId>,
    looks: FirstLooks,
    phase: Phase,
    /// Everybody was probed once before the first snapshot.
    is_whole: bool,
}

pub struct Discovery {
    run: Run,
    kept: Kept,
    /// What is published; empty with number 0 until the first of this run is out.
    pub snapshot: Arc<Snapshot>,
    pub xds: Cache,
    resolver: Resolver,
    /// What was published last, by this run or an earlier one.
    before: Arc<Snapshot>,
    /// Which address each service had last, and when it was last there.
    virtual_ips_ever: BTreeMap<ServiceId, (IpAddr, Duration)>,
}

impl Run {
    fn new(sky: &mut Sky, kept: &Kept, heavy: u32) -> Self {
        let range = RANGE.parse().expect("a network");
        let source = |name| (name, Source { place: format!("the {name}"), told_before: kept.was_told });
        let registry = Registry::new(range, kept.virtual_ips.clone(), kept.number, sky.instant());
        Self {
            registry: registry.also_telling(port_conflicts),
            watch: Watch::new(sky, heavy),
            seen: BTreeMap::new(),
            probes: BTreeMap::new(),
            refused: BTreeSet::new(),
            judged_ready: BTreeSet::new(),
            looks: FirstLooks::new(EXPECTED.map(source).into()),
            phase: Phase::Looking,
            is_whole: false,
        }
    }
}

impl Run {
    /// From the first looks to the first snapshot. True when it may be made now.
    fn begin(&mut self, sky: &Sky) -> bool {
        if self.phase == Phase::Looking && self.looks.awaited(&self.registry).is_empty() {
            self.phase = Phase::Probing { until: sky.now + SETTLE_MAX };
        }
        let Phase::Probing { until } = self.phase else { return false };
        self.is_whole = self.registry.is_probed();
        if self.is_whole || sky.now >= until {
            self.phase = Phase::Telling;
        }
        self.phase == Phase::Telling
    }
}

impl Discovery {
    pub fn new(sky: &mut Sky) -> Self {
        let kept = Kept::default();
        Self {
            run: Run::new(sky, &kept, 3),
            kept,
            snapshot: Arc::default(),
            xds: Cache::new(Settings::new(RANGE.parse().expect("a network"))),
            resolver: Resolver::new(),
            before: Arc::default(),
            virtual_ips_ever: BTreeMap::new(),
        }
    }

    /// Killed, and started again with what the store has.
    pub fn restart(&mut self, sky: &mut Sky) {
        sky.tell(format_args!("discovery starts again after snapshot {}", self.before.number));
        self.run = Run::new(sky, &self.kept, self.run.watch.heavy());
        self.snapshot = Arc::default();
        self.xds = Cache::new(Settings::new(RANGE.parse().expect("a network")));
    }

    pub fn watch(&mut self) -> &mut Watch {
        &mut self.run.watch
    }

    /// One step.
    pub fn advance(&mut self, sky: &mut Sky, engine: &mut Engine) {
        let told = self.run.watch.advance(sky, engine);
        let mut is_due = !told.is_empty();
        for one in told {
            self.observe(sky, one);
        }
        is_due |= self.probe(sky, engine);
        is_due |= self.run.registry.next_expiry().is_some_and(|expiry| expiry <= sky.instant());
        is_due |= self.run.begin(sky);
        if self.run.phase == Phase::Telling && is_due {
            self.publish(sky, engine);
        }
        self.check(sky, engine);
    }

    /// An error of a provider takes nothing away.
    fn observe(&mut self, sky: &Sky, told: Told) {
        let Told { provider, observation, is_error } = told;
        let seen: Vec<EndpointId> = observation.endpoints.iter().map(|seen| seen.endpoint.id.clone()).collect();
        self.run.registry.observe(provider, observation);
        let before = self.run.seen.insert(provider, seen);
        if let Some(before) = before.filter(|_| is_error) {
            let seen = &self.run.seen[provider];
            assert!(before == *seen, "{sky}: an error of {provider} changed {before:?} to {seen:?}");
        }
    }

    /// True when something was found out.
    fn probe(&mut self, sky: &mut Sky, engine: &Engine) -> bool {
        let targets = self.run.registry.probe_targets();
        let wanted: BTreeSet<EndpointId> = targets.iter().map(|target| target.id.clone()).collect();
        self.run.probes.retain(|id, _| wanted.contains(id));
        let mut is_news = false;
        for target in targets {
            let (tries, at) = self.run.probes.entry(target.id.clone()).or_insert_with(|| (Tries::default(), sky.now));
            if *at > sky.now {
                continue;
            }
            *at = sky.now + PROBE_INTERVAL;
            let outcomes: Vec<Outcome> = target.addresses.iter().map(|address| knock(sky, engine, *address)).collect();
            let verdict = tries.round(&outcomes);
            let is_decided = verdict != Verdict::Waiting;
            if is_decided {
                self.run.judged_ready.insert(target.id.clone());
            }
            // As the prober does: the first refusal is told, silence is not.
            if is_decided || outcomes.contains(&Outcome::Refused) {
                is_news |= is_decided || !self.run.refused.contains(&target.id);
                self.run.refused.insert(target.id.clone());
                self.run.registry.judge(target.id, verdict);
            }
        }
        is_news
    }

    fn publish(&mut self, sky: &mut Sky, engine: &Engine) {
        self.run.registry.next(sky.instant());
        let snapshot = self.run.registry.snapshot().clone();
        if snapshot.number == self.snapshot.number {
            return;
        }
        for change in self.run.registry.take_allotment_changes() {
            match change {
                AllotmentChange::Allotted { service, address } => drop(self.kept.virtual_ips.insert(service, address)),
                AllotmentChange::Reclaimed { service } => drop(self.kept.virtual_ips.remove(&service)),
            }
        }
        (self.kept.number, self.kept.was_told) = (snapshot.number, true);
        for change in diff(&self.before, &snapshot) {
            sky.tell(format_args!("snapshot {}: {change}", snapshot.number));
        }
        self.check_next(sky, engine, &snapshot);
        self.resolver.check(sky, &snapshot);
        self.snapshot = snapshot.clone();
        self.before = snapshot;
    }

    fn check_next(&mut self, sky: &Sky, engine: &Engine, next: &Snapshot) {
        let last = self.before.number;
        assert!(next.number > last, "{sky}: snapshot {} follows {last}", next.number);
        self.check_virtual_ips(sky, next);
        for endpoint in next.endpoints.values().flat_map(|list| list.iter()) {
            let (id, is_container) = (&endpoint.id, engine.address_of(&endpoint.id).is_some());
            if is_container && endpoint.state == EndpointState::Ready {
                let stated = endpoint.reason.contains("healthcheck");
                let judged = stated || self.run.judged_ready.contains(id);
                assert!(judged, "{sky}: {id} is ready ({}), and nobody knows why", endpoint.reason);
            }
        }
        let is_first = self.snapshot.number == 0;
        if is_first && self.run.is_whole {
            self.check_nothing_flapped(sky, engine, next);
        }
    }

    /// They never change and are never shared; only of a service that has been gone for long another may have it.
    fn check_virtual_ips(&mut self, sky: &Sky, next: &Snapshot) {
        let may_be_another = |last_seen: Duration| sky.now.saturating_sub(last_seen) >= RECLAIM_AFTER;
        for service in next.services.values() {
            let now = service.virtual_ip;
            if let Some((before, last_seen)) = self.virtual_ips_ever.get(&service.id) {
                let kept = *before == now || may_be_another(*last_seen);
                assert!(kept, "{sky}: the virtual IP of {} was {before}, and is {now}", service.id);
            }
            let others =
                self.virtual_ips_ever.iter().filter(|(other, (address, _))| **other != service.id && *address == now);
            for (other, (_, last_seen)) in others {
                assert!(may_be_another(*last_seen), "{sky}: {now} was {other}'s just now, and is {}'s", service.id);
            }
        }
        // Those that had it before had it for the last time.
        let taken: BTreeSet<IpAddr> = next.services.values().map(|service| service.virtual_ip).collect();
        assert_eq!(taken.len(), next.services.len(), "{sky}: two services share a virtual IP");
        self.virtual_ips_ever
            .retain(|service, (address, _)| next.services.contains_key(service) || !taken.contains(address));
        for service in next.services.values() {
            self.virtual_ips_ever.insert(service.id.clone(), (service.virtual_ip, sky.now));
        }
    }

    /// What was ready before discovery was started again, and still is, is ready in the first snapshot too.
    fn check_nothing_flapped(&self, sky: &Sky, engine: &Engine, next: &Snapshot) {
        for (service, list) in &self.before.endpoints {
            for before in list.iter().filter(|endpoint| endpoint.state == EndpointState::Ready) {
                let well = engine.living(&before.id).is_some_and(|unit| unit.has_long_been_well(sky));
                if well {
                    let now = next.endpoints_of(service).iter().find(|endpoint| endpoint.id == before.id);
                    let state = now.map(|endpoint| (endpoint.state, endpoint.reason.clone()));
                    let ready = state.as_ref().is_some_and(|(state, _)| *state == EndpointState::Ready);
                    assert!(ready, "{sky}: {} was ready before the restart, and is {state:?} after it", before.id);
                }
            }
        }
    }

    /// At every step: nobody is told of whose life is over for long, and nobody at another's address.
    fn check(&mut self, sky: &Sky, engine: &Engine) {
        for service in self.snapshot.services.keys() {
            self.virtual_ips_ever.entry(service.clone()).and_modify(|(_, last_seen)| *last_seen = sky.now);
        }
        for endpoint in self.snapshot.endpoints.values().flat_map(|list| list.iter()) {
            let over_for = engine.over_for(sky, &endpoint.id);
            assert!(over_for <= STALE_MAX, "{sky}: {} is {} {over_for:?} after its end", endpoint.id, endpoint.state);
            if let Some(address) = engine.address_of(&endpoint.id) {
                assert_eq!(endpoint.address(), Some(address), "{sky}: {} is at another's address", endpoint.id);
            }
        }
    }
}

/// One connect of the prober, to whoever is there.
fn knock(sky: &mut Sky, engine: &Engine, address: SocketAddr) -> Outcome {
    if sky.mishap(50) {
        return Outcome::NoWay { address, error: "no route".to_owned() };
    }
    let accepts = engine.at(address).is_some_and(|unit| unit.accepts(sky));
    if accepts { Outcome::Accepted } else { Outcome::Refused }
}
