//! What is to be done now: pure. What was asked for, what runs, who is ready and what happened before go in; a numbered plan
//! with a reason for each step, and for each that has to wait, comes out.
//!
//! Per service, in this order: which slots are kept (the ready ones first, then the lowest numbers), the others are removed;
//! kept slots whose replica ended or is unhealthy are filled anew, with back-off; those of another configuration one at a
//! time, while the others are ready; empty ones are started when what the service depends on is there.
//!
//! A ready replica of another configuration goes only when its successor, in a slot beside it, is ready: one that cannot be
//! made, started or ready takes nothing away. Where two cannot run side by side (`takes_turns`) it is replaced in its slot.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::compose::{DependencyCondition, Project, Restart, Service};
use mesh_core::config::duration;
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{Action, NotTaken, Plan, ReplicaId, ReplicaState, RuntimeKind, Step};

use super::history::History;
use super::spec::{DesiredProjects, config_hash};
use crate::runtime::{ObservedReplica, UnitId};

/// All a plan rests on.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    pub desired: &'a DesiredProjects,
    pub observed: &'a [ObservedReplica],
    /// Runtimes that could not be observed: what they run is unknown, so nothing of theirs is planned.
    pub unknown: &'a BTreeSet<RuntimeKind>,
    /// The snapshot's word on each unit.
    pub endpoints: &'a BTreeMap<UnitId, EndpointState>,
    /// Steps under way.
    pub busy: &'a BTreeMap<ReplicaId, Action>,
    pub history: &'a History,
    /// Since the controller started.
    pub now: Duration,
}

/// A plan, and when to look again though nothing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    pub plan: Plan,
    pub wake_at: Option<Duration>,
}

/// Makes the plan. Its numbers are left 0 for the caller, who counts.
#[must_use]
pub fn plan(world: World<'_>) -> Planned {
    let mut planned = Planned::default();
    for (name, desired) in world.desired {
        let mut project = ProjectPlanner { world, name, project: &desired.project, planned: &mut planned };
        if desired.is_down {
            project.take_down();
            continue;
        }
        project.remove_unknown_services();
        for (service_name, service) in &desired.project.services {
            if world.unknown.contains(&service.runtime) {
                project.wait_for_runtime(service_name, service);
            } else {
                project.service(service_name, service);
            }
        }
    }
    planned
}

/// Whether a replica takes requests, as far as anybody can say: its healthcheck, else the snapshot, else that it runs.
#[must_use]
pub fn is_ready(replica: &ObservedReplica, service: &Service, endpoints: &BTreeMap<UnitId, EndpointState>) -> bool {
    let stated = endpoints.get(&replica.unit);
    match replica.state {
        ReplicaState::Healthy => stated != Some(&EndpointState::Draining),
        ReplicaState::Running => match stated {
            Some(state) => *state == EndpointState::Ready,
            // One without a port, or outside the mesh, is no endpoint.
            None => {
                service.service_ports.is_empty()
                    || service.labels.get("mesh.enable").is_some_and(|value| value == "false")
            }
        },
        _ => false,
    }
}

/// Whether two replicas cannot run side by side: they would want one port of the host, or write to the same files, which a
/// service that never has more than one replica may not be made for.
#[must_use]
pub fn takes_turns(service: &Service) -> bool {
    let is_published = service.published_ports.iter().any(|port| port.published.is_some());
    let writes = service.volumes.iter().any(|volume| !volume.read_only);
    (is_published && service.runtime == RuntimeKind::Docker) || (writes && service.replicas <= 1)
}

/// Of those in excess the one that stays beside ready ones of another configuration, until it is ready itself.
fn take_successor<'a>(kept: &[Slot<'a>], surplus: &mut Vec<Slot<'a>>) -> Option<Slot<'a>> {
    let is_awaited = kept.iter().any(|slot| slot.is_changed && slot.is_ready && slot.busy.is_none());
    let at = surplus.iter().position(|slot| !slot.is_changed && !slot.is_ready).filter(|_| is_awaited)?;
    Some(surplus.remove(at))
}

struct ProjectPlanner<'a> {
    world: World<'a>,
    name: &'a Name,
    project: &'a Project,
    planned: &'a mut Planned,
}

/// What is known of one slot of a service.
struct Slot<'a> {
    id: ReplicaId,
    replica: Option<&'a ObservedReplica>,
    busy: Option<Action>,
    is_ready: bool,
    is_changed: bool,
}

impl Slot<'_> {
    fn is_alive(&self) -> bool {
        self.replica.is_some_and(|replica| replica.state.is_alive())
    }

    /// The lower, the rather it is kept.
    fn rank(&self) -> (u8, bool, u32) {
        let class = match self.replica.map(|replica| replica.state) {
            _ if self.is_ready => 0,
            _ if self.busy.is_some() => 1,
            Some(ReplicaState::Unhealthy | ReplicaState::Stopping) => 2,
            Some(state) if state.is_alive() => 1,
            _ => 3,
        };
        (class, self.is_changed, self.id.number)
    }
}

impl<'a> ProjectPlanner<'a> {
    fn of_service(&self, service: &Name) -> impl Iterator<Item = &'a ObservedReplica> + use<'a> {
        let (project, service) = (self.name.clone(), service.clone());
        self.world.observed.iter().filter(move |replica| replica.id.project == project && replica.id.service == service)
    }

    fn step(&mut self, action: Action, replica: &ReplicaId, unit: Option<&UnitId>, reason: impl Into<String>) {
        let step = Step { action, replica: replica.clone(), unit: unit.cloned(), reason: reason.into() };
        self.planned.plan.steps.push(step);
    }

    fn not_taken(&mut self, action: Action, replica: &ReplicaId, reason: impl Into<String>) {
        self.planned.plan.not_taken.push(NotTaken { action, replica: replica.clone(), reason: reason.into() });
    }

    /// Everything goes, those that depend on others first.
    fn take_down(&mut self) {
        let present: Vec<&ObservedReplica> =
            self.world.observed.iter().filter(|replica| replica.id.project == *self.name).collect();
        for replica in present.iter().filter(|replica| replica.managed) {
            let dependent = present.iter().map(|other| &other.id.service).find(|other| {
                let service = self.project.services.get(*other);
                service.is_some_and(|service| service.depends_on.contains_key(&replica.id.service))
            });
            if self.world.busy.contains_key(&replica.id) {
                self.not_taken(Action::Remove, &replica.id, "a step on it is under way");
            } else if let Some(dependent) = dependent {
                self.not_taken(
                    Action::Remove,
                    &replica.id,
                    format!("waits until {dependent}, which depends on it, is gone"),
                );
            } else {
                self.step(Action::Remove, &replica.id, Some(&replica.unit), "the project was taken down");
            }
        }
    }

    fn remove_unknown_services(&mut self) {
        for replica in self.world.observed {
            let is_ours = replica.id.project == *self.name && replica.managed;
            let is_known = self.project.services.contains_key(&replica.id.service);
            if is_ours && !is_known && !self.world.busy.contains_key(&replica.id) {
                let reason = format!("{} is not in the file any more", replica.id.service);
                self.step(Action::Remove, &replica.id, Some(&replica.unit), reason);
            }
        }
    }

    /// Said once for the service: how many of its replicas run is the very thing that is not known.
    fn wait_for_runtime(&mut self, name: &Name, service: &Service) {
        let id = ReplicaId::new(self.name.clone(), name.clone(), 1);
        self.not_taken(Action::Start, &id, format!("waits until the {} runtime says what runs", service.runtime));
    }

    fn service(&mut self, name: &Name, service: &Service) {
        let hash = config_hash(self.project, service);
        let (mut slots, foreign) = self.slots(name, service, &hash);
        slots.sort_by_key(Slot::rank);
        // A slot that is being emptied is neither kept nor surplus.
        let (leaving, present): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|slot| slot.busy == Some(Action::Remove));
        let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
        let mut kept = present;
        let mut surplus = kept.split_off(kept.len().min(wanted));
        let successor = take_successor(&kept, &mut surplus);
        for slot in &surplus {
            self.surplus(slot, service.replicas, &kept);
        }
        kept.sort_by_key(|slot| slot.id.number);
        let taken: BTreeSet<u32> =
            kept.iter().chain(&surplus).chain(&leaving).map(|slot| slot.id.number).chain(foreign).collect();
        let mut free = (1..=u32::MAX).filter(|number| !taken.contains(number));
        let missing: Vec<u32> = free.by_ref().take(wanted - kept.len()).collect();
        let beside = free.next().filter(|_| !takes_turns(service));
        let beside = beside.map(|number| ReplicaId::new(self.name.clone(), name.clone(), number));
        // Counted only from here on: it is healed like the others, and is one more than are wanted.
        kept.extend(successor);
        self.heal(&kept, service, &hash);
        let is_full = kept.len() == wanted && leaving.is_empty() && surplus.is_empty();
        self.roll(&kept, is_full, beside, &hash);
        self.start(name, service, &hash, &kept, missing);
    }

    /// The slots that are filled or being filled, and the numbers that somebody else's containers have.
    fn slots(&mut self, name: &Name, service: &Service, hash: &Arc<str>) -> (Vec<Slot<'a>>, Vec<u32>) {
        let mut slots: BTreeMap<u32, Slot<'a>> = BTreeMap::new();
        let mut foreign = Vec::new();
        for replica in self.of_service(name) {
            if !replica.managed {
                foreign.push(replica.id.number);
                let reason = format!("{} was not made by this controller, and is left alone", replica.name);
                self.not_taken(Action::Remove, &replica.id, reason);
                continue;
            }
            let slot = Slot {
                id: replica.id.clone(),
                replica: Some(replica),
                busy: self.world.busy.get(&replica.id).copied(),
                is_ready: is_ready(replica, service, self.world.endpoints),
                is_changed: replica.config_hash != *hash,
            };
            // Two units in one slot: the better one stays.
            let worse = match slots.get(&replica.id.number) {
                Some(other) if other.rank() <= slot.rank() => Some(slot),
                _ => slots.insert(replica.id.number, slot),
            };
            if let Some(worse) = worse.filter(|worse| worse.busy.is_none()) {
                let unit = worse.replica.map(|replica| &replica.unit);
                self.step(Action::Remove, &worse.id, unit, "another unit is in the same slot");
            }
        }
        let busy = self.world.busy.iter().filter(|(id, _)| id.project == *self.name && id.service == *name);
        for (id, action) in busy {
            let empty =
                || Slot { id: id.clone(), replica: None, busy: Some(*action), is_ready: false, is_changed: false };
            slots.entry(id.number).or_insert_with(empty);
        }
        (slots.into_values().collect(), foreign)
    }

    fn surplus(&mut self, slot: &Slot<'_>, wanted: u32, kept: &[Slot<'_>]) {
        match slot.replica {
            _ if slot.busy.is_some() => self.not_taken(Action::Remove, &slot.id, "a step on it is under way"),
            Some(replica) if slot.is_changed && slot.is_ready && kept.iter().any(|kept| !kept.is_changed) => {
                let reason = "its configuration changed, and its successor is ready";
                self.step(Action::Remove, &slot.id, Some(&replica.unit), reason);
            }
            Some(replica) => {
                let are = if wanted == 1 { "replica is" } else { "replicas are" };
                self.step(Action::Remove, &slot.id, Some(&replica.unit), format!("only {wanted} {are} wanted"));
            }
            None => {}
        }
    }

    /// Fills slots anew whose replica ended, or is unhealthy: of the latter one at a time.
    fn heal(&mut self, kept: &[Slot<'_>], service: &Service, hash: &Arc<str>) {
        let mut healing = kept.iter().any(|slot| slot.busy == Some(Action::Replace));
        for slot in kept {
            let Some(replica) = slot.replica else { continue };
            if slot.busy.is_some() {
                self.not_taken(Action::Replace, &slot.id, "a step on it is under way");
                continue;
            }
            match replica.state {
                ReplicaState::Stopping => {
                    self.not_taken(Action::Replace, &slot.id, "is stopping; replaced when it has ended")
                }
                ReplicaState::Paused => {
                    self.not_taken(Action::Replace, &slot.id, "is paused by somebody, and left alone")
                }
                // Rolled, whatever became of it.
                _ if slot.is_changed => {}
                ReplicaState::Exited { code } => self.ended(slot, replica, service.restart, code, hash),
                ReplicaState::NotStarted | ReplicaState::Created => {
                    self.replace(slot, replica, hash, "was made, but never started".to_owned())
                }
                ReplicaState::Unhealthy if healing => {
                    self.not_taken(Action::Replace, &slot.id, "is unhealthy; waits until the one before is replaced");
                }
                ReplicaState::Unhealthy => {
                    healing = true;
                    self.replace(slot, replica, hash, "is unhealthy".to_owned());
                }
                ReplicaState::Starting | ReplicaState::Running | ReplicaState::Healthy => {}
            }
        }
    }

    fn ended(
        &mut self,
        slot: &Slot<'_>,
        replica: &ObservedReplica,
        restart: Restart,
        code: Option<i32>,
        hash: &Arc<str>,
    ) {
        match (restart, code) {
            (Restart::No | Restart::OnFailure, Some(0)) => {}
            (Restart::No, _) => {
                self.not_taken(Action::Replace, &slot.id, format!("{}, and its restart is \"no\"", replica.state));
            }
            (Restart::OnFailure | Restart::Always, _) => self.replace(slot, replica, hash, replica.state.to_string()),
        }
    }

    /// Unless its back-off has to pass first.
    fn replace(&mut self, slot: &Slot<'_>, replica: &ObservedReplica, hash: &Arc<str>, reason: String) {
        if !self.must_wait(Action::Replace, &slot.id, hash, &reason) {
            self.step(Action::Replace, &slot.id, Some(&replica.unit), reason);
        }
    }

    fn must_wait(&mut self, action: Action, id: &ReplicaId, hash: &str, reason: &str) -> bool {
        let until = self.world.history.not_before(id, hash);
        if until <= self.world.now {
            return false;
        }
        let wait = Duration::from_millis(u64::try_from((until - self.world.now).as_millis()).unwrap_or(u64::MAX));
        let failures = self.world.history.failures(id);
        let text = format!("{reason}; next try in {} (back-off after failure {failures})", duration::format(wait));
        self.not_taken(action, id, text);
        self.planned.wake_at = Some(self.planned.wake_at.map_or(until, |earlier| earlier.min(until)));
        true
    }

    /// Replaces those of another configuration, one at a time: one that is not ready at once, a ready one only while all
    /// others are there and ready, and by a successor `beside` it where there may be one.
    fn roll(&mut self, kept: &[Slot<'_>], is_full: bool, beside: Option<ReplicaId>, hash: &Arc<str>) {
        let mut changed: Vec<&Slot<'_>> = kept
            .iter()
            .filter(|slot| slot.is_changed && slot.busy.is_none())
            .filter(|slot| {
                !slot.replica.is_some_and(|r| matches!(r.state, ReplicaState::Stopping | ReplicaState::Paused))
            })
            .collect();
        changed.sort_by_key(|slot| (slot.is_ready, slot.id.number));
        let mut is_rolling = kept.iter().any(|slot| slot.busy.is_some());
        for slot in changed {
            let others_ready = is_full && kept.iter().filter(|other| other.id != slot.id).all(|other| other.is_ready);
            let Some(replica) = slot.replica else { continue };
            if is_rolling {
                self.not_taken(Action::Replace, &slot.id, "its configuration changed; one is replaced at a time");
            } else if slot.is_ready && !others_ready {
                self.not_taken(
                    Action::Replace,
                    &slot.id,
                    "its configuration changed; waits until the others are ready",
                );
            } else {
                is_rolling = true;
                match &beside {
                    Some(successor) if slot.is_ready => self.start_beside(successor, slot, hash),
                    _ => self.replace(slot, replica, hash, "its configuration changed".to_owned()),
                }
            }
        }
    }

    /// Starts the successor of a ready one.
    fn start_beside(&mut self, successor: &ReplicaId, old: &Slot<'_>, hash: &Arc<str>) {
        if !self.must_wait(Action::Start, successor, hash, "could not be started") {
            let reason = format!("the configuration changed; {} goes when this one is ready", old.id);
            self.step(Action::Start, successor, None, reason);
        }
        self.not_taken(Action::Remove, &old.id, format!("its configuration changed; goes when {successor} is ready"));
    }

    fn start(&mut self, name: &Name, service: &Service, hash: &Arc<str>, kept: &[Slot<'_>], free: Vec<u32>) {
        // Only the first ones wait: a service that runs is not kept from healing by one it depends on.
        let blocked =
            if kept.iter().any(|slot| slot.is_alive() || slot.busy.is_some()) { None } else { self.blocked(service) };
        let running = kept.len();
        for number in free {
            let id = ReplicaId::new(self.name.clone(), name.clone(), number);
            let reason = match running {
                0 => format!("{} wanted, none there", service.replicas),
                _ => format!("{} wanted, {running} there", service.replicas),
            };
            match &blocked {
                Some(waits) => self.not_taken(Action::Start, &id, waits.clone()),
                None if self.must_wait(Action::Start, &id, hash, "could not be started") => {}
                None => self.step(Action::Start, &id, None, reason),
            }
        }
    }

    /// What the service has to wait for before its first replica.
    fn blocked(&self, service: &Service) -> Option<String> {
        service.depends_on.iter().find_map(|(name, dependency)| {
            let other = self.project.services.get(name)?;
            let replicas: Vec<_> = self.of_service(name).filter(|replica| replica.managed).collect();
            let count =
                |holds: &dyn Fn(&ObservedReplica) -> bool| replicas.iter().filter(|replica| holds(replica)).count();
            let wanted = usize::try_from(other.replicas).unwrap_or(usize::MAX);
            let completed = count(&|replica| replica.state == ReplicaState::Exited { code: Some(0) });
            let (there, what) = match dependency.condition {
                DependencyCondition::ServiceStarted => {
                    let alive = count(&|replica| replica.state.is_alive());
                    (alive + completed > 0, "has started")
                }
                DependencyCondition::ServiceHealthy => {
                    let ready = count(&|replica| is_ready(replica, other, self.world.endpoints));
                    (ready >= wanted.max(1), "is healthy")
                }
                DependencyCondition::ServiceCompletedSuccessfully => {
                    (completed >= wanted.max(1), "has completed successfully")
                }
            };
            (!there).then(|| format!("waits until {name} {what}"))
        })
    }
}
