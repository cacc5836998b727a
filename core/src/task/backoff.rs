//! How long until the next try: exponential, with full jitter, bounded.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

/// Draws waits between zero and a ceiling that doubles with each failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    #[must_use]
    pub fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The wait after one more failure: at least a tenth of `base`, so that nobody spins.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.random.f64()).max(self.base / 10)
    }

    /// After a success: the next failure waits as little as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_again() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(base, max, 7);
        for failure in 0..40_u32 {
            let wait = backoff.next_wait();
            let ceiling = base.saturating_mul(1 << failure.min(20)).min(max);
            assert!(wait <= ceiling && wait >= base / 10, "{wait:?} after {failure} failures");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= base);
    }
}
