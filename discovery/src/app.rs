//! The composer: wires every part in the order of a container event, binds before anything runs, and returns the addresses.
//! No globals: several may live in one process.

pub mod catalogue; // observations in, snapshots out
pub mod acting; // the controller, and what it acts through
mod declared; // services that were asked for, replicas or not
mod reports; // whom proxies took out: from xDS to the API

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use mesh_core::task::ready::Readiness;
use mesh_core::telemetry::build_info;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::ejections::EjectionReports;
use crate::admin::{self, Sources};
use crate::config::{Config, State};
use crate::controller::Controller;
use crate::dns::{DnsConfig, DnsError, DnsServer, Upstreams};
use crate::health::Prober;
use crate::provider::docker::{self, DockerProvider};
use crate::provider::file::{self, FileProvider};
use crate::provider::{ObservationSender, ProviderName, process};
use crate::runtime::RuntimeError;
use crate::runtime::process::ProcessRuntime;
use crate::store::embedded::Embedded;
use crate::store::{SharedStore, StoreError};
use crate::xds::{self, XdsError, XdsServer};
use acting::Acting;
use catalogue::{Catalogue, Inputs, Outputs};

/// Observations under way from providers to the registry; each is a full list, and only the newest counts.
const OBSERVATIONS_MAX: usize = 16;

/// Verdicts under way from probes to the registry.
const VERDICTS_MAX: usize = 256;

/// How long what is under way may take once the drain began.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why discovery does not start, or ends.
#[derive(Debug, Error)]
pub enum AppError {
    #[error("{flag} {address} cannot be listened on; another process may have it: stop that, or give another {flag}")]
    Bind { flag: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Xds(#[from] XdsError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("a metric is registered twice")]
    Metrics(#[from] prometheus::Error),
    #[error("{part} ended")]
    Serve { part: &'static str, source: io::Error },
    #[error("a part of discovery panicked")]
    Panicked { source: tokio::task::JoinError },
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub api: SocketAddr,
    pub xds: SocketAddr,
    /// UDP and TCP.
    pub dns: SocketAddr,
}

/// Bound, not running yet.
pub struct App {
    config: Config,
    addresses: Addresses,
    api: TcpListener,
    xds: XdsServer,
    dns: DnsServer,
    acting: Acting,
    store: SharedStore,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    observations: ObservationSender,
    ejections: EjectionReports,
    registry: prometheus::Registry,
    readiness: Readiness,
    /// Everything that only `run` needs.
    published: watch::Sender<Arc<Snapshot>>,
    inputs: Inputs,
    prober: Prober,
    routers: Vec<(Router, Vec<String>)>,
    metrics: admin::metrics::Metrics,
    file_metrics: file::Metrics,
    docker_metrics: docker::Metrics,
    drain: Drain,
}

impl App {
    /// Binds every listener and opens the store; all that runs later ends with `drain`. `also_expected` are providers that the
    /// caller feeds itself through [`Self::observations`]; nothing is published before they have spoken.
    ///
    /// # Errors
    /// [`AppError`] when an address is taken, or the store cannot be opened.
    pub async fn bind(config: Config, also_expected: &[ProviderName], drain: Drain) -> Result<Self, AppError> {
        let registry = prometheus::Registry::new();
        build_info::register(&registry, "mesh-discovery")?;
        let metrics = admin::metrics::Metrics::register(&registry)?;
        let file_metrics = file::Metrics::register(&registry)?;
        let docker_metrics = docker::Metrics::register(&registry)?;

        let mut expected: BTreeMap<ProviderName, String> =
            also_expected.iter().map(|name| (*name, String::new())).collect();
        expected.extend(config.docker.as_ref().map(|docker| (docker::NAME, docker.url.to_string())));
        expected.extend(config.file.as_ref().map(|path| (file::NAME, path.display().to_string())));
        expected.extend(config.process.as_ref().map(|_| (process::NAME, String::new())));
        expected.insert(declared::NAME, String::new());
        let (observations, observations_in) = mpsc::channel(OBSERVATIONS_MAX);
        let (verdicts, verdicts_in) = mpsc::channel(VERDICTS_MAX);
        let inputs = Inputs { observations: observations_in, verdicts: verdicts_in, expected };
        let (published, snapshots) = watch::channel(Arc::<Snapshot>::default());

        let store: SharedStore = Arc::new(match &config.state {
            State::Folder(folder) => Embedded::open(folder)?,
            State::Memory => Embedded::in_memory()?,
        });
        let xds_metrics = xds::Metrics::new(&registry)?;
        let settings = xds::Settings { zone: config.zone.as_str().into(), virtual_ip_range: config.vip_range };
        let xds = XdsServer::bind(config.xds_listen, settings, snapshots.clone(), xds_metrics, drain.clone()).await?;
        let ejections = EjectionReports::default();
        let xds = xds.reporting_to(Arc::new(ejections.clone()));
        let dns = DnsServer::bind(dns_config(&config), snapshots.clone(), &registry).await?;
        let api = bind("--api-listen", config.api_listen).await?;
        let local = api.local_addr();
        let wrong = |source| AppError::Bind { flag: "--api-listen", address: config.api_listen, source };
        let addresses = Addresses { api: local.map_err(wrong)?, xds: xds.address(), dns: dns.local_addr() };
        let acting = Acting::open(&config, store.clone(), snapshots.clone(), &registry)?;
        Ok(Self {
            addresses,
            api,
            xds,
            dns,
            acting,
            store,
            snapshots,
            observations,
            ejections,
            registry,
            readiness: Readiness::default(),
            published,
            inputs,
            prober: Prober::new(verdicts),
            routers: Vec::new(),
            metrics,
            file_metrics,
            docker_metrics,
            drain,
            config,
        })
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where further providers send what they see.
    #[must_use]
    pub fn observations(&self) -> ObservationSender {
        self.observations.clone()
    }

    /// Every snapshot from now on; number 0 until the first is published.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    #[must_use]
    pub fn store(&self) -> SharedStore {
        self.store.clone()
    }

    /// Where proxies in this process say whom they took out.
    #[must_use]
    pub fn ejections(&self) -> EjectionReports {
        self.ejections.clone()
    }

    /// Desired state, and what becomes of it.
    #[must_use]
    pub fn controller(&self) -> Arc<Controller> {
        self.acting.controller.clone()
    }

    /// The processes of this host, if any are to be run.
    #[must_use]
    pub fn process_runtime(&self) -> Option<Arc<ProcessRuntime>> {
        self.acting.process.clone()
    }

    /// Which xDS clients are connected.
    #[must_use]
    pub fn xds_clients(&self) -> xds::Clients {
        self.xds.clients()
    }

    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Adds another part's paths to the API; `paths` are shown to who asks for one that is not there.
    pub fn merge(&mut self, router: Router, paths: Vec<String>) {
        self.routers.push((router, paths));
    }

    /// Runs until the drain, then ends in order.
    ///
    /// # Errors
    /// [`AppError`] when a part fails for good; all others are stopped then.
    pub async fn run(mut self) -> Result<(), AppError> {
        let mut tasks = JoinSet::new();
        let drain = self.drain;
        // 1 who says what runs
        if let Some(config) = self.config.docker.clone() {
            let mut provider = DockerProvider::new(config, self.docker_metrics.clone());
            if let Some(announced) = self.acting.announced.take() {
                provider = provider.with_announced(announced);
            }
            spawn(&mut tasks, provider.run(self.observations.clone(), drain.clone()));
        }
        if let Some(path) = self.config.file.clone() {
            let provider = FileProvider::new(path, self.file_metrics.clone());
            spawn(&mut tasks, provider.run(self.observations.clone(), drain.clone()));
        }
        // 2, 3, 4 probed, merged, saved, published
        let readiness = self.readiness.clone();
        let outputs = Outputs { published: self.published, metrics: self.metrics.clone(), readiness };
        let range = self.config.vip_range;
        let catalogue = Catalogue::load(self.store.clone(), range, self.inputs, self.prober, outputs).await?;
        spawn(&mut tasks, catalogue.run(drain.clone()));
        // 5 told to proxies and resolvers
        spawn(&mut tasks, self.dns.run(drain.clone()));
        let (http_proxy, xds) = (self.xds.clients().http_proxy(), self.xds);
        tasks.spawn(async move { Ok(xds.run().await?) });
        // 6 compared with what was asked for
        self.routers.push(self.acting.controller.router());
        self.acting.run(&mut tasks, &self.observations, http_proxy, &drain);
        // 7 told to people
        let sources = Sources {
            snapshots: self.snapshots.clone(),
            ejections: self.ejections.clone(),
            readiness: self.readiness.clone(),
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            drain: drain.clone(),
        };
        let router = admin::router(sources, self.routers);
        serve(&mut tasks, "the HTTP API", admin::serve(self.api, router, drain.clone()));
        let Addresses { api, xds, dns } = self.addresses;
        tracing::info!(%api, %xds, %dns, "discovery runs");
        join(tasks, drain).await
    }
}

fn dns_config(config: &Config) -> DnsConfig {
    DnsConfig {
        listen: config.dns_listen,
        zone: config.zone.clone(),
        upstreams: Upstreams::new(config.dns_upstream.clone()),
        allow: config.dns_allow.clone(),
        virtual_ip_range: config.vip_range,
    }
}

type Tasks = JoinSet<Result<(), AppError>>;

fn spawn(tasks: &mut Tasks, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        Ok(())
    });
}

fn serve(tasks: &mut Tasks, part: &'static str, task: impl Future<Output = io::Result<()>> + Send + 'static) {
    tasks.spawn(async move { task.await.map_err(|source| AppError::Serve { part, source }) });
}

/// Waits for all of them; the first that fails ends the others. Once the drain began they have a bounded time.
async fn join(mut tasks: Tasks, mut drain: Drain) -> Result<(), AppError> {
    let overdue = async move {
        drain.started().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::pin!(overdue);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(source)) => return Err(AppError::Panicked { source }),
            },
            () = &mut overdue => {
                tracing::warn!(left = tasks.len(), "the drain took too long; ending what is left");
                return Ok(());
            }
        }
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { flag, address, source })
}
