//! Which endpoints are taken out, and for how long: failures in a row eject one for a time that grows with each ejection, as
//! long as enough others stay, and never the last ready one. Nothing has to bring it back: the time just passes.
//!
//! ```text
//!            failures in a row            the time is over
//!   taking ───────────────────▶ ejected ───────────────────▶ taking (each base time without another one
//!      ▲ │ a success ends the row                                    makes the next ejection shorter again)
//!      └─┘
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::EndpointState;

use crate::endpoint::{ClusterStats, LiveCluster, LiveEndpoint};

/// How one try ended, as far as its endpoint is to be judged by it. A request that the client abandoned, or that the proxy
/// refused by itself, says nothing about the endpoint and is not told here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A response below 500; for raw TCP, a connect that succeeded.
    Success,
    /// A response of 500 or more.
    ServerError,
    /// No connection, a reset, a response that made no sense, or none in time.
    LocalFailure,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes.
    Keep,
    /// Out from now on, for this long; `ejections` is how often it was out of late, this time included.
    Ejected { duration: Duration, ejections: u32 },
    /// It would be out, but one more would be too many: the limit, or the last ready endpoint.
    KeptToServe { out: usize, ready: usize },
}

impl Outcome {
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        if status >= 500 { Self::ServerError } else { Self::Success }
    }
}

/// Tells how a try at `endpoint` ended. The caller logs and counts a verdict other than [`Verdict::Keep`].
pub fn record(cluster: &LiveCluster, endpoint: &LiveEndpoint, outcome: Outcome, now: Instant) -> Verdict {
    if outcome == Outcome::Success {
        endpoint.stats.note_success();
        return Verdict::Keep;
    }
    let failures = endpoint.stats.note_failure();
    let threshold = cluster.policy().outlier.consecutive_5xx;
    if threshold == 0 || failures < threshold || cluster.ejected_for(endpoint, now).is_some() {
        return Verdict::Keep;
    }
    // Another worker is ejecting at this very instant: the next failure tries again.
    let Some(_ejecting) = Ejecting::begin(cluster.stats()) else { return Verdict::Keep };
    match too_many(cluster, endpoint, now) {
        Some(verdict) => verdict,
        None => eject(cluster, endpoint, now),
    }
}

/// How many endpoints are out at this moment.
#[must_use]
pub fn ejected_count(cluster: &LiveCluster, now: Instant) -> usize {
    cluster.endpoints().iter().filter(|endpoint| cluster.ejected_for(endpoint, now).is_some()).count()
}

/// Whether the share allowed, or the last endpoint that still serves, forbids one more ejection.
fn too_many(cluster: &LiveCluster, endpoint: &LiveEndpoint, now: Instant) -> Option<Verdict> {
    let known = cluster.endpoints().iter().filter(|known| known.target.state == EndpointState::Ready);
    let (mut ready, mut out, mut serving) = (0, 0, 0);
    for known in known {
        ready += 1;
        if known.id() == endpoint.id() || cluster.ejected_for(known, now).is_some() {
            out += 1;
        } else if known.takes_requests() {
            serving += 1;
        }
    }
    let allowed = cluster.policy().outlier.max_ejection_percent.of(ready as u64);
    (serving == 0 || out as u64 > allowed).then_some(Verdict::KeptToServe { out: out - 1, ready })
}

fn eject(cluster: &LiveCluster, endpoint: &LiveEndpoint, now: Instant) -> Verdict {
    let outlier = &cluster.policy().outlier;
    let clock_ms = cluster.stats().clock_ms(now);
    let base_ms = u64::try_from(outlier.base_ejection_time.as_millis()).unwrap_or(u64::MAX).max(1);
    let quiet_ms = clock_ms.saturating_sub(endpoint.stats.ejected_until_ms());
    let forgiven = u32::try_from(quiet_ms / base_ms).unwrap_or(u32::MAX);
    let ejections = endpoint.stats.ejections_recent().saturating_sub(forgiven).saturating_add(1);
    let longest = outlier.max_ejection_time.max(outlier.base_ejection_time);
    let duration = outlier.base_ejection_time.saturating_mul(ejections).min(longest);
    let until_ms = clock_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    endpoint.stats.eject(until_ms, ejections);
    Verdict::Ejected { duration, ejections }
}

/// At most one ejection happens at a time in one cluster; nobody waits for it.
struct Ejecting<'s>(&'s ClusterStats);

impl<'s> Ejecting<'s> {
    fn begin(stats: &'s ClusterStats) -> Option<Self> {
        let begun = stats.ejecting.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        // Made only when begun: dropping one that is not held would let go of another worker's.
        begun.is_ok().then(|| Self(stats))
    }
}

impl Drop for Ejecting<'_> {
    fn drop(&mut self) {
        self.0.ejecting.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
