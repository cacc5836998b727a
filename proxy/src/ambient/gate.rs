//! Which endpoints wait: a container that is new on this host takes the mesh's traffic once its own calls are captured, so that
//! none of them passes us by. It waits for an instant, and only while others can take its place. Pure.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_core::model::resource::{Assignment, CaptureMap, Resources, Target};
use tokio::time::Instant;

/// How long one waits at most. A capture takes some tens of milliseconds, on a busy machine some hundreds.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(3);

/// Containers of this host, and whether they wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Until when; none: no more.
    waiting: BTreeMap<EndpointId, Option<Instant>>,
}

impl Gate {
    /// What the map names now: those that are new begin to wait.
    pub(super) fn follow(&mut self, map: &CaptureMap, now: Instant) {
        let named: BTreeSet<&EndpointId> = map.workloads.iter().map(|workload| &workload.id).collect();
        self.waiting.retain(|id, _| named.contains(id));
        for id in named {
            self.waiting.entry(id.clone()).or_insert(Some(now + WAIT_MAX));
        }
    }

    /// Those that `is_settled` are captured, or never will be; they wait no more.
    pub(super) fn settle(&mut self, map: &CaptureMap, is_settled: impl Fn(&str) -> bool) {
        for workload in map.workloads.iter().filter(|workload| is_settled(&workload.namespace_path)) {
            self.waiting.insert(workload.id.clone(), None);
        }
    }

    /// When the first has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().flatten().min().copied()
    }

    /// Time passes.
    pub(super) fn expire(&mut self, now: Instant) {
        self.waiting
            .values_mut()
            .filter(|until| until.is_some_and(|until| until <= now))
            .for_each(|until| *until = None);
    }

    /// The resources as requests should see them.
    pub(super) fn hold_back(&self, resources: &Arc<Resources>) -> Arc<Resources> {
        let held = resources.assignments.iter().filter_map(|(name, assignment)| Some((name, self.held(assignment)?)));
        let held: Vec<_> = held.map(|(name, assignment)| (Arc::clone(name), Arc::new(assignment))).collect();
        if held.is_empty() {
            return Arc::clone(resources);
        }
        let mut resources = Resources::clone(resources);
        resources.assignments.extend(held);
        Arc::new(resources)
    }

    /// An assignment without those that wait; none where nobody does, or nobody could take their place.
    fn held(&self, assignment: &Assignment) -> Option<Assignment> {
        let takes = |target: &&Target| target.state == EndpointState::Ready && target.weight > 0;
        let waits = |target: &Target| self.waiting.get(&target.id).is_some_and(Option::is_some);
        let (waiting, others): (Vec<&Target>, Vec<&Target>) =
            assignment.endpoints.iter().filter(takes).partition(|target| waits(target));
        if waiting.is_empty() || others.is_empty() {
            return None;
        }
        let mut assignment = assignment.clone();
        for target in assignment.endpoints.iter_mut().filter(|target| waits(target)) {
            target.state = EndpointState::NotReady;
        }
        Some(assignment)
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::model::names::{Name, ServiceId};
    use mesh_core::model::resource::CaptureWorkload;

    use super::*;

    fn id(unit: &str) -> EndpointId {
        EndpointId::new(unit, 1)
    }

    fn map(units: &[&str]) -> CaptureMap {
        let service = ServiceId::new(Name::new("web").unwrap(), Name::new("shop").unwrap());
        let workload = |unit: &&str| CaptureWorkload {
            id: id(unit),
            name: (*unit).into(),
            service: service.clone(),
            namespace_path: format!("/{unit}").into(),
            networks: Vec::new(),
        };
        let workloads = units.iter().map(workload).collect();
        CaptureMap { virtual_ip_range: "240.240.0.0/16".parse().unwrap(), workloads, addresses: Vec::new() }
    }

    /// One cluster of ready endpoints.
    fn resources(units: &[&str]) -> Arc<Resources> {
        let target = |unit: &&str| Target {
            id: id(unit),
            address: "10.0.0.1:80".parse().unwrap(),
            networks: Vec::new(),
            weight: 100,
            priority: 0,
            zone: None,
            version: None,
            state: EndpointState::Ready,
        };
        let assignment = Assignment { cluster: "web".into(), endpoints: units.iter().map(target).collect() };
        let assignments = BTreeMap::from([("web".into(), Arc::new(assignment))]);
        Arc::new(Resources { assignments, ..Resources::default() })
    }

    fn ready(resources: &Resources) -> Vec<&str> {
        let endpoints = resources.assignments["web"].endpoints.iter();
        endpoints.filter(|target| target.state == EndpointState::Ready).map(|target| &*target.id.unit).collect()
    }

    #[test]
    fn a_new_one_waits_until_it_is_captured_or_the_time_is_up() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.follow(&map(&["a"]), now);
        gate.settle(&map(&["a"]), |path| path == "/a");
        gate.follow(&map(&["a", "b", "c"]), now);
        let told = resources(&["a", "b", "c", "elsewhere"]);
        assert_eq!(ready(&gate.hold_back(&told)), ["a", "elsewhere"]);
        gate.settle(&map(&["a", "b", "c"]), |path| path == "/b");
        assert_eq!(ready(&gate.hold_back(&told)), ["a", "b", "elsewhere"]);
        assert_eq!(gate.deadline(), Some(now + WAIT_MAX));
        gate.expire(now + WAIT_MAX);
        assert_eq!(ready(&gate.hold_back(&told)).len(), 4);
        assert_eq!(gate.deadline(), None);
        // One that comes again is new again.
        gate.follow(&map(&["b"]), now);
        gate.follow(&map(&["a", "b"]), now);
        assert_eq!(ready(&gate.hold_back(&told)), ["b", "c", "elsewhere"]);
    }

    #[test]
    fn nobody_waits_where_nobody_takes_its_place() {
        let mut gate = Gate::default();
        gate.follow(&map(&["a", "b"]), Instant::now());
        let told = resources(&["a", "b"]);
        assert!(Arc::ptr_eq(&gate.hold_back(&told), &told));
    }
}
