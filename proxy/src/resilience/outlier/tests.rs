use mesh_core::config::percent::Percent;
use mesh_core::model::policy::{Outlier, Policy};

use super::*;
use crate::endpoint::tests::{cluster_with, next_version, start, target};

const SECOND: Duration = Duration::from_secs(1);

fn policy(percent: u32) -> Policy {
    let outlier = Outlier {
        consecutive_5xx: 3,
        base_ejection_time: 10 * SECOND,
        max_ejection_time: 35 * SECOND,
        max_ejection_percent: Percent::from_hundredths(percent * 100),
    };
    Policy { outlier, ..Policy::default() }
}

fn cluster(size: u32, percent: u32, now: Instant) -> LiveCluster {
    cluster_with((0..size).map(|i| target(i, 1)).collect(), policy(percent), now)
}

fn fail(cluster: &LiveCluster, index: usize, times: usize, now: Instant) -> Verdict {
    let outcomes = [Outcome::ServerError, Outcome::LocalFailure].into_iter().cycle().take(times);
    outcomes.map(|outcome| record(cluster, &cluster.endpoints()[index], outcome, now)).last().unwrap()
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let epoch = start();
    let cluster = cluster(4, 50, epoch);
    let mut now = epoch;
    for (ejections, seconds) in [(1, 10), (2, 20), (3, 30), (4, 35), (5, 35)] {
        assert_eq!(fail(&cluster, 1, 2, now), Verdict::Keep);
        let duration = seconds * SECOND;
        assert_eq!(fail(&cluster, 1, 1, now), Verdict::Ejected { duration, ejections });
        assert_eq!(cluster.ejected_for(&cluster.endpoints()[1], now), Some(duration));
        assert_eq!(fail(&cluster, 1, 7, now), Verdict::Keep, "what was under way changes nothing");
        cluster.endpoints()[1].stats.note_success();
        now += duration;
        assert_eq!(cluster.ejected_for(&cluster.endpoints()[1], now), None);
    }
    // Three base times without an ejection forgive three of five.
    now += 30 * SECOND;
    assert_eq!(fail(&cluster, 1, 3, now), Verdict::Ejected { duration: 30 * SECOND, ejections: 3 });
    now += 3600 * SECOND;
    assert_eq!(fail(&cluster, 1, 3, now), Verdict::Ejected { duration: 10 * SECOND, ejections: 1 });
    assert_eq!(cluster.endpoints()[1].stats.ejections_total(), 7);
}

#[test]
fn a_success_ends_the_row() {
    let now = start();
    let cluster = cluster(4, 50, now);
    for _ in 0..10 {
        assert_eq!(fail(&cluster, 0, 2, now), Verdict::Keep);
        assert_eq!(record(&cluster, &cluster.endpoints()[0], Outcome::of_status(404), now), Verdict::Keep);
    }
    assert_eq!(cluster.endpoints()[0].stats.consecutive_failures(), 0);
    assert_eq!(cluster.endpoints()[0].stats.failures_total(), 20);
}

#[test]
fn the_share_is_counted_after_the_ejection() {
    let now = start();
    let check = |size: u32, percent: u32, expected: usize| {
        let cluster = cluster(size, percent, now);
        for index in 0..size as usize {
            fail(&cluster, index, 3, now);
        }
        assert_eq!(ejected_count(&cluster, now), expected, "{percent}% of {size}");
    };
    check(4, 50, 2);
    check(3, 50, 1);
    check(2, 50, 1);
    check(1, 100, 0);
    check(2, 100, 1);
    check(10, 100, 9);
    check(10, 10, 1);
    check(9, 10, 0);
    check(5, 0, 0);
}

#[test]
fn what_is_kept_to_serve_is_told_and_ejected_when_there_is_room() {
    let now = start();
    let cluster = cluster(2, 50, now);
    assert!(matches!(fail(&cluster, 0, 3, now), Verdict::Ejected { .. }));
    assert_eq!(fail(&cluster, 1, 3, now), Verdict::KeptToServe { out: 1, ready: 2 });
    let later = now + 10 * SECOND;
    assert!(matches!(fail(&cluster, 1, 1, later), Verdict::Ejected { .. }), "the next failure once the other is back");
}

#[test]
fn endpoints_that_serve_nothing_do_not_count_as_left() {
    let now = start();
    let mut targets = vec![target(0, 1), target(1, 0), target(2, 1)];
    targets[2].state = EndpointState::NotReady;
    let cluster = cluster_with(targets, policy(100), now);
    assert_eq!(fail(&cluster, 0, 5, now), Verdict::KeptToServe { out: 0, ready: 2 });
}

#[test]
fn zero_turns_it_off() {
    let now = start();
    let outlier = Outlier { consecutive_5xx: 0, ..policy(50).outlier };
    let off = cluster_with((0..4).map(|i| target(i, 1)).collect(), Policy { outlier, ..Policy::default() }, now);
    assert_eq!(fail(&off, 0, 100, now), Verdict::Keep);
}

#[test]
fn the_last_ready_endpoint_is_never_ejected_whatever_happens() {
    for seed in 0..60 {
        let (mut random, epoch) = (fastrand::Rng::with_seed(seed), start());
        let (mut now, percent) = (epoch, random.u32(0..=100));
        let mut cluster = cluster(random.u32(1..8), percent, epoch);
        for step in 0..400 {
            now += Duration::from_millis(random.u64(0..3_000));
            if random.u8(..) < 8 {
                let targets = (0..random.u32(1..8)).map(|i| target(i, random.u32(0..3))).collect();
                cluster = next_version(Some(&cluster), targets, policy(percent), now);
            }
            let index = random.usize(0..cluster.endpoints().len());
            let outcome = if random.u8(..) < 40 { Outcome::Success } else { Outcome::ServerError };
            let verdict = record(&cluster, &cluster.endpoints()[index], outcome, now);
            if let Verdict::Ejected { duration, .. } = verdict {
                assert!(duration <= 35 * SECOND, "seed {seed}, step {step}");
                let ready = cluster.endpoints().len() as u64;
                let allowed = Percent::from_hundredths(percent * 100).of(ready);
                assert!(ejected_count(&cluster, now) as u64 <= allowed, "seed {seed}, step {step}");
                let serves = |endpoint: &std::sync::Arc<LiveEndpoint>| {
                    endpoint.takes_requests() && cluster.ejected_for(endpoint, now).is_none()
                };
                assert!(cluster.endpoints().iter().any(serves), "seed {seed}, step {step}: nobody is left");
            }
        }
    }
}

#[test]
fn workers_that_eject_at_once_leave_one() {
    for _ in 0..300 {
        let now = start();
        let cluster = cluster(4, 100, now);
        std::thread::scope(|scope| {
            for index in 0..4 {
                let cluster = &cluster;
                scope.spawn(move || fail(cluster, index, 100, now));
            }
        });
        assert!(ejected_count(&cluster, now) <= 3, "nobody is left");
        // Whoever found another worker ejecting each time is ejected by the next failure.
        for index in 0..4 {
            fail(&cluster, index, 1, now);
        }
        assert_eq!(ejected_count(&cluster, now), 3);
    }
}
