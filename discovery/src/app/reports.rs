//! The composer's third part: what proxies tell back by xDS reaches the place where the API looks.

use std::time::Instant;

use crate::admin::ejections::{EjectionReports, Report, ReportedEjection};
use crate::xds::{Ejected, EjectionSink};

impl EjectionSink for EjectionReports {
    fn replace(&self, node: &str, ejected: Vec<Ejected>, now: Instant) {
        let reported = |one: Ejected| ReportedEjection {
            endpoint: one.endpoint,
            for_ms: u64::try_from(one.until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX),
            reason: one.reason,
        };
        let report = Report { ejections: ejected.into_iter().map(reported).collect() };
        if let Err(error) = EjectionReports::replace(self, node, report, now) {
            tracing::debug!(node, %error, "ejections of a proxy are not shown");
        }
    }
}
