//! The runtime on a real engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::compose::{Network, Overrides, Project, read};
use mesh_core::model::endpoint::EndpointState::Draining;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::{ReplicaId, ReplicaState, RuntimeKind, compose_label};
use mesh_core::task::drain;
use mesh_discovery::runtime::docker::{Announce, DockerRuntime, DockerSettings};
use mesh_discovery::runtime::{ReplicaSpec, Runtime, RuntimeError, StopOrder};

use super::fixture::{Bench, Shared};

fn runtime(bench: &Bench) -> Arc<DockerRuntime> {
    let provider = bench.announce.clone();
    let announce = Announce::new(move |unit| {
        provider.try_send(unit).unwrap();
        Box::pin(std::future::ready(()))
    });
    let settings = DockerSettings {
        labels: BTreeMap::from([("mesh.run".to_owned(), bench.run.clone())]),
        announce: Some(announce),
        drain_wait: Duration::from_millis(300),
    };
    Arc::new(DockerRuntime::new(bench.docker.clone(), settings))
}

fn project(bench: &Bench, image: &str) -> Project {
    let file = format!(
        "name: {}\nservices:\n  web:\n    image: {image}\n    expose: [\"8080\"]\n    networks: {{ front: {{ aliases: [www] }}, back: {{}} }}\n    \
         environment: {{ A: b }}\n    stop_grace_period: 5s\n    \
         healthcheck: {{ test: [CMD, /app, health], interval: 1s, retries: 1 }}\nnetworks: {{ front: {{}}, back: {{}} }}\n",
        bench.run
    );
    let overrides = Overrides { directory: "/".into(), runtime: Some(RuntimeKind::Docker), ..Overrides::default() };
    read("compose.yaml", &file, &BTreeMap::new(), &overrides).unwrap()
}

fn spec(project: &Project, hash: &str) -> Arc<ReplicaSpec> {
    let service = Name::new("web").unwrap();
    let id = ReplicaId::new(project.name.clone(), service.clone(), 1);
    let mut labels = project.services[&service].labels.clone();
    labels.extend([
        (compose_label::PROJECT.to_owned(), project.name.to_string()),
        (compose_label::SERVICE.to_owned(), "web".to_owned()),
        (compose_label::NUMBER.to_owned(), "1".to_owned()),
        (compose_label::ONEOFF.to_owned(), "False".to_owned()),
        (compose_label::CONFIG_HASH.to_owned(), hash.to_owned()),
    ]);
    Arc::new(ReplicaSpec {
        id,
        service: Arc::new(project.services[&service].clone()),
        networks: project.networks.clone(),
        labels,
        config_hash: hash.into(),
        directory: project.directory.clone(),
    })
}

pub fn a_replica_lives_from_start_to_remove(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let (runtime, project) = (runtime(bench), project(bench, &bench.image.clone()));
        let (_drainer, drain) = drain::channel();
        tokio::spawn(runtime.clone().watch_over(drain));
        let mut hints = runtime.hints();
        let spec = spec(&project, "one");
        let unit = runtime.start(spec.clone()).await.unwrap();
        assert_eq!(runtime.start(spec.clone()).await.unwrap(), unit, "a second start is the same replica");
        let deadline = Instant::now() + super::fixture::DEADLINE;
        let replica = loop {
            let observed = runtime.observe().await.unwrap();
            assert_eq!(observed.len(), 1, "{observed:?}");
            if observed[0].state == ReplicaState::Healthy {
                break observed[0].clone();
            }
            assert!(Instant::now() < deadline, "never healthy: {observed:?}");
            // A hint comes with each change of health; the limit is for a hint that came before we looked.
            let _ = tokio::time::timeout(Duration::from_secs(1), hints.changed()).await;
        };
        assert_eq!((&replica.unit, &replica.id, replica.managed), (&unit, &spec.id, true));
        assert_eq!((&*replica.config_hash, replica.ports.as_slice()), ("one", &[8080][..]));
        assert!(replica.address.is_some() && replica.started_millis.is_some());
        bench.until("the provider sees it", |seen| seen.endpoints.len() == 1).await;
        let endpoint = &bench.seen.endpoints[0].endpoint;
        assert_eq!((endpoint.addresses.len(), &*endpoint.id.unit), (2, &*unit));
        assert_eq!(endpoint.aliases.iter().map(|alias| &**alias).collect::<Vec<_>>(), ["web", "www"]);
        assert!(matches!(runtime.remove(unit.clone()).await, Err(RuntimeError::Refused { .. })), "it lives");

        let stopping = {
            let (runtime, unit) = (runtime.clone(), unit.clone());
            let order = StopOrder { signal: None, grace_period: Duration::from_secs(5) };
            tokio::spawn(async move { runtime.stop(unit, order).await })
        };
        let told = Instant::now();
        bench.until("it drains", |seen| seen.endpoints[0].endpoint.state == Draining).await;
        assert!(told.elapsed() < Duration::from_millis(250), "announced before the signal: {:?}", told.elapsed());
        assert_eq!(runtime.observe().await.unwrap()[0].state, ReplicaState::Stopping);
        stopping.await.unwrap().unwrap();
        assert_eq!(runtime.observe().await.unwrap()[0].state, ReplicaState::Exited { code: Some(0) });

        let again = runtime.start(spec).await.unwrap();
        assert_ne!(again, unit, "an ended one makes room");
        let order = StopOrder { signal: Some("KILL".to_owned()), grace_period: Duration::from_secs(5) };
        runtime.stop(again.clone(), order).await.unwrap();
        runtime.remove(again.clone()).await.unwrap();
        runtime.remove(again).await.unwrap();
        let networks: Vec<Network> = project.networks.values().cloned().collect();
        runtime.forget_project(project.name.clone(), networks.clone()).await.unwrap();
        for network in networks.iter().filter(|network| network.name.starts_with(&bench.run)) {
            let left =
                bench.docker.inspect_network(&network.name, None::<bollard::query_parameters::InspectNetworkOptions>);
            assert!(left.await.is_err(), "{} is left", network.name);
        }
    });
}

pub fn refusals_say_what_to_do(shared: &Shared) {
    shared.bench(shared.url.clone()).play(async |bench| {
        let runtime = runtime(bench);
        let missing = project(bench, "weft.invalid/nobody/has:this");
        let error = runtime.start(spec(&missing, "one")).await.unwrap_err().to_string();
        assert!(error.contains("docker pull weft.invalid/nobody/has:this"), "{error}");
        let project = project(bench, &bench.image.clone());
        let name = format!("{}-web-1", bench.run);
        bench.start("web-1", &[], |_| {}).await;
        let error = runtime.start(spec(&project, "one")).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::NameTaken { name: taken } if *taken == name), "{error}");
        let order = StopOrder { signal: None, grace_period: Duration::ZERO };
        runtime.stop("0123456789ab".into(), order).await.unwrap();
        runtime.remove("0123456789ab".into()).await.unwrap();
    });
}
