//! In turn, by weight: out of any run of requests as long as the weights' sum each endpoint takes exactly its weight, spread
//! evenly. An endpoint of weight w is due at the times 1/2w, 3/2w, 5/2w …; who is due first takes the request (earliest
//! deadline first, in logarithmic time, in fractions of whole numbers).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Candidates;
use crate::endpoint::LiveCluster;
use crate::endpoint::level::Level;

/// The order of one level's members.
#[derive(Debug, Default)]
pub struct Schedule {
    due: BinaryHeap<Reverse<Due>>,
    /// What was served last: a rebuilt schedule goes on from there.
    served: Due,
    /// Kept for its memory: members passed over within one pick.
    passed: Vec<Due>,
}

/// When a member takes its next request: at `numerator / 2 weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Due {
    numerator: u64,
    weight: u32,
    position: u32,
}

impl Schedule {
    /// Schedules for all levels of a cluster. Each goes on where the last one of its rank stopped; the very first starts at
    /// a random point, so that many workers do not all begin with the same endpoint.
    pub(super) fn rebuild(schedules: &mut Vec<Schedule>, cluster: &LiveCluster, random: &mut fastrand::Rng) {
        schedules.truncate(cluster.levels().len());
        for (index, level) in cluster.levels().iter().enumerate() {
            let served = schedules.get(index).map_or_else(
                || Due { numerator: random.u64(0..1 << 16), weight: 1 << 15, position: 0 },
                |schedule| schedule.served,
            );
            let schedule = Self::starting_after(served, level, cluster);
            match schedules.get_mut(index) {
                Some(old) => *old = schedule,
                None => schedules.push(schedule),
            }
        }
    }

    fn starting_after(served: Due, level: &Level, cluster: &LiveCluster) -> Self {
        let due = (0..).zip(level.members()).map(|(position, member)| {
            let weight = cluster.endpoints()[*member as usize].target.weight;
            Reverse(Due { numerator: 1, weight, position }.first_after(served))
        });
        Self { due: due.collect(), served, passed: Vec::new() }
    }

    /// The position of whoever is due first and may take it. One that may not loses the turns that go by meanwhile, so that
    /// it does not come back with a burst.
    pub(super) fn pick(&mut self, candidates: &Candidates<'_>) -> Option<usize> {
        let mut picked = None;
        while let Some(Reverse(first)) = self.due.pop() {
            if candidates.may_take(first.position as usize) {
                picked = Some(first);
                break;
            }
            self.passed.push(first);
        }
        let Some(due) = picked else {
            self.due.extend(self.passed.drain(..).map(Reverse));
            return None;
        };
        self.served = due;
        self.due.push(Reverse(due.next()));
        self.due.extend(self.passed.drain(..).map(|passed| Reverse(passed.first_after(due))));
        Some(due.position as usize)
    }
}

impl Due {
    fn next(self) -> Self {
        Self { numerator: self.numerator.saturating_add(2), ..self }
    }

    /// This member's first turn that comes after `served`.
    fn first_after(self, served: Due) -> Self {
        if served.weight == 0 {
            return self;
        }
        // The last odd numerator whose time is not past `served`, and the one behind it where that is not late enough.
        let reached = u128::from(served.numerator) * u128::from(self.weight) / u128::from(served.weight);
        let odd = u64::try_from(reached.saturating_sub(1) / 2 * 2 + 1).unwrap_or(u64::MAX);
        let mut due = Self { numerator: odd.max(self.numerator), ..self };
        while due <= served {
            due = due.next();
        }
        due
    }
}

impl Ord for Due {
    /// By time, then by position; the comparison of fractions is exact.
    fn cmp(&self, other: &Self) -> Ordering {
        let ours = u128::from(self.numerator) * u128::from(other.weight);
        let theirs = u128::from(other.numerator) * u128::from(self.weight);
        ours.cmp(&theirs).then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
