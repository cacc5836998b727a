//! What the controller counts: how much it had to do, how it went, and how far every service is from what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::model::names::ServiceId;
use mesh_core::model::replicas::{Action, StepOutcome};
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

const ACTIONS: [Action; 3] = [Action::Start, Action::Replace, Action::Remove];

/// Counters of the controller.
#[derive(Debug, Clone)]
pub struct Metrics {
    plans: IntCounter,
    steps: IntCounterVec,
    wanted: IntGaugeVec,
    ready: IntGaugeVec,
    /// Services with a series; each loses it when nobody asks for it any more.
    shown: Arc<Mutex<BTreeSet<ServiceId>>>,
}

/// How many replicas there should be, and how many take requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) wanted: u32,
    pub(super) ready: u32,
}

impl Metrics {
    /// # Errors
    /// When the registry has one of them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["project", "service"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let plans = IntCounter::new("mesh_controller_plans_total", "Plans made that had something to do.")?;
        let steps = IntCounterVec::new(
            Opts::new("mesh_controller_steps_total", "Steps of plans that came to their end, by action and result."),
            &["action", "result"],
        )?;
        registry.register(Box::new(plans.clone()))?;
        registry.register(Box::new(steps.clone()))?;
        for action in ACTIONS {
            for result in ["done", "failed"] {
                steps.with_label_values(&[action.as_str(), result]);
            }
        }
        Ok(Self {
            plans,
            steps,
            wanted: gauges("mesh_controller_replicas_wanted", "Replicas asked for, by service.")?,
            ready: gauges("mesh_controller_replicas_ready", "Replicas that take requests, by service.")?,
            shown: Arc::default(),
        })
    }

    pub(super) fn planned(&self) {
        self.plans.inc();
    }

    pub(super) fn ended(&self, action: Action, outcome: &StepOutcome) {
        let result = match outcome {
            StepOutcome::Begun => return,
            StepOutcome::Done => "done",
            StepOutcome::Failed { .. } => "failed",
        };
        self.steps.with_label_values(&[action.as_str(), result]).inc();
    }

    /// Shows exactly these services.
    pub(super) fn show(&self, counts: &BTreeMap<ServiceId, Count>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.iter().filter(|id| !counts.contains_key(*id)) {
            for gauges in [&self.wanted, &self.ready] {
                // An error says that there is no such series, which is what is wanted.
                let _ = gauges.remove_label_values(&labels(gone));
            }
        }
        for (id, count) in counts {
            self.wanted.with_label_values(&labels(id)).set(count.wanted.into());
            self.ready.with_label_values(&labels(id)).set(count.ready.into());
        }
        *shown = counts.keys().cloned().collect();
    }
}

fn labels(id: &ServiceId) -> [&str; 2] {
    [id.namespace.as_str(), id.name.as_str()]
}

#[cfg(test)]
mod tests {
    use mesh_core::model::names::Name;

    use super::*;

    #[test]
    fn series_of_what_nobody_asks_for_are_dropped() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let id = |name| ServiceId::new(Name::new(name).unwrap(), Name::new("shop").unwrap());
        let shown = || mesh_core::telemetry::metrics::render(&registry);
        let count = Count { wanted: 3, ready: 2 };
        metrics.show(&BTreeMap::from([(id("web"), count), (id("db"), count)]));
        assert!(shown().contains(r#"mesh_controller_replicas_wanted{project="shop",service="web"} 3"#));
        metrics.show(&BTreeMap::from([(id("db"), Count { ready: 3, ..count })]));
        assert!(!shown().contains("web"), "{}", shown());
        assert!(shown().contains(r#"mesh_controller_replicas_ready{project="shop",service="db"} 3"#));
    }
}
