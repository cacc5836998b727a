//! What is known to happen, each alone in a world where nothing else does.

use std::time::Duration;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::{DEFAULT_ZONE, EndpointId, Name, ServiceId};
use mesh_discovery::runtime::UnitId;

use crate::traffic::End;
use crate::unit::Behaviour;
use crate::wanted::{Wanted, guest};
use crate::world::World;

const SEED: u64 = 3;

fn service(name: &str) -> ServiceId {
    ServiceId::new(Name::new(name).unwrap(), Name::new("shop").unwrap())
}

fn cluster(name: &str, port: u16) -> String {
    service(name).cluster_name(port, DEFAULT_ZONE)
}

/// A world that has come up.
fn up() -> World {
    let mut world = World::calm(SEED);
    world.converge();
    world
}

impl World {
    fn steps(&mut self, steps: u32) {
        (0..steps).for_each(|_| self.step());
    }

    /// Steps with two requests each to one cluster, by the first proxy.
    fn steps_with_calls(&mut self, steps: u32, cluster: &str) {
        for _ in 0..steps {
            for _ in 0..2 {
                self.traffic.call_cluster(&mut self.sky, &self.engine, &mut self.proxies, 0, cluster);
            }
            self.step();
        }
    }

    fn unit_of(&self, compose_service: &str) -> UnitId {
        let of = |unit: &&crate::unit::Unit| unit.is_up() && unit.spec.id.service.as_str() == compose_service;
        self.engine.units.values().find(of).expect("one runs").id.unit.clone()
    }

    fn all_answered(&mut self) {
        self.finish_calls();
        let (begun, answered) = (self.traffic.tally.begun, self.traffic.ended(End::Answered));
        assert!(begun > 0 && answered == begun, "{}: {:?}", self.sky, self.traffic.tally);
    }
}

#[test]
fn a_service_that_keeps_crashing_is_started_ever_more_rarely() {
    let mut world = up();
    let (before, web) = (world.engine.starts, service("web"));
    world.engine.crashing.insert(Name::new("api").unwrap());
    let minute = 600;
    let starts: Vec<u64> = (0..3)
        .map(|_| {
            let before = world.engine.starts;
            world.steps(minute);
            world.engine.starts - before
        })
        .collect();
    // Two replicas; waits of 1, 2, 4, … 60 s, with jitter.
    assert!((4..=24).contains(&starts[0]), "{starts:?}");
    assert!(starts[2] <= 8 && starts[2] >= 1, "it goes on, rarely: {starts:?}");
    let ready = world.discovery.snapshot.ready_endpoints_of(&web).count();
    assert_eq!(ready, 4, "its neighbours are left alone, {} starts in all", world.engine.starts - before);
    world.engine.crashing.clear();
    world.converge();
}

#[test]
fn one_that_answers_500_is_taken_out_and_no_caller_sees_it() {
    let mut world = up();
    let bad = world.unit_of("web");
    world.engine.behave(&mut world.sky, &bad, Behaviour::Answers500);
    let (cluster_name, ejected_from) = (cluster("cache", 7000), world.traffic.tally.ejections);
    world.steps_with_calls(100, &cluster_name);
    assert_eq!(world.traffic.tally.ejections, ejected_from, "nothing is wrong with another service");
    let name = cluster("web", 8080);
    for _ in 0..100 {
        for _ in 0..2 {
            world.traffic.call_idempotent(&mut world.sky, &world.engine, &mut world.proxies, 0, &name);
        }
        world.step();
    }
    assert!(world.traffic.tally.ejections > ejected_from, "it is taken out");
    let seen = world.proxies[0].cluster(&name).unwrap().clone();
    let out = seen.endpoints().iter().find(|one| seen.ejected_for(one, world.sky.instant()).is_some());
    assert_eq!(out.map(|one| one.id().unit.clone()), Some(bad), "{}", world.sky);
    world.all_answered();
}

#[test]
fn a_killed_one_is_replaced_and_its_address_is_anothers_without_its_past() {
    let mut world = up();
    let killed = world.unit_of("web");
    let (name, address) = (cluster("web", 8080), world.engine.units[&killed].address);
    world.engine.behave(&mut world.sky, &killed, Behaviour::Answers500);
    world.steps_with_calls(50, &name);
    world.engine.end(&mut world.sky, &killed, 137);
    // The next one that starts gets the address: somebody else's.
    world.engine.start(&mut world.sky, &guest(1)).unwrap();
    let guest_has_it = world.engine.units.values().any(|unit| unit.is_up() && unit.address == address);
    assert!(guest_has_it, "{}: {address} is free", world.sky);
    world.converge();
    let view = &world.proxies[0].view;
    let at_it = view.clusters.values().flat_map(|one| one.endpoints()).filter(|one| one.target.address.ip() == address);
    let at_it: Vec<_> = at_it.collect();
    assert_eq!(at_it.len(), 1, "{}", world.sky);
    let stats = &at_it[0].stats;
    assert_eq!((stats.requests_total(), stats.failures_total(), stats.ejections_total()), (0, 0, 0));
    assert!(!world.discovery.snapshot.departed.contains_key(&address), "it belongs to whoever has it now");
    assert_eq!(world.discovery.snapshot.ready_endpoints_of(&service("web")).count(), 4);
}

#[test]
fn discovery_is_killed_and_nothing_flaps() {
    let mut world = up();
    let before = world.discovery.snapshot.clone();
    let ids = |world: &World| -> Vec<(EndpointId, EndpointState)> {
        let clusters = world.proxies[1].view.clusters.values();
        let mut ids: Vec<_> =
            clusters.flat_map(|one| one.endpoints()).map(|one| (one.id().clone(), one.target.state)).collect();
        ids.sort();
        ids
    };
    let (known, views) = (ids(&world), world.proxies[1].view.number);
    world.restart_discovery();
    let name = cluster("web", 8080);
    for _ in 0..100 {
        world.steps_with_calls(1, &name);
        assert_eq!(ids(&world), known, "{}", world.sky);
    }
    let after = &world.discovery.snapshot;
    assert!(after.number > before.number);
    assert_eq!((&after.services, &after.endpoints), (&before.services, &before.endpoints));
    assert_eq!(world.proxies[1].view.number, views, "the same again is no news");
    world.all_answered();
}

#[test]
fn a_proxy_that_starts_while_discovery_is_down_serves_what_it_knows() {
    let mut world = up();
    world.steps(100);
    world.engine.go_down(&mut world.sky, Duration::ZERO);
    world.discovery.restart(&mut world.sky);
    for at in 0..world.proxies.len() {
        world.restart_proxy(at);
    }
    let name = cluster("web", 8080);
    assert_eq!(world.discovery.snapshot.number, 0, "nothing is told yet");
    world.traffic.call_cluster(&mut world.sky, &world.engine, &mut world.proxies, 0, &name);
    world.traffic.call_cluster(&mut world.sky, &world.engine, &mut world.proxies, 1, &name);
    assert_eq!(world.traffic.tally.begun, 2);
    world.all_answered();
}

#[test]
fn a_new_version_is_rolled_out_without_a_failed_request() {
    let mut world = up();
    world.want(Wanted { version: 2, ..world.wanted.clone() });
    let name = cluster("web", 8080);
    for _ in 0..600 {
        world.traffic.call_idempotent(&mut world.sky, &world.engine, &mut world.proxies, 0, &name);
        let serving = world.discovery.snapshot.ready_endpoints_of(&service("web")).count();
        assert!(serving >= 3, "{}: one at a time, of four", world.sky);
        world.step();
    }
    world.converge();
    world.all_answered();
}

#[test]
fn retries_stay_within_their_budget_when_all_fail() {
    let mut world = up();
    let units: Vec<UnitId> = world.engine.units.keys().cloned().collect();
    for unit in units {
        world.engine.behave(&mut world.sky, &unit, Behaviour::Answers500);
    }
    let (name, steps) = (cluster("web", 8080), 100_u32);
    for _ in 0..steps {
        for _ in 0..10 {
            world.traffic.call_idempotent(&mut world.sky, &world.engine, &mut world.proxies, 0, &name);
        }
        world.step();
    }
    world.finish_calls();
    let (begun, retries) = (world.traffic.tally.begun, world.traffic.tally.retries);
    // A fifth of the requests, and ten a second with a second's worth at once.
    let most = begun / 5 + 10 * (u64::from(steps) / 10 + 2);
    assert!(retries <= most, "{retries} retries of {begun} requests, {most} are allowed");
    assert!(retries >= begun / 5, "the budget is used: {retries} retries of {begun} requests");
    let failed = world.traffic.ended(End::Failed);
    assert_eq!(failed, begun, "each client gets the 500 that the last one answered: {:?}", world.traffic.tally);
}

#[test]
fn a_plan_whose_executor_is_killed_half_way_is_carried_on() {
    let mut world = World::calm(SEED);
    for step in 0..200 {
        world.step();
        // At every moment of a start, one after the other.
        if step % 7 == 0 {
            world.planner.restart(&mut world.sky, &world.engine);
        }
    }
    world.converge();
    let wanted = u64::from(world.wanted.web + world.wanted.canary + world.wanted.api);
    assert_eq!(world.engine.starts, wanted, "none was started twice");
}
