//! On real processes: shells that sleep.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::process::CommandExt as _;

use mesh_core::compose::{self, Overrides};
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{ReplicaId, ReplicaState};
use mesh_core::task::drain;
use nix::unistd::Pid;

use super::record::Identity;
use super::*;
use crate::controller::spec::replica_spec;

const DEADLINE: Duration = Duration::from_secs(20);

fn spec(service: &str, number: u32) -> Arc<ReplicaSpec> {
    let text =
        format!("name: t\nx-mesh: {{ runtime: process }}\nservices:\n  web:\n    {}", service.replace('\n', "\n    "));
    let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
    let project = compose::read("compose.yaml", &text, &BTreeMap::new(), &overrides).unwrap();
    let id = ReplicaId::new(project.name.clone(), Name::new("web").unwrap(), number);
    Arc::new(replica_spec(&project, &id).unwrap())
}

fn open(folder: &Path) -> Arc<ProcessRuntime> {
    let settings = ProcessSettings { drain_wait: Duration::from_millis(1), ..ProcessSettings::new(folder) };
    ProcessRuntime::open(settings).unwrap()
}

async fn state(runtime: &ProcessRuntime) -> Vec<ReplicaState> {
    runtime.observe().await.unwrap().iter().map(|replica| replica.state).collect()
}

/// Waits for a condition, looking at each turn.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
    }
}

fn order(grace_period: Duration) -> StopOrder {
    StopOrder { signal: None, grace_period }
}

fn log_of(runtime: &ProcessRuntime, unit: &str) -> String {
    fs::read_to_string(runtime.log_path(unit).unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn a_replica_has_an_address_a_port_and_an_environment_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    runtime.set_http_proxy(Some("127.0.0.1:3128".parse().unwrap()));
    let service = "command: [sh, -c, 'echo ${HOST} ${PORT} $$HOST $$PORT $$http_proxy $$COLOUR; exec sleep 600']\n\
                   environment: { COLOUR: blue }\nexpose: [8080]";
    let (first, second) = (spec(service, 1), spec(service, 2));
    let units = [runtime.start(first.clone()).await.unwrap(), runtime.start(second).await.unwrap()];
    assert_eq!(runtime.start(first).await.unwrap(), units[0], "started once, however often it is asked for");
    let replicas = runtime.observe().await.unwrap();
    assert_eq!(replicas.len(), 2);
    assert_ne!(replicas[0].address, replicas[1].address);
    for replica in &replicas {
        let host = replica.address.unwrap();
        let line = format!("{host} 8080 {host} 8080 http://127.0.0.1:3128 blue\n");
        eventually("the log says it", || async { log_of(&runtime, &replica.unit) == line }).await;
        assert_eq!((replica.state, &replica.ports[..]), (ReplicaState::Running, &[8080][..]));
        assert!(replica.managed);
    }
    runtime.stop_all().await.unwrap();
    assert!(runtime.observe().await.unwrap().is_empty());
    assert!(record::read_all(&folder.path().join(FOLDER)).unwrap().is_empty(), "no record is left");
}

#[tokio::test]
async fn an_end_is_noticed_with_its_code_and_ends_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let (drainer, held) = drain::channel();
    let watching = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.watch_over(held).await }
    });
    let mut hints = runtime.hints();
    let unit = runtime.start(spec("command: [sh, -c, 'sleep 600 & wait']", 1)).await.unwrap();
    let token = runtime.lock().known[&unit].record.token.clone();
    eventually("its child runs", || async { kernel::carriers(&token).len() == 2 }).await;
    hints.borrow_and_update();
    let pid = runtime.lock().known[&unit].pid().unwrap();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    tokio::time::timeout(DEADLINE, hints.changed()).await.unwrap().unwrap();
    assert_eq!(state(&runtime).await, [ReplicaState::Exited { code: Some(137) }]);
    eventually("its child is gone too", || async { kernel::carriers(&token).is_empty() }).await;
    let exits = runtime.start(spec("command: [sh, -c, 'exit 3']", 2)).await.unwrap();
    eventually("exit code", || async { state(&runtime).await.contains(&ReplicaState::Exited { code: Some(3) }) }).await;
    runtime.remove(exits).await.unwrap();
    runtime.remove(unit).await.unwrap();
    assert!(state(&runtime).await.is_empty());
    drainer.drain().await;
    watching.await.unwrap();
}

#[tokio::test]
async fn a_stop_is_asked_for_first_and_then_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let polite = "command: [sh, -c, 'trap \"echo bye; exit 0\" TERM; echo up; while :; do sleep 0.05; done']";
    let unit = runtime.start(spec(polite, 1)).await.unwrap();
    eventually("it is up", || async { log_of(&runtime, &unit) == "up\n" }).await;
    assert!(runtime.remove(unit.clone()).await.is_err(), "what runs is not forgotten");
    runtime.stop(unit.clone(), order(DEADLINE)).await.unwrap();
    assert_eq!(state(&runtime).await, [ReplicaState::Exited { code: Some(0) }]);
    assert!(log_of(&runtime, &unit).ends_with("bye\n"));
    let stubborn = "command: [sh, -c, 'trap \"\" TERM; echo up; while :; do sleep 0.05; done']";
    let unit = runtime.start(spec(stubborn, 2)).await.unwrap();
    eventually("it is up", || async { log_of(&runtime, &unit) == "up\n" }).await;
    runtime.stop(unit, order(Duration::from_millis(50))).await.unwrap();
    assert!(state(&runtime).await.contains(&ReplicaState::Exited { code: Some(137) }));
    runtime.stop("pid-1-1".into(), order(Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn a_stopping_replica_says_so_before_it_is_signalled() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ProcessSettings { drain_wait: DEADLINE, ..ProcessSettings::new(folder.path()) };
    let runtime = ProcessRuntime::open(settings).unwrap();
    let unit = runtime.start(spec("command: [sleep, '600']\nexpose: [8080]", 1)).await.unwrap();
    let stopping = runtime.stop(unit.clone(), order(DEADLINE));
    let seen = tokio::time::timeout(Duration::from_millis(50), stopping).await;
    assert!(seen.is_err(), "still draining");
    let observed = crate::provider::process::observation(&runtime.views(), runtime.http_proxy(), Instant::now());
    assert_eq!(observed.endpoints[0].endpoint.state, mesh_core::model::endpoint::EndpointState::Draining);
    assert!(
        runtime.lock().known[&unit].record.identity.as_ref().is_some_and(kernel::is_alive),
        "and not signalled yet"
    );
    // Already said to drain, a second stop does not wait for it again.
    runtime.stop_all().await.unwrap();
}

#[tokio::test]
async fn a_healthcheck_decides() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let (drainer, held) = drain::channel();
    let watching = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.watch_over(held).await }
    });
    let flag = folder.path().join("well");
    let service = format!(
        "command: [sleep, '600']\nhealthcheck: {{ test: 'test -e {}', interval: 50ms, retries: 2, timeout: 5s }}",
        flag.display()
    );
    fs::write(&flag, "").unwrap();
    runtime.start(spec(&service, 1)).await.unwrap();
    assert_eq!(state(&runtime).await, [ReplicaState::Starting]);
    eventually("healthy", || async { state(&runtime).await == [ReplicaState::Healthy] }).await;
    fs::remove_file(&flag).unwrap();
    eventually("unhealthy", || async { state(&runtime).await == [ReplicaState::Unhealthy] }).await;
    runtime.stop_all().await.unwrap();
    drainer.drain().await;
    watching.await.unwrap();
}

#[tokio::test]
async fn whoever_comes_next_takes_over_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let wanted = spec("command: [sleep, '600']\nexpose: [8080]", 1);
    let unit = runtime.start(wanted.clone()).await.unwrap();
    let before = runtime.observe().await.unwrap();
    let settings = ProcessSettings::new(folder.path());
    let refused = ProcessRuntime::open(settings).err().unwrap().to_string();
    assert!(refused.contains("another discovery owns this state folder"), "{refused}");
    assert!(sweep(folder.path()).is_err(), "nor is it swept while its owner lives");
    // As by kill -9: nobody stops anything.
    drop(runtime);
    let runtime = open(folder.path());
    assert_eq!(runtime.observe().await.unwrap(), before, "the same, with the same address");
    assert_eq!(runtime.start(wanted).await.unwrap(), unit);
    runtime.stop(unit, order(DEADLINE)).await.unwrap();
    assert_eq!(state(&runtime).await, [ReplicaState::Exited { code: None }], "nobody saw how it ended");
}

#[tokio::test]
async fn a_sweep_kills_what_was_recorded_and_never_another_process_with_its_pid() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let mut units = Vec::new();
    for number in 1..=2 {
        units.push(runtime.start(spec("command: [sh, -c, 'sleep 600 & wait']", number)).await.unwrap());
    }
    let tokens: Vec<String> = units.iter().map(|unit| runtime.lock().known[unit].record.token.clone()).collect();
    // Another process that got the pid of a third replica, which ended long ago.
    let mut stranger = std::process::Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    let identity = kernel::identify(stranger.id().cast_signed()).unwrap();
    let mut stale = runtime.lock().known[&units[0]].record.clone();
    stale.id.number = 3;
    stale.token = "ended-long-ago".to_owned();
    stale.identity = Some(Identity { start_ticks: identity.start_ticks - 1, ..identity });
    stale.write(&runtime.folder).unwrap();
    drop(runtime);
    assert_eq!(sweep(folder.path()).unwrap(), ["t-web-1", "t-web-2"]);
    for token in &tokens {
        eventually("all of it is gone", || async { kernel::carriers(token).is_empty() }).await;
    }
    assert!(stranger.try_wait().unwrap().is_none(), "the other process lives");
    assert_eq!(sweep(folder.path()).unwrap(), Vec::<String>::new());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn one_whose_start_nobody_wrote_down_is_found_by_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let unit = runtime.start(spec("command: [sleep, '600']", 1)).await.unwrap();
    let mut record = runtime.lock().known[&unit].record.clone();
    record.identity = None;
    record.write(&runtime.folder).unwrap();
    drop(runtime);
    let runtime = open(folder.path());
    assert!(state(&runtime).await.is_empty());
    eventually("it is gone", || async { kernel::carriers(&record.token).is_empty() }).await;
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = open(folder.path());
    let error = runtime.start(spec("command: [no-such-program-anywhere]", 1)).await.unwrap_err().to_string();
    assert!(error.contains("no-such-program-anywhere") && error.contains("starting"), "{error}");
    assert!(state(&runtime).await.is_empty());
    assert!(record::read_all(&folder.path().join(FOLDER)).unwrap().is_empty());
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    let error =
        runtime.start(spec(&format!("command: [sleep, '1']\nexpose: [{port}]"), 1)).await.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("not free"), "{error}");
}
