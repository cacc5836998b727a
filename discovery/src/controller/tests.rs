//! The controller on real processes, from what is asked for to what runs.

mod plan; // the planner, case by case
mod simulation; // the planner against a world that breaks things, by seed

use mesh_core::compose::{self, Overrides};
use mesh_core::model::replicas::ReplicaStatus;
use mesh_core::model::replicas::{ReplicaState, StepEvent};
use mesh_core::task::drain;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::runtime::process::{ProcessRuntime, ProcessSettings};
use crate::runtime::{ReplicaSpec, Runtime, RuntimeError, StopOrder};
use crate::store::embedded::Embedded;

const DEADLINE: Duration = Duration::from_secs(30);

fn project(text: &str) -> Project {
    let text = format!("name: t\nx-mesh: {{ runtime: process }}\nservices:\n{text}");
    let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
    compose::read("compose.yaml", &text, &BTreeMap::new(), &overrides).unwrap()
}

struct Running {
    controller: Arc<Controller>,
    runtime: Arc<ProcessRuntime>,
    drainer: drain::Drainer,
    tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
    _snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Running {
    fn start() -> Self {
        Self::beside(Runtimes::new())
    }

    fn beside(mut runtimes: Runtimes) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = ProcessRuntime::open(ProcessSettings::new(folder.path())).unwrap();
        runtimes.insert(RuntimeKind::Process, runtime.clone());
        let (published, snapshots) = watch::channel(Arc::<Snapshot>::default());
        let store: SharedStore = Arc::new(Embedded::in_memory().unwrap());
        let controller =
            Controller::new(runtimes, store, snapshots, Metrics::register(&prometheus::Registry::new()).unwrap(), 7);
        let (drainer, held) = drain::channel();
        let mut tasks = JoinSet::new();
        let (watched, also_held) = (runtime.clone(), held.clone());
        tasks.spawn(async move { watched.watch_over(also_held).await });
        tasks.spawn(controller.clone().run(held));
        Self { controller, runtime, drainer, tasks, _folder: folder, _snapshots: published }
    }

    async fn until(&self, what: &str, holds: impl Fn(&[ReplicaStatus]) -> bool) -> Vec<ReplicaStatus> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let replicas = self.controller.replicas();
            if holds(&replicas) {
                return replicas;
            }
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}: {replicas:#?} {:#?}",
                self.controller.plan()
            );
            tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
        }
    }

    async fn events(&self) -> Vec<StepEvent> {
        self.controller.story().after(0, Duration::ZERO).await
    }

    async fn end(mut self) {
        self.drainer.drain().await;
        while self.tasks.join_next().await.is_some() {}
        self.runtime.stop_all().await.unwrap();
    }
}

fn names(replicas: &[ReplicaStatus]) -> Vec<&str> {
    replicas.iter().filter(|replica| replica.ready).map(|replica| replica.name.as_str()).collect()
}

fn pid(replica: &ReplicaStatus) -> Pid {
    Pid::from_raw(replica.unit.split('-').nth(1).unwrap().parse().unwrap())
}

#[tokio::test]
async fn replicas_are_kept_scaled_rolled_and_taken_down() {
    let running = Running::start();
    let text = "  web: { command: [sleep, '600'], deploy: { replicas: 3 } }\n";
    let plan = running.controller.apply(project(text)).await.unwrap();
    assert_eq!(plan.steps.len(), 3, "{plan:?}");
    let all = ["t-web-1", "t-web-2", "t-web-3"];
    let first = running.until("three are ready", |replicas| names(replicas) == all).await;

    kill(pid(&first[1]), Signal::SIGKILL).unwrap();
    let is_new = |replicas: &[ReplicaStatus]| names(replicas) == all && replicas[1].unit != first[1].unit;
    let second = running.until("the killed one is replaced", is_new).await;
    assert_eq!((&second[0].unit, &second[2].unit), (&first[0].unit, &first[2].unit), "the others stay");
    assert_eq!((second[1].restarts, second[1].last_reason.as_deref()), (1, Some("exited (137)")));

    running.controller.scale("t", &BTreeMap::from([("web".to_owned(), 2)])).await.unwrap();
    running.until("one was removed", |replicas| replicas.len() == 2 && names(replicas) == all[..2]).await;
    let error = running.controller.scale("t", &BTreeMap::from([("wed".to_owned(), 2)])).await.unwrap_err().to_string();
    assert_eq!(error, "project t has no service wed; did you mean web?");
    let many = BTreeMap::from([("web".to_owned(), 1001)]);
    let error = running.controller.scale("t", &many).await.unwrap_err().to_string();
    assert_eq!(error, "web=1001: at most 1000 replicas of a service are run");

    let text = text.replace("600", "601").replace('3', "2");
    running.controller.apply(project(&text)).await.unwrap();
    let is_rolled = |replicas: &[ReplicaStatus]| {
        replicas.len() == 2 && replicas.iter().all(|new| new.ready && second.iter().all(|old| old.unit != new.unit))
    };
    running.until("both are of the new configuration", is_rolled).await;

    running.controller.take_down("t").await.unwrap();
    running.until("all are gone", <[ReplicaStatus]>::is_empty).await;
    let deadline = Instant::now() + DEADLINE;
    while !running.controller.projects().is_empty() {
        assert!(Instant::now() < deadline, "the project is not forgotten");
        tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
    }
    let events = running.events().await;
    assert!(events.iter().all(|event| !event.step.reason.is_empty()));
    let failed = events.iter().filter(|event| matches!(event.outcome, StepOutcome::Failed { .. })).count();
    assert_eq!(failed, 0, "{events:#?}");
    running.end().await;
}

#[tokio::test]
async fn what_fails_again_and_again_is_tried_with_back_off_and_says_so() {
    let running = Running::start();
    running.controller.apply(project("  bad: { command: [sh, -c, 'exit 1'] }\n")).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    let waits = loop {
        let plan = running.controller.plan();
        if let Some(waits) = plan.not_taken.iter().find(|step| step.reason.contains("back-off after failure")) {
            break waits.clone();
        }
        assert!(Instant::now() < deadline, "{plan:?}");
        tokio::time::sleep(Duration::from_millis(5)).await; // between two looks
    };
    assert!(waits.reason.starts_with("exited (1); next try in "), "{}", waits.reason);
    running.controller.apply(project("  bad: { command: [no-such-program] }\n")).await.unwrap();
    let failed = loop {
        let events = running.events().await;
        if let Some(event) = events.iter().find(|event| matches!(event.outcome, StepOutcome::Failed { .. })) {
            break event.clone();
        }
        assert!(Instant::now() < deadline, "{events:?}");
        tokio::time::sleep(Duration::from_millis(5)).await; // between two looks
    };
    assert!(
        matches!(&failed.outcome, StepOutcome::Failed { error, .. } if error.contains("no-such-program")),
        "{failed:?}"
    );
    running.end().await;
}

#[tokio::test]
async fn services_start_in_the_order_of_what_they_depend_on() {
    let running = Running::start();
    let text = "  init: { command: ['true'], restart: 'no' }
  db: { command: [sleep, '600'], healthcheck: { test: 'true', interval: 50ms } }
  web:
    command: [sleep, '600']
    depends_on: { init: { condition: service_completed_successfully }, db: { condition: service_healthy } }
";
    running.controller.apply(project(text)).await.unwrap();
    let is_up = |replicas: &[ReplicaStatus]| names(replicas) == ["t-db-1", "t-web-1"];
    let replicas = running.until("db and web are ready", is_up).await;
    let init = replicas.iter().find(|replica| replica.service.as_str() == "init").unwrap();
    assert_eq!(init.state, ReplicaState::Exited { code: Some(0) });
    let events = running.events().await;
    let begun: Vec<&str> = events
        .iter()
        .filter(|event| event.outcome == StepOutcome::Begun)
        .map(|event| event.step.replica.service.as_str())
        .collect();
    assert_eq!(begun, ["db", "init", "web"], "once each, web last");
    running.controller.take_down("t").await.unwrap();
    running.until("all are gone", <[ReplicaStatus]>::is_empty).await;
    let events = running.events().await;
    let removed = events.iter().find(|event| event.step.action == Action::Remove).unwrap();
    assert_eq!(removed.step.replica.service.as_str(), "web", "those that depend on others go first");
    running.end().await;
}

/// Counts what it is told to do.
#[derive(Default)]
struct Counting {
    running: Mutex<BTreeMap<String, UnitId>>,
    calls: Mutex<Vec<String>>,
    hints: watch::Sender<u64>,
}

impl Runtime for Counting {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }
    fn observe(&self) -> futures_util::future::BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn start(&self, spec: Arc<ReplicaSpec>) -> futures_util::future::BoxFuture<'_, Result<UnitId, RuntimeError>> {
        let mut running = self.running.lock().unwrap();
        let count = self.calls.lock().unwrap().len();
        let unit = running.entry(spec.id.to_string()).or_insert_with(|| {
            self.calls.lock().unwrap().push(format!("start {}", spec.id));
            format!("new-{count}").into()
        });
        Box::pin(std::future::ready(Ok(unit.clone())))
    }
    fn stop(&self, unit: UnitId, _: StopOrder) -> futures_util::future::BoxFuture<'_, Result<(), RuntimeError>> {
        if self.running.lock().unwrap().values().any(|known| *known == unit) {
            self.calls.lock().unwrap().push(format!("stop {unit}"));
        }
        Box::pin(std::future::ready(Ok(())))
    }
    fn remove(&self, unit: UnitId) -> futures_util::future::BoxFuture<'_, Result<(), RuntimeError>> {
        self.running.lock().unwrap().retain(|_, known| *known != unit);
        Box::pin(std::future::ready(Ok(())))
    }
    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }
}

#[tokio::test]
async fn a_plan_executed_twice_is_executed_once_and_a_stale_one_not_at_all() {
    let runtime = Arc::new(Counting::default());
    runtime.running.lock().unwrap().insert("t-web-1".to_owned(), "old".into());
    let executor = Executor::new([(RuntimeKind::Process, runtime.clone() as Arc<dyn Runtime>)].into());
    let project = project("  web: { command: [sleep, '600'] }\n");
    let id = ReplicaId::new(Name::new("t").unwrap(), Name::new("web").unwrap(), 1);
    let step = mesh_core::model::replicas::Step {
        action: Action::Replace,
        replica: id.clone(),
        unit: Some("old".into()),
        reason: "a test".to_owned(),
    };
    let stop = StopOrder { signal: None, grace_period: Duration::ZERO };
    let new = replica_spec(&project, &id).map(Arc::new);
    let work = Work { step, old: Some((RuntimeKind::Process, stop)), new };
    for _ in 0..2 {
        executor.execute(5, &work).await.unwrap();
        assert_eq!(*runtime.calls.lock().unwrap(), ["stop old", "start t-web-1"]);
    }
    let stale = executor.execute(4, &work).await.unwrap_err().to_string();
    assert_eq!(stale, "plan 4 is stale: plan 5 was begun already");
    assert_eq!(runtime.calls.lock().unwrap().len(), 2);
}

/// Asks the router as a client does.
async fn ask(running: &Running, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let service = hyper_util::service::TowerToHyperService::new(running.controller.router().0);
    let request = axum::http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
    let response = hyper::service::Service::call(&service, request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn all_of_it_is_asked_for_over_http() {
    let running = Running::start();
    let wanted = project("  web: { command: [sleep, '600'], environment: { PASSWORD: hunter2 }, scale: 2 }\n");
    let body = serde_json::to_string(&wanted).unwrap();
    let (status, dry) = ask(&running, "POST", "/v1/projects/t/plan", &body).await;
    assert_eq!((status, dry["plan"]["steps"].as_array().unwrap().len()), (200, 2), "{dry}");
    let (status, answer) = ask(&running, "GET", "/v1/projects/t", "").await;
    assert_eq!((status, &answer["error"]), (404, &"there is no project t".into()), "a dry run asks for nothing");
    let (status, answer) = ask(&running, "PUT", "/v1/projects/other", &body).await;
    assert_eq!(status, 400, "{answer}");
    let (status, _) = ask(&running, "PUT", "/v1/projects/t", "{}").await;
    assert!((400..500).contains(&status), "{status}");
    let (status, _) = ask(&running, "PUT", "/v1/projects/t", &body).await;
    assert_eq!(status, 200);
    running.until("both are ready", |replicas| names(replicas).len() == 2).await;
    let (_, answer) = ask(&running, "GET", "/v1/projects", "").await;
    assert_eq!(answer["items"][0]["name"], "t");
    assert!(!answer.to_string().contains("hunter2"), "values of variables are kept back");
    let (_, answer) = ask(&running, "GET", "/v1/replicas?project=t", "").await;
    assert_eq!((&answer["items"][1]["name"], &answer["items"][1]["ready"]), (&"t-web-2".into(), &true.into()));
    let (_, answer) = ask(&running, "GET", "/v1/replicas?project=none", "").await;
    assert_eq!(answer["items"], serde_json::json!([]));
    let (status, _) = ask(&running, "POST", "/v1/projects/t/scale", r#"{"web": 1}"#).await;
    assert_eq!(status, 200);
    running.until("one is left", |replicas| replicas.len() == 1).await;
    let (status, _) = ask(&running, "POST", "/v1/projects/t/scale", r#"{"wbe": 1}"#).await;
    assert_eq!(status, 404);
    let (_, answer) = ask(&running, "GET", "/v1/events?after=0", "").await;
    assert_eq!(answer["items"][0]["step"]["reason"], "2 wanted, none there", "{answer}");
    let (status, _) = ask(&running, "DELETE", "/v1/projects/t", "").await;
    assert_eq!(status, 200);
    running.until("all are gone", <[ReplicaStatus]>::is_empty).await;
    running.end().await;
}

/// An engine that takes questions and never answers.
struct Silent {
    hints: watch::Sender<u64>,
}

impl Runtime for Silent {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn observe(&self) -> futures_util::future::BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>> {
        Box::pin(std::future::pending())
    }

    fn start(&self, _: Arc<ReplicaSpec>) -> futures_util::future::BoxFuture<'_, Result<UnitId, RuntimeError>> {
        unreachable!("nothing is started where nobody knows what runs")
    }

    fn stop(&self, _: UnitId, _: StopOrder) -> futures_util::future::BoxFuture<'_, Result<(), RuntimeError>> {
        unreachable!("nothing is stopped where nobody knows what runs")
    }

    fn remove(&self, _: UnitId) -> futures_util::future::BoxFuture<'_, Result<(), RuntimeError>> {
        unreachable!("nothing is removed where nobody knows what runs")
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }
}

#[tokio::test]
async fn a_runtime_that_never_answers_holds_up_no_other() {
    let silent = Silent { hints: watch::Sender::new(0) };
    let running = Running::beside([(RuntimeKind::Docker, Arc::new(silent) as Arc<dyn Runtime>)].into());
    let text = "  web: { command: [sleep, '60'] }\n  db: { image: db, x-mesh: { runtime: docker } }\n";
    let plan = running.controller.apply(project(text)).await.unwrap();
    let waits: Vec<_> = plan.not_taken.iter().map(|one| format!("{}: {}", one.replica, one.reason)).collect();
    assert_eq!(waits, ["t-db-1: waits until the docker runtime says what runs"]);
    let replicas = running.until("web runs", |replicas| names(replicas) == ["t-web-1"]).await;
    kill(pid(&replicas[0]), Signal::SIGKILL).unwrap();
    let first = replicas[0].unit.clone();
    running.until("and is healed", |replicas| names(replicas) == ["t-web-1"] && replicas[0].unit != first).await;
    running.end().await;
}
