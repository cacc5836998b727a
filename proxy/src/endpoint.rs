//! The words that every stage of a request shares: a live endpoint, a live cluster, and what is counted about them.
//!
//! Workers share these values by `Arc`. All that changes is an atomic; all that is configured is immutable and replaced whole by
//! [`LiveCluster::update`], which carries the counters of every endpoint that is still there (by its id) into the new value.
//! Rules that read and write the counters live in [`crate::balance`] and [`crate::resilience`]; none are here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::Policy;
use mesh_core::model::resource::{Assignment, Cluster, Target};

pub mod level; // endpoints of one priority, ready to be drawn from
pub mod window; // what happened in the last seconds, on atomics

use level::Level;
use window::{Allowance, Window};

/// Numbers the versions of all clusters.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// One endpoint as requests see it: how it is dialled (immutable) and what is counted about it (shared with its earlier and
/// later versions).
#[derive(Debug)]
pub struct LiveEndpoint {
    pub target: Target,
    pub stats: Arc<EndpointStats>,
}

/// What is counted about one endpoint, by all workers together. In a line of cache of its own: a worker that counts on one endpoint
/// disturbs none that looks at another.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointStats {
    /// Requests (or raw connections) on their way at this moment: the load that balancing compares.
    active_requests: AtomicU32,
    connections: AtomicU32,
    /// Failures since the last success or ejection.
    consecutive_failures: AtomicU32,
    /// Milliseconds on the cluster's clock at which the latest ejection ends; 0: never ejected.
    ejected_until: AtomicU64,
    /// How often it was ejected of late: the factor of the next ejection's length.
    ejections_recent: AtomicU32,
    ejections_total: AtomicU64,
    requests_total: AtomicU64,
    failures_total: AtomicU64,
}

/// What the whole process has under way to one cluster, and the state of its rules. Shared by all versions of a cluster.
#[derive(Debug)]
pub struct ClusterStats {
    /// Zero of the cluster's clock: times are kept in atomics, as milliseconds since then.
    epoch: Instant,
    pub(crate) connections: AtomicU32,
    pub(crate) pending: AtomicU32,
    pub(crate) requests: AtomicU32,
    /// First tries of the last seconds: what the retry budget is a share of.
    pub(crate) recent_requests: Window,
    /// Retries of the last seconds that were charged to that share.
    pub(crate) recent_retries: Window,
    /// The retries a second that are allowed regardless of the share.
    pub(crate) spare_retries: Allowance,
    /// Held for the instant of one ejection, so that two workers cannot eject the last two endpoints at once.
    pub(crate) ejecting: AtomicBool,
}

/// One cluster with its endpoints, at one moment. Immutable but for the counters behind its `Arc`s.
#[derive(Debug)]
pub struct LiveCluster {
    cluster: Arc<Cluster>,
    endpoints: Vec<Arc<LiveEndpoint>>,
    levels: Vec<Level>,
    stats: Arc<ClusterStats>,
    generation: u64,
}

/// Counts one request on its endpoint for as long as it is held.
#[derive(Debug)]
pub struct ActiveRequest {
    stats: Arc<EndpointStats>,
}

/// Counts one open connection on its endpoint for as long as it is held.
#[derive(Debug)]
pub struct OpenConnection {
    stats: Arc<EndpointStats>,
}

impl LiveEndpoint {
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.target.id
    }

    /// Counts a request from now until the guard drops.
    #[must_use]
    pub fn begin_request(&self) -> ActiveRequest {
        self.stats.active_requests.fetch_add(1, Ordering::Relaxed);
        self.stats.requests_total.fetch_add(1, Ordering::Relaxed);
        ActiveRequest { stats: Arc::clone(&self.stats) }
    }

    /// Counts a connection from now until the guard drops.
    #[must_use]
    pub fn open_connection(&self) -> OpenConnection {
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection { stats: Arc::clone(&self.stats) }
    }

    /// Ready and with a share of the traffic; ejection is another matter.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        self.target.state == EndpointState::Ready && self.target.weight > 0
    }
}

impl EndpointStats {
    #[must_use]
    pub fn active_requests(&self) -> u32 {
        self.active_requests.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures.load(Ordering::Relaxed)
    }

    /// Since the endpoint is known.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.requests_total.load(Ordering::Relaxed)
    }

    /// Since the endpoint is known: failures that count towards ejection.
    #[must_use]
    pub fn failures_total(&self) -> u64 {
        self.failures_total.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn ejections_total(&self) -> u64 {
        self.ejections_total.load(Ordering::Relaxed)
    }

    /// The factor of the latest ejection's length.
    pub(crate) fn ejections_recent(&self) -> u32 {
        self.ejections_recent.load(Ordering::Relaxed)
    }

    /// The end of the latest ejection in milliseconds on the cluster's clock; 0: never ejected.
    pub(crate) fn ejected_until_ms(&self) -> u64 {
        self.ejected_until.load(Ordering::Acquire)
    }

    pub(crate) fn eject(&self, until_ms: u64, ejections_recent: u32) {
        self.consecutive_failures.store(0, Ordering::Relaxed);
        self.ejections_recent.store(ejections_recent, Ordering::Relaxed);
        self.ejections_total.fetch_add(1, Ordering::Relaxed);
        self.ejected_until.store(until_ms, Ordering::Release);
    }

    /// One more failure in a row; says how many there are now.
    pub(crate) fn note_failure(&self) -> u32 {
        self.failures_total.fetch_add(1, Ordering::Relaxed);
        self.consecutive_failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A success ends the row. Writes only when there was one, so that the good case costs no shared write.
    pub(crate) fn note_success(&self) {
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
    }
}

impl ClusterStats {
    fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            recent_requests: Window::default(),
            recent_retries: Window::default(),
            spare_retries: Allowance::default(),
            ejecting: AtomicBool::new(false),
        }
    }

    /// Milliseconds on the cluster's clock. It starts at 1, so that 0 can mean "never".
    #[must_use]
    pub fn clock_ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests that wait for a connection.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl LiveCluster {
    /// The next version of a cluster: everything configured comes from `cluster` and `assignment`, everything counted from `old`,
    /// for each endpoint whose id is still there. `now` starts the clock of a cluster that had no version before.
    #[must_use]
    pub fn update(
        old: Option<&LiveCluster>,
        cluster: Arc<Cluster>,
        assignment: Option<Arc<Assignment>>,
        now: Instant,
    ) -> LiveCluster {
        let known: HashMap<&EndpointId, &Arc<LiveEndpoint>> =
            old.map(|old| old.endpoints.iter().map(|live| (live.id(), live)).collect()).unwrap_or_default();
        let targets = assignment.as_ref().map_or(&[][..], |assignment| &assignment.endpoints);
        let mut endpoints: Vec<_> = targets.iter().map(|target| carry_over(target, known.get(&target.id))).collect();
        endpoints.sort_by(|a, b| a.id().cmp(b.id()));
        endpoints.dedup_by(|later, first| later.id() == first.id());
        let levels = Level::all_of(&endpoints);
        let stats = old.map_or_else(|| Arc::new(ClusterStats::new(now)), |old| Arc::clone(&old.stats));
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LiveCluster { cluster, endpoints, levels, stats, generation };
        if cfg!(debug_assertions) {
            live.check_invariants();
        }
        live
    }

    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.cluster.name
    }

    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.cluster.policy
    }

    /// Every known endpoint, ready or not, in order of id.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<LiveEndpoint>] {
        &self.endpoints
    }

    /// The endpoint of that id: for what is pinned to it. In logarithmic time.
    #[must_use]
    pub fn endpoint(&self, id: &EndpointId) -> Option<&Arc<LiveEndpoint>> {
        let index = self.endpoints.binary_search_by(|live| live.id().cmp(id)).ok()?;
        Some(&self.endpoints[index])
    }

    /// Endpoints that take requests, by priority, the first priority first. Ejected ones are in it.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    #[must_use]
    pub fn stats(&self) -> &Arc<ClusterStats> {
        &self.stats
    }

    /// No two versions in this process share it, not even of a cluster that went and came again: what was derived from another
    /// one is stale.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How long an endpoint is still out; none when it is not.
    #[must_use]
    pub fn ejected_for(&self, endpoint: &LiveEndpoint, now: Instant) -> Option<Duration> {
        let left = endpoint.stats.ejected_until_ms().saturating_sub(self.stats.clock_ms(now));
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Whether what dialled this very endpoint is left to it: it is ready, whatever its weight, and not ejected.
    #[must_use]
    pub fn may_take(&self, endpoint: &LiveEndpoint, now: Instant) -> bool {
        endpoint.target.state == EndpointState::Ready && self.ejected_for(endpoint, now).is_none()
    }

    /// What must hold of every version.
    ///
    /// # Panics
    /// When endpoints are out of order or double, or a level holds one that takes no requests.
    pub fn check_invariants(&self) {
        assert!(self.endpoints.windows(2).all(|two| two[0].id() < two[1].id()), "endpoints not in order of id");
        assert!(self.levels.windows(2).all(|two| two[0].priority() < two[1].priority()), "levels not in order");
        for level in &self.levels {
            level.check_invariants(&self.endpoints);
        }
        let taking = self.endpoints.iter().filter(|endpoint| endpoint.takes_requests()).count();
        assert_eq!(taking, self.levels.iter().map(|level| level.members().len()).sum::<usize>(), "one is in no level");
    }
}

/// The live value of `target`: the very same when nothing changed, a new one with the old counters when something did.
fn carry_over(target: &Target, known: Option<&&Arc<LiveEndpoint>>) -> Arc<LiveEndpoint> {
    match known {
        Some(old) if old.target == *target => Arc::clone(old),
        Some(old) => Arc::new(LiveEndpoint { target: target.clone(), stats: Arc::clone(&old.stats) }),
        None => Arc::new(LiveEndpoint { target: target.clone(), stats: Arc::default() }),
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.stats.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests;
