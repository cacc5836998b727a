//! Replicas as processes of this host, each on a loopback address of its own: the runtime for machines without an engine.
//!
//! A process is found again by its record (`process/record.rs`), so one that was started by an earlier discovery in the same
//! state folder goes on serving and is taken over. [`sweep`] is for those whose owner will not come back.
//!
//! ```text
//! start ──▶ Starting ──▶ Healthy ⇄ Unhealthy      (with a healthcheck)
//!       ──▶ Running                               (without)
//!           any of these ──stop──▶ Stopping ──▶ Exited ──remove──▶ gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use ipnet::Ipv4Net;
use mesh_core::model::names::DEFAULT_HTTP_PROXY_PORT;
use mesh_core::model::replicas::RuntimeKind;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use self::address::Addresses;
use self::health::Health;
pub use self::http_proxy::HttpProxy;
use self::record::Record;
use self::spawn::cannot_start;
use self::unit::{Unit, millis_since_epoch, take_over};
use super::{ObservedReplica, ReplicaSpec, Runtime, RuntimeError, StopOrder, UnitId};

mod record; // what is written down, so that nothing is lost
mod unit; // one process, from its start to its end
mod kernel; // what the kernel says, and signals
mod address; // an address for each
mod http_proxy; // where its HTTP calls go   (pure)
mod spawn; // starting one
mod health; // its healthcheck
mod watch_over; // the task that notices ends, asks healthchecks and bounds logs

#[cfg(test)]
mod tests;

/// How often a stop looks whether the process has ended.
const END_POLL: Duration = Duration::from_millis(20);
/// How long an end is waited for after SIGKILL: only a process stuck in the kernel takes longer.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What the runtime needs to know.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// Records and logs are in `processes/` below it.
    pub state_dir: PathBuf,
    /// Each process gets an address out of it: part of 127.0.0.0/8.
    pub address_range: Ipv4Net,
    /// Where HTTP calls go while no proxy has said where it listens.
    pub http_proxy: SocketAddr,
    /// Between "drains", which turns proxies away, and the stop signal: longer than a proxy takes to hear it.
    pub drain_wait: Duration,
    /// A log that has grown over it is cut to nothing.
    pub log_bytes_max: u64,
}

impl ProcessSettings {
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let address_range = Ipv4Net::new_assert(Ipv4Addr::new(127, 77, 0, 0), 16);
        Self {
            state_dir: state_dir.into(),
            address_range,
            http_proxy: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_HTTP_PROXY_PORT)),
            drain_wait: Duration::from_millis(500),
            log_bytes_max: 16 << 20,
        }
    }
}

/// The engine. Cheap to share; [`Self::watch_over`] has to run beside it.
pub struct ProcessRuntime {
    settings: ProcessSettings,
    folder: PathBuf,
    units: Mutex<Units>,
    http_proxy: Mutex<HttpProxy>,
    hints: watch::Sender<u64>,
    /// Held for as long as this lives, so that two never own one folder.
    _lock: Flock<fs::File>,
}

#[derive(Debug)]
struct Units {
    addresses: Addresses,
    known: BTreeMap<UnitId, Unit>,
    /// Counts starts, for tokens.
    started: u64,
}

/// A process as an endpoint, for the process provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    pub replica: ObservedReplica,
    pub labels: BTreeMap<String, String>,
    pub service: Arc<mesh_core::compose::Service>,
    pub has_healthcheck: bool,
    /// Where it was told to send its HTTP calls.
    pub http_proxy: Option<SocketAddr>,
}

impl ProcessRuntime {
    /// Opens the state folder, and takes over what an earlier one left running in it.
    ///
    /// # Errors
    /// The folder cannot be made, or another process owns it.
    pub fn open(settings: ProcessSettings) -> Result<Arc<Self>, RuntimeError> {
        let (folder, lock) = open_folder(&settings.state_dir)?;
        let records = record::read_all(&folder).map_err(io_error(&folder, "reading the records"))?;
        // The one that was told last is where the proxy was.
        let told = records.iter().filter_map(|record| Some((record.started_millis, record.http_proxy?))).max();
        let http_proxy = told.map_or(settings.http_proxy, |(_, address)| address);
        let known = records.into_iter().filter_map(|record| take_over(record, &folder)).collect();
        let mut hasher = DefaultHasher::new();
        folder.hash(&mut hasher);
        let addresses = Addresses::new(settings.address_range, hasher.finish() ^ u64::from(std::process::id()));
        Ok(Arc::new(Self {
            settings,
            folder,
            units: Mutex::new(Units { addresses, known, started: 0 }),
            http_proxy: Mutex::new(HttpProxy::away(http_proxy, Instant::now())),
            hints: watch::Sender::new(0),
            _lock: lock,
        }))
    }

    /// Where the proxy of this host listens; none: it went. Processes that are started from now on send their HTTP calls there.
    pub fn set_http_proxy(&self, address: Option<SocketAddr>) {
        let is_news = self.http_proxy.lock().unwrap_or_else(PoisonError::into_inner).note(address, Instant::now());
        if is_news {
            self.hint();
        }
    }

    #[must_use]
    pub fn http_proxy(&self) -> HttpProxy {
        *self.http_proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every process with what its endpoint is made of.
    #[must_use]
    pub fn views(&self) -> Vec<ProcessView> {
        let view = |unit: &Unit| ProcessView {
            replica: unit.observed(),
            labels: unit.record.labels.clone(),
            service: unit.record.service.clone(),
            has_healthcheck: unit.health.is_some(),
            http_proxy: unit.record.http_proxy,
        };
        self.lock().known.values().map(view).collect()
    }

    /// Where a replica's output is.
    #[must_use]
    pub fn log_path(&self, unit: &str) -> Option<PathBuf> {
        self.lock().known.get(unit).map(|unit| spawn::log_path(&self.folder, &unit.record))
    }

    /// Ends every process, with its own stop signal and grace period, and forgets it: for an owner who leaves for good.
    ///
    /// # Errors
    /// The first that could not be stopped or forgotten; the others are, all the same.
    pub async fn stop_all(&self) -> Result<(), RuntimeError> {
        let replicas: Vec<ObservedReplica> = self.lock().known.values().map(Unit::observed).collect();
        let stop = |replica: ObservedReplica| async move {
            self.stop_unit(&replica.unit, &replica.stop).await?;
            self.remove_unit(&replica.unit)
        };
        futures_util::future::join_all(replicas.into_iter().map(stop)).await.into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hint(&self) {
        self.hints.send_modify(|count| *count += 1);
    }

    /// Notices every process that ended.
    fn reap_all(&self) {
        let ended = self.lock().known.values_mut().filter_map(|unit| unit.reap().then_some(())).count();
        if ended > 0 {
            self.hint();
        }
    }

    fn start_unit(&self, spec: &ReplicaSpec) -> Result<UnitId, RuntimeError> {
        let mut units = self.lock();
        let same = units.known.values().find(|unit| unit.record.id == spec.id);
        if let Some(unit) = same.filter(|unit| unit.exited.is_none()) {
            let is_same = unit.record.config_hash == spec.config_hash && !unit.is_stopping;
            let taken = || RuntimeError::NameTaken { name: spec.id.to_string() };
            return is_same.then(|| unit.record.unit()).ok_or_else(taken);
        }
        let ended = same.map(|unit| unit.record.unit());
        ended.and_then(|unit| units.known.remove(&unit));
        let mut record = self.draft(&mut units, spec)?;
        record.write(&self.folder).map_err(io_error(&self.folder, "writing its record"))?;
        let unit = match spawn::spawn(&record, &self.folder) {
            Ok(child) => {
                // It was not waited for yet, so it is there even if it ended at once.
                record.identity = kernel::identify(child.id().cast_signed());
                Unit {
                    health: Health::new(record.service.healthcheck.as_ref(), None),
                    record,
                    child: Some(child),
                    is_stopping: false,
                    exited: None,
                }
            }
            Err(error) => {
                let _ = record.delete(&self.folder);
                return Err(cannot_start(&record, &error));
            }
        };
        let id = unit.record.unit();
        let written = unit.record.write(&self.folder);
        units.known.insert(id.clone(), unit);
        drop(units);
        self.hint();
        written.map_err(io_error(&self.folder, "writing its record"))?;
        Ok(id)
    }

    fn draft(&self, units: &mut Units, spec: &ReplicaSpec) -> Result<Record, RuntimeError> {
        let used: BTreeSet<Ipv4Addr> = units.known.values().map(|unit| unit.record.address).collect();
        let ports: Vec<u16> = spec.service.service_ports.iter().map(|port| port.port).collect();
        let address = units.addresses.take(&used, &ports).map_err(|error| RuntimeError::Refused {
            unit: spec.id.to_string(),
            operation: "finding an address",
            message: format!("ports {ports:?} are not free anywhere in {}: {error}", self.settings.address_range),
        })?;
        units.started += 1;
        let started_millis = millis_since_epoch();
        Ok(Record {
            id: spec.id.clone(),
            service: spec.service.clone(),
            labels: spec.labels.clone(),
            config_hash: spec.config_hash.clone(),
            directory: spec.directory.clone(),
            address,
            http_proxy: Some(self.http_proxy().address()),
            token: format!("{}-{}-{started_millis:x}-{}", spec.id, std::process::id(), units.started),
            identity: None,
            started_millis,
            healthy: None,
        })
    }

    async fn stop_unit(&self, unit: &str, order: &StopOrder) -> Result<(), RuntimeError> {
        let was_serving = {
            let mut units = self.lock();
            let Some(unit) = units.known.get_mut(unit).filter(|unit| unit.exited.is_none()) else { return Ok(()) };
            let was_serving = !unit.is_stopping && !unit.record.service.service_ports.is_empty();
            unit.is_stopping = true;
            was_serving
        };
        self.hint();
        if was_serving {
            // Bounded by its setting: proxies that have not heard by then retry on another endpoint.
            tokio::time::sleep(self.settings.drain_wait).await;
        }
        let signal = order.signal.as_deref().map_or(Some(Signal::SIGTERM), kernel::parse_signal);
        let Some(signal) = signal else {
            let message = format!("{:?} is no signal", order.signal.as_deref().unwrap_or_default());
            return Err(RuntimeError::Refused { unit: unit.to_owned(), operation: "stopping", message });
        };
        for (signal, wait) in [(signal, order.grace_period), (Signal::SIGKILL, KILL_WAIT)] {
            if self.signal(unit, signal) || self.has_ended_within(unit, wait).await {
                self.hint();
                return Ok(());
            }
        }
        let message = format!("it has not ended {}s after SIGKILL", KILL_WAIT.as_secs());
        Err(RuntimeError::Refused { unit: unit.to_owned(), operation: "stopping", message })
    }

    /// Signals the unit's group, if it has not ended. True when it has.
    fn signal(&self, unit: &str, signal: Signal) -> bool {
        let mut units = self.lock();
        let Some(unit) = units.known.get_mut(unit) else { return true };
        unit.reap();
        match unit.pid().filter(|_| unit.exited.is_none()) {
            Some(pid) => kernel::signal_group(pid, signal),
            None => return true,
        }
        false
    }

    async fn has_ended_within(&self, unit: &str, wait: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let ended = self.lock().known.get_mut(unit).is_none_or(|unit| unit.reap() || unit.exited.is_some());
            if ended || tokio::time::Instant::now() >= deadline {
                return ended;
            }
            tokio::time::sleep(END_POLL).await;
        }
    }

    fn remove_unit(&self, unit: &str) -> Result<(), RuntimeError> {
        let mut units = self.lock();
        let Some(found) = units.known.get(unit) else { return Ok(()) };
        if found.exited.is_none() {
            let message = "it still runs; stop it first".to_owned();
            return Err(RuntimeError::Refused { unit: unit.to_owned(), operation: "removing", message });
        }
        found.record.delete(&self.folder).map_err(io_error(&self.folder, "deleting its record"))?;
        units.known.remove(unit);
        drop(units);
        self.hint();
        Ok(())
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedReplica>, RuntimeError>> {
        self.reap_all();
        let replicas = self.lock().known.values().map(Unit::observed).collect();
        Box::pin(std::future::ready(Ok(replicas)))
    }

    fn start(&self, spec: Arc<ReplicaSpec>) -> BoxFuture<'_, Result<UnitId, RuntimeError>> {
        Box::pin(async move { self.start_unit(&spec) })
    }

    fn stop(&self, unit: UnitId, order: StopOrder) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.stop_unit(&unit, &order).await })
    }

    fn remove(&self, unit: UnitId) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.remove_unit(&unit) })
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }
}

/// Kills every process that is recorded in a state folder, and whatever those started, and forgets them; answers their names.
/// A pid that belongs to another process by now is left alone.
///
/// # Errors
/// The folder's owner still lives, or a file cannot be read or deleted.
pub fn sweep(state_dir: &Path) -> Result<Vec<String>, RuntimeError> {
    if !state_dir.join(FOLDER).is_dir() {
        return Ok(Vec::new());
    }
    let (folder, _lock) = open_folder(state_dir)?;
    let records = record::read_all(&folder).map_err(io_error(&folder, "reading the records"))?;
    let mut swept = Vec::new();
    for record in records {
        if kernel::kill_leftovers(&record) > 0 {
            swept.push(record.id.to_string());
        }
        record.delete(&folder).map_err(io_error(&folder, "deleting a record"))?;
    }
    Ok(swept)
}

/// Whether nobody owns the processes of a state folder now.
///
/// # Errors
/// Its owner lives, or its lock cannot be opened.
pub fn check_unowned(state_dir: &Path) -> Result<(), RuntimeError> {
    if state_dir.join(FOLDER).is_dir() { open_folder(state_dir).map(drop) } else { Ok(()) }
}

/// Where records, logs and the lock are, below a state folder.
pub const FOLDER: &str = "processes";

fn open_folder(state_dir: &Path) -> Result<(PathBuf, Flock<fs::File>), RuntimeError> {
    let folder = state_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(io_error(&folder, "making the folder"))?;
    let lock = fs::File::create(folder.join("lock")).map_err(io_error(&folder, "opening its lock"))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| RuntimeError::Refused {
        unit: folder.display().to_string(),
        operation: "locking",
        message: format!("another discovery owns this state folder ({error}); choose another --state-dir"),
    })?;
    Ok((folder, lock))
}

fn io_error(folder: &Path, operation: &'static str) -> impl Fn(io::Error) -> RuntimeError + use<> {
    let unit = folder.display().to_string();
    move |source| RuntimeError::Io { unit: unit.clone(), operation, source }
}
