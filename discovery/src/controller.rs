//! Step 6 of a container event: what runs is compared with what was asked for. Observe, plan, execute: the plan is pure and
//! numbered (`controller/plan.rs`), its steps are done side by side (`controller/execute.rs`), and while they are, the next
//! plan is made around them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::compose::{Project, REPLICAS_MAX};
use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::{Name, ServiceId};
use mesh_core::model::replicas::{Action, Plan, ReplicaId, RuntimeKind, StepOutcome};
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::execute::{ExecuteError, Executor, Runtimes, Work};
use self::history::History;
use self::look::Looks;
use self::metrics::{Count, Metrics};
use self::plan::{Planned, World, is_ready};
use self::spec::{Desired, DesiredProjects, config_hash, replica_spec};
use self::story::Story;
use crate::runtime::{ObservedReplica, UnitId};
use crate::store::{Revision, SharedStore, StoreError};

pub mod spec; // what was asked for, replica by replica
pub mod history; // what happened to each slot before
pub mod plan; // what is to be done now (pure)
mod look; // what runs
pub mod execute; // doing one step of it
pub mod story; // what was done, and why
pub mod metrics; // what is counted
mod desired; // what was asked for, in the store
mod orders; // asking for it
mod status; // what there is of each replica, for people
mod api; // how it is asked for, over HTTP

#[cfg(test)]
mod tests;

/// Everything is looked at this often though nothing happened: hints can be lost.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at the least: a burst of hints is one look.
const PAUSE: Duration = Duration::from_millis(20);

/// Why the controller cannot do what was asked.
#[derive(Debug, Error)]
pub enum ControllerError {
    #[error("there is no project {name}{}", hint(suggestion.as_deref()))]
    UnknownProject { name: String, suggestion: Option<String> },
    #[error("project {project} has no service {name}{}", hint(suggestion.as_deref()))]
    UnknownService { project: Name, name: String, suggestion: Option<String> },
    #[error("{name}={count}: at most {REPLICAS_MAX} replicas of a service are run")]
    TooMany { name: String, count: u32 },
    #[error(
        "service {service} is to run on {kind}, which this discovery does not have; it has: {present}. Start it with one, or choose \
         another with --runtime"
    )]
    NoRuntime { service: Name, kind: RuntimeKind, present: String },
    #[error("what was asked for cannot be stored")]
    Store(#[from] StoreError),
}

/// The controller. Cheap to share; [`Self::run`] does the work.
pub struct Controller {
    executor: Arc<Executor>,
    store: SharedStore,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    story: Story,
    metrics: Metrics,
    state: Mutex<State>,
    /// True after the first look.
    has_looked: watch::Sender<bool>,
    /// What was asked for; none before it was read.
    declared: watch::Sender<Option<DesiredProjects>>,
    started: Instant,
}

/// What the last look found; readers take copies.
struct State {
    desired: DesiredProjects,
    /// Of the store, as `desired` was in it.
    revision: Option<Revision>,
    observed: BTreeMap<RuntimeKind, Vec<ObservedReplica>>,
    unknown: BTreeSet<RuntimeKind>,
    busy: BTreeMap<ReplicaId, Action>,
    history: History,
    plan: Plan,
}

/// A step that has come to its end, with the number of its plan.
type Finished = (u64, Work, Result<(), ExecuteError>);

impl Controller {
    /// `seed` decides the jitter of back-offs.
    #[must_use]
    pub fn new(
        runtimes: Runtimes,
        store: SharedStore,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        metrics: Metrics,
        seed: u64,
    ) -> Arc<Self> {
        let state = State {
            desired: DesiredProjects::new(),
            revision: None,
            observed: BTreeMap::new(),
            unknown: runtimes.keys().copied().collect(),
            busy: BTreeMap::new(),
            history: History::new(seed),
            plan: Plan::default(),
        };
        let executor = Arc::new(Executor::new(runtimes));
        let (story, state) = (Story::default(), Mutex::new(state));
        let (has_looked, declared) = (watch::Sender::new(false), watch::Sender::new(None));
        let started = Instant::now();
        Arc::new(Self { executor, store, snapshots, story, metrics, state, has_looked, declared, started })
    }

    /// The HTTP API below `/v1/projects`, `/v1/replicas` and `/v1/events`, with its paths for people.
    pub fn router(self: &Arc<Self>) -> (axum::Router, Vec<String>) {
        (api::router(self.clone()), api::PATHS.iter().map(ToString::to_string).collect())
    }

    /// Looks, plans and acts until drained; steps that were begun are finished then.
    pub async fn run(self: Arc<Self>, mut drain: Drain) {
        let runtimes = self.executor.runtimes().iter();
        let mut looks = Looks::new(runtimes.map(|(kind, runtime)| (*kind, runtime.hints())).collect());
        let mut snapshots = self.snapshots.clone();
        let mut revisions = self.store.revisions();
        let mut loaded: Option<Revision> = None;
        let mut steps: JoinSet<Finished> = JoinSet::new();
        while !drain.is_draining() {
            // What changes from here on is seen by the next look.
            snapshots.borrow_and_update();
            let revision = *revisions.borrow_and_update();
            if loaded != Some(revision) && self.load().await {
                loaded = Some(revision);
            }
            self.observe(&mut looks).await;
            self.has_looked.send_replace(true);
            let wake_at = self.plan_and_begin(&mut steps);
            self.forget_gone().await;
            tokio::time::sleep(PAUSE).await;
            let until = wake_at.map_or(PERIOD, |at| at.saturating_sub(self.started.elapsed()).min(PERIOD));
            tokio::select! {
                () = drain.started() => {}
                () = tokio::time::sleep(until) => {}
                news = looks.news() => if let Some(looked) = news { self.saw(looked) },
                _ = snapshots.changed() => {}
                _ = revisions.changed() => {}
                Some(finished) = steps.join_next() => self.finish(finished),
            }
            while let Some(finished) = steps.try_join_next() {
                self.finish(finished);
            }
        }
        while let Some(finished) = steps.join_next().await {
            self.finish(finished);
        }
    }

    /// True when what was asked for is known.
    async fn load(&self) -> bool {
        match desired::load(&self.store).await {
            Ok((desired, revision)) => {
                let mut state = self.lock();
                // One that was begun later may have ended sooner.
                if state.revision <= Some(revision) {
                    (state.desired, state.revision) = (desired, Some(revision));
                    self.declared.send_replace(Some(state.desired.clone()));
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, "what was asked for cannot be read; the last known holds");
                false
            }
        }
    }

    /// Makes the next plan and begins its steps; answers when to look again at the latest.
    fn plan_and_begin(&self, steps: &mut JoinSet<Finished>) -> Option<Duration> {
        let now = self.started.elapsed();
        let snapshot = self.snapshots.borrow().clone();
        let mut state = self.lock();
        let observed = state.all_observed();
        let endpoints = endpoint_states(&snapshot);
        state.note_readiness(&observed, &endpoints, now);
        self.metrics.show(&state.counts(&observed, &endpoints));
        let Planned { mut plan, wake_at } = plan::plan(state.world(&state.desired, &observed, &endpoints, now));
        plan.number = state.plan.number + u64::from(plan.steps != state.plan.steps || !plan.steps.is_empty());
        plan.snapshot = snapshot.number;
        let works: Vec<Work> = plan.steps.iter().map(|step| state.work(step)).collect();
        for work in &works {
            state.begin(work, now);
        }
        let number = plan.number;
        state.plan = plan;
        drop(state);
        if !works.is_empty() {
            self.metrics.planned();
        }
        for work in works {
            self.story.tell(number, work.step.clone(), StepOutcome::Begun);
            steps.spawn(execute_one(self.executor.clone(), number, work));
        }
        wake_at
    }

    fn finish(&self, finished: Result<Finished, tokio::task::JoinError>) {
        let (number, work, result) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                tracing::error!(%error, "a step panicked; its slot stays as it is until discovery is started again");
                return;
            }
        };
        let mut state = self.lock();
        state.busy.remove(&work.step.replica);
        let outcome = match result {
            Ok(()) => {
                state.history.fill_succeeded(&work.step.replica);
                StepOutcome::Done
            }
            Err(failed) => {
                let error = error_chain(&failed);
                if let Some(spec) = &work.new {
                    let now = self.started.elapsed();
                    state.history.fill_failed(&work.step.replica, &spec.config_hash, &error, now);
                }
                StepOutcome::Failed { error, lasting: failed.is_lasting() }
            }
        };
        drop(state);
        self.metrics.ended(work.step.action, &outcome);
        self.story.tell(number, work.step, outcome);
    }

    /// Projects that were taken down, and of which nothing is left.
    async fn forget_gone(&self) {
        let gone: Vec<Arc<Desired>> = {
            let state = self.lock();
            let observed = state.all_observed();
            let is_gone = |desired: &&Arc<Desired>| {
                let name = &desired.project.name;
                desired.is_down
                    && state.unknown.is_empty()
                    && !observed.iter().any(|replica| replica.managed && replica.id.project == *name)
                    && !state.busy.keys().any(|id| id.project == *name)
            };
            state.desired.values().filter(is_gone).cloned().collect()
        };
        for desired in gone {
            let name = &desired.project.name;
            let networks: Vec<_> = desired.project.networks.values().cloned().collect();
            for runtime in self.executor.runtimes().values() {
                if let Err(error) = runtime.forget_project(name.clone(), networks.clone()).await {
                    tracing::warn!(project = %name, %error, "what was made for the project is not all removed");
                }
            }
            match desired::forget(&self.store, name).await {
                Ok(()) => drop(self.lock().desired.remove(name)),
                Err(error) => tracing::warn!(project = %name, %error, "the project cannot be forgotten yet"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all_observed(&self) -> Vec<ObservedReplica> {
        self.observed.values().flatten().cloned().collect()
    }

    fn world<'a>(
        &'a self,
        desired: &'a DesiredProjects,
        observed: &'a [ObservedReplica],
        endpoints: &'a BTreeMap<UnitId, EndpointState>,
        now: Duration,
    ) -> World<'a> {
        World { desired, observed, unknown: &self.unknown, endpoints, busy: &self.busy, history: &self.history, now }
    }

    /// The configuration that each service is to have.
    fn wanted_hashes(&self) -> BTreeMap<ServiceId, Arc<str>> {
        let projects = self.desired.values().filter(|desired| !desired.is_down).map(|desired| &desired.project);
        let services = projects.flat_map(|project| project.services.iter().map(move |service| (project, service)));
        let hash = |(project, (name, service)): (&Project, (&Name, &mesh_core::compose::Service))| {
            (ServiceId::new(name.clone(), project.name.clone()), config_hash(project, service))
        };
        services.map(hash).collect()
    }

    fn note_readiness(
        &mut self,
        observed: &[ObservedReplica],
        endpoints: &BTreeMap<UnitId, EndpointState>,
        now: Duration,
    ) {
        for replica in observed.iter().filter(|replica| replica.managed) {
            let desired = self.desired.get(&replica.id.project);
            let service = desired.and_then(|desired| desired.project.services.get(&replica.id.service));
            let ready = service.is_some_and(|service| is_ready(replica, service, endpoints));
            self.history.saw(&replica.id, ready, now);
        }
        let desired = &self.desired;
        self.history.retain(|id| desired.contains_key(&id.project));
    }

    /// What was asked for of each service, and what of it takes requests.
    fn counts(
        &self,
        observed: &[ObservedReplica],
        endpoints: &BTreeMap<UnitId, EndpointState>,
    ) -> BTreeMap<ServiceId, Count> {
        let mut counts = BTreeMap::new();
        for project in self.desired.values().filter(|desired| !desired.is_down).map(|desired| &desired.project) {
            for (name, service) in &project.services {
                let of_it = |id: &ReplicaId| id.project == project.name && id.service == *name;
                let managed = observed.iter().filter(|replica| replica.managed && of_it(&replica.id));
                let ready = managed.filter(|replica| is_ready(replica, service, endpoints)).count();
                let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                let id = ServiceId::new(name.clone(), project.name.clone());
                counts.insert(id, Count { wanted: service.replicas, ready });
            }
        }
        counts
    }

    /// A step with all it takes to do it, from what was observed and asked for when it was planned.
    fn work(&self, step: &mesh_core::model::replicas::Step) -> Work {
        let old = self.observed.iter().find_map(|(kind, replicas)| {
            let replica = replicas.iter().find(|replica| Some(&replica.unit) == step.unit.as_ref())?;
            Some((*kind, self.stop_order(replica)))
        });
        let project = self.desired.get(&step.replica.project).map(|desired| &desired.project);
        let wants_new = matches!(step.action, Action::Start | Action::Replace);
        let new = project.filter(|_| wants_new).and_then(|project| replica_spec(project, &step.replica)).map(Arc::new);
        Work { step: step.clone(), old, new }
    }

    /// As the file says now; as it said then, where it does not name the service any more.
    fn stop_order(&self, replica: &ObservedReplica) -> crate::runtime::StopOrder {
        let desired = self.desired.get(&replica.id.project);
        let mut order = replica.stop.clone();
        if let Some(service) = desired.and_then(|desired| desired.project.services.get(&replica.id.service)) {
            order.grace_period = service.stop_grace_period;
            order.signal = service.stop_signal.clone().or(order.signal);
        }
        order
    }

    fn begin(&mut self, work: &Work, now: Duration) {
        let step = &work.step;
        self.busy.insert(step.replica.clone(), step.action);
        let Some(spec) = &work.new else { return };
        // A changed configuration, or a first start, is nobody's failure.
        let observed = self.observed.values().flatten();
        let old = observed.into_iter().find(|replica| Some(&replica.unit) == step.unit.as_ref());
        let after_failure = old.is_some_and(|replica| replica.config_hash == spec.config_hash);
        self.history.filled(&step.replica, &spec.config_hash, after_failure, &step.reason, now);
    }
}

async fn execute_one(executor: Arc<Executor>, number: u64, work: Work) -> Finished {
    let result = executor.execute(number, &work).await;
    (number, work, result)
}

fn endpoint_states(snapshot: &Snapshot) -> BTreeMap<UnitId, EndpointState> {
    let endpoints = snapshot.endpoints.values().flat_map(|endpoints| endpoints.iter());
    endpoints.map(|endpoint| (endpoint.id.unit.clone(), endpoint.state)).collect()
}

/// An error with its causes, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default()
}
