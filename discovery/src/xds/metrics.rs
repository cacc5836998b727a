//! What is counted of xDS: open streams, responses and verdicts by type.

use mesh_xds::Kind;
use mesh_xds::server::{Flavor, Verdict};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Counters of the xDS server.
#[derive(Debug, Clone)]
pub struct Metrics {
    streams: IntGaugeVec,
    responses: IntCounterVec,
    resources: IntCounterVec,
    acknowledged: IntCounterVec,
    rejected: IntCounterVec,
    refused: prometheus::IntCounter,
    report_streams: IntGauge,
    reports: prometheus::IntCounter,
}

/// Counts one open stream for as long as it lives.
#[derive(Debug)]
pub struct OpenStream {
    gauge: IntGauge,
}

/// Counts one open stream of load reports for as long as it lives.
#[derive(Debug)]
pub struct OpenReports {
    gauge: IntGauge,
}

impl Metrics {
    /// Adds the families to `registry`.
    ///
    /// # Errors
    /// When it has one of them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_type = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["type"])?;
            registry.register(Box::new(counter.clone()))?;
            for kind in Kind::ALL {
                counter.with_label_values(&[kind.short()]);
            }
            Ok::<_, prometheus::Error>(counter)
        };
        let streams = IntGaugeVec::new(Opts::new("mesh_xds_streams", "Open xDS streams."), &["variant"])?;
        registry.register(Box::new(streams.clone()))?;
        for flavor in [Flavor::Delta, Flavor::StateOfTheWorld] {
            streams.with_label_values(&[variant(flavor)]);
        }
        let refused = prometheus::IntCounter::new(
            "mesh_xds_requests_refused_total",
            "xDS requests and load reports that made no sense: unknown types, bad node metadata, too many names or streams.",
        )?;
        registry.register(Box::new(refused.clone()))?;
        let report_streams = IntGauge::new("mesh_xds_load_streams", "Open streams of load reports (LRS).")?;
        registry.register(Box::new(report_streams.clone()))?;
        let reports = prometheus::IntCounter::new("mesh_xds_load_reports_total", "Load reports received (LRS).")?;
        registry.register(Box::new(reports.clone()))?;
        Ok(Self {
            report_streams,
            reports,
            streams,
            responses: by_type("mesh_xds_responses_total", "xDS responses sent, by resource type.")?,
            resources: by_type("mesh_xds_resources_sent_total", "Resources in xDS responses, by resource type.")?,
            acknowledged: by_type("mesh_xds_acknowledged_total", "xDS responses accepted by clients.")?,
            rejected: by_type("mesh_xds_rejected_total", "xDS responses rejected by clients (NACK).")?,
            refused,
        })
    }

    pub(super) fn open(&self, flavor: Flavor) -> OpenStream {
        let gauge = self.streams.with_label_values(&[variant(flavor)]);
        gauge.inc();
        OpenStream { gauge }
    }

    pub(super) fn sent(&self, kind: Kind, resources: usize) {
        self.responses.with_label_values(&[kind.short()]).inc();
        self.resources.with_label_values(&[kind.short()]).inc_by(resources.try_into().unwrap_or(u64::MAX));
    }

    pub(super) fn verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted { kind, .. } => self.acknowledged.with_label_values(&[kind.short()]).inc(),
            Verdict::Rejected { kind, .. } => self.rejected.with_label_values(&[kind.short()]).inc(),
        }
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn open_reports(&self) -> OpenReports {
        self.report_streams.inc();
        OpenReports { gauge: self.report_streams.clone() }
    }

    pub(super) fn reported(&self) {
        self.reports.inc();
    }
}

fn variant(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Delta => "delta",
        Flavor::StateOfTheWorld => "sotw",
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Drop for OpenReports {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
