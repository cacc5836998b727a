//! How capturing goes.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::intercept::capture::CaptureError;
use crate::intercept::nftables::NftablesError;

/// Why a namespace is not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Namespace,
    Route,
    Rules,
    OwnedByAnother,
    Connections,
}

impl Failure {
    const ALL: [Self; 5] = [Self::Namespace, Self::Route, Self::Rules, Self::OwnedByAnother, Self::Connections];

    fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Route => "route",
            Self::Rules => "rules",
            Self::OwnedByAnother => "owned_by_another",
            Self::Connections => "connections",
        }
    }

    pub(super) fn of(error: &CaptureError) -> Self {
        match error {
            CaptureError::Namespace(_) => Self::Namespace,
            CaptureError::Route(_) => Self::Route,
            CaptureError::Rules(NftablesError::OwnedByAnother { .. }) => Self::OwnedByAnother,
            CaptureError::Rules(_) => Self::Rules,
            CaptureError::Connections { .. } | CaptureError::Conntrack(_) => Self::Connections,
        }
    }
}

#[derive(Debug)]
pub(super) struct Metrics {
    captured: IntGauge,
    older: IntGauge,
    failures: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// When the registry has them already.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let captured = IntGauge::new("mesh_captured_namespaces", "Network namespaces whose connections are captured.")?;
        let older = IntGauge::new(
            "mesh_capture_older_connections",
            "Open connections to captured addresses that are older than the capture, and left alone.",
        )?;
        let failures = IntCounterVec::new(
            Opts::new("mesh_capture_failures_total", "Times something about a capture failed, by what."),
            &["what"],
        )?;
        registry.register(Box::new(captured.clone()))?;
        registry.register(Box::new(older.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        for failure in Failure::ALL {
            failures.with_label_values(&[failure.as_str()]);
        }
        Ok(Self { captured, older, failures })
    }

    pub(super) fn failed(&self, error: &CaptureError) {
        self.count(Failure::of(error));
    }

    pub(super) fn count(&self, failure: Failure) {
        self.failures.with_label_values(&[failure.as_str()]).inc();
    }
}

/// One captured namespace, counted for as long as this is held.
pub(super) struct Counted<'m> {
    metrics: &'m Metrics,
    older: i64,
}

impl<'m> Counted<'m> {
    pub(super) fn new(metrics: &'m Metrics) -> Self {
        metrics.captured.inc();
        Self { metrics, older: 0 }
    }

    /// So many connections are older than the capture now.
    pub(super) fn set_older(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.older.add(count - self.older);
        self.older = count;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.captured.dec();
        self.metrics.older.sub(self.older);
    }
}
