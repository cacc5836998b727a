//! What there is of each replica, for people: those that runtimes see, and those that are wanted and not there, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::ServiceId;
use mesh_core::model::replicas::{Action, ReplicaId, ReplicaState, ReplicaStatus, RuntimeKind};

use super::plan::is_ready;
use super::{Controller, State, endpoint_states};
use crate::runtime::{ObservedReplica, UnitId};

impl Controller {
    /// Every replica that runs, ended or is there under a known project's name, and every one that is wanted.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        let snapshot = self.snapshots.borrow().clone();
        let endpoints = endpoint_states(&snapshot);
        let state = self.lock();
        let hashes = state.wanted_hashes();
        let observed = state.observed.iter().flat_map(|(kind, list)| list.iter().map(move |replica| (*kind, replica)));
        let mut replicas: Vec<ReplicaStatus> =
            observed.map(|(kind, replica)| state.status(kind, replica, &endpoints, &hashes)).collect();
        replicas.extend(state.not_started(&hashes));
        replicas.sort_by(|a, b| (&a.project, &a.service, a.number).cmp(&(&b.project, &b.service, b.number)));
        replicas
    }
}

type Hashes = BTreeMap<ServiceId, std::sync::Arc<str>>;

impl State {
    fn status(
        &self,
        kind: RuntimeKind,
        replica: &ObservedReplica,
        endpoints: &BTreeMap<UnitId, EndpointState>,
        hashes: &Hashes,
    ) -> ReplicaStatus {
        let desired = self.desired.get(&replica.id.project);
        let service = desired.and_then(|desired| desired.project.services.get(&replica.id.service));
        ReplicaStatus {
            name: replica.name.clone(),
            project: replica.id.project.clone(),
            service: replica.id.service.clone(),
            number: replica.id.number,
            runtime: kind,
            unit: replica.unit.clone(),
            state: replica.state,
            ready: match service {
                Some(service) => is_ready(replica, service, endpoints),
                None => endpoints.get(&replica.unit) == Some(&EndpointState::Ready),
            },
            address: replica.address,
            ports: replica.ports.clone(),
            started_millis: replica.started_millis,
            restarts: self.history.restarts(&replica.id),
            last_reason: self.history.last_reason(&replica.id).map(str::to_owned),
            managed: replica.managed,
            current: replica.managed
                && hashes.get(&replica.id.compose_service()).is_some_and(|hash| *hash == replica.config_hash),
        }
    }

    /// Those that the plan is to start, starts, or cannot start yet.
    fn not_started(&self, hashes: &Hashes) -> Vec<ReplicaStatus> {
        let there: BTreeSet<&ReplicaId> = self.observed.values().flatten().map(|replica| &replica.id).collect();
        let steps = self.plan.steps.iter().map(|step| (step.action, &step.replica, step.reason.as_str()));
        let waiting = self.plan.not_taken.iter().map(|step| (step.action, &step.replica, step.reason.as_str()));
        let busy = self.busy.iter().map(|(id, action)| (*action, id, "is being started"));
        let mut wanted: BTreeMap<&ReplicaId, &str> = BTreeMap::new();
        for (action, id, reason) in steps.chain(waiting).chain(busy) {
            if action != Action::Remove && !there.contains(id) {
                wanted.insert(id, reason);
            }
        }
        let status = |(id, reason): (&ReplicaId, &str)| {
            let desired = self.desired.get(&id.project).filter(|desired| !desired.is_down)?;
            // Of a runtime that does not answer nobody knows what runs.
            let service = desired.project.services.get(&id.service).filter(|it| !self.unknown.contains(&it.runtime))?;
            let hash = hashes.get(&id.compose_service())?;
            let error = self.history.last_error(id, hash);
            Some(ReplicaStatus {
                name: id.to_string(),
                project: id.project.clone(),
                service: id.service.clone(),
                number: id.number,
                runtime: service.runtime,
                unit: "".into(),
                state: ReplicaState::NotStarted,
                ready: false,
                address: None,
                ports: Vec::new(),
                started_millis: None,
                restarts: self.history.restarts(id),
                last_reason: Some(error.map_or_else(|| reason.to_owned(), str::to_owned)),
                managed: true,
                current: true,
            })
        };
        wanted.into_iter().filter_map(status).collect()
    }
}
