//! The endpoints of one priority that take requests, laid out so that drawing one by weight costs the same among two as among
//! a hundred thousand: Walker's alias method, in whole numbers, so that shares are exact.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{EndpointStats, LiveEndpoint};

/// Endpoints of one priority, all ready and with a weight.
#[derive(Debug)]
pub struct Level {
    priority: u32,
    /// Indices into the cluster's endpoints, ascending.
    members: Vec<u32>,
    /// By position in `members`.
    places: Vec<Place>,
    /// By position in `members`.
    columns: Vec<Column>,
    weight_total: u64,
    weights_equal: bool,
}

/// What a balancer has to know of one member. They stand side by side, since among many endpoints it is memory that a choice waits
/// for: a member costs it two lines of cache, this one and its counters.
#[derive(Debug)]
pub struct Place {
    pub stats: Arc<EndpointStats>,
    pub endpoint: Arc<LiveEndpoint>,
    pub weight: u32,
}

/// One column of the alias table: of a coin from 0 to the total weight, less than `own` means this column's member, the rest
/// `alias`.
#[derive(Debug, Clone, Copy)]
struct Column {
    own: u64,
    /// Position in `members`.
    alias: u32,
}

impl Level {
    /// The levels of a cluster, first priority first. Endpoints that take no requests are in none.
    #[must_use]
    pub fn all_of(endpoints: &[Arc<LiveEndpoint>]) -> Vec<Level> {
        let mut by_priority: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (index, endpoint) in (0..).zip(endpoints) {
            if endpoint.takes_requests() {
                by_priority.entry(endpoint.target.priority).or_default().push(index);
            }
        }
        by_priority.into_iter().map(|(priority, members)| Self::new(priority, members, endpoints)).collect()
    }

    fn new(priority: u32, members: Vec<u32>, endpoints: &[Arc<LiveEndpoint>]) -> Self {
        let place = |member: &u32| {
            let endpoint = &endpoints[*member as usize];
            let (stats, weight) = (Arc::clone(&endpoint.stats), endpoint.target.weight);
            Place { stats, endpoint: Arc::clone(endpoint), weight }
        };
        let places: Vec<Place> = members.iter().map(place).collect();
        let weights: Vec<u64> = places.iter().map(|place| u64::from(place.weight)).collect();
        let weight_total = weights.iter().sum();
        let weights_equal = weights.windows(2).all(|two| two[0] == two[1]);
        Self { priority, columns: alias_table(&weights, weight_total), members, places, weight_total, weights_equal }
    }

    #[must_use]
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Indices into the cluster's endpoints, ascending; never empty.
    #[must_use]
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// By position in [`Self::members`].
    #[must_use]
    pub fn place(&self, position: usize) -> &Place {
        &self.places[position]
    }

    #[must_use]
    pub fn weight_total(&self) -> u64 {
        self.weight_total
    }

    #[must_use]
    pub fn weights_equal(&self) -> bool {
        self.weights_equal
    }

    /// The position in [`Self::members`] that `point` falls on. Points spread evenly over all of `u64` draw each member in
    /// proportion to its weight.
    #[must_use]
    pub fn draw(&self, point: u64) -> usize {
        let wide = u128::from(point) * self.columns.len() as u128;
        let (column, rest) = ((wide >> 64) as usize, wide as u64);
        if self.weights_equal {
            return column;
        }
        let coin = ((u128::from(rest) * u128::from(self.weight_total)) >> 64) as u64;
        let Column { own, alias } = self.columns[column];
        if coin < own { column } else { alias as usize }
    }

    /// What must hold of every level.
    ///
    /// # Panics
    /// When it is empty, or holds an endpoint of another priority or one that takes no requests.
    pub fn check_invariants(&self, endpoints: &[Arc<LiveEndpoint>]) {
        assert!(!self.members.is_empty(), "an empty level");
        assert_eq!((self.places.len(), self.columns.len()), (self.members.len(), self.members.len()));
        for (member, place) in self.members.iter().zip(&self.places) {
            let endpoint = &endpoints[*member as usize];
            assert!(Arc::ptr_eq(&place.stats, &endpoint.stats) && Arc::ptr_eq(&place.endpoint, endpoint));
            assert_eq!(place.weight, endpoint.target.weight);
            assert!(
                endpoint.takes_requests() && endpoint.target.priority == self.priority,
                "{} is misfiled",
                endpoint.id()
            );
        }
    }
}

/// Vose's construction in whole numbers: each member has `weight * n` to give out in columns of `total` each.
fn alias_table(weights: &[u64], total: u64) -> Vec<Column> {
    let count = weights.len() as u128;
    let mut left: Vec<u128> = weights.iter().map(|weight| u128::from(*weight) * count).collect();
    let whole = u128::from(total);
    let mut columns: Vec<Column> = (0..).zip(weights).map(|(alias, _)| Column { own: total, alias }).collect();
    let (mut small, mut large): (Vec<u32>, Vec<u32>) =
        (0..).take(weights.len()).partition(|at| left[*at as usize] < whole);
    while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
        let own = left[poor as usize];
        // Less than `total`, which is 64 bits wide.
        columns[poor as usize] = Column { own: own as u64, alias: rich };
        left[rich as usize] -= whole - own;
        if left[rich as usize] < whole { small.push(rich) } else { large.push(rich) }
    }
    columns
}

#[cfg(test)]
mod tests {
    use crate::endpoint::tests::{cluster_of, target};

    #[test]
    fn shares_are_exact() {
        let check = |weights: &[u32]| {
            let targets = (0..).zip(weights).map(|(i, weight)| target(i, *weight)).collect();
            let cluster = cluster_of(targets);
            let level = &cluster.levels()[0];
            let steps = 100_000_u64;
            let mut counts = vec![0_u64; weights.len()];
            for step in 0..steps {
                counts[level.draw(step * (u64::MAX / steps))] += 1;
            }
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (count, weight) in counts.iter().zip(weights) {
                let wanted = steps as f64 * f64::from(*weight) / total as f64;
                assert!((*count as f64 - wanted).abs() <= 8.0, "{weights:?}: {counts:?}");
            }
        };
        check(&[3, 1]);
        check(&[1]);
        check(&[1, 1, 1]);
        check(&[100, 1, 50, 7]);
        check(&[u32::MAX, u32::MAX, 1]);
        check(&[5; 97]);
    }

    #[test]
    fn draws_at_the_edges_stay_inside() {
        let cluster = cluster_of((0..7).map(|i| target(i, 1 + i)).collect());
        for point in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            assert!(cluster.levels()[0].draw(point) < 7);
        }
    }
}
