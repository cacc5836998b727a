//! How much one cluster may have under way at once, in the whole process. Who finds all connections in use waits for one
//! ([`super::places`]); beyond every other limit, also that of those who wait, the refusal is immediate: a queue without a bound is
//! where overload turns into an outage.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_core::model::policy::Circuit;
use thiserror::Error;

use crate::endpoint::{ClusterStats, LiveCluster};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Open connections to the cluster's endpoints.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests on their way, and raw connections; not those that wait in line for a connection.
    Requests,
}

/// A limit was reached (reason `UO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the circuit's limit of {max} {limit} is reached")]
pub struct Overflow {
    pub limit: Limit,
    pub max: u32,
}

/// One place under a limit, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    stats: Arc<ClusterStats>,
    limit: Limit,
}

/// Takes one place under `limit`. The limit is the one configured now: a lowered one refuses newcomers and ends nothing.
///
/// # Errors
/// [`Overflow`] when no place is left.
pub fn acquire(cluster: &LiveCluster, limit: Limit) -> Result<Permit, Overflow> {
    let max = limit.max(&cluster.policy().circuit);
    let counter = limit.counter(cluster.stats());
    let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < max).then(|| held + 1));
    match taken {
        Ok(_) => Ok(Permit { stats: Arc::clone(cluster.stats()), limit }),
        Err(_) => Err(Overflow { limit, max }),
    }
}

/// Whether no place is left under `limit`.
#[must_use]
pub fn is_full(cluster: &LiveCluster, limit: Limit) -> bool {
    limit.counter(cluster.stats()).load(Ordering::Relaxed) >= limit.max(&cluster.policy().circuit)
}

/// Counts one more under `limit`, whatever it says.
#[must_use]
pub fn exceed(cluster: &LiveCluster, limit: Limit) -> Permit {
    limit.counter(cluster.stats()).fetch_add(1, Ordering::Relaxed);
    Permit { stats: Arc::clone(cluster.stats()), limit }
}

impl Permit {
    /// Whether it is one of the cluster that `stats` count.
    #[must_use]
    pub fn is_of(&self, stats: &Arc<ClusterStats>) -> bool {
        Arc::ptr_eq(&self.stats, stats)
    }
}

impl Limit {
    pub const ALL: [Self; 3] = [Self::Connections, Self::Pending, Self::Requests];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        }
    }

    #[must_use]
    pub fn max(self, circuit: &Circuit) -> u32 {
        match self {
            Self::Connections => circuit.connections_max,
            Self::Pending => circuit.pending_max,
            Self::Requests => circuit.requests_max,
        }
    }

    fn counter(self, stats: &ClusterStats) -> &AtomicU32 {
        match self {
            Self::Connections => &stats.connections,
            Self::Pending => &stats.pending,
            Self::Requests => &stats.requests,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.counter(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::model::policy::Policy;

    use super::*;
    use crate::endpoint::tests::{cluster_with, next_version, start, target};

    fn policy(max: u32) -> Policy {
        let circuit = Circuit { connections_max: max, pending_max: max + 1, requests_max: max + 2 };
        Policy { circuit, ..Policy::default() }
    }

    #[test]
    fn each_limit_is_its_own_and_places_come_back() {
        let cluster = cluster_with(vec![target(0, 1)], policy(2), start());
        for (limit, max) in [(Limit::Connections, 2), (Limit::Pending, 3), (Limit::Requests, 4)] {
            let held: Vec<_> = (0..max).map(|_| acquire(&cluster, limit).unwrap()).collect();
            assert_eq!(acquire(&cluster, limit).unwrap_err(), Overflow { limit, max });
            drop(held);
            assert!(acquire(&cluster, limit).is_ok());
        }
        assert_eq!(cluster.stats().connections() + cluster.stats().pending() + cluster.stats().requests(), 0);
    }

    #[test]
    fn a_lowered_limit_counts_what_is_under_way() {
        let first = cluster_with(vec![target(0, 1)], policy(3), start());
        let held: Vec<_> = (0..3).map(|_| acquire(&first, Limit::Connections).unwrap()).collect();
        let second = next_version(Some(&first), vec![target(0, 1)], policy(1), start());
        assert!(acquire(&second, Limit::Connections).is_err());
        drop(held);
        assert!(acquire(&second, Limit::Connections).is_ok());
    }
}
