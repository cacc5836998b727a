//! Wires every part, in story order. [`App::bind`] opens everything and tells the addresses; [`App::run`] carries requests until
//! it is told to end, and then lets those under way finish.
//!
//! Nothing here is global: several apps may live in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_core::model::resource::Resources;
use mesh_core::task::drain::{self, Drain, Drainer};
use mesh_core::task::ready::Readiness;
use mesh_core::telemetry::build_info;
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::ambient::{Ambient, AmbientError, CaptureOptions};
use crate::error::chain;
use crate::http::access_log;
use crate::identity::held::TlsError;
use crate::identity::rotate::Rotation;
use crate::inbound::{Caller, Entrance};
use crate::listen::limits::Admission;
use crate::listen::socket::BindError;
use crate::metrics::WorkerMetrics;
use crate::metrics::collect::ProxyCollector;
use crate::state::view::{SharedView, View};

mod listeners; // which sockets are open, and which should be
mod worker; // one thread that carries requests

use listeners::Listeners;
use worker::WorkerThread;

/// How often certificates are looked at, and listeners that could not be opened are tried again.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What an app is made of, apart from what it is told to carry.
pub struct Options {
    /// At least 1.
    pub workers: usize,
    /// None: no admin server.
    pub admin: Option<SocketAddr>,
    /// Where JSON lines go; none: no access log.
    pub access_log: Option<Box<dyn Write + Send>>,
    /// How long requests under way may take to finish.
    pub drain_timeout: Duration,
    /// Shared with parts outside that are awaited too.
    pub readiness: Readiness,
    /// Whose connections are captured; none: only those that come to a listener by themselves.
    pub capture: Option<CaptureOptions>,
    /// Listeners without which the app does not start. None: all that are there at the start. Any other that cannot be opened
    /// is told, and tried again.
    pub required: Option<BTreeSet<Arc<str>>>,
    /// Sockets that are bound already, each for the listener on its address: so that nobody takes it in between.
    pub bound: Vec<TcpListener>,
}

impl Default for Options {
    fn default() -> Self {
        let (drain_timeout, readiness) = (Duration::from_secs(30), Readiness::default());
        let (admin, access_log, capture, required, bound) = (None, None, None, None, Vec::new());
        Self { workers: 1, admin, access_log, drain_timeout, readiness, capture, required, bound }
    }
}

/// Why an app cannot start.
#[derive(Debug, Error)]
pub enum AppError {
    #[error("a listener cannot be opened")]
    Bind { source: BindError },
    #[error("the admin server cannot be opened")]
    Admin { source: BindError },
    #[error("a TLS listener has no usable certificate")]
    Tls { source: TlsError },
    #[error("connections cannot be captured")]
    Capture { source: AmbientError },
    #[error("metrics cannot be registered")]
    Metrics { source: prometheus::Error },
    #[error("a worker's thread cannot be started")]
    Thread { source: std::io::Error },
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything under way finished.
    Whole,
    /// The time was up.
    TimedOut,
}

/// A proxy that is bound, and ready to run.
pub struct App {
    resources: watch::Receiver<Arc<Resources>>,
    view: SharedView,
    rotation: Rotation,
    listeners: Listeners,
    workers: Vec<WorkerThread>,
    ambient: Option<Ambient>,
    drainer: Drainer,
    held: Drain,
    readiness: Readiness,
    registry: Registry,
    admin: Option<(SocketAddr, tokio::net::TcpListener)>,
    log_writer: Option<std::thread::JoinHandle<()>>,
    drain_timeout: Duration,
}

impl App {
    /// Opens everything that `resources` name at this moment. Later values are followed by [`App::run`].
    ///
    /// # Errors
    /// [`AppError`] when anything cannot be opened.
    pub async fn bind(options: Options, mut resources: watch::Receiver<Arc<Resources>>) -> Result<Self, AppError> {
        let first = Arc::clone(&resources.borrow_and_update());
        let view: SharedView = Arc::new(ArcSwap::from_pointee(View::next(&View::default(), first, Instant::now())));
        let registry = Registry::new();
        let metrics: Vec<Arc<WorkerMetrics>> = (0..options.workers.max(1)).map(|_| Arc::default()).collect();
        let collector = ProxyCollector::new(metrics.clone(), Arc::clone(&view));
        let mut listeners = Listeners::new(options.bound);
        let registered = registry
            .register(Box::new(collector))
            .and_then(|()| registry.register(Box::new(listeners.failed().gauge()?)))
            .and_then(|()| build_info::register(&registry, "mesh-proxy"));
        registered.map_err(|source| AppError::Metrics { source })?;

        let tls = Arc::new(ArcSwap::default());
        let mut rotation = Rotation::new(Arc::clone(&tls));
        rotation.follow(&view.load().resources).map_err(|source| AppError::Tls { source })?;

        let admin = match options.admin {
            Some(address) => Some(bind_admin(address).await?),
            None => None,
        };
        let (log, log_writer) = match options.access_log {
            Some(sink) => {
                let (sender, writer) = access_log::channel();
                let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(sink));
                (Some(sender), Some(writer.map_err(|source| AppError::Thread { source })?))
            }
            None => (None, None),
        };
        let (drainer, held) = drain::channel();
        let shared = |metrics| worker::Shared {
            view: Arc::clone(&view),
            tls: Arc::clone(&tls),
            metrics,
            log: log.clone(),
            held: held.clone(),
        };
        let workers = metrics.into_iter().map(shared).collect();
        let workers = worker::start_all(workers).map_err(|source| AppError::Thread { source })?;
        let opened = listeners.open_first(&view.load().resources, options.required.as_ref(), &workers);
        opened.map_err(|source| AppError::Bind { source })?;
        let handle = Handle { workers: workers.iter().map(WorkerThread::commands).collect() };
        let readiness = options.readiness;
        let (ambient, resources) = match options.capture {
            Some(capture) => {
                let started = Ambient::start(capture, handle, resources, &registry, &readiness);
                let (ambient, seen) = started.map_err(|source| AppError::Capture { source })?;
                (Some(ambient), seen)
            }
            None => (None, resources),
        };
        let drain_timeout = options.drain_timeout;
        Ok(Self {
            resources,
            view,
            rotation,
            listeners,
            workers,
            ambient,
            drainer,
            held,
            readiness,
            registry,
            admin,
            log_writer,
            drain_timeout,
        })
    }

    /// Where each listener listens, by name.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<Arc<str>, SocketAddr> {
        self.listeners.addresses()
    }

    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    /// Parts that are not ready yet hold a guard of it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// For metrics of further parts.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A way to reach the workers while the app runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { workers: self.workers.iter().map(WorkerThread::commands).collect() }
    }

    /// The whole truth as requests see it.
    #[must_use]
    pub fn view(&self) -> SharedView {
        Arc::clone(&self.view)
    }

    /// Carries requests until `shutdown`, then drains: not ready any more, listeners emptied and closed, requests under way
    /// finished, within the drain timeout.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Drained {
        let admin = self.admin.take().map(|(_, listener)| {
            let state = Admin {
                view: Arc::clone(&self.view),
                registry: self.registry.clone(),
                readiness: self.readiness.clone(),
                failed: self.listeners.failed(),
            };
            tokio::spawn(admin::serve(listener, state))
        });
        tokio::select! {
            () = shutdown => {}
            () = Self::follow(&mut self.resources, &self.view, &mut self.rotation, &mut self.listeners, &self.workers) => {}
        }
        let _not_ready = self.readiness.hold("draining");
        // First nothing new is redirected to us; endpoints are reached directly from here on.
        if let Some(ambient) = &mut self.ambient {
            ambient.release().await;
        }
        let drained = Self::drain(self.workers, self.drainer, self.held, self.drain_timeout).await;
        if let Some(ambient) = self.ambient {
            ambient.finish().await;
        }
        if let Some(admin) = admin {
            admin.abort();
        }
        if let Some(writer) = self.log_writer {
            // Its senders went with the workers; what is left is at most a full queue.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        drained
    }

    /// Applies what we are told, for as long as somebody may tell something.
    async fn follow(
        resources: &mut watch::Receiver<Arc<Resources>>,
        view: &SharedView,
        rotation: &mut Rotation,
        listeners: &mut Listeners,
        workers: &[WorkerThread],
    ) {
        let mut check = tokio::time::interval(CHECK_PERIOD);
        let mut told = true;
        loop {
            tokio::select! {
                changed = resources.changed(), if told => {
                    told = changed.is_ok();
                    let next = Arc::clone(&resources.borrow_and_update());
                    if let Err(error) = rotation.follow(&next) {
                        tracing::error!(error = %chain(&error), "a TLS listener has no usable certificate");
                    }
                    view.store(Arc::new(View::next(&view.load(), next, Instant::now())));
                    listeners.follow(&view.load().resources, workers);
                }
                _ = check.tick() => {
                    rotation.check();
                    listeners.follow(&view.load().resources, workers);
                }
            }
        }
    }

    async fn drain(workers: Vec<WorkerThread>, drainer: Drainer, held: Drain, timeout: Duration) -> Drained {
        for worker in &workers {
            worker.drain();
        }
        drop(held);
        let drained = tokio::time::timeout(timeout, drainer.drain()).await;
        for worker in workers {
            worker.join().await;
        }
        if drained.is_ok() { Drained::Whole } else { Drained::TimedOut }
    }
}

async fn bind_admin(address: SocketAddr) -> Result<(SocketAddr, tokio::net::TcpListener), AppError> {
    let failed = |cause| AppError::Admin { source: BindError { address, cause } };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Reaches the workers of a running app.
#[derive(Clone)]
pub struct Handle {
    workers: Vec<worker::Commands>,
}

impl Handle {
    /// As many sockets are wanted by [`Handle::open`].
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Accepts redirected connections on sockets inside a namespace, one per worker. `key` tells them apart from others.
    pub fn capture(&self, key: &Arc<str>, sockets: Vec<TcpListener>, caller: &watch::Receiver<Caller>) {
        let admission = Arc::new(Admission::default());
        for (worker, socket) in self.workers.iter().zip(sockets) {
            worker.open(Arc::clone(key), Entrance::Captured(caller.clone()), Arc::clone(&admission), socket);
        }
    }

    /// Empties and closes the sockets opened by that key; their connections end when their requests do.
    pub fn close(&self, key: &str) {
        self.workers.iter().for_each(|worker| worker.close(Arc::from(key)));
    }

    /// Closes every idle upstream connection opened by the origin of that id.
    pub fn forget_origin(&self, id: u64) {
        self.workers.iter().for_each(|worker| worker.forget_origin(id));
    }
}
