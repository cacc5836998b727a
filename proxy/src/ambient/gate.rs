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

/// Endpoints, and whether they wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Until when; none: not, or no more.
    waiting: BTreeMap<EndpointId, Option<Instant>>,
}

impl Gate {
    /// What is told now. Those begin to wait that are new: containers of this host, and endpoints that the map does not name yet,
    /// which may turn out to be such.
    pub(super) fn follow(&mut self, resources: &Resources, map: &CaptureMap, now: Instant) {
        let endpoints = resources.assignments.values().flat_map(|assignment| &assignment.endpoints);
        let of_this_host: BTreeSet<&EndpointId> = map.workloads.iter().map(|workload| &workload.id).collect();
        let elsewhere: BTreeSet<&EndpointId> = map
            .addresses
            .iter()
            .filter_map(|at| at.endpoint.as_ref())
            .filter(|id| !of_this_host.contains(id))
            .collect();
        let all: BTreeSet<&EndpointId> = endpoints.map(|target| &target.id).chain(of_this_host).collect();
        self.waiting.retain(|id, _| all.contains(id));
        for id in all {
            let until = (!elsewhere.contains(id)).then(|| now + WAIT_MAX);
            let known = self.waiting.entry(id.clone()).or_insert(until);
            if until.is_none() {
                *known = None;
            }
        }
    }

    /// Containers of this host that are captured, or never will be, wait no more.
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
    use mesh_core::model::endpoint::CaptureMode;
    use mesh_core::model::names::{Name, ServiceId};
    use mesh_core::model::resource::{CaptureWorkload, CapturedAddress};

    use super::*;

    fn id(unit: &str) -> EndpointId {
        EndpointId::new(unit, 1)
    }

    /// Containers of this host, and endpoints elsewhere.
    fn map(units: &[&str], elsewhere: &[&str]) -> CaptureMap {
        let service = ServiceId::new(Name::new("web").unwrap(), Name::new("shop").unwrap());
        let workload = |unit: &&str| CaptureWorkload {
            id: id(unit),
            name: (*unit).into(),
            service: service.clone(),
            namespace_path: format!("/{unit}").into(),
            networks: Vec::new(),
        };
        let address = |unit: &&str| CapturedAddress {
            address: "10.0.0.1".parse().unwrap(),
            network: "front".into(),
            service: service.clone(),
            endpoint: Some(id(unit)),
            mode: CaptureMode::Auto,
            ports: Vec::new(),
            own_names: Vec::new(),
            service_names: Vec::new(),
        };
        CaptureMap {
            foreign: Vec::new(),
            virtual_ip_range: "240.240.0.0/16".parse().unwrap(),
            workloads: units.iter().map(workload).collect(),
            addresses: units.iter().chain(elsewhere).map(address).collect(),
        }
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

    /// The endpoints that take requests.
    fn ready(gate: &Gate, told: &Arc<Resources>) -> String {
        let seen = gate.hold_back(told);
        let endpoints = seen.assignments["web"].endpoints.iter();
        let ready = endpoints.filter(|target| target.state == EndpointState::Ready);
        ready.map(|target| &*target.id.unit).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_new_one_waits_until_it_is_captured_or_the_time_is_up() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let told = resources(&["a", "b", "c", "far"]);
        gate.follow(&told, &map(&["a"], &["b", "c", "far"]), now);
        gate.settle(&map(&["a"], &[]), |path| path == "/a");
        let three = map(&["a", "d", "e"], &["far"]);
        let told = resources(&["a", "d", "e", "far"]);
        gate.follow(&told, &three, now);
        assert_eq!(ready(&gate, &told), "a far");
        gate.settle(&three, |path| path == "/d");
        assert_eq!(ready(&gate, &told), "a d far");
        assert_eq!(gate.deadline(), Some(now + WAIT_MAX));
        gate.expire(now + WAIT_MAX);
        assert_eq!(ready(&gate, &told), "a d e far");
        assert_eq!(gate.deadline(), None);
        // One that comes again is new again.
        gate.follow(&resources(&["far"]), &map(&[], &["far"]), now);
        gate.follow(&told, &three, now);
        assert_eq!(ready(&gate, &told), "far");
    }

    #[test]
    fn one_that_the_map_does_not_name_yet_waits_too() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let told = resources(&["far", "new"]);
        gate.follow(&told, &map(&[], &["far"]), now);
        assert_eq!(ready(&gate, &told), "far");
        gate.follow(&told, &map(&[], &["far", "new"]), now);
        assert_eq!(ready(&gate, &told), "far new", "it is none of this host");
    }

    #[test]
    fn nobody_waits_where_nobody_takes_its_place() {
        let mut gate = Gate::default();
        let told = resources(&["a", "b"]);
        gate.follow(&told, &map(&["a", "b"], &[]), Instant::now());
        assert!(Arc::ptr_eq(&gate.hold_back(&told), &told));
    }
}
