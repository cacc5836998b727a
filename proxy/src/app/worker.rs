//! One thread that carries requests: its own runtime, its own sockets, its own pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use mesh_core::task::drain::{self, Drain, Drainer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use crate::http::access_log::AccessLog;
use crate::identity::rotate::SharedTls;
use crate::inbound::{self, Accepted, Entrance};
use crate::listen::accept::accept_until;
use crate::listen::limits::Admission;
use crate::listen::socket::tune;
use crate::listen::spread::Loads;
use crate::metrics::WorkerMetrics;
use crate::outbound;
use crate::state::local::LocalState;
use crate::state::view::SharedView;

/// How often a worker looks after what waits: idle connections, lines of the log.
const TICK: Duration = Duration::from_millis(500);

/// So many connections may be on their way to a worker from the others; beyond it, who accepts keeps.
const HANDED_MAX: usize = 256;

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
    Open { key: Arc<str>, entrance: Entrance, admission: Arc<Admission>, socket: TcpListener },
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
    /// Accepts from `socket`, one of those of one listener, which all count in `admission`.
    pub(super) fn open(&self, key: Arc<str>, entrance: Entrance, admission: Arc<Admission>, socket: TcpListener) {
        self.send(Command::Open { key, entrance, admission, socket });
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

/// Starts a worker for each of these. Where there are several, each may hand on to the others what it accepts.
pub(super) fn start_all(workers: Vec<Shared>) -> std::io::Result<Vec<WorkerThread>> {
    let loads = Loads::of(workers.len());
    let (desks, received): (Vec<_>, Vec<_>) = workers.iter().map(|_| mpsc::channel(HANDED_MAX)).unzip();
    let desks: Arc<[mpsc::Sender<Handed>]> = desks.into();
    let neighbours =
        |own| (desks.len() > 1).then(|| Neighbours { own, loads: Arc::clone(&loads), desks: Arc::clone(&desks) });
    let each = workers.into_iter().zip(received).enumerate();
    each.map(|(index, (shared, handed))| WorkerThread::start(index, shared, neighbours(index), handed)).collect()
}

/// The other workers, for one of them.
#[derive(Clone)]
struct Neighbours {
    own: usize,
    loads: Arc<Loads>,
    desks: Arc<[mpsc::Sender<Handed>]>,
}

/// A connection that another worker accepted. It belongs to no runtime on its way.
type Handed = Accepted<std::net::TcpStream>;

impl Neighbours {
    /// Gives the connection a place: with us, or with a worker that has clearly fewer, where it is handed on and none is returned.
    /// Its place is counted from here on, so that the next one finds the number as it will be.
    fn place(&self, mut accepted: Accepted) -> Option<Accepted> {
        let chosen = self.loads.choose(self.own);
        let desk = self.desks.get(chosen).filter(|_| chosen != self.own).and_then(|desk| desk.try_reserve().ok());
        let Some(desk) = desk else {
            accepted.place = Some(self.loads.take(self.own));
            return Some(accepted);
        };
        let Accepted { stream, peer, entrance, admission, drain, held, .. } = accepted;
        let place = Some(self.loads.take(chosen));
        match stream.into_std() {
            Ok(stream) => desk.send(Accepted { stream, peer, entrance, admission, place, drain, held }),
            Err(error) => tracing::warn!(%peer, %error, "a connection cannot be handed on; it is closed"),
        }
        None
    }
}

impl WorkerThread {
    fn start(
        index: usize,
        shared: Shared,
        neighbours: Option<Neighbours>,
        handed: mpsc::Receiver<Handed>,
    ) -> std::io::Result<Self> {
        let (sender, commands) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = Told { commands, handed, stopped };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let local = LocalSet::new();
            runtime.block_on(local.run_until(run(shared, neighbours, told)));
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

/// What comes to a worker from others.
struct Told {
    commands: mpsc::UnboundedReceiver<Command>,
    handed: mpsc::Receiver<Handed>,
    stopped: oneshot::Receiver<()>,
}

/// What every door of a worker opens to.
#[derive(Clone)]
struct Hall {
    worker: Rc<outbound::Worker>,
    tls: SharedTls,
    neighbours: Option<Neighbours>,
}

async fn run(shared: Shared, neighbours: Option<Neighbours>, mut told: Told) {
    let Shared { view, tls, metrics, log, held } = shared;
    let seed = fastrand::u64(..);
    let state = LocalState::new(view, Arc::clone(&metrics), seed);
    let log = AccessLog::new(log, Arc::clone(&metrics));
    let worker = Rc::new(outbound::Worker::new(state, metrics, log, seed));
    let hall = Hall { worker: Rc::clone(&worker), tls, neighbours };
    let mut doors: HashMap<Arc<str>, Door> = HashMap::new();
    let mut held = Some(held);
    let mut tick = tokio::time::interval(TICK);
    loop {
        let command = tokio::select! {
            _ = &mut told.stopped => break,
            _ = tick.tick() => {
                worker.tick(Instant::now());
                continue;
            }
            Some(handed) = told.handed.recv() => {
                hall.welcome(handed);
                continue;
            }
            Some(command) = told.commands.recv() => command,
        };
        match command {
            Command::Open { key, entrance, admission, socket } => {
                let Some(held) = &held else { continue };
                let entering = Entering { entrance, admission, held: held.clone() };
                match Door::open(hall.clone(), Arc::clone(&key), entering, socket) {
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

impl Hall {
    /// Carries what this worker accepted, or hands it on.
    fn enter(&self, accepted: Accepted) {
        let kept = match &self.neighbours {
            Some(neighbours) => neighbours.place(accepted),
            None => Some(accepted),
        };
        if let Some(accepted) = kept {
            self.carry(accepted);
        }
    }

    /// Carries what another worker accepted, whatever doors are open here: it was accepted, and brings along until when.
    fn welcome(&self, handed: Handed) {
        let Accepted { stream, peer, entrance, admission, place, drain, held } = handed;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.carry(Accepted { stream, peer, entrance, admission, place, drain, held }),
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection that was handed on cannot be carried; it is closed")
            }
        }
    }

    fn carry(&self, accepted: Accepted) {
        tokio::task::spawn_local(inbound::serve(Rc::clone(&self.worker), Arc::clone(&self.tls), accepted));
    }
}

/// What every connection through one door brings along.
struct Entering {
    entrance: Entrance,
    admission: Arc<Admission>,
    held: Drain,
}

impl Door {
    fn open(hall: Hall, key: Arc<str>, entering: Entering, socket: TcpListener) -> std::io::Result<Self> {
        tune(&socket);
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (stop, stopped) = oneshot::channel();
        let (drainer, drain) = drain::channel();
        let last_error = RefCell::new(None::<Instant>);
        let accepting = tokio::task::spawn_local(accept_until(socket, stopped, move |accepted| match accepted {
            Ok((stream, peer)) => {
                let Entering { entrance, admission, held } = &entering;
                let (entrance, admission) = (entrance.clone(), Arc::clone(admission));
                let (drain, held, place) = (drain.clone(), held.clone(), None);
                hall.enter(Accepted { stream, peer, entrance, admission, place, drain, held });
            }
            Err(error) => {
                hall.worker.metrics.accept_errors.increase();
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
