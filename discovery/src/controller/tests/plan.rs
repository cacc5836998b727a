//! The planner, case by case: what was asked for and what runs on one side, the plan on the other.

use super::super::plan::{Planned, World, plan};
use super::super::spec::config_hash;
use super::*;

/// A world in a few words.
struct Case {
    desired: DesiredProjects,
    observed: Vec<ObservedReplica>,
    unknown: BTreeSet<RuntimeKind>,
    endpoints: BTreeMap<UnitId, EndpointState>,
    busy: BTreeMap<ReplicaId, Action>,
    history: History,
    now: Duration,
}

fn id(service: &str, number: u32) -> ReplicaId {
    ReplicaId::new(Name::new("t").unwrap(), Name::new(service).unwrap(), number)
}

impl Case {
    fn new(text: &str) -> Self {
        let project = project(text);
        let desired = Desired { project, is_down: false };
        Self {
            desired: [(desired.project.name.clone(), Arc::new(desired))].into(),
            observed: Vec::new(),
            unknown: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            busy: BTreeMap::new(),
            history: History::new(1),
            now: Duration::from_secs(1000),
        }
    }

    fn hash(&self, service: &str) -> Arc<str> {
        let project = &self.desired.values().next().unwrap().project;
        let service = project.services.get(&Name::new(service).unwrap());
        service.map_or("gone".into(), |service| config_hash(project, service))
    }

    fn down(mut self) -> Self {
        for desired in self.desired.values_mut() {
            Arc::make_mut(desired).is_down = true;
        }
        self
    }

    fn has(mut self, service: &str, number: u32, state: ReplicaState) -> Self {
        self.observed.push(ObservedReplica {
            unit: format!("{service}{number}").into(),
            id: id(service, number),
            name: id(service, number).to_string(),
            state,
            config_hash: self.hash(service),
            managed: true,
            address: None,
            ports: Vec::new(),
            started_millis: None,
            stop: StopOrder { signal: None, grace_period: Duration::ZERO },
        });
        self
    }

    fn changed(mut self) -> Self {
        self.observed.last_mut().unwrap().config_hash = "older".into();
        self
    }

    fn foreign(mut self) -> Self {
        self.observed.last_mut().unwrap().managed = false;
        self
    }

    fn busy(mut self, service: &str, number: u32, action: Action) -> Self {
        self.busy.insert(id(service, number), action);
        self
    }

    fn plan(&self) -> Planned {
        plan(World {
            desired: &self.desired,
            observed: &self.observed,
            unknown: &self.unknown,
            endpoints: &self.endpoints,
            busy: &self.busy,
            history: &self.history,
            now: self.now,
        })
    }

    /// `start t-web-1: reason`, and `- replace t-web-1: reason` for what is not taken.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let plan = self.plan().plan;
        let taken = plan.steps.iter().map(ToString::to_string);
        let waits = plan.not_taken.iter().map(|step| format!("- {} {}: {}", step.action, step.replica, step.reason));
        assert_eq!(taken.chain(waits).collect::<Vec<_>>(), expected);
    }
}

const WEB2: &str = "  web: { command: [x], deploy: { replicas: 2 } }\n";
const RUNS: ReplicaState = ReplicaState::Running;
const ENDED: ReplicaState = ReplicaState::Exited { code: Some(1) };

#[test]
fn missing_replicas_are_started_and_surplus_ones_removed() {
    Case::new(WEB2).expect(&["start t-web-1: 2 wanted, none there", "start t-web-2: 2 wanted, none there"]);
    Case::new(WEB2).has("web", 2, RUNS).expect(&["start t-web-1: 2 wanted, 1 there"]);
    let full = || Case::new(WEB2).has("web", 1, RUNS).has("web", 2, RUNS);
    full().expect(&[]);
    full().has("web", 3, RUNS).expect(&["remove t-web-3: only 2 replicas are wanted"]);
    let unready = Case::new(WEB2).has("web", 1, RUNS).has("web", 2, ReplicaState::Starting).has("web", 5, RUNS);
    unready.expect(&["remove t-web-2: only 2 replicas are wanted"]);
    full().has("old", 1, RUNS).expect(&["remove t-old-1: old is not in the file any more"]);
    Case::new("  web: { command: [x], scale: 0 }\n")
        .has("web", 1, RUNS)
        .expect(&["remove t-web-1: only 0 replicas are wanted"]);
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    let case = Case::new(WEB2).has("web", 1, RUNS).foreign();
    case.expect(&[
        "start t-web-2: 2 wanted, none there",
        "start t-web-3: 2 wanted, none there",
        "- remove t-web-1: t-web-1 was not made by this controller, and is left alone",
    ]);
    let mut other = Case::new(WEB2).has("web", 1, RUNS).has("web", 2, RUNS).has("web", 3, RUNS);
    other.observed[2].id.project = Name::new("another").unwrap();
    other.expect(&[]);
}

#[test]
fn ended_and_unhealthy_ones_are_replaced() {
    let case = || Case::new(WEB2).has("web", 1, RUNS);
    case().has("web", 2, ENDED).expect(&["replace t-web-2: exited (1)"]);
    case().has("web", 2, ReplicaState::Exited { code: Some(0) }).expect(&["replace t-web-2: exited (0)"]);
    case().has("web", 2, ReplicaState::Created).expect(&["replace t-web-2: was made, but never started"]);
    case().has("web", 2, ReplicaState::Paused).expect(&["- replace t-web-2: is paused by somebody, and left alone"]);
    case()
        .has("web", 2, ReplicaState::Stopping)
        .expect(&["- replace t-web-2: is stopping; replaced when it has ended"]);
    let sick = || Case::new(WEB2).has("web", 1, ReplicaState::Unhealthy).has("web", 2, ReplicaState::Unhealthy);
    sick().expect(&[
        "replace t-web-1: is unhealthy",
        "- replace t-web-2: is unhealthy; waits until the one before is replaced",
    ]);
    sick().busy("web", 1, Action::Replace).expect(&[
        "- replace t-web-1: a step on it is under way",
        "- replace t-web-2: is unhealthy; waits until the one before is replaced",
    ]);
}

#[test]
fn restart_is_respected() {
    let check = |restart: &str, code: Option<i32>, expected: &[&str]| {
        let text = format!("  web: {{ command: [x], restart: '{restart}' }}\n");
        Case::new(&text).has("web", 1, ReplicaState::Exited { code }).expect(expected);
    };
    check("no", Some(0), &[]);
    check("no", Some(2), &["- replace t-web-1: exited (2), and its restart is \"no\""]);
    check("on-failure", Some(0), &[]);
    check("on-failure", Some(2), &["replace t-web-1: exited (2)"]);
    check("on-failure", None, &["replace t-web-1: exited"]);
    check("always", Some(0), &["replace t-web-1: exited (0)"]);
}

#[test]
fn back_off_is_waited_for_and_forgotten_with_another_configuration() {
    let mut case = Case::new(WEB2).has("web", 1, RUNS).has("web", 2, ENDED);
    let hash = case.hash("web");
    case.history.filled(&id("web", 2), &hash, true, "exited (1)", case.now);
    let until = case.history.not_before(&id("web", 2), &hash);
    assert!(until > case.now);
    let planned = case.plan();
    assert_eq!((planned.plan.steps.len(), planned.wake_at), (0, Some(until)));
    let reason = &planned.plan.not_taken[0].reason;
    assert!(
        reason.starts_with("exited (1); next try in ") && reason.ends_with("(back-off after failure 1)"),
        "{reason}"
    );
    case.now = until;
    case.expect(&["replace t-web-2: exited (1)"]);
    case.now = Duration::from_secs(1000);
    case.observed[1].config_hash = "older".into();
    case.history.filled(&id("web", 2), &"older".into(), true, "exited (1)", case.now);
    case.expect(&["replace t-web-2: its configuration changed"]);
}

#[test]
fn one_that_was_ready_for_long_fails_for_the_first_time_again() {
    let mut history = History::new(3);
    let (slot, hash): (_, Arc<str>) = (id("web", 1), "a".into());
    for second in 0..5 {
        history.filled(&slot, &hash, true, "exited (1)", Duration::from_secs(second));
    }
    assert_eq!((history.failures(&slot), history.restarts(&slot)), (5, 4));
    history.saw(&slot, true, Duration::from_secs(10));
    history.saw(&slot, true, Duration::from_secs(19));
    assert_eq!(history.failures(&slot), 5, "not for long enough yet");
    history.saw(&slot, false, Duration::from_secs(20));
    history.saw(&slot, true, Duration::from_secs(21));
    history.saw(&slot, true, Duration::from_secs(30));
    assert_eq!(history.failures(&slot), 5, "not without a break");
    history.saw(&slot, true, Duration::from_secs(31));
    assert_eq!((history.failures(&slot), history.not_before(&slot, "a")), (0, Duration::ZERO));
}

#[test]
fn a_changed_configuration_is_rolled_out_one_by_one() {
    let both = || Case::new(WEB2).has("web", 1, RUNS).changed().has("web", 2, RUNS).changed();
    both().expect(&[
        "start t-web-3: the configuration changed; t-web-1 goes when this one is ready",
        "- remove t-web-1: its configuration changed; goes when t-web-3 is ready",
        "- replace t-web-2: its configuration changed; one is replaced at a time",
    ]);
    both().busy("web", 1, Action::Replace).expect(&[
        "- replace t-web-1: a step on it is under way",
        "- replace t-web-2: its configuration changed; one is replaced at a time",
    ]);
    let half = Case::new(WEB2).has("web", 1, ReplicaState::Starting).has("web", 2, RUNS).changed();
    half.expect(&["- replace t-web-2: its configuration changed; waits until the others are ready"]);
    let broken = Case::new(WEB2).has("web", 1, RUNS).changed().has("web", 2, ReplicaState::Starting).changed();
    broken.expect(&[
        "replace t-web-2: its configuration changed",
        "- replace t-web-1: its configuration changed; one is replaced at a time",
    ]);
    // The only one that serves goes on serving until those beside it do.
    let alone = Case::new(WEB2).has("web", 1, RUNS).changed();
    alone.expect(&[
        "start t-web-2: 2 wanted, 1 there",
        "- replace t-web-1: its configuration changed; waits until the others are ready",
    ]);
    let mut more =
        Case::new("  web: { command: [x], deploy: { replicas: 3 } }\n").has("web", 1, RUNS).has("web", 2, RUNS);
    more.observed.iter_mut().for_each(|replica| replica.config_hash = Case::new(WEB2).hash("web"));
    more.expect(&["start t-web-3: 3 wanted, 2 there"]);
}

#[test]
fn a_ready_one_goes_when_its_successor_is_ready() {
    const ONE: &str = "  web: { command: [x], healthcheck: { test: 'x' } }\n";
    const HEALTHY: ReplicaState = ReplicaState::Healthy;
    let single = || Case::new(ONE).has("web", 1, HEALTHY).changed();
    single().expect(&[
        "start t-web-2: the configuration changed; t-web-1 goes when this one is ready",
        "- remove t-web-1: its configuration changed; goes when t-web-2 is ready",
    ]);
    let waits = "- replace t-web-1: its configuration changed; one is replaced at a time";
    single().busy("web", 2, Action::Start).expect(&[waits]);
    let waits = "- replace t-web-1: its configuration changed; waits until the others are ready";
    single().has("web", 2, ReplicaState::Starting).expect(&[waits]);
    single().has("web", 2, ENDED).expect(&["replace t-web-2: exited (1)", waits]);
    single().has("web", 2, ReplicaState::Unhealthy).expect(&["replace t-web-2: is unhealthy", waits]);
    single().has("web", 2, HEALTHY).expect(&["remove t-web-1: its configuration changed, and its successor is ready"]);
    // Another change before it was ready: the unready one makes room.
    let again = single().has("web", 2, ReplicaState::Starting).changed();
    again.expect(&["remove t-web-2: only 1 replica is wanted", waits]);
    // It cannot be made: the good one stays, and it is tried again.
    let mut failed = single();
    let hash = failed.hash("web");
    failed.history.fill_failed(&id("web", 2), &hash, "no image", failed.now);
    let plan = failed.plan();
    assert!(plan.plan.steps.is_empty() && plan.wake_at.is_some(), "{plan:?}");
    failed.now = plan.wake_at.unwrap();
    assert_eq!(failed.plan().plan.steps[0].replica, id("web", 2));
}

#[test]
fn those_that_cannot_run_side_by_side_are_replaced_in_their_slot() {
    let check = |text: &str, takes_turns: bool| {
        let plan = Case::new(text).has("web", 1, RUNS).changed().plan().plan;
        let expected = if takes_turns { Action::Replace } else { Action::Start };
        assert_eq!(plan.steps[0].action, expected, "{text}: {plan:?}");
    };
    let docker = "x-mesh: { runtime: docker }, labels: { mesh.enable: 'false' }";
    check(&format!("  web: {{ image: x, {docker}, ports: ['80:80'] }}\n"), true);
    check(&format!("  web: {{ image: x, {docker}, ports: ['80'] }}\n"), false);
    check(&format!("  web: {{ image: x, {docker}, volumes: ['/data:/data'] }}\n"), true);
    check(&format!("  web: {{ image: x, {docker}, volumes: ['/data:/data:ro'] }}\n"), false);
    check("  web: { command: [x] }\n", false);
}

#[test]
fn what_is_under_way_is_counted() {
    Case::new(WEB2).busy("web", 1, Action::Start).expect(&["start t-web-2: 2 wanted, 1 there"]);
    let leaving = Case::new(WEB2).has("web", 1, RUNS).busy("web", 1, Action::Remove).has("web", 2, RUNS);
    leaving.expect(&["start t-web-3: 2 wanted, 1 there"]);
}

#[test]
fn a_service_waits_for_what_it_depends_on_only_at_first() {
    let text = |condition: &str| {
        format!(
            "  web: {{ command: [x], depends_on: {{ db: {{ condition: {condition} }} }} }}\n  db: {{ command: [x], scale: 2, \
             restart: 'no', healthcheck: {{ test: 'x' }} }}\n"
        )
    };
    let check = |condition: &str, state: ReplicaState, waits: Option<&str>| {
        let case = Case::new(&text(condition)).has("db", 1, state).has("db", 2, state);
        let expected =
            waits.map_or("start t-web-1: 1 wanted, none there".to_owned(), |w| format!("- start t-web-1: {w}"));
        let plan = case.plan().plan;
        let all = plan.steps.iter().map(ToString::to_string);
        let mut all = all.chain(plan.not_taken.iter().map(|n| format!("- {} {}: {}", n.action, n.replica, n.reason)));
        assert!(all.any(|step| step == expected), "{condition} {state}: {plan:?}");
    };
    check("service_started", ReplicaState::Starting, None);
    check("service_started", ENDED, Some("waits until db has started"));
    check("service_healthy", ReplicaState::Healthy, None);
    check("service_healthy", ReplicaState::Starting, Some("waits until db is healthy"));
    check("service_completed_successfully", ReplicaState::Exited { code: Some(0) }, None);
    check("service_completed_successfully", ENDED, Some("waits until db has completed successfully"));
    check("service_completed_successfully", RUNS, Some("waits until db has completed successfully"));
    let running =
        Case::new("  web: { command: [x], scale: 2, depends_on: [db] }\n  db: { command: [x] }\n").has("web", 1, RUNS);
    running.expect(&["start t-db-1: 1 wanted, none there", "start t-web-2: 2 wanted, 1 there"]);
}

#[test]
fn a_project_is_taken_down_from_its_users_on() {
    let text = "  web: { command: [x], depends_on: [db] }\n  db: { command: [x] }\n";
    let case = || Case::new(text).down().has("db", 1, RUNS);
    case().has("web", 1, RUNS).expect(&[
        "remove t-web-1: the project was taken down",
        "- remove t-db-1: waits until web, which depends on it, is gone",
    ]);
    case().expect(&["remove t-db-1: the project was taken down"]);
    case().busy("db", 1, Action::Remove).expect(&["- remove t-db-1: a step on it is under way"]);
    Case::new(text).down().expect(&[]);
}

#[test]
fn nothing_is_planned_where_nothing_is_known() {
    let mut case = Case::new(WEB2);
    case.unknown.insert(RuntimeKind::Process);
    case.expect(&["- start t-web-1: waits until the process runtime says what runs"]);
}

#[test]
fn readiness_of_one_with_ports_is_the_snapshots_word() {
    let text = "  web: { command: [x], expose: [80], deploy: { replicas: 2 } }\n";
    let case = |state: Option<EndpointState>| {
        let mut case = Case::new(text).has("web", 1, RUNS).has("web", 2, RUNS).changed();
        case.endpoints.insert("web2".into(), EndpointState::Ready);
        case.endpoints.extend(state.map(|state| ("web1".into(), state)));
        case
    };
    case(Some(EndpointState::Ready)).expect(&[
        "start t-web-3: the configuration changed; t-web-2 goes when this one is ready",
        "- remove t-web-2: its configuration changed; goes when t-web-3 is ready",
    ]);
    for state in [None, Some(EndpointState::NotReady), Some(EndpointState::Draining)] {
        case(state).expect(&["- replace t-web-2: its configuration changed; waits until the others are ready"]);
    }
}
