//! The whole world of one seed: what goes wrong in it, and what must be there once nothing goes wrong any more.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_discovery::xds::node::ClientKind;

use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::planner::Planner;
use crate::proxy::Proxy;
use crate::sky::Sky;
use crate::traffic::{End, Traffic};
use crate::unit::{Behaviour, Life};
use crate::wanted::{Wanted, guest};
use crate::watch::DOWN_MAX;
use mesh_discovery::runtime::UnitId;

/// Between two disturbances of one kind that together take longer than what they disturb.
const SPACING: Duration = Duration::from_secs(50);
/// Steps within which everything must be as asked once nothing goes wrong any more.
const CALM_STEPS: u32 = 2_000;
/// Longer than any ejection, any memory of an address, and any virtual IP of a service that is gone.
const LONG: Duration = Duration::from_secs(601);

const GUESTS_MAX: usize = 4;
const GUEST_NAMES: u32 = 16;

pub struct World {
    pub sky: Sky,
    pub engine: Engine,
    pub discovery: Discovery,
    pub planner: Planner,
    pub proxies: Vec<Proxy>,
    pub traffic: Traffic,
    pub wanted: Wanted,
    /// When engine and discovery may be disturbed again, in waking time.
    engine_from: Duration,
    discovery_from: Duration,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut sky = Sky::new(seed);
        let engine = Engine::new();
        let wanted = Wanted { web: 3, canary: 1, api: 2, version: 1 };
        let discovery = Discovery::new(&mut sky);
        let planner = Planner::new(&sky, &engine, &wanted);
        let bound = ClientKind { bind_address: "127.0.0.1".parse().ok(), ..ClientKind::default() };
        let capturing = ClientKind { outbound: "0.0.0.0:14001".parse().ok(), ..ClientKind::default() };
        let proxies = vec![Proxy::new(&sky, "the bound proxy", bound), Proxy::new(&sky, "the node proxy", capturing)];
        let (engine_from, discovery_from) = (Duration::ZERO, Duration::ZERO);
        let traffic = Traffic::default();
        Self { sky, engine, discovery, planner, proxies, traffic, wanted, engine_from, discovery_from }
    }

    /// A world in which nothing goes wrong by itself.
    pub fn calm(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.sky.is_stormy = false;
        world
    }

    /// One step of everybody.
    pub fn step(&mut self) {
        let Self { sky, engine, discovery, planner, proxies, traffic, .. } = self;
        sky.advance();
        engine.advance(sky);
        discovery.advance(sky, engine);
        planner.advance(sky, engine, &discovery.snapshot);
        for proxy in proxies.iter_mut() {
            proxy.advance(sky, discovery, engine);
        }
        traffic.advance(sky, engine, proxies);
    }

    /// A request or two, to anybody.
    pub fn call(&mut self) {
        for at in 0..self.proxies.len() {
            if self.sky.random.bool() {
                self.traffic.call(&mut self.sky, &self.engine, &mut self.proxies, at);
            }
        }
    }

    pub fn storm(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.sky.mishap(6) {
                self.disturb();
            }
            self.call();
            self.step();
        }
    }

    /// One thing goes wrong, or changes.
    fn disturb(&mut self) {
        let units: Vec<UnitId> = self.engine.units.keys().cloned().collect();
        let unit = self.sky.any_of(units.len()).map(|at| units[at].clone()).unwrap_or_default();
        let (sky, engine) = (&mut self.sky, &mut self.engine);
        match sky.random.u32(0..48) {
            0..=5 => engine.end(sky, &unit, 137),
            6..=9 => engine.stop(sky, &unit),
            10..=12 => engine.restart(sky, &unit),
            13..=19 => {
                let all = [Behaviour::Good, Behaviour::Answers500, Behaviour::Hangs, Behaviour::Refuses];
                let behaviour = all[sky.random.usize(0..all.len())];
                engine.behave(sky, &unit, behaviour);
            }
            20..=22 => {
                let is_paused = sky.random.bool();
                engine.pause(sky, &unit, is_paused);
            }
            23..=28 => self.guests(),
            29..=31 => self.ask_for_other_numbers(),
            32 => self.ask_for_another_version(),
            33..=34 => self.discovery.watch().edit_file(&mut self.sky),
            35 => self.lose_engine(false),
            36 => self.lose_engine(true),
            37..=38 => self.restart_discovery(),
            39..=40 => self.planner.restart(&mut self.sky, &self.engine),
            41..=42 => {
                let at = self.sky.random.usize(0..self.proxies.len());
                self.restart_proxy(at);
            }
            43..=46 => {
                let at = self.sky.random.usize(0..self.proxies.len());
                self.proxies[at].cut(&mut self.sky);
            }
            _ => {
                let longest = if self.sky.random.u8(0..6) == 0 { LONG.as_millis() as u64 } else { 40_000 };
                let by = self.sky.up_to(longest);
                self.sky.jump(by);
            }
        }
    }

    /// Somebody else's containers come and go.
    fn guests(&mut self) {
        let of_guests = |unit: &&crate::unit::Unit| unit.spec.id.project.as_str() == "guest";
        let there: Vec<UnitId> =
            self.engine.units.values().filter(of_guests).map(|unit| unit.id.unit.clone()).collect();
        if there.len() < GUESTS_MAX && self.sky.random.bool() {
            let spec = guest(self.sky.random.u32(0..GUEST_NAMES));
            // One that is there already is there already.
            let _ = self.engine.start(&mut self.sky, &spec);
        } else if let Some(at) = self.sky.any_of(there.len()) {
            self.engine.end(&mut self.sky, &there[at], 0);
            self.engine.remove(&there[at]).expect("it has ended");
        }
    }

    fn ask_for_other_numbers(&mut self) {
        let random = &mut self.sky.random;
        let (web, canary, api) = (random.u32(0..6), random.u32(0..3), random.u32(0..4));
        let wanted = Wanted { web, canary, api, version: self.wanted.version };
        self.want(wanted);
    }

    fn ask_for_another_version(&mut self) {
        let version = self.wanted.version + 1;
        self.want(Wanted { version, ..self.wanted.clone() });
    }

    pub fn want(&mut self, wanted: Wanted) {
        self.sky.tell(format_args!("asked for: {wanted:?}"));
        self.planner.want(&wanted);
        self.wanted = wanted;
    }

    /// Its API is away for a while; after a crash all that ran has ended, too.
    fn lose_engine(&mut self, crash: bool) {
        if self.sky.awake < self.engine_from {
            return;
        }
        self.engine_from = self.sky.awake + SPACING;
        self.engine.go_down(&mut self.sky, DOWN_MAX);
        let units: Vec<UnitId> = self.engine.units.keys().filter(|_| crash).cloned().collect();
        for unit in units {
            self.engine.end(&mut self.sky, &unit, 137);
        }
    }

    pub fn restart_discovery(&mut self) {
        if self.sky.awake < self.discovery_from {
            return;
        }
        self.discovery_from = self.sky.awake + SPACING;
        self.discovery.restart(&mut self.sky);
        self.proxies.iter_mut().for_each(|proxy| proxy.cut(&mut self.sky));
    }

    pub fn restart_proxy(&mut self, at: usize) {
        self.traffic.lose(at);
        self.proxies[at].restart(&mut self.sky);
    }

    /// Nothing goes wrong any more, and what is wrong is put right, as far as that is nobody's job here.
    pub fn settle(&mut self) {
        self.sky.is_stormy = false;
        self.sky.tell("calm");
        if self.wanted.web + self.wanted.canary == 0 || self.wanted.web == 0 {
            // `api` would wait for it for ever, as it has to.
            self.want(Wanted { web: 1, ..self.wanted.clone() });
        }
        let units: Vec<UnitId> = self.engine.units.keys().cloned().collect();
        for unit in units {
            if self.engine.units[&unit].spec.id.project.as_str() == "guest" {
                // Their virtual IPs are needed.
                self.engine.end(&mut self.sky, &unit, 0);
                self.engine.remove(&unit).expect("it has ended");
                continue;
            }
            self.engine.pause(&mut self.sky, &unit, false);
            if self.engine.units[&unit].behaviour != Behaviour::Good {
                self.engine.behave(&mut self.sky, &unit, Behaviour::Good);
            }
        }
    }

    /// Goes on until everything is as asked, everywhere.
    pub fn converge(&mut self) {
        for step in 0..CALM_STEPS {
            if step == CALM_STEPS / 4 {
                // Virtual IPs may have run out, until those of services that are gone are free.
                self.sky.jump(LONG);
            }
            self.step();
            if self.has_converged() {
                self.check_catalogue();
                return;
            }
        }
        let Self { sky, planner, proxies, discovery, .. } = self;
        let proxies: Vec<String> = proxies.iter().map(Proxy::describe).collect();
        let conditions = &discovery.snapshot.conditions;
        panic!("{sky}: it does not converge\n{}\n{}\n{conditions:#?}", planner.describe(), proxies.join("\n"));
    }

    fn has_converged(&self) -> bool {
        let Self { sky, engine, discovery, planner, proxies, .. } = self;
        // One for which there was no virtual IP is not in the catalogue until another's is free.
        let is_there = |(name, _, count): &(&str, u16, u32)| {
            let service = ServiceId::new(name_of(name), name_of("shop"));
            *count == 0 || discovery.snapshot.services.contains_key(&service)
        };
        let lives = self.catalogue_is_what_runs() && self.expected().iter().all(is_there);
        lives
            && planner.is_as_asked(sky, engine, &discovery.snapshot)
            && proxies.iter().all(|proxy| proxy.is_converged(discovery))
    }

    fn catalogue_is_what_runs(&self) -> bool {
        let endpoints = self.discovery.snapshot.endpoints.values().flat_map(|list| list.iter());
        let known = endpoints.filter(|endpoint| !endpoint.id.unit.contains(':'));
        let known: BTreeSet<(&EndpointId, bool)> =
            known.map(|endpoint| (&endpoint.id, endpoint.state == EndpointState::Ready)).collect();
        let runs: BTreeSet<(&EndpointId, bool)> = self
            .engine
            .units
            .values()
            .filter(|unit| unit.is_up())
            .filter(|unit| self.discovery.snapshot.services.contains_key(&service_of(unit)))
            .map(|unit| (&unit.id, unit.life == Life::Up && unit.accepts(&self.sky)))
            .collect();
        known == runs
    }

    /// Services, each with its port and how many replicas it has in the end.
    fn expected(&self) -> [(&'static str, u16, u32); 3] {
        let wanted = &self.wanted;
        [("web", 8080, wanted.web + wanted.canary), ("api", 9000, wanted.api), ("cache", 7000, 4)]
    }

    /// The compose file, endpoint by endpoint, in the catalogue and in every proxy's view.
    fn check_catalogue(&self) {
        let sky = &self.sky;
        for (name, port, count) in self.expected() {
            let service = ServiceId::new(name_of(name), name_of("shop"));
            let ready = self.discovery.snapshot.ready_endpoints_of(&service).count();
            assert_eq!(ready, count as usize, "{sky}: ready endpoints of {service}");
            for proxy in &self.proxies {
                let cluster = proxy.cluster(&service.cluster_name(port, mesh_core::model::names::DEFAULT_ZONE));
                let seen: Vec<_> = cluster.map(|cluster| cluster.endpoints().to_vec()).unwrap_or_default();
                let (seen, told) = (seen.iter(), self.discovery.snapshot.endpoints_of(&service));
                let seen: BTreeSet<_> =
                    seen.map(|one| (one.id().clone(), one.target.weight, one.target.state)).collect();
                let told: BTreeSet<_> = told.iter().map(|one| (one.id.clone(), one.weight, one.state)).collect();
                assert_eq!(seen, told, "{sky}: {service} as {} sees it", proxy.name);
            }
        }
        let canaries = ServiceId::new(name_of("web"), name_of("shop"));
        let canaries = self.discovery.snapshot.endpoints_of(&canaries).iter().filter(|one| one.weight == 20);
        assert_eq!(canaries.count(), self.wanted.canary as usize, "{sky}: canaries, by their weight");
    }

    /// Everything is well: each request is answered, and shares are as configured.
    pub fn check_quiet(&mut self) {
        self.sky.jump(LONG);
        self.converge();
        self.finish_calls();
        let before: u64 = self.traffic.tally.begun - self.traffic.ended(End::Answered);
        for _ in 0..50 {
            self.call();
            self.step();
        }
        self.finish_calls();
        let failed = self.traffic.tally.begun - self.traffic.ended(End::Answered) - before;
        assert_eq!(failed, 0, "{}: all is well, and requests fail: {:?}", self.sky, self.traffic.tally);
        self.check_shares();
    }

    pub fn finish_calls(&mut self) {
        for _ in 0..400 {
            if self.traffic.is_quiet() {
                return;
            }
            self.step();
        }
        panic!("{}: requests never end", self.sky);
    }

    fn check_shares(&mut self) {
        let Self { sky, proxies, .. } = self;
        for proxy in proxies {
            for name in proxy.cluster_names() {
                let cluster = proxy.cluster(&name).expect("it was just named").clone();
                let takers: Vec<_> = cluster.levels().first().into_iter().flat_map(|level| level.members()).collect();
                let taker = |at: &&u32| &cluster.endpoints()[**at as usize];
                let total: u32 = takers.iter().map(|at| taker(at).target.weight).sum();
                // A multiple of every cycle: weights here are multiples of 20, or below 7.
                let picks = if total.is_multiple_of(20) { total / 20 * 20 } else { total * 240 };
                let mut counts = std::collections::BTreeMap::new();
                for _ in 0..picks {
                    let pick = proxy.balancer(0, &name, sky.seed).pick(&cluster, &[], sky.instant());
                    let id = pick.expect("all is well").endpoint.id().clone();
                    *counts.entry(id).or_insert(0_u32) += 1;
                }
                for endpoint in takers.iter().map(taker) {
                    let share = f64::from(endpoint.target.weight) / f64::from(total);
                    let got = f64::from(counts.get(endpoint.id()).copied().unwrap_or(0)) / f64::from(picks);
                    let is_random = cluster.policy().balance == mesh_core::model::policy::Balance::LeastRequest;
                    let most = if is_random { 0.06 } else { 1.01 / f64::from(picks) };
                    let id = endpoint.id();
                    assert!(
                        (share - got).abs() <= most,
                        "{sky}: {name}: {id} gets {got} of {picks}, not {share}: {counts:?}"
                    );
                }
            }
        }
    }
}

/// As labels give it: the canary is one of `web`.
fn service_of(unit: &crate::unit::Unit) -> ServiceId {
    let id = &unit.spec.id;
    let name = if id.service.as_str() == "canary" { name_of("web") } else { id.service.clone() };
    ServiceId::new(name, id.project.clone())
}

fn name_of(text: &str) -> Name {
    Name::new(text).expect("a name of this file")
}
