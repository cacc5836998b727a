//! One thread that carries requests: its own runtime, its own sockets, its own pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use mesh_core::task::drain::{self, Drain, Drainer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use crate::http::access_log::AccessLog;
use crate::identity::rotate::SharedTls;
use crate::inbound::{self, Accepted, Entrance};
use crate::listen::accept::accept_until;
use crate::metrics::WorkerMetrics;
use crate::outbound;
use crate::state::local::LocalState;
use crate::state::view::SharedView;

/// How often a worker looks after what waits: idle connections, lines of the log.
const TICK: Duration = Duration::from_millis(500);

/// What a worker shares with the rest of the process.
pub(super) struct Shared {
    pub(super) view: SharedView,
    pub(super) tls: SharedTls,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) log: Option<SyncSender<Vec<u8>>>,
    pub(super) held: Drain,
}

/// What a worker can be told.
enum Command {
    Open { key: Arc<str>, entrance: Entrance, socket: TcpListener },
    Close { key: Arc<str> },
    ForgetOrigin { id: u64 },
    Drain,
}

/// A running worker.
pub(super) struct WorkerThread {
    commands: Commands,
    /// Dropped to end the thread, whatever still runs on it.
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Tells a worker what to do. Commands come only with changes of listeners and namespaces, so that their queue needs no bound.
#[derive(Clone)]
pub(super) struct Commands(mpsc::UnboundedSender<Command>);

impl Commands {
    pub(super) fn open(&self, key: Arc<str>, entrance: Entrance, socket: TcpListener) {
        self.send(Command::Open { key, entrance, socket });
    }

    pub(super) fn close(&self, key: Arc<str>) {
        self.send(Command::Close { key });
    }

    pub(super) fn forget_origin(&self, id: u64) {
        self.send(Command::ForgetOrigin { id });
    }

    fn send(&self, command: Command) {
        // A worker that is gone has nothing open either.
        let _ = self.0.send(command);
    }
}

impl WorkerThread {
    pub(super) fn start(index: usize, shared: Shared) -> std::io::Result<Self> {
        let (sender, commands) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let local = LocalSet::new();
            runtime.block_on(local.run_until(run(shared, commands, stopped)));
        })?;
        Ok(Self { commands: Commands(sender), stop, thread })
    }

    pub(super) fn commands(&self) -> Commands {
        self.commands.clone()
    }

    pub(super) fn drain(&self) {
        self.commands.send(Command::Drain);
    }

    /// Ends it, whatever still runs on it.
    pub(super) async fn join(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            tracing::error!("a worker panicked");
        }
    }
}

/// One socket that is being accepted from.
struct Door {
    /// Its listener may be renamed by nobody; the socket is opened anew instead.
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
    /// Begins when the door closes: its connections end after their requests.
    drainer: Drainer,
}

async fn run(shared: Shared, mut commands: mpsc::UnboundedReceiver<Command>, mut stopped: oneshot::Receiver<()>) {
    let Shared { view, tls, metrics, log, held } = shared;
    let seed = fastrand::u64(..);
    let state = LocalState::new(view, Arc::clone(&metrics), seed);
    let log = AccessLog::new(log, Arc::clone(&metrics));
    let worker = Rc::new(outbound::Worker::new(state, metrics, log, seed));
    let mut doors: HashMap<Arc<str>, Door> = HashMap::new();
    let mut held = Some(held);
    let mut tick = tokio::time::interval(TICK);
    loop {
        let command = tokio::select! {
            _ = &mut stopped => break,
            _ = tick.tick() => {
                worker.tick(Instant::now());
                continue;
            }
            Some(command) = commands.recv() => command,
        };
        match command {
            Command::Open { key, entrance, socket } => {
                let Some(held) = &held else { continue };
                match Door::open(&worker, &tls, Arc::clone(&key), entrance, socket, held.clone()) {
                    Ok(door) => {
                        doors.insert(key, door);
                    }
                    Err(error) => tracing::error!(listener = %key, %error, "a socket cannot be accepted from"),
                }
            }
            Command::Close { key } => {
                if let Some(door) = doors.remove(&key) {
                    door.close().await;
                }
            }
            Command::ForgetOrigin { id } => {
                worker.pool_h1.forget_origin(id);
                worker.pool_h2.forget_origin(id);
            }
            Command::Drain => {
                for (_, door) in doors.drain() {
                    door.close().await;
                }
                held = None;
            }
        }
    }
    worker.tick(Instant::now());
}

impl Door {
    fn open(
        worker: &Rc<outbound::Worker>,
        tls: &SharedTls,
        key: Arc<str>,
        entrance: Entrance,
        socket: TcpListener,
        held: Drain,
    ) -> std::io::Result<Self> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (stop, stopped) = oneshot::channel();
        let (drainer, drain) = drain::channel();
        let (worker, tls) = (Rc::clone(worker), Arc::clone(tls));
        let last_error = RefCell::new(None::<Instant>);
        let accepting = tokio::task::spawn_local(accept_until(socket, stopped, move |accepted| match accepted {
            Ok((stream, peer)) => {
                let (drain, held) = (drain.clone(), held.clone());
                let accepted = Accepted { stream, peer, entrance: entrance.clone(), drain, held };
                tokio::task::spawn_local(inbound::serve(Rc::clone(&worker), Arc::clone(&tls), accepted));
            }
            Err(error) => {
                worker.metrics.accept_errors.increase();
                let quiet = last_error.replace(Some(Instant::now())).is_none_or(|last| last.elapsed() > TICK * 10);
                if quiet {
                    tracing::warn!(listener = %key, %error, "a connection cannot be accepted");
                }
            }
        }));
        Ok(Self { stop, accepting, drainer })
    }

    /// Empties the socket, closes it, and lets its connections end after their requests.
    async fn close(self) {
        let Self { stop, accepting, drainer } = self;
        drop(stop);
        let _ = accepting.await;
        drainer.start();
    }
}
