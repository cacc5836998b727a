//! What rounds have given, and what follows from it: medians, and ratios with their spread.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use serde::Serialize;

/// One round of one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Sample {
    /// Completed while the proxy's CPU time was counted.
    pub requests: u64,
    pub requests_per_second: f64,
    pub bytes_per_second: f64,
    /// Of the proxy, by request.
    pub cpu_us: f64,
    pub user_us: f64,
    pub system_us: f64,
    /// Of the load generator and of the backend, by request: what is not the proxy's.
    pub load_cpu_us: f64,
    pub backend_cpu_us: f64,
    /// Time on CPU of everything that was no part of the measurement, in cores: what the machine did for others.
    pub others_cores: f64,
    pub resident_bytes: u64,
}

/// The middle of several rounds, with the lowest and the highest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }

    /// The ratio of two proxies, round by round: what both had at nearly the same moment is compared.
    #[must_use]
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, wanted) in [
            (vec![3.0], (3.0, 3.0, 3.0)),
            (vec![5.0, 1.0, 3.0], (3.0, 1.0, 5.0)),
            (vec![4.0, 1.0, 2.0, 100.0], (3.0, 1.0, 100.0)),
        ] {
            let spread = Spread::of(values).unwrap();
            assert_eq!((spread.median, spread.min, spread.max), wanted);
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // Both were slower in the second round: the ratio is the same.
        let ratio = Spread::of_ratios(&[10.0, 20.0, 11.0], &[20.0, 40.0, 20.0]).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (0.5, 0.5, 0.55));
    }
}
