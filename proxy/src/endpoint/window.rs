//! What happened in the last seconds, counted by all workers on atomics: no lock, and off by at most one per worker.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::atomic::{AtomicU64, Ordering};

/// How many seconds a [`Window`] looks back, the current one included.
pub const WINDOW_SECONDS: u64 = 10;

const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A count over the last [`WINDOW_SECONDS`] seconds. Each slot holds the second it counts in its upper 24 bits (enough for
/// half a year between two events before one could be taken for the other) and the count below.
#[derive(Debug, Default)]
pub struct Window {
    slots: [AtomicU64; WINDOW_SECONDS as usize],
}

/// A steady allowance per second with a burst of one second's worth: a token bucket kept as one point in time.
#[derive(Debug, Default)]
pub struct Allowance {
    /// Microseconds on the cluster's clock at which the bucket is full again.
    full_at: AtomicU64,
}

impl Window {
    /// Counts one event.
    pub fn add(&self, clock_ms: u64) {
        let second = tag(clock_ms / 1000);
        let slot = &self.slots[(clock_ms / 1000 % WINDOW_SECONDS) as usize];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            if seen >> COUNT_BITS == second {
                slot.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let fresh = second << COUNT_BITS | 1;
            match slot.compare_exchange_weak(seen, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// How many there were.
    #[must_use]
    pub fn sum(&self, clock_ms: u64) -> u64 {
        let now = clock_ms / 1000;
        let first = (now + 1).saturating_sub(WINDOW_SECONDS);
        let count_of = |second: u64| {
            let slot = self.slots[(second % WINDOW_SECONDS) as usize].load(Ordering::Relaxed);
            if slot >> COUNT_BITS == tag(second) { slot & COUNT_MASK } else { 0 }
        };
        (first..=now).map(count_of).sum()
    }
}

impl Allowance {
    /// Takes one of `per_second`; false when none is left.
    pub fn take(&self, per_second: u32, clock_ms: u64) -> bool {
        if per_second == 0 {
            return false;
        }
        let now = clock_ms.saturating_mul(1000);
        let cost = 1_000_000 / u64::from(per_second);
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now) + cost;
            (next <= now + 1_000_000).then_some(next)
        });
        taken.is_ok()
    }
}

fn tag(second: u64) -> u64 {
    second & ((1 << (64 - COUNT_BITS)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets() {
        let window = Window::default();
        for clock_ms in [1, 500, 1_500, 9_999] {
            window.add(clock_ms);
        }
        let check = |clock_ms: u64, expected: u64| assert_eq!(window.sum(clock_ms), expected, "at {clock_ms}");
        check(9_999, 4);
        check(10_000, 2);
        check(11_000, 1);
        check(18_999, 1);
        check(19_000, 0);
        check(1_000_000, 0);
        window.add(1_000_000);
        check(1_000_000, 1);
    }

    #[test]
    fn an_allowance_is_a_rate_with_one_second_of_burst() {
        let allowance = Allowance::default();
        let take_all = |clock_ms: u64| (0..100).filter(|_| allowance.take(10, clock_ms)).count();
        assert_eq!(take_all(1), 10);
        assert_eq!(take_all(50), 0);
        assert_eq!(take_all(101), 1);
        assert_eq!(take_all(60_000), 10);
        assert!(!Allowance::default().take(0, 1));
    }
}
