//! The controller without its shells: the pure planner over what the engine runs, and the real executor, whose steps take
//! their time at the engine's desk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mesh_core::compose::{self, Project};
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{Action, Plan, ReplicaId, RuntimeKind, Step};
use mesh_core::model::snapshot::Snapshot;
use mesh_discovery::controller::execute::{ExecuteError, Executor, Runtimes, Work};
use mesh_discovery::controller::history::History;
use mesh_discovery::controller::plan::{World, is_ready, plan};
use mesh_discovery::controller::spec::{Desired, DesiredProjects, config_hash, replica_spec};
use mesh_discovery::runtime::{ObservedReplica, UnitId};

use crate::desk::Order;
use crate::engine::Engine;
use crate::plan_rules::check_plan;
use crate::sky::Sky;
use crate::wanted::Wanted;

/// How often the controller looks, hinted or not.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Steps that came to their end, remembered to be executed once more.
const DONE_MAX: usize = 16;

type Executing = BoxFuture<'static, Result<(), ExecuteError>>;

/// A step under way.
struct UnderWay {
    number: u64,
    work: Work,
    executing: Executing,
}

pub struct Planner {
    desired: DesiredProjects,
    history: History,
    executor: Arc<Executor>,
    steps: Vec<UnderWay>,
    /// Steps that were done already, on their way a second time.
    again: Vec<UnderWay>,
    done: Vec<(u64, Work)>,
    look_at: Duration,
    /// The most that was wanted of each service since its last start began: a step may be older than a change of mind.
    wanted_max: BTreeMap<Name, u32>,
    pub plan: Plan,
    /// How many steps were refused as stale.
    pub stale: u64,
}

impl Planner {
    pub fn new(sky: &Sky, engine: &Engine, wanted: &Wanted) -> Self {
        let mut planner = Self {
            desired: DesiredProjects::new(),
            history: History::new(sky.seed),
            executor: executor(engine),
            steps: Vec::new(),
            again: Vec::new(),
            done: Vec::new(),
            look_at: sky.now,
            wanted_max: BTreeMap::new(),
            plan: Plan::default(),
            stale: 0,
        };
        planner.want(wanted);
        planner
    }

    pub fn want(&mut self, wanted: &Wanted) {
        let project = wanted.project();
        for (name, service) in &project.services {
            let most = self.wanted_max.entry(name.clone()).or_default();
            *most = service.replicas.max(*most);
        }
        self.desired = [(project.name.clone(), Arc::new(Desired { project, is_down: false }))].into();
    }

    /// Killed, half-way through whatever it did, and started again: what was asked for is in the store; the past, and what was
    /// under way, is forgotten.
    pub fn restart(&mut self, sky: &mut Sky, engine: &Engine) {
        sky.tell(format_args!("the controller starts again, {} steps were under way", self.steps.len()));
        // Starts that were ordered are carried out, and nobody sees them come: so many may be too many, for a while.
        for (name, most) in &mut self.wanted_max {
            let ordered = engine.ordered(name).filter(|order| matches!(order, Order::Start(_))).count();
            *most += (ordered + engine.desk.starts_of(name)) as u32;
        }
        self.history = History::new(sky.seed ^ u64::from(sky.step));
        self.executor = executor(engine);
        self.steps.clear();
        self.again.clear();
        self.done.clear();
        self.plan = Plan::default();
    }

    pub fn project(&self) -> &Project {
        &self.desired.values().next().expect("one project is wanted").project
    }

    /// One step.
    pub fn advance(&mut self, sky: &mut Sky, engine: &Engine, snapshot: &Snapshot) {
        self.finish(sky);
        self.check_held(sky, engine);
        if sky.mishap(40) {
            self.once_more(sky, engine);
        }
        if sky.now < self.look_at || snapshot.number == 0 {
            return;
        }
        self.look_at = sky.now + LOOK_INTERVAL;
        let observed = engine.replicas(sky);
        let endpoints = endpoint_states(snapshot);
        let unknown: BTreeSet<RuntimeKind> =
            if engine.is_down(sky) { [RuntimeKind::Docker].into() } else { BTreeSet::new() };
        for replica in observed.iter().filter(|replica| replica.managed) {
            let service = self.project().services.get(&replica.id.service);
            let ready = service.is_some_and(|service| is_ready(replica, service, &endpoints));
            self.history.saw(&replica.id, ready, sky.now);
        }
        let busy = self.steps.iter().map(|one| (one.work.step.replica.clone(), one.work.step.action)).collect();
        let world = World {
            desired: &self.desired,
            observed: &observed,
            unknown: &unknown,
            endpoints: &endpoints,
            busy: &busy,
            history: &self.history,
            now: sky.now,
        };
        let planned = plan(world);
        assert_eq!(plan(world), planned, "{sky}: the same world has the same plan");
        check_plan(sky, world, &planned);
        let mut next = planned.plan;
        next.number = self.plan.number + u64::from(next.steps != self.plan.steps || !next.steps.is_empty());
        next.snapshot = snapshot.number;
        self.plan = next;
        for step in self.plan.steps.clone() {
            self.begin(sky, &observed, step);
        }
    }

    fn begin(&mut self, sky: &mut Sky, observed: &[ObservedReplica], step: Step) {
        sky.tell(format_args!("plan {}: {step}", self.plan.number));
        let wants_new = step.action != Action::Remove;
        let new = replica_spec(self.project(), &step.replica).filter(|_| wants_new).map(Arc::new);
        let old = observed.iter().find(|replica| Some(&replica.unit) == step.unit.as_ref());
        if let Some(spec) = &new {
            let after_failure = old.is_some_and(|replica| replica.config_hash == spec.config_hash);
            self.history.filled(&step.replica, &spec.config_hash, after_failure, &step.reason, sky.now);
        }
        let old = old.map(|replica| (RuntimeKind::Docker, replica.stop.clone()));
        let under_way = self.execute(self.plan.number, Work { step, old, new });
        self.steps.push(under_way);
    }

    fn execute(&self, number: u64, work: Work) -> UnderWay {
        let (executor, doing) = (self.executor.clone(), work.clone());
        let executing = Box::pin(async move { executor.execute(number, &doing).await });
        UnderWay { number, work, executing }
    }

    fn finish(&mut self, sky: &mut Sky) {
        for mut one in std::mem::take(&mut self.steps) {
            let Poll::Ready(outcome) = poll(&mut one) else {
                self.steps.push(one);
                continue;
            };
            let step = &one.work.step;
            match outcome {
                Ok(()) => {
                    sky.tell(format_args!("plan {}: {} of {} is done", one.number, step.action, step.replica));
                    self.done.push((one.number, one.work));
                }
                Err(error) => {
                    sky.tell(format_args!("plan {}: {} of {} failed: {error}", one.number, step.action, step.replica));
                    let stale = matches!(error, ExecuteError::Stale { .. });
                    assert!(!stale, "{sky}: {step}: refused, though no newer plan was begun: {error}");
                    if let Some(spec) = &one.work.new {
                        self.history.fill_failed(&step.replica, &spec.config_hash, "no image", sky.now);
                    }
                }
            }
        }
        self.done.drain(..self.done.len().saturating_sub(DONE_MAX));
        // What they are answered is nobody's business.
        self.again.retain_mut(|one| poll(one).is_pending());
    }

    /// A step that was done already is done again, by mistake, or by another leader. One of an older plan is refused before it
    /// does anything.
    fn once_more(&mut self, sky: &mut Sky, engine: &Engine) {
        let Some(at) = sky.any_of(self.done.len()) else { return };
        let (number, work) = self.done[at].clone();
        let mut one = self.execute(number, work);
        let orders = engine.desk.tickets();
        let outcome = poll(&mut one);
        let step = &one.work.step;
        let newest = self.newest_begun();
        if number < newest {
            let refused = matches!(outcome, Poll::Ready(Err(ExecuteError::Stale { .. })));
            assert!(refused, "{sky}: {step}: plan {number} is done again after plan {newest}: {outcome:?}");
            assert_eq!(engine.desk.tickets(), orders, "{sky}: {step}: refused, and yet it did something");
            self.stale += 1;
        } else if outcome.is_pending() {
            sky.tell(format_args!("plan {number}: {} of {} once more", step.action, step.replica));
            self.again.push(one);
        }
    }

    /// The newest plan of which a step was begun.
    fn newest_begun(&self) -> u64 {
        let begun = self.steps.iter().map(|one| one.number).chain(self.done.iter().map(|(number, _)| *number));
        begun.max().unwrap_or(0)
    }

    /// Never more than was asked for, of those that are to stay.
    fn check_held(&mut self, sky: &Sky, engine: &Engine) {
        let desired = self.desired.values().next().expect("one project is wanted").clone();
        let project = &desired.project;
        for (name, service) in &project.services {
            let id = ReplicaId::new(project.name.clone(), name.clone(), 1);
            let leaves = |unit: &UnitId| {
                let planned = self.steps.iter().chain(&self.again).any(|one| one.work.step.unit.as_ref() == Some(unit));
                let ordered = engine.ordered(name).any(|order| matches!(order, Order::Stop(one) if one == unit));
                planned || ordered
            };
            let staying: Vec<_> = engine.staying(&id).filter(|unit| !leaves(&unit.id.unit)).collect();
            let most = self.wanted_max[name].max(service.replicas) as usize;
            // A successor stands beside the one that goes when it is ready.
            let hash = config_hash(project, service);
            let successors = usize::from(staying.iter().any(|unit| unit.spec.config_hash != hash));
            assert!(
                staying.len() <= most + successors,
                "{sky}: {most} of {name} wanted, and there are {:?}",
                staying.iter().map(|unit| unit.spec.id.to_string()).collect::<Vec<_>>()
            );
            let under_way = self.steps.iter().chain(&self.again).any(|one| one.work.step.replica.service == *name);
            if !under_way && engine.ordered(name).next().is_none() {
                // Those that are too many now may stay until the next look.
                self.wanted_max.insert(name.clone(), service.replicas.max(staying.len().min(most) as u32));
            }
        }
    }

    /// Whether all that was asked for is there and ready, and nothing else.
    pub fn is_as_asked(&self, sky: &Sky, engine: &Engine, snapshot: &Snapshot) -> bool {
        let endpoints = endpoint_states(snapshot);
        let observed = engine.replicas(sky);
        let as_asked = |(name, service): (&Name, &compose::Service)| {
            let hash = config_hash(self.project(), service);
            let mut there = observed.iter().filter(|replica| replica.id.service == *name);
            there.clone().count() == service.replicas as usize
                && there.all(|replica| replica.config_hash == hash && is_ready(replica, service, &endpoints))
        };
        self.steps.is_empty() && self.again.is_empty() && self.project().services.iter().all(as_asked)
    }

    /// Words for a message about what is not there.
    pub fn describe(&self) -> String {
        let busy: Vec<String> = self.steps.iter().map(|one| one.work.step.to_string()).collect();
        format!("planned: {:#?}\nunder way: {busy:?}", self.plan)
    }
}

fn executor(engine: &Engine) -> Arc<Executor> {
    Arc::new(Executor::new(Runtimes::from([(RuntimeKind::Docker, Arc::new(engine.desk.clone()) as Arc<_>)])))
}

fn poll(one: &mut UnderWay) -> Poll<Result<(), ExecuteError>> {
    one.executing.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn endpoint_states(snapshot: &Snapshot) -> BTreeMap<UnitId, EndpointState> {
    let endpoints = snapshot.endpoints.values().flat_map(|endpoints| endpoints.iter());
    endpoints.map(|endpoint| (endpoint.id.unit.clone(), endpoint.state)).collect()
}
