//! What discovery counts about the catalogue.

use std::time::Instant;

use mesh_core::model::condition::ConditionKind;
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::snapshot::Snapshot;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::ejections::Ejections;

/// Gauges of the catalogue, brought up to date by each scrape, and counters of how it came about.
#[derive(Debug, Clone)]
pub struct Metrics {
    number: IntGauge,
    services: IntGauge,
    endpoints: IntGaugeVec,
    conditions: IntGaugeVec,
    departed: IntGauge,
    workloads: IntGauge,
    observations: IntCounterVec,
    changes: IntCounterVec,
    requests: IntCounterVec,
    /// Long polls under way.
    watches: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has one of them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            number: gauge("mesh_discovery_snapshot_number", "Number of the snapshot that is published.")?,
            services: gauge("mesh_discovery_services", "Services known.")?,
            endpoints: gauges("mesh_discovery_endpoints", "Endpoints known, by state.", "state")?,
            conditions: gauges("mesh_discovery_conditions", "Conditions that hold, by type.", "type")?,
            departed: gauge(
                "mesh_discovery_departed_addresses",
                "Addresses of endpoints that left, still remembered.",
            )?,
            workloads: gauge("mesh_discovery_workloads", "Workloads whose calls can be captured.")?,
            observations: counters(
                "mesh_discovery_observations_total",
                "Full lists received from providers.",
                &["provider"],
            )?,
            changes: counters("mesh_discovery_changes_total", "Changes published, by kind.", &["kind"])?,
            requests: counters("mesh_discovery_api_requests_total", "Requests to the HTTP API, by status.", &["code"])?,
            watches: gauge("mesh_discovery_api_watches", "Long polls of the HTTP API under way.")?,
        })
    }

    pub fn observed(&self, provider: &str) {
        self.observations.with_label_values(&[provider]).inc();
    }

    pub fn changed(&self, kind: &str) {
        self.changes.with_label_values(&[kind]).inc();
    }

    pub(super) fn answered(&self, status: http::StatusCode) {
        self.requests.with_label_values(&[status.as_str()]).inc();
    }

    /// Counts a long poll for as long as it is held; none when `max` are under way already.
    pub(super) fn watch(&self, max: i64) -> Option<Watching> {
        self.watches.inc();
        let watching = Watching(self.watches.clone());
        (self.watches.get() <= max).then_some(watching)
    }

    /// Brings the gauges up to date. Every label is set each time, zero included, so that no series stays behind.
    pub fn show(&self, snapshot: &Snapshot, ejections: &Ejections, now: Instant) {
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        self.number.set(i64::try_from(snapshot.number).unwrap_or(i64::MAX));
        self.services.set(count(snapshot.services.len()));
        self.departed.set(count(snapshot.departed.len()));
        self.workloads.set(count(snapshot.workloads.len()));
        let endpoints = || snapshot.endpoints.values().flat_map(|list| list.iter());
        let ejected = endpoints().filter(|e| e.takes_requests() && ejections.reason(&e.id, now).is_some()).count();
        for state in [EndpointState::Ready, EndpointState::NotReady, EndpointState::Draining] {
            let mut number = endpoints().filter(|endpoint| endpoint.state == state).count();
            if state == EndpointState::Ready {
                number -= ejected;
            }
            self.endpoints.with_label_values(&[state.as_str()]).set(count(number));
        }
        self.endpoints.with_label_values(&["ejected"]).set(count(ejected));
        for kind in ConditionKind::ALL {
            let number = snapshot.conditions.iter().filter(|condition| condition.kind == kind).count();
            self.conditions.with_label_values(&[&kind.to_string()]).set(count(number));
        }
    }
}

/// A long poll under way.
#[derive(Debug)]
pub(super) struct Watching(IntGauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}
