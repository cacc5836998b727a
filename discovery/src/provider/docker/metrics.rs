//! How well the engine is heard.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why everything is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// The first list after a start.
    Start,
    /// The first list after the engine did not answer or its stream of events ended.
    Reconnect,
    /// The period is over.
    Period,
}

impl Resync {
    pub const ALL: [Self; 3] = [Self::Start, Self::Reconnect, Self::Period];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reconnect => "reconnect",
            Self::Period => "period",
        }
    }
}

/// Counters of the Docker provider.
#[derive(Debug, Clone)]
pub struct Metrics {
    resyncs: IntCounterVec,
    events: IntCounter,
    errors: IntCounter,
    up: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let resyncs = IntCounterVec::new(
            Opts::new("mesh_discovery_resyncs_total", "Times all containers were inspected again, by reason."),
            &["reason"],
        )?;
        let events = IntCounter::new("mesh_discovery_docker_events_total", "Events of the engine that were heard.")?;
        let errors = IntCounter::new(
            "mesh_discovery_docker_errors_total",
            "Times the engine did not answer, answered with an error, or its stream of events ended.",
        )?;
        let up = IntGauge::new(
            "mesh_discovery_docker_up",
            "1 while the engine answers; else the last good list is served.",
        )?;
        registry.register(Box::new(resyncs.clone()))?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(up.clone()))?;
        for reason in Resync::ALL {
            resyncs.with_label_values(&[reason.as_str()]);
        }
        Ok(Self { resyncs, events, errors, up })
    }

    pub(super) fn resynced(&self, reason: Resync) {
        self.resyncs.with_label_values(&[reason.as_str()]).inc();
        self.up.set(1);
    }

    pub(super) fn heard(&self) {
        self.events.inc();
    }

    pub(super) fn failed(&self) {
        self.errors.inc();
        self.up.set(0);
    }

    /// For tests: how often everything was read again for this reason.
    #[must_use]
    pub fn resyncs(&self, reason: Resync) -> u64 {
        self.resyncs.with_label_values(&[reason.as_str()]).get()
    }
}
