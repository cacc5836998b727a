//! Shares under a queueing model, exactness, and the order of preference.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use mesh_core::model::policy::Policy;
use mesh_core::model::resource::Target;

use super::*;
use crate::endpoint::ActiveRequest;
use crate::endpoint::tests::{cluster_of, cluster_with, next_version, start, target};

fn round_robin() -> Policy {
    Policy { balance: Balance::RoundRobin, ..Policy::default() }
}

fn weighted(weights: &[u32]) -> Vec<Target> {
    (0..).zip(weights).map(|(i, weight)| target(i, *weight)).collect()
}

/// How long equally fast endpoints take.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Service {
    /// All the same, to the nanosecond.
    Fixed,
    Jittered,
    Exponential,
    /// One processor for all of them: requests end in the order they came.
    InOrder,
    /// All connections send at once, and wait for each other.
    Rounds,
}

/// Keeps `connections` requests under way, each connection sending its next as soon as the last has ended, through workers that
/// share the connections; returns the requests each endpoint took.
fn simulate(weights: &[u32], connections: usize, workers: usize, service: Service, seed: u64) -> Vec<u64> {
    let now = start();
    let cluster = cluster_of(weighted(weights));
    let mut random = fastrand::Rng::with_seed(seed ^ 0xABCD);
    let mut balancers: Vec<_> = (0..workers as u64).map(|worker| Balancer::new(seed * 64 + worker)).collect();
    let mut counts = vec![0; weights.len()];
    let mut send = |connection: usize| -> ActiveRequest {
        let endpoint = balancers[connection % workers].pick(&cluster, &[], now).unwrap().endpoint;
        counts[cluster.endpoints().iter().position(|known| Arc::ptr_eq(known, endpoint)).unwrap()] += 1;
        endpoint.begin_request()
    };
    let total = 6_000;
    match service {
        Service::Rounds => {
            for _ in 0..total / connections {
                let round: Vec<_> = (0..connections).map(&mut send).collect();
                drop(round);
            }
        }
        Service::InOrder => {
            let mut queue: VecDeque<_> = (0..connections).map(|connection| (connection, send(connection))).collect();
            for _ in 0..total {
                let (connection, request) = queue.pop_front().unwrap();
                drop(request);
                queue.push_back((connection, send(connection)));
            }
        }
        _ => {
            let mut held: BTreeMap<usize, ActiveRequest> = BTreeMap::new();
            let mut ends: BinaryHeap<std::cmp::Reverse<(u64, usize)>> = BinaryHeap::new();
            (0..connections).for_each(|connection| ends.push(std::cmp::Reverse((connection as u64 % 7, connection))));
            for _ in 0..total {
                let std::cmp::Reverse((time, connection)) = ends.pop().unwrap();
                held.remove(&connection);
                held.insert(connection, send(connection));
                let lasts = match service {
                    Service::Jittered => random.u64(900_000..1_100_000),
                    Service::Exponential => (-1e6 * (1.0 - random.f64()).ln()) as u64,
                    _ => 1_000_000,
                };
                ends.push(std::cmp::Reverse((time + lasts, connection)));
            }
        }
    }
    counts
}

#[test]
fn least_request_keeps_the_shares_of_the_weights_at_any_concurrency() {
    let services = [Service::Fixed, Service::Jittered, Service::Exponential, Service::InOrder, Service::Rounds];
    let check = |weights: &[u32], connections: &[usize], seeds: u64| {
        let weight_total: f64 = weights.iter().copied().map(f64::from).sum();
        for (service, connections) in
            services.iter().flat_map(|service| connections.iter().map(move |c| (*service, *c)))
        {
            for (seed, workers) in (0..seeds).zip([1, 2].into_iter().cycle()) {
                let counts = simulate(weights, connections, workers, service, seed);
                let total: u64 = counts.iter().sum();
                for (count, weight) in counts.iter().zip(weights) {
                    let off = *count as f64 / total as f64 - f64::from(*weight) / weight_total;
                    assert!(
                        off.abs() < 0.02,
                        "{weights:?} {service:?} {connections} connections, seed {seed}: {off:+.4}"
                    );
                }
            }
        }
    };
    check(&[3, 1], &[1, 2, 3, 4, 8, 64], 6);
    check(&[300, 100], &[4, 64], 2);
    check(&[1, 1], &[1, 4, 64], 2);
    check(&[101, 100], &[1, 4, 64], 2);
    check(&[100, 1], &[1, 4, 64], 2);
    check(&[5, 3, 1, 1], &[1, 4, 64], 2);
    check(&[7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[1, 4, 64], 2);
}

#[test]
fn least_request_turns_away_from_an_endpoint_that_does_not_answer() {
    let now = start();
    let check = |weights: &[u32], held_max: u32| {
        let cluster = cluster_of(weighted(weights));
        let mut balancer = Balancer::new(5);
        let mut stuck = Vec::new();
        for _ in 0..2_000 {
            let endpoint = balancer.pick(&cluster, &[], now).unwrap().endpoint;
            if endpoint.id() == cluster.endpoints()[0].id() {
                stuck.push(endpoint.begin_request());
            }
        }
        let held = cluster.endpoints()[0].stats.active_requests();
        assert!(held <= held_max, "{weights:?}: {held} requests went to an endpoint that never answers");
    };
    check(&[1, 1], 1);
    check(&[3, 1], 12);
    check(&[1, 3], 4);
    check(&[100, 100, 100, 50], 8);
    check(&[1; 50], 1);
}

#[test]
fn round_robin_is_exact() {
    let now = start();
    let check = |weights: &[u32], workers: usize| {
        let cluster = cluster_with(weighted(weights), round_robin(), now);
        let mut balancers: Vec<_> = (0..workers as u64).map(Balancer::new).collect();
        let cycle: usize = weights.iter().sum::<u32>() as usize;
        for balancer in &mut balancers {
            let mut picks = Vec::new();
            for _ in 0..cycle * 5 {
                let endpoint = balancer.pick(&cluster, &[], now).unwrap().endpoint;
                picks.push(cluster.endpoints().iter().position(|known| Arc::ptr_eq(known, endpoint)).unwrap());
            }
            for run in picks.windows(cycle) {
                for (index, weight) in weights.iter().enumerate() {
                    let count = run.iter().filter(|pick| **pick == index).count();
                    assert_eq!(count, *weight as usize, "{weights:?}: {run:?}");
                }
            }
        }
    };
    check(&[3, 1], 8);
    check(&[1], 2);
    check(&[1, 1, 1], 4);
    check(&[5, 1, 1], 4);
    check(&[7, 2, 13, 1, 1], 4);
}

#[test]
fn round_robin_is_smooth_and_workers_start_apart() {
    let now = start();
    let cluster = cluster_with(weighted(&[1, 5, 2]), round_robin(), now);
    let mut firsts = [0; 3];
    for seed in 0..400 {
        let mut balancer = Balancer::new(seed);
        let mut in_a_row = 0;
        for step in 0..80 {
            let heavy = balancer.pick(&cluster, &[], now).unwrap().endpoint.target.weight == 5;
            in_a_row = if heavy { in_a_row + 1 } else { 0 };
            assert!(in_a_row <= 3, "seed {seed}, step {step}");
        }
        let mut fresh = Balancer::new(seed);
        let first = fresh.pick(&cluster, &[], now).unwrap().endpoint;
        firsts[cluster.endpoints().iter().position(|known| Arc::ptr_eq(known, first)).unwrap()] += 1;
    }
    assert!(firsts[0] > 25 && firsts[1] > 180 && firsts[2] > 50, "{firsts:?}");
}

#[test]
fn round_robin_goes_on_where_it_was_after_an_update() {
    let now = start();
    let mut cluster = cluster_with(weighted(&[3, 1, 4]), round_robin(), now);
    let mut balancer = Balancer::new(9);
    let mut picks = Vec::new();
    for _ in 0..80 {
        picks.push(balancer.pick(&cluster, &[], now).unwrap().endpoint.target.weight as usize);
        cluster = next_version(Some(&cluster), weighted(&[3, 1, 4]), round_robin(), now);
    }
    for run in picks.windows(8) {
        for weight in [1, 3, 4] {
            assert_eq!(run.iter().filter(|pick| **pick == weight).count(), weight, "{run:?}");
        }
    }
}

fn both_kinds() -> [Policy; 2] {
    [Policy::default(), round_robin()]
}

/// What is picked in 200 tries.
fn picked(cluster: &LiveCluster, tried: &[u32], now: Instant) -> Vec<(u32, bool, bool)> {
    let tried: Vec<_> = tried.iter().map(|i| target(*i, 1).id).collect();
    let mut balancer = Balancer::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        if let Ok(Pick { endpoint, panic, again }) = balancer.pick(cluster, &tried, now) {
            let index = endpoint.id().unit.trim_start_matches("endpoint-").parse().unwrap();
            seen.insert((index, panic, again));
        }
    }
    seen.into_iter().collect()
}

#[test]
fn the_order_of_preference_holds() {
    let now = start();
    for policy in both_kinds() {
        for size in [4, 20] {
            // The last one stands by, 0 is drained by its weight, 1 is not ready; 2 and what follows serve.
            let mut targets: Vec<_> = (0..size).map(|i| target(i, 1)).collect();
            targets[0].weight = 0;
            targets[1].state = EndpointState::NotReady;
            targets[size as usize - 1].priority = 1;
            let cluster = cluster_with(targets, policy.clone(), now);
            let serving: Vec<u32> = (2..size - 1).collect();
            let plain = |indices: &[u32]| indices.iter().map(|i| (*i, false, false)).collect::<Vec<_>>();
            assert_eq!(picked(&cluster, &[], now), plain(&serving));
            assert_eq!(picked(&cluster, &serving[1..], now), plain(&serving[..1]), "the only one not tried");
            assert_eq!(picked(&cluster, &serving, now), plain(&[size - 1]), "the next priority beats tried ones");
            let all: Vec<u32> = (2..size).collect();
            let again: Vec<_> = serving.iter().map(|i| (*i, false, true)).collect();
            assert_eq!(picked(&cluster, &all, now), again, "tried ones beat none, the first priority again");

            let until = cluster.stats().clock_ms(now) + 1000;
            cluster.endpoints()[2].stats.eject(until, 1);
            assert_eq!(picked(&cluster, &all[1..], now), [(2, true, false)], "ejected ones beat tried ones");
            serving.iter().for_each(|i| cluster.endpoints()[*i as usize].stats.eject(until, 1));
            assert_eq!(picked(&cluster, &[], now), plain(&[size - 1]), "the next priority");
            cluster.endpoints()[size as usize - 1].stats.eject(until, 1);
            let panic: Vec<_> = serving.iter().map(|i| (*i, true, false)).collect();
            assert_eq!(picked(&cluster, &[], now), panic, "all ejected: the first priority, flagged");
            assert_eq!(
                picked(&cluster, &[], now + Duration::from_secs(1)),
                plain(&serving),
                "they return by themselves"
            );
        }
    }
}

#[test]
fn nobody_home_is_told_with_numbers() {
    let now = start();
    for policy in both_kinds() {
        let mut targets = weighted(&[1, 0, 1, 1]);
        targets[0].state = EndpointState::NotReady;
        targets[2].state = EndpointState::Draining;
        targets[3].state = EndpointState::NotReady;
        let cluster = cluster_with(targets, policy.clone(), now);
        let none = Balancer::new(0).pick(&cluster, &[], now).unwrap_err();
        assert_eq!(none, Unavailable { known: 4, not_ready: 2, draining: 1, weight_zero: 1, ejected: 0 });
        let empty = cluster_with(Vec::new(), policy, now);
        assert_eq!(Balancer::new(0).pick(&empty, &[], now).unwrap_err().known, 0);
    }
}

#[test]
fn every_endpoint_is_explained() {
    let now = start();
    let mut targets = weighted(&[1, 0, 1, 1, 1, 1]);
    targets[2].state = EndpointState::Draining;
    targets[3].state = EndpointState::NotReady;
    targets[5].priority = 2;
    let cluster = cluster_of(targets);
    let words = |now| explain(&cluster, now).iter().map(|(_, standing)| standing.as_str()).collect::<Vec<_>>();
    assert_eq!(words(now), ["taken", "weight-zero", "draining", "not-ready", "taken", "other-priority"]);
    let until = cluster.stats().clock_ms(now) + 1000;
    cluster.endpoints()[0].stats.eject(until, 1);
    assert_eq!(words(now)[0], "ejected");
    cluster.endpoints()[4].stats.eject(until, 1);
    assert_eq!(words(now)[5], "taken");
    cluster.endpoints()[5].stats.eject(until, 1);
    assert_eq!(words(now), ["taken-in-panic", "weight-zero", "draining", "not-ready", "taken-in-panic", "ejected"]);
    assert!(
        explain(&cluster, now)
            .iter()
            .all(|(_, standing)| standing.reason().is_none() == standing.as_str().starts_with("taken"))
    );
}

#[test]
fn one_balancer_lives_through_anything() {
    for seed in 0..40 {
        let (mut random, now) = (fastrand::Rng::with_seed(seed), start());
        let (mut balancer, mut cluster) = (Balancer::new(seed), cluster_of(Vec::new()));
        let forgotten = cluster_of(Vec::new());
        for step in 0..60 {
            let targets: Vec<_> = (0..random.u32(0..14))
                .map(|i| {
                    let mut one = target(i * random.u32(1..3), random.u32(0..3) * random.u32(0..2_000_000_000));
                    one.weight = if random.bool() { one.weight } else { random.u32(0..3) };
                    one.priority = random.u32(0..3) / 2;
                    one.state =
                        [EndpointState::Ready, EndpointState::Ready, EndpointState::Draining][random.usize(0..3)];
                    one
                })
                .collect();
            let policy = both_kinds()[random.usize(0..2)].clone();
            // Now and then the cluster went away in between, unseen by this balancer.
            let before = if random.bool() { &cluster } else { &forgotten };
            cluster = next_version(Some(before), targets, policy, now);
            for endpoint in cluster.endpoints() {
                if random.u8(..) < 60 {
                    endpoint.stats.eject(cluster.stats().clock_ms(now) + random.u64(0..50), 1);
                }
            }
            for _ in 0..random.u32(0..20) {
                let tried: Vec<_> = (0..random.u32(0..4)).map(|i| target(i, 1).id).collect();
                let taking = cluster.endpoints().iter().filter(|endpoint| endpoint.takes_requests()).count();
                match balancer.pick(&cluster, &tried, now + Duration::from_millis(random.u64(0..50))) {
                    Ok(pick) => {
                        assert!(pick.endpoint.takes_requests(), "seed {seed}, step {step}: {:?}", pick.endpoint.target);
                        assert_eq!(pick.again, tried.contains(pick.endpoint.id()), "seed {seed}, step {step}");
                    }
                    Err(none) => assert_eq!(taking, 0, "seed {seed}, step {step}: {none}"),
                }
            }
        }
    }
}
