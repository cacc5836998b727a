//! How many retries the whole process may make to one cluster: a share of the requests of the last ten seconds, plus a few a
//! second. Without it, retries multiply the load of a service that is failing because of load.
//!
//! Tries that never reached an application cost it nothing, and are not charged: see [`super::retry::Verdict`].
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Instant;

use mesh_core::model::policy::Retry;

use crate::endpoint::LiveCluster;

/// Counts the first try of a request: the whole that the budget is a share of.
pub fn note_request(cluster: &LiveCluster, now: Instant) {
    let stats = cluster.stats();
    stats.recent_requests.add(stats.clock_ms(now));
}

/// Takes one retry out of the budget; false when it is spent. Exceeded by at most one per worker.
#[must_use]
pub fn withdraw(cluster: &LiveCluster, now: Instant) -> bool {
    let stats = cluster.stats();
    let Retry { budget, budget_min_per_second, .. } = &cluster.policy().retry;
    let clock_ms = stats.clock_ms(now);
    if stats.recent_retries.sum(clock_ms) < budget.of(stats.recent_requests.sum(clock_ms)) {
        stats.recent_retries.add(clock_ms);
        return true;
    }
    stats.spare_retries.take(*budget_min_per_second, clock_ms)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::config::percent::Percent;
    use mesh_core::model::policy::Policy;

    use super::*;
    use crate::endpoint::tests::{cluster_with, start, target};

    fn with_budget(percent: u32, per_second: u32, now: Instant) -> LiveCluster {
        let retry = Retry {
            budget: Percent::from_hundredths(percent * 100),
            budget_min_per_second: per_second,
            ..Retry::default()
        };
        cluster_with(vec![target(0, 1)], Policy { retry, ..Policy::default() }, now)
    }

    #[test]
    fn a_share_of_requests_plus_a_few_a_second() {
        let now = start();
        let check = |percent: u32, per_second: u32, requests: u32, expected: usize| {
            let cluster = with_budget(percent, per_second, now);
            (0..requests).for_each(|_| note_request(&cluster, now));
            let granted = (0..10_000).filter(|_| withdraw(&cluster, now)).count();
            assert_eq!(granted, expected, "{percent}% + {per_second}/s of {requests}");
        };
        check(20, 10, 0, 10);
        check(20, 10, 1000, 210);
        check(0, 0, 1000, 0);
        check(0, 10, 1000, 10);
        check(100, 0, 50, 50);
    }

    #[test]
    fn over_any_ten_seconds_the_budget_holds() {
        for seed in 0..30 {
            let (mut random, epoch) = (fastrand::Rng::with_seed(seed), start());
            let cluster = with_budget(20, 10, epoch);
            let mut millis = 0;
            // Requests and granted retries by second.
            let mut counts = vec![(0_u64, 0_u64); 200];
            while millis < 120_000 {
                let longest = if random.u8(..) == 0 { 20_000 } else { 20 };
                millis += random.u64(0..longest);
                let now = epoch + Duration::from_millis(millis);
                let second = (cluster.stats().clock_ms(now) / 1000) as usize;
                if random.bool() {
                    note_request(&cluster, now);
                    counts[second].0 += 1;
                } else if withdraw(&cluster, now) {
                    counts[second].1 += 1;
                }
            }
            for ten in counts.windows(10) {
                let (requests, retries) = ten.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                // The window before may lend its requests to the first retries of this one, never more than it counted.
                assert!(
                    retries <= requests / 5 + 10 * 11 + 200,
                    "seed {seed}: {retries} retries for {requests} requests"
                );
            }
            let (requests, retries) = counts.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            assert!(retries <= requests / 5 + 10 * 121, "seed {seed}: {retries} of {requests}");
        }
    }
}
