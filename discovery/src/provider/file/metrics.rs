//! How often the file was read, and with what outcome.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Counters of one file provider.
#[derive(Debug, Clone)]
pub struct Metrics {
    reads: IntCounterVec,
    /// 1 while the last good one is served because the present one is not good.
    stale: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reads = IntCounterVec::new(
            Opts::new("mesh_discovery_file_reads_total", "Times the file was found changed, by what came of it."),
            &["result"],
        )?;
        let stale =
            IntGauge::new("mesh_discovery_file_stale", "1 while an older file is in use than the one that is there.")?;
        registry.register(Box::new(reads.clone()))?;
        registry.register(Box::new(stale.clone()))?;
        for result in ["ok", "invalid", "unreadable"] {
            reads.with_label_values(&[result]);
        }
        Ok(Self { reads, stale })
    }

    pub(super) fn ok(&self) {
        self.count("ok", 0);
    }

    pub(super) fn invalid(&self) {
        self.count("invalid", 1);
    }

    pub(super) fn unreadable(&self) {
        self.count("unreadable", 1);
    }

    fn count(&self, result: &str, stale: i64) {
        self.reads.with_label_values(&[result]).inc();
        self.stale.set(stale);
    }
}
