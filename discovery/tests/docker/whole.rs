//! The whole of discovery on a real engine: it comes back before its engine does, and says whom it is about to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessageTypeEnum;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use mesh_core::compose::{Overrides, Project, read};
use mesh_core::model::endpoint::EndpointState::{Draining, Ready};
use mesh_core::model::endpoint::{Endpoint, EndpointState};
use mesh_core::model::replicas::RuntimeKind;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::{self, Drainer};
use mesh_discovery::app::{App, AppError};
use mesh_discovery::config::{Config, State};
use mesh_discovery::controller::Controller;
use mesh_discovery::provider::docker::{DockerProviderConfig, EngineUrl};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fixture::{Bench, DEADLINE, Shared};
use super::proxy;

/// A discovery at work, which sees what carries the bench's label.
struct Discovery {
    controller: Arc<Controller>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    drainer: Drainer,
    /// Aborted with it, so that a failed test's controller makes nothing any more.
    running: JoinSet<Result<(), AppError>>,
}

impl Discovery {
    async fn start(bench: &Bench, url: EngineUrl, state: &Path) -> Self {
        let only_label = Some(("mesh.run".to_owned(), bench.run.clone()));
        let docker = Some(DockerProviderConfig { url, exposed_by_default: true, only_label });
        let config = Config { docker, state: State::Folder(state.to_owned()), ..Config::ephemeral() };
        let (drainer, drain) = drain::channel();
        let app = App::bind(config, &[], drain).await.unwrap();
        let (controller, snapshots) = (app.controller(), app.snapshots());
        let mut running = JoinSet::new();
        running.spawn(app.run());
        Self { controller, snapshots, drainer, running }
    }

    async fn until(&self, wanted: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.snapshots.clone();
        match tokio::time::timeout(DEADLINE, snapshots.wait_for(|snapshot| holds(snapshot))).await {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("waited in vain until {wanted}: {:#?}", self.snapshots.borrow()),
        }
    }

    async fn stop(mut self) {
        self.drainer.start();
        let ended = tokio::time::timeout(DEADLINE, self.running.join_next()).await.expect("it ends");
        ended.unwrap().unwrap().unwrap();
    }
}

fn endpoints(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Endpoint>> {
    snapshot.endpoints.values().flat_map(|list| list.iter())
}

fn count(snapshot: &Snapshot, state: EndpointState) -> usize {
    endpoints(snapshot).filter(|endpoint| endpoint.state == state).count()
}

fn project(bench: &Bench, replicas: u32) -> Project {
    let (run, image) = (&bench.run, &bench.image);
    let file = format!(
        "name: {run}\nservices:\n  web:\n    image: {image}\n    expose: ['8080']\n    deploy: {{ replicas: {replicas} }}\n"
    );
    let overrides = Overrides { directory: "/".into(), runtime: Some(RuntimeKind::Docker), ..Overrides::default() };
    read("compose.yaml", &file, &BTreeMap::new(), &overrides).unwrap()
}

pub fn a_restart_beside_a_silent_engine_takes_nothing_away(shared: &Shared) {
    let EngineUrl::Unix(socket) = &shared.url else { return };
    let threads = tokio::runtime::Runtime::new().unwrap();
    let proxy = threads.block_on(proxy::Proxy::start_for_all(socket.clone()));
    let url: EngineUrl = format!("tcp://{}", proxy.address).parse().unwrap();
    let state = tempfile::tempdir().unwrap();
    shared.bench(shared.url.clone()).play(async |bench| {
        bench.start("web", &[], |_| {}).await;
        let first = Discovery::start(bench, url.clone(), state.path()).await;
        let before = first.until("it is ready", |snapshot| count(snapshot, Ready) == 1).await;
        first.stop().await;

        proxy.stall();
        let second = Discovery::start(bench, url.clone(), state.path()).await;
        let waiting = second.until("the wait is told", |snapshot| !snapshot.conditions.is_empty()).await;
        assert_eq!(waiting.number, 0, "nothing is published");
        let told = waiting.conditions.first().unwrap();
        assert!(told.message.contains("nothing is told before it has been seen"), "{told:?}");
        // Longer than the provider's patience: its first look has failed for good then, and it tries again.
        let silent =
            |snapshot: &Snapshot| snapshot.conditions.iter().any(|one| one.message.contains("no answer within"));
        assert_eq!(second.until("its silence is told", silent).await.number, 0);
        let plan = second.controller.apply(project(bench, 1)).await.unwrap();
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert!(plan.not_taken[0].reason.contains("waits until the docker runtime"), "{plan:?}");

        proxy.mend();
        let after = second.until("it is published", |snapshot| snapshot.number > 0).await;
        assert_eq!(
            endpoints(&after).map(|one| &one.id).collect::<Vec<_>>(),
            endpoints(&before).map(|one| &one.id).collect::<Vec<_>>()
        );
        for (id, service) in &before.services {
            assert_eq!(after.services.get(id), Some(service), "with the same virtual IP");
        }
        assert_eq!(count(&after, Ready), 1, "and nothing flaps");
        assert!(after.number > before.number);
        // The runtime has come back by itself as well.
        second.until("what was asked for meanwhile runs", |snapshot| count(snapshot, Ready) == 2).await;
        second.stop().await;
    });
}

pub fn a_scale_down_is_announced(shared: &Shared) {
    let state = tempfile::tempdir().unwrap();
    shared.bench(shared.url.clone()).play(async |bench| {
        let discovery = Discovery::start(bench, shared.url.clone(), state.path()).await;
        discovery.until("it is there", |snapshot| snapshot.number > 0).await;
        discovery.controller.apply(project(bench, 2)).await.unwrap();
        discovery.until("both are ready", |snapshot| count(snapshot, Ready) == 2).await;
        let label = format!("mesh.run={}", bench.run);
        let filters = std::collections::HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["kill"]),
            ("label", vec![label.as_str()]),
        ]);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let mut kills = bench.docker.events(Some(options));

        let replicas = BTreeMap::from([("web".to_owned(), 1)]);
        discovery.controller.scale(&bench.run, &replicas).await.unwrap();
        let draining = discovery.until("one drains", |snapshot| count(snapshot, Draining) == 1).await;
        let seen_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(count(&draining, Ready), 1);
        let kill = tokio::time::timeout(DEADLINE, kills.next()).await.expect("a kill event").unwrap().unwrap();
        assert_eq!(kill.typ, Some(EventMessageTypeEnum::CONTAINER));
        let unit = endpoints(&draining).find(|endpoint| endpoint.state == Draining).unwrap().id.unit.clone();
        assert_eq!(kill.actor.unwrap().id.as_deref(), Some(&*unit));
        let killed_at = Duration::from_nanos(kill.time_nano.unwrap().try_into().unwrap());
        assert!(seen_at < killed_at, "draining was seen at {seen_at:?}, and the signal sent at {killed_at:?}");
        discovery.until("it is gone", |snapshot| endpoints(snapshot).count() == 1).await;
        discovery.controller.take_down(&bench.run).await.unwrap();
        discovery.until("all are gone", |snapshot| endpoints(snapshot).count() == 0).await;
        discovery.stop().await;
    });
}
