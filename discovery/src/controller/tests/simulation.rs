//! The planner against a world that kills, sickens, hangs, rescales and reconfigures at random, by seed. At each step what must
//! never happen is checked; when the world leaves things alone, what was asked for is there in the end.

use mesh_core::compose::Service;

use super::super::plan::{World, is_ready, plan};
use super::super::spec::config_hash;
use super::*;

const SEEDS: u64 = 100;
const STORMY_ROUNDS: u32 = 120;
const CALM_ROUNDS: u32 = 900;
const RUNS: ReplicaState = ReplicaState::Running;
/// Simulated time of a round.
const ROUND: Duration = Duration::from_millis(500);

struct Simulation {
    random: fastrand::Rng,
    desired: DesiredProjects,
    observed: Vec<ObservedReplica>,
    endpoints: BTreeMap<UnitId, EndpointState>,
    busy: BTreeMap<ReplicaId, Action>,
    /// Steps under way, and the rounds they still take.
    under_way: Vec<(Work, u32)>,
    history: History,
    now: Duration,
    units: u64,
    /// Starts that fail are part of the storm.
    is_calm: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut simulation = Self {
            random: fastrand::Rng::with_seed(seed),
            desired: DesiredProjects::new(),
            observed: Vec::new(),
            endpoints: BTreeMap::new(),
            busy: BTreeMap::new(),
            under_way: Vec::new(),
            history: History::new(seed),
            now: Duration::ZERO,
            units: 0,
            is_calm: false,
        };
        simulation.reconfigure();
        simulation
    }

    /// Another number of replicas, or another command.
    fn reconfigure(&mut self) {
        let (web, db, version) = (self.random.u32(0..5), self.random.u32(0..3), self.random.u32(0..2));
        let text = format!(
            "  web: {{ command: [x, '{version}'], expose: [80], scale: {web}, depends_on: [db] }}\n  db: {{ command: [x], scale: {db} }}\n"
        );
        let desired = Desired { project: project(&text), is_down: false };
        self.desired.insert(desired.project.name.clone(), Arc::new(desired));
    }

    fn project(&self) -> &Project {
        &self.desired.values().next().unwrap().project
    }

    /// One thing goes wrong, or changes.
    fn storm(&mut self) {
        let count = self.observed.len();
        match self.random.u32(0..10) {
            0 => self.reconfigure(),
            1..=3 if count > 0 => {
                let at = self.random.usize(0..count);
                self.end(at);
            }
            4 if count > 0 => {
                let at = self.random.usize(0..count);
                if self.observed[at].state.is_alive() {
                    self.observed[at].state = ReplicaState::Unhealthy;
                }
            }
            5 if count > 0 => {
                // Removed behind the controller's back.
                let at = self.random.usize(0..count);
                let replica = self.observed.swap_remove(at);
                self.endpoints.remove(&replica.unit);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: usize) {
        let replica = &mut self.observed[at];
        replica.state = ReplicaState::Exited { code: Some(self.random.i32(0..3)) };
        self.endpoints.remove(&replica.unit);
    }

    /// What starts becomes ready sooner or later.
    fn settle(&mut self) {
        for replica in &self.observed {
            if replica.state == ReplicaState::Running && (self.is_calm || self.random.bool()) {
                self.endpoints.insert(replica.unit.clone(), EndpointState::Ready);
            }
        }
    }

    fn ready(&self, service: &Name) -> usize {
        let Some(wanted) = self.project().services.get(service) else { return 0 };
        let of_service = self.observed.iter().filter(|replica| replica.id.service == *service);
        of_service.filter(|replica| is_ready(replica, wanted, &self.endpoints)).count()
    }

    fn round(&mut self) {
        self.now += ROUND;
        self.finish_steps();
        self.settle();
        for replica in &self.observed {
            let service = self.project().services.get(&replica.id.service);
            let ready = service.is_some_and(|service| is_ready(replica, service, &self.endpoints));
            self.history.saw(&replica.id, ready, self.now);
        }
        let plan = self.plan();
        self.check(&plan);
        for step in plan.steps {
            let spec = replica_spec(self.project(), &step.replica).map(Arc::new);
            let new = spec.filter(|_| step.action != Action::Remove);
            if let Some(spec) = &new {
                let old = self.observed.iter().find(|replica| Some(&replica.unit) == step.unit.as_ref());
                let failed = old.is_some_and(|replica| replica.config_hash == spec.config_hash);
                self.history.filled(&step.replica, &spec.config_hash, failed, &step.reason, self.now);
            }
            self.busy.insert(step.replica.clone(), step.action);
            let rounds = self.random.u32(0..4);
            self.under_way.push((Work { step, old: None, new }, rounds));
        }
    }

    fn plan(&self) -> Plan {
        let unknown = BTreeSet::new();
        let world = World {
            desired: &self.desired,
            observed: &self.observed,
            unknown: &unknown,
            endpoints: &self.endpoints,
            busy: &self.busy,
            history: &self.history,
            now: self.now,
        };
        let planned = plan(world);
        assert_eq!(plan(world), planned, "the same world has the same plan");
        planned.plan
    }

    /// What must never happen.
    fn check(&self, plan: &Plan) {
        let mut slots = BTreeSet::new();
        let mut out: BTreeMap<&Name, usize> = BTreeMap::new();
        for step in &plan.steps {
            assert!(!self.busy.contains_key(&step.replica), "{step}: a step is under way already");
            assert!(slots.insert(&step.replica), "{step}: two steps on one slot");
            assert!(!step.reason.is_empty());
            let old = self.observed.iter().find(|replica| Some(&replica.unit) == step.unit.as_ref());
            assert_eq!(step.action == Action::Start, old.is_none(), "{step}");
            let service = &step.replica.service;
            if let Some(wanted) = self.project().services.get(service) {
                let hash = config_hash(self.project(), wanted);
                let waits = self.history.not_before(&step.replica, &hash) > self.now;
                assert!(step.action == Action::Remove || !waits, "{step}: its back-off is not over");
                let was_ready = old.is_some_and(|old| is_ready(old, wanted, &self.endpoints));
                *out.entry(service).or_default() += usize::from(was_ready);
            }
        }
        for (service, out) in out {
            let wanted = usize::try_from(self.project().services[service].replicas).unwrap();
            let ready = self.ready(service);
            // Above what is wanted they may go; of those that are wanted none, whatever is to be changed.
            let spare = ready.saturating_sub(wanted);
            assert!(
                out <= spare,
                "{out} ready replicas of {service} are taken out, of {ready}, where {wanted} are wanted"
            );
        }
    }

    fn finish_steps(&mut self) {
        let all = std::mem::take(&mut self.under_way).into_iter();
        let (done, under_way): (Vec<_>, Vec<_>) = all.partition(|(_, rounds)| *rounds == 0);
        self.under_way = under_way;
        self.under_way.iter_mut().for_each(|(_, rounds)| *rounds -= 1);
        for (work, _) in done {
            self.busy.remove(&work.step.replica);
            self.observed.retain(|replica| Some(&replica.unit) != work.step.unit.as_ref());
            let Some(spec) = work.new else { continue };
            if !self.is_calm && self.random.u32(0..5) == 0 {
                self.history.fill_failed(&spec.id, &spec.config_hash, "no image", self.now);
                continue;
            }
            self.units += 1;
            self.observed.push(ObservedReplica {
                unit: format!("unit-{}", self.units).into(),
                id: spec.id.clone(),
                name: spec.id.to_string(),
                state: RUNS,
                config_hash: spec.config_hash.clone(),
                managed: true,
                address: None,
                ports: Vec::new(),
                started_millis: None,
                stop: StopOrder { signal: None, grace_period: Duration::ZERO },
            });
        }
    }

    fn is_as_asked(&self) -> bool {
        let as_asked = |(name, service): (&Name, &Service)| {
            let hash = config_hash(self.project(), service);
            let there: Vec<_> = self.observed.iter().filter(|replica| replica.id.service == *name).collect();
            // One that depends on a service of which none is wanted waits for ever, and says so.
            let blocked = name.as_str() == "web" && self.project().services[&Name::new("db").unwrap()].replicas == 0;
            let wanted = usize::try_from(service.replicas).unwrap();
            (there.len() == wanted
                && self.ready(name) == wanted
                && there.iter().all(|replica| replica.config_hash == hash))
                || (blocked && there.is_empty())
        };
        self.busy.is_empty() && self.project().services.iter().all(as_asked)
    }
}

/// `MESH_SEED=17` runs that seed alone.
#[test]
fn whatever_breaks_what_was_asked_for_is_there_in_the_end() {
    let only: Option<u64> = std::env::var("MESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for _ in 0..STORMY_ROUNDS {
                simulation.storm();
                simulation.round();
            }
            simulation.is_calm = true;
            for _ in 0..CALM_ROUNDS {
                simulation.round();
                if simulation.is_as_asked() {
                    break;
                }
            }
            assert!(simulation.is_as_asked(), "{:#?}\n{:#?}", simulation.observed, simulation.plan());
            let plan = simulation.plan();
            assert!(plan.steps.is_empty(), "settled, and yet {:?}", plan.steps);
        });
        if let Err(panic) = outcome {
            eprintln!("failed with seed {seed}; MESH_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
    }
}
