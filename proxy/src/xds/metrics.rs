//! How it goes with the control plane. Counted from the first stream on, and shown once there is a registry.

use mesh_xds::Kind;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// A type that we do not know.
const OTHER: &str = "other";

/// Counters of one control plane's client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    connected: IntGauge,
    reconnects: IntCounter,
    accepted: IntCounterVec,
    rejected: IntCounterVec,
    clashes: IntGaugeVec,
    reports: IntCounter,
    left_out: IntCounter,
}

impl Metrics {
    /// # Errors
    /// When a name is none, which they are.
    pub fn new() -> Result<Self, prometheus::Error> {
        let by_type = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["type"])?;
            for kind in Kind::ALL {
                counter.with_label_values(&[kind.short()]);
            }
            Ok::<_, prometheus::Error>(counter)
        };
        let clashes = IntGaugeVec::new(
            Opts::new(
                "mesh_xds_name_clashes",
                "Resources of the control plane refused for the sake of the file's, by type.",
            ),
            &["type"],
        )?;
        for kind in Kind::ALL {
            clashes.with_label_values(&[kind.short()]);
        }
        Ok(Self {
            clashes,
            connected: IntGauge::new("mesh_xds_connected", "Whether a stream to the control plane is open.")?,
            reconnects: IntCounter::new(
                "mesh_xds_reconnects_total",
                "Streams to the control plane opened after the first.",
            )?,
            accepted: by_type("mesh_xds_updates_accepted_total", "Responses of the control plane accepted, by type.")?,
            rejected: by_type(
                "mesh_xds_updates_rejected_total",
                "Responses of the control plane rejected whole or in part (NACK), by type.",
            )?,
            reports: IntCounter::new("mesh_xds_reports_sent_total", "Load reports sent to the control plane (LRS).")?,
            left_out: IntCounter::new(
                "mesh_xds_report_endpoints_deferred_total",
                "Endpoints that found no room in a load report, and wait for a later one.",
            )?,
        })
    }

    /// Shows them in `registry`.
    ///
    /// # Errors
    /// When it has them already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.connected.clone()))?;
        registry.register(Box::new(self.reconnects.clone()))?;
        registry.register(Box::new(self.accepted.clone()))?;
        registry.register(Box::new(self.rejected.clone()))?;
        registry.register(Box::new(self.clashes.clone()))?;
        registry.register(Box::new(self.reports.clone()))?;
        registry.register(Box::new(self.left_out.clone()))
    }

    pub(super) fn connected(&self, is_first: bool) {
        self.connected.set(1);
        if !is_first {
            self.reconnects.inc();
        }
    }

    pub(super) fn disconnected(&self) {
        self.connected.set(0);
    }

    /// None is a type that nobody knows.
    pub(super) fn answered(&self, kind: Option<Kind>, is_rejected: bool) {
        let counter = if is_rejected { &self.rejected } else { &self.accepted };
        counter.with_label_values(&[kind.map_or(OTHER, Kind::short)]).inc();
    }

    pub(super) fn clashing(&self, kind: Kind, count: usize) {
        self.clashes.with_label_values(&[kind.short()]).set(count.try_into().unwrap_or(i64::MAX));
    }

    pub(super) fn reported(&self, endpoints_deferred: usize) {
        self.reports.inc();
        self.left_out.inc_by(endpoints_deferred.try_into().unwrap_or(u64::MAX));
    }
}
