//! What is counted. Each worker writes cells of its own, which nobody else writes; a scrape adds them up. So counting costs a
//! request no lock and no shared cache line, and what vanishes with its cluster is dropped with it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use mesh_core::model::policy::RetryOn;
use mesh_core::model::reason::Reason;
use mesh_core::telemetry::metrics::DURATION_BUCKETS_SECONDS;

use crate::h1::limits::Limit as H1Limit;
use crate::h2::Limit as H2Limit;
use crate::identity::handshake::Why;
use crate::resilience::breaker::Limit;

pub mod collect; // the sums, as families for a scrape

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, amount: u64) {
        // One writer: no read-modify-write is needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn increase(&self) {
        self.add(1);
    }

    pub fn decrease(&self) {
        self.add(u64::MAX);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spoken {
    Http1,
    Http2,
    Grpc,
    Tcp,
}

impl Spoken {
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Grpc, Self::Tcp];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const REASONS: usize = Reason::ALL.len() + 1;

/// Requests (or raw connections) of one source to one destination in one protocol.
#[derive(Debug)]
pub struct Series {
    source: Arc<str>,
    destination: Arc<str>,
    spoken: Spoken,
    outcomes: [[Count; REASONS]; CLASSES.len()],
    buckets: [Count; DURATION_BUCKETS_SECONDS.len() + 1],
    duration_nanos: Count,
}

impl Series {
    fn new(source: Arc<str>, destination: Arc<str>, spoken: Spoken) -> Self {
        let (outcomes, buckets) = Default::default();
        Self { source, destination, spoken, outcomes, buckets, duration_nanos: Count::default() }
    }

    /// One ended. `status` is 0 where there was none.
    pub fn record(&self, status: u16, reason: Option<Reason>, duration: Duration) {
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        let reason = reason.map_or(0, |reason| reason as usize + 1);
        self.outcomes[class][reason].increase();
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].increase();
        self.duration_nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What is counted about one destination by one worker.
#[derive(Debug)]
pub struct ClusterMetrics {
    destination: Arc<str>,
    series: RefCell<Vec<Arc<Series>>>,
    pub counts: Arc<ClusterCounts>,
    worker: Arc<WorkerMetrics>,
}

/// Counters of one destination that have no source.
#[derive(Debug)]
pub struct ClusterCounts {
    destination: Arc<str>,
    retries: [Count; RetryOn::ALL.len()],
    pub budget_exhausted: Count,
    pub bodies_not_kept: Count,
    pub ejections: Count,
    pub connects: Count,
    pub connect_failures: Count,
    overflows: [Count; Limit::ALL.len()],
    waited_nanos: Count,
    pub sent_bytes: Count,
    pub received_bytes: Count,
}

impl ClusterCounts {
    pub fn retried(&self, on: RetryOn) {
        self.retries[on as usize].increase();
    }

    pub fn overflowed(&self, limit: Limit) {
        self.overflows[limit as usize].increase();
    }

    /// Somebody waited for so long for a connection, be it in vain.
    pub fn waited(&self, time: Duration) {
        self.waited_nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl ClusterMetrics {
    #[must_use]
    pub fn new(destination: Arc<str>, worker: &Arc<WorkerMetrics>) -> Rc<Self> {
        let counts = Arc::new(ClusterCounts {
            destination: Arc::clone(&destination),
            retries: Default::default(),
            budget_exhausted: Count::default(),
            bodies_not_kept: Count::default(),
            ejections: Count::default(),
            connects: Count::default(),
            connect_failures: Count::default(),
            overflows: Default::default(),
            waited_nanos: Count::default(),
            sent_bytes: Count::default(),
            received_bytes: Count::default(),
        });
        worker.shared().counts.push(Arc::downgrade(&counts));
        Rc::new(Self { destination, series: RefCell::default(), counts, worker: Arc::clone(worker) })
    }

    #[must_use]
    pub fn destination(&self) -> &Arc<str> {
        &self.destination
    }

    /// The series of one source and protocol; there are few.
    #[must_use]
    pub fn series(&self, source: &Arc<str>, spoken: Spoken) -> Arc<Series> {
        let mut known = self.series.borrow_mut();
        let found = known.iter().find(|series| series.spoken == spoken && series.source == *source);
        if let Some(series) = found {
            return Arc::clone(series);
        }
        let series = Arc::new(Series::new(Arc::clone(source), Arc::clone(&self.destination), spoken));
        self.worker.shared().series.push(Arc::downgrade(&series));
        known.push(Arc::clone(&series));
        series
    }
}

/// How a client's connection turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    Closed,
    HeaderTimeout,
    Idle,
    BadRequest,
    TlsFailed,
    /// Its listener had as many as it may have.
    TooMany,
    /// Nobody who is trusted said whose it is.
    ProxyProtocol,
    Drained,
}

impl ConnectionEnd {
    pub const ALL: [Self; 8] = [
        Self::Closed,
        Self::HeaderTimeout,
        Self::Idle,
        Self::BadRequest,
        Self::TlsFailed,
        Self::TooMany,
        Self::ProxyProtocol,
        Self::Drained,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HeaderTimeout => "header_timeout",
            Self::Idle => "idle_timeout",
            Self::BadRequest => "bad_request",
            Self::TlsFailed => "tls_failed",
            Self::TooMany => "max_connections",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Drained => "drained",
        }
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    pub connections_accepted: Count,
    pub connections_active: Count,
    pub accept_errors: Count,
    ends: [Count; ConnectionEnd::ALL.len()],
    pub tls_handshakes: Count,
    tls_handshake_failures: [Count; Why::ALL.len()],
    /// Limits of HTTP/1.1 that clients reached.
    h1_limits: [Count; H1Limit::ALL.len()],
    /// Limits of h2 that clients reached.
    h2_limits: [Count; H2Limit::ALL.len()],
    pub detect_timeouts: Count,
    pub log_lines_dropped: Count,
    pub pool_reused: Count,
    pub pool_idle_overflow: Count,
    pub pool_idle_expired: Count,
    pub pool_idle_closed: Count,
    pub pool_idle: Count,
    shared: Mutex<Shared>,
}

/// Locked when a series begins, and by a scrape; never by a request.
#[derive(Debug, Default)]
struct Shared {
    series: Vec<Weak<Series>>,
    counts: Vec<Weak<ClusterCounts>>,
}

impl WorkerMetrics {
    pub fn h1_limit_reached(&self, limit: H1Limit) {
        self.h1_limits[limit as usize].increase();
    }

    pub fn h2_limit_reached(&self, limit: H2Limit) {
        self.h2_limits[limit as usize].increase();
    }

    pub fn handshake_failed(&self, why: Why) {
        self.tls_handshake_failures[why as usize].increase();
    }

    pub fn ended(&self, end: ConnectionEnd) {
        self.ends[end as usize].increase();
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
