//! How long requests took: counts in buckets that grow with the value, so that every percentile is within 2 % and memory is fixed.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

/// Buckets in each power of two: a value differs from the middle of its bucket by at most 1/64.
const PARTS: u64 = 32;
const PARTS_BITS: u32 = PARTS.ilog2();
const BUCKETS: usize = (64 - PARTS_BITS as usize + 1) * PARTS as usize;

/// Durations by nanosecond.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The value that `share` (0 to 1) of all values do not exceed; none where nothing was recorded.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return Some(Duration::from_nanos(middle(index)));
            }
        }
        None
    }
}

fn bucket(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let shift = value.ilog2() - PARTS_BITS;
    (u64::from(shift + 1) * PARTS + (value >> shift) - PARTS) as usize
}

/// The middle of the values that fall into a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let low = (bucket % PARTS + PARTS) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_two_percent_of_its_bucket() {
        for value in (0..200).chain((8..63).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 12_345])) {
            let shown = middle(bucket(value));
            assert!(shown.abs_diff(value) as f64 <= value as f64 / 60.0, "{value} is shown as {shown}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn buckets_grow_with_values() {
        let buckets: Vec<_> = (0..100_000).map(bucket).collect();
        assert!(buckets.is_sorted());
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for (share, wanted) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.0, 1.0)] {
            let found = histogram.percentile(share).unwrap().as_secs_f64() * 1e6;
            assert!((found - wanted).abs() <= wanted * 0.02, "p{share}: {found} beside {wanted}");
        }
    }
}
