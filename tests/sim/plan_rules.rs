//! What must hold of every plan, found out without the planner.

use std::collections::BTreeSet;

use mesh_core::compose;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{Action, Plan, ReplicaId};
use mesh_discovery::controller::plan::{Planned, World, is_ready};
use mesh_discovery::controller::spec::config_hash;
use mesh_discovery::runtime::ObservedReplica;

use crate::sky::Sky;

pub fn check_plan(sky: &Sky, world: World<'_>, planned: &Planned) {
    let plan = &planned.plan;
    let mut slots = BTreeSet::new();
    for step in &plan.steps {
        assert!(!step.reason.is_empty(), "{sky}: {step}: without a reason");
        assert!(slots.insert(&step.replica), "{sky}: {step}: the second step on its slot");
        assert!(!world.busy.contains_key(&step.replica), "{sky}: {step}: one is under way there");
        assert!(world.unknown.is_empty(), "{sky}: {step}: nobody knows what runs");
        assert!(world.desired.contains_key(&step.replica.project), "{sky}: {step}: nobody asked for that project");
        let old = world.observed.iter().find(|replica| Some(&replica.unit) == step.unit.as_ref());
        assert_eq!(step.action == Action::Start, old.is_none(), "{sky}: {step}");
        assert!(old.is_none_or(|old| old.managed), "{sky}: {step}: it is somebody else's");
    }
    let waits = plan.not_taken.iter().any(|step| step.reason.contains("back-off"));
    assert!(!waits || planned.wake_at.is_some_and(|at| at > world.now), "{sky}: waits, and nobody wakes it");
    for desired in world.desired.values() {
        for (name, service) in &desired.project.services {
            let hash = config_hash(&desired.project, service);
            check_count(sky, world, plan, name, service.replicas as usize);
            check_removals(sky, world, plan, (name, service), &hash);
            for step in plan.steps.iter().filter(|step| step.replica.service == *name) {
                let not_before = world.history.not_before(&step.replica, &hash);
                let may = step.action == Action::Remove || not_before <= world.now;
                assert!(may, "{sky}: {step}: must not before {not_before:?}");
            }
        }
    }
}

/// With all its starts done there are no more than are wanted.
fn check_count(sky: &Sky, world: World<'_>, plan: &Plan, name: &Name, wanted: usize) {
    let of =
        |action: Action| plan.steps.iter().filter(move |step| step.replica.service == *name && step.action == action);
    let observed = world.observed.iter().map(|replica| &replica.id);
    let mut slots: BTreeSet<&ReplicaId> = observed.chain(world.busy.keys()).filter(|id| id.service == *name).collect();
    slots.retain(|id| world.busy.get(*id) != Some(&Action::Remove));
    for step in of(Action::Remove) {
        slots.remove(&step.replica);
    }
    let starts: Vec<_> = of(Action::Start).collect();
    slots.extend(starts.iter().map(|step| &step.replica));
    // A slot in excess whose step is under way is emptied by the next plan.
    let surplus = plan.not_taken.iter().filter(|step| step.replica.service == *name && step.action == Action::Remove);
    let most = slots.len() - surplus.count();
    // One more while a ready one waits for its successor.
    let rolls = plan.not_taken.iter().any(|step| step.replica.service == *name && step.reason.contains("goes when"));
    let most_wanted = wanted + usize::from(rolls && starts.len() == 1);
    assert!(starts.is_empty() || most <= most_wanted, "{sky}: {wanted} of {name} wanted, {most} planned: {starts:?}");
}

/// A ready one goes only when there are too many, or it is of another configuration; of the latter one at a time, while all
/// others are ready.
fn check_removals(sky: &Sky, world: World<'_>, plan: &Plan, of: (&Name, &compose::Service), hash: &str) {
    let (name, service) = of;
    let replicas: Vec<&ObservedReplica> = world.observed.iter().filter(|replica| replica.id.service == *name).collect();
    let ready = |replica: &&&ObservedReplica| is_ready(replica, service, world.endpoints);
    let ready_count = replicas.iter().filter(ready).count();
    let mut removed = 0;
    for step in &plan.steps {
        let Some(old) = replicas.iter().filter(ready).find(|replica| Some(&replica.unit) == step.unit.as_ref()) else {
            continue;
        };
        match step.action {
            Action::Remove => removed += 1,
            _ => {
                assert!(&*old.config_hash != hash, "{sky}: {step}: it is ready, and as configured");
                let wanted = service.replicas as usize;
                let serving = replicas.iter().filter(ready).filter(|replica| !leaves(world, plan, replica)).count();
                assert!(serving + 1 >= wanted, "{sky}: {step}: only {serving} of {wanted} are left");
            }
        }
    }
    let spare = ready_count.saturating_sub(service.replicas as usize);
    assert!(
        removed <= spare,
        "{sky}: {removed} ready ones of {name} are removed, {spare} are too many: {:?}",
        plan.steps
    );
}

fn leaves(world: World<'_>, plan: &Plan, replica: &ObservedReplica) -> bool {
    world.busy.contains_key(&replica.id) || plan.steps.iter().any(|step| step.unit.as_ref() == Some(&replica.unit))
}
