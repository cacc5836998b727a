//! What every test needs: an engine, an image, a label of its own, a provider that sees only that label, and the sweep after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, EndpointSettings, HostConfig, NetworkCreateRequest, NetworkingConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use mesh_core::model::replicas::{MANAGED_BY, MANAGED_BY_LABEL};
use mesh_core::task::drain;
use mesh_discovery::provider::docker::client::Engine;
use mesh_discovery::provider::docker::{DockerProvider, DockerProviderConfig, EngineUrl, Metrics};
use mesh_discovery::provider::{Observation, ObservedEndpoint};
use mesh_discovery::runtime::docker::{image_from_binary, sweep};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Made once for all tests.
pub struct Shared {
    pub url: EngineUrl,
    pub image: String,
    mark: String,
    next: AtomicU32,
}

impl Shared {
    pub fn new() -> Result<Self, String> {
        let host = std::env::var("DOCKER_HOST").ok();
        let url = EngineUrl::choose(None, host.as_deref()).map_err(|error| error.to_string())?.unwrap_or_default();
        let mark = format!("weft-test-{}", std::process::id());
        let image = format!("{mark}:latest");
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let binary = std::env::current_exe().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let engine = Engine::connect(&url).await.map_err(|error| error.to_string())?;
            let labels = BTreeMap::from([("mesh.run".to_owned(), mark.clone())]);
            let built = image_from_binary(&engine.docker, &image, &binary, &["serve"], &labels).await;
            built.map(|_| ()).map_err(|error| error.to_string())
        })?;
        Ok(Self { url, image, mark, next: AtomicU32::new(0) })
    }

    pub fn remove_image(&self) {
        let removed = Runtime::new().unwrap().block_on(async {
            let engine = Engine::connect(&self.url).await.unwrap();
            sweep(&engine.docker, Some(&format!("mesh.run={}", self.mark))).await
        });
        assert_eq!(removed.unwrap().left, Vec::<String>::new());
    }

    /// For one test, with the provider reaching the engine at `url`.
    pub fn bench(&self, url: EngineUrl) -> Bench {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let run = format!("{}-{number}", self.mark);
        let tokio = Runtime::new().unwrap();
        let (observations, received) = mpsc::channel(64);
        let (announce, announced) = mpsc::channel(16);
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (drainer, drain) = drain::channel();
        let only_label = Some(("mesh.run".to_owned(), run.clone()));
        let config = DockerProviderConfig { url, exposed_by_default: true, only_label };
        let provider = DockerProvider::new(config, metrics.clone()).with_announced(announced);
        tokio.spawn(provider.run(observations, drain));
        let engine = tokio.block_on(Engine::connect(&self.url)).unwrap();
        Bench {
            docker: engine.docker,
            tokio: Some(tokio),
            image: self.image.clone(),
            run,
            metrics,
            announce,
            seen: Observation::default(),
            received,
            _drainer: drainer,
        }
    }
}

/// One test's own.
pub struct Bench {
    pub docker: Docker,
    tokio: Option<Runtime>,
    pub image: String,
    /// Unique, and the value of `mesh.run` on all it makes.
    pub run: String,
    pub metrics: Metrics,
    pub announce: mpsc::Sender<Arc<str>>,
    /// The newest observation.
    pub seen: Observation,
    received: mpsc::Receiver<(&'static str, Observation)>,
    _drainer: drain::Drainer,
}

impl Bench {
    /// Runs the test, which may wait for what the provider sees.
    pub fn play(mut self, test: impl AsyncFnOnce(&mut Self)) {
        let tokio = self.tokio.take().unwrap();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio.block_on(test(&mut self))));
        let swept = tokio.block_on(sweep(&self.docker, Some(&format!("mesh.run={}", self.run))));
        if let Err(panic) = played {
            eprintln!("last seen: {:#?}", self.seen);
            std::panic::resume_unwind(panic);
        }
        assert_eq!(swept.unwrap().left, Vec::<String>::new());
    }

    pub fn labels(&self, more: &[(&str, &str)]) -> HashMap<String, String> {
        let own = [("mesh.run", self.run.as_str()), (MANAGED_BY_LABEL, MANAGED_BY)];
        own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// A container's name, unique on the engine.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    pub async fn network(&self, name: &str) -> (String, String) {
        let name = self.name(name);
        let request = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(self.labels(&[])),
            ..NetworkCreateRequest::default()
        };
        (name, self.docker.create_network(request).await.unwrap().id)
    }

    /// As [`Bench::start`], of one that may not start.
    pub async fn try_start(
        &self,
        name: &str,
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> Result<(), bollard::errors::Error> {
        let id = self.create(name, &[], change).await;
        self.docker.start_container(&id, None::<bollard::query_parameters::StartContainerOptions>).await
    }

    /// Makes and starts a container that serves; `change` has the last word.
    pub async fn start(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> String {
        let id = self.create(name, labels, change).await;
        self.docker.start_container(&id, None::<bollard::query_parameters::StartContainerOptions>).await.unwrap();
        id
    }

    async fn create(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> String {
        let mut body = ContainerCreateBody {
            image: Some(self.image.clone()),
            labels: Some(self.labels(labels)),
            exposed_ports: Some(vec!["8080/tcp".to_owned()]),
            host_config: Some(HostConfig::default()),
            ..ContainerCreateBody::default()
        };
        change(&mut body);
        let options = CreateContainerOptionsBuilder::default().name(&self.name(name)).build();
        self.docker.create_container(Some(options), body).await.unwrap().id
    }

    /// The next thing the provider tells.
    pub async fn next(&mut self) -> &Observation {
        let next = tokio::time::timeout(DEADLINE, self.received.recv()).await.expect("nothing is told");
        self.seen = next.expect("the provider ended").1;
        &self.seen
    }

    /// Waits until what is seen is as wanted.
    pub async fn until(&mut self, wanted: &str, holds: impl Fn(&Observation) -> bool) {
        let begun = std::time::Instant::now();
        while !holds(&self.seen) {
            assert!(begun.elapsed() < DEADLINE, "waited in vain until {wanted}");
            self.next().await;
        }
    }
}

/// The endpoint of the container of this name, where it is seen.
pub fn find<'a>(seen: &'a Observation, name: &str) -> Option<&'a ObservedEndpoint> {
    seen.endpoints.iter().find(|one| *one.endpoint.name == *name)
}

/// On this network, under these names.
pub fn on_network(body: &mut ContainerCreateBody, network: &str, aliases: &[&str]) {
    let aliases = Some(aliases.iter().map(|alias| (*alias).to_owned()).collect());
    let endpoint = EndpointSettings { aliases, ..EndpointSettings::default() };
    body.host_config.get_or_insert_default().network_mode = Some(network.to_owned());
    body.networking_config =
        Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])) });
}
