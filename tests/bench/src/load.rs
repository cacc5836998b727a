//! The load generator: one thread, as many connections as the plan says, each response checked.
//!
//! A *closed* load sends a request as soon as the one before it on the connection or stream is answered: it shows what a request
//! costs. An *open* load sends at a constant rate, whatever the answers do, and its latencies count from the moment a request
//! should have been sent: a stall that keeps requests from being sent is in them (no coordinated omission).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;

use crate::histogram::Histogram;
use crate::launch;
use crate::usage;

mod h1; // keep-alive, or a connection a request
mod h2; // streams
mod pace; // when the next request is due

use pace::Pace;

/// Responses that are not there by then will not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, connections kept.
    Http1,
    /// A connection for every request.
    Http1New,
    /// HTTP/1.1: one request on each connection, one connection after the other; then all stay open, and idle.
    Http1Idle,
    /// h2 without TLS, so many streams at once on each connection.
    Http2 { streams: usize },
}

/// What a load consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: Kind,
    pub target: SocketAddr,
    pub connections: usize,
    /// The path asked for, and the length of the body that is right.
    pub path: &'static str,
    pub body: usize,
    pub tls: Option<Arc<ClientConfig>>,
    /// Where the generator runs; empty: where this process does.
    pub cores: Vec<usize>,
    /// Requests per second; none: a closed load.
    pub rate: Option<f64>,
}

/// What the generator's thread tells the others.
#[derive(Debug, Default)]
struct Told {
    requests: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
    measuring: AtomicBool,
    failure: Mutex<Option<String>>,
    thread: AtomicU64,
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    told: Arc<Told>,
    thread: JoinHandle<Histogram>,
}

/// The state that all connections of a load share, on its thread.
struct Run {
    plan: Plan,
    told: Arc<Told>,
    pace: Pace,
    histogram: RefCell<Histogram>,
    /// One at a time, where that is wanted.
    turn: Semaphore,
    ended: watch::Sender<bool>,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    measured: bool,
}

impl Load {
    /// Starts sending.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let told = Arc::new(Told::default());
        let shared = Arc::clone(&told);
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || generate(plan, shared));
        Ok(Self { told, thread: thread.context("no thread for the load")? })
    }

    /// Requests answered, and bytes of their bodies, since the start.
    #[must_use]
    pub fn answered(&self) -> (u64, u64) {
        (self.told.requests.load(Ordering::Relaxed), self.told.bytes.load(Ordering::Relaxed))
    }

    /// Whether it has ended by itself: on a failure.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.told.is_stopped()
    }

    /// Latencies of requests due from now on are recorded, or not.
    pub fn measure(&self, on: bool) {
        self.told.measuring.store(on, Ordering::Relaxed);
    }

    /// What the generator's own thread has used.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let thread = format!("load/{}", self.told.thread.load(Ordering::Relaxed));
        usage::threads(std::process::id())
            .into_iter()
            .find(|(name, _)| *name == thread)
            .map(|(_, cpu)| cpu)
            .unwrap_or_default()
    }

    /// Sends no more, waits for what is under way, and returns the latencies.
    ///
    /// # Errors
    /// When a response was wrong or is missing.
    pub fn finish(self) -> anyhow::Result<Histogram> {
        self.finish_counted().map(|(histogram, _)| histogram)
    }

    /// The same, with the number of all requests that were answered.
    ///
    /// # Errors
    /// When a response was wrong or is missing.
    pub fn finish_counted(self) -> anyhow::Result<(Histogram, u64)> {
        self.told.stop.store(true, Ordering::Relaxed);
        let histogram = self.thread.join().map_err(|_| anyhow!("the load generator broke off"))?;
        match self.told.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(anyhow!(failure)),
            None => Ok((histogram, self.told.requests.load(Ordering::Relaxed))),
        }
    }
}

fn generate(plan: Plan, told: Arc<Told>) -> Histogram {
    told.thread.store(nix::unistd::gettid().as_raw().unsigned_abs().into(), Ordering::Relaxed);
    if !plan.cores.is_empty()
        && let Err(error) = launch::pin(&plan.cores)
    {
        told.fail(format!("{error:#}"));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            told.fail(format!("no runtime: {error}"));
            return Histogram::default();
        }
    };
    let histogram = RefCell::default();
    let (pace, ended) = (Pace::of(plan.rate), watch::Sender::new(false));
    let run = Rc::new(Run { plan, told: Arc::clone(&told), pace, histogram, turn: Semaphore::new(1), ended });
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, connections(&run));
    run.histogram.take()
}

/// Runs every connection to its end; one that does not end is a failure.
async fn connections(run: &Rc<Run>) {
    let tasks: Vec<_> = (0..run.plan.connections)
        .map(|_| {
            let run = Rc::clone(run);
            tokio::task::spawn_local(async move {
                let result = match run.plan.kind {
                    Kind::Http1 => h1::keep_alive(&run).await,
                    Kind::Http1New => h1::new_each(&run).await,
                    Kind::Http1Idle => h1::idle(&run).await,
                    Kind::Http2 { streams } => h2::drive(&run, streams).await,
                };
                if let Err(error) = result {
                    run.told.fail(format!("{}: {error:#}", run.plan.target));
                }
            })
        })
        .collect();
    let paced = tokio::task::spawn_local(pace::clock(Rc::clone(run)));
    run.told.stopped().await;
    let ended = async {
        run.pace.end();
        run.ended.send_replace(true);
        for task in tasks {
            // A task that panicked has said so on stderr; the failure is found in what is missing.
            if task.await.is_err() {
                run.told.fail("a connection of the load generator broke off".to_owned());
            }
        }
    };
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        run.told.fail(format!("{}: responses are missing after {PATIENCE:?}", run.plan.target));
    }
    paced.abort();
}

impl Told {
    /// The first failure ends the load.
    fn fail(&self, why: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn stopped(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !self.is_stopped() {
            look.tick().await;
        }
    }
}

impl Run {
    /// The request to send next; none when the load ends.
    async fn next(&self) -> Option<Due> {
        self.pace.next(&self.told).await
    }

    /// Counts an answer that was right.
    fn answered(&self, due: Due) {
        self.told.requests.fetch_add(1, Ordering::Relaxed);
        self.told.bytes.fetch_add(self.plan.body as u64, Ordering::Relaxed);
        if due.measured {
            self.histogram.borrow_mut().record(due.at.elapsed());
        }
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.plan.target).await.context("connecting")?;
        stream.set_nodelay(true).context("a socket option")?;
        Ok(stream)
    }

    fn tls(&self) -> Option<TlsConnector> {
        self.plan.tls.clone().map(TlsConnector::from)
    }
}
