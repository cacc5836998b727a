//! What all cases share: the backend, the certificates, the programs, and the way one round is measured.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::backend;
use crate::certificates::Files;
use crate::launch::{self, Program};
use crate::load::{Load, Plan};
use crate::proxies::{self, Programs, Proxy, Shape};
use crate::sample::Sample;
use crate::usage::{self, Cpu};

/// Where the proxies run, and where everything else does.
pub const PROXY_CORE: usize = 0;
pub const LOAD_CORE: usize = 1;

/// How long a proxy may take until it answers.
const START: Duration = Duration::from_secs(20);

/// A run of the benchmark.
pub struct Bench {
    pub rounds: usize,
    pub length: Duration,
    pub warm_up: Duration,
    pub files: Files,
    /// Which take part, in their order.
    pub proxies: Vec<Proxy>,
    /// Whether Weft's functions are sampled.
    pub profile: bool,
    programs: Programs,
    folder: PathBuf,
    interrupted: Receiver<()>,
}

/// The service behind the proxies.
#[derive(Debug)]
pub struct Backend {
    pub endpoints: Vec<SocketAddr>,
    pid: u32,
    child: std::process::Child,
}

/// A proxy that answers.
#[derive(Debug)]
pub struct Running {
    pub proxy: Proxy,
    pub listen: SocketAddr,
    pub program: Program,
}

/// Everything that was counted up to one moment.
struct Moment {
    at: Instant,
    proxy: Cpu,
    backend: Cpu,
    load: Duration,
    machine: Duration,
    requests: u64,
    bytes: u64,
}

impl Bench {
    /// # Errors
    /// When certificates cannot be made.
    pub fn new(
        rounds: usize,
        length: Duration,
        programs: Programs,
        folder: &Path,
        interrupted: Receiver<()>,
    ) -> anyhow::Result<Self> {
        let (files, folder) = (Files::make(folder).context("certificates")?, folder.to_owned());
        let warm_up = length.min(Duration::from_secs(1));
        let proxies = Proxy::ALL.to_vec();
        Ok(Self { rounds, length, warm_up, files, proxies, profile: false, programs, folder, interrupted })
    }

    /// Where files of this run are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When the run is told to end.
    pub fn wait(&self, length: Duration) -> anyhow::Result<()> {
        match self.interrupted.recv_timeout(length) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => bail!("interrupted"),
        }
    }

    /// Starts endpoints on those cores.
    ///
    /// # Errors
    /// When they do not start.
    pub fn backend(&self, cores: &[usize]) -> anyhow::Result<Backend> {
        let own = std::env::current_exe().context("no path of its own")?;
        let mut launcher = launch::launcher(cores)?;
        let mut child = launcher.arg(own).arg("backend").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("a backend without output")?;
        BufReader::new(stdout).read_line(&mut line).context("reading the backend's addresses")?;
        let pid = child.id();
        Ok(Backend { endpoints: backend::parse_addresses(&line)?, pid, child })
    }

    /// Starts a proxy on those cores and waits until it answers as `plan` wants it.
    ///
    /// # Errors
    /// When it does not; with the end of its log.
    pub fn start(
        &self,
        proxy: Proxy,
        shape: Shape,
        backend: &Backend,
        cores: &[usize],
        plan: &Plan,
    ) -> anyhow::Result<Running> {
        let endpoints = &backend.endpoints;
        let prepared = proxies::prepare(proxy, &self.programs, shape, endpoints, &self.files, &self.folder)?;
        let log = self.folder.join(format!("{}-{}.log", proxy.name(), prepared.listen.port()));
        let program = Program::start(proxy.name(), &prepared.command, cores, log)?;
        let mut running = Running { proxy, listen: prepared.listen, program };
        let deadline = Instant::now() + START;
        loop {
            running.program.still_runs()?;
            let one = Plan { target: running.listen, connections: 1, ..plan.clone() };
            match self.first_answer(one) {
                Ok(()) => return Ok(running),
                Err(error) if Instant::now() > deadline => {
                    bail!("{} does not answer: {error:#}\n{}", proxy.name(), running.program.log_tail())
                }
                Err(_) => self.wait(Duration::from_millis(100))?,
            }
        }
    }

    fn first_answer(&self, plan: Plan) -> anyhow::Result<()> {
        let load = Load::start(plan)?;
        let deadline = Instant::now() + Duration::from_secs(1);
        while load.answered().0 == 0 && !load.is_stopped() && Instant::now() < deadline {
            self.wait(Duration::from_millis(10))?;
        }
        let answered = load.answered().0;
        load.finish()?;
        if answered == 0 { bail!("no answer within a second") } else { Ok(()) }
    }

    /// One round: warm up, count for a while.
    ///
    /// # Errors
    /// When responses were wrong, or a program ended.
    pub fn round(&self, running: &mut Running, backend: &Backend, plan: &Plan) -> anyhow::Result<Sample> {
        let load = Load::start(Plan { target: running.listen, ..plan.clone() })?;
        let measured = self.counted(running, backend, &load);
        let name = running.proxy.name();
        let wrong =
            || format!("{name}: wrong or missing responses; its log ends with:\n{}", running.program.log_tail());
        load.finish().with_context(wrong)?;
        running.program.still_runs()?;
        measured
    }

    fn counted(&self, running: &Running, backend: &Backend, load: &Load) -> anyhow::Result<Sample> {
        self.wait(self.warm_up)?;
        let pids = running.program.pids();
        let before = Moment::now(&pids, backend, load)?;
        self.wait(self.length)?;
        let after = Moment::now(&pids, backend, load)?;
        let resident_bytes = usage::resident(&pids);
        Ok(Sample { resident_bytes, ..after.since(&before) })
    }

    /// One round of an open load; its median and 99th percentile, in µs, none where nothing was answered.
    ///
    /// # Errors
    /// When responses were wrong.
    pub fn latencies(&self, target: SocketAddr, rate: f64, plan: &Plan) -> anyhow::Result<(f64, f64)> {
        let load = Load::start(Plan { target, rate: Some(rate), ..plan.clone() })?;
        let waited = self.wait(self.warm_up).and_then(|()| {
            load.measure(true);
            self.wait(self.length)
        });
        load.measure(false);
        let histogram = load.finish()?;
        waited?;
        let micros = |share| histogram.percentile(share).map(|took| took.as_secs_f64() * 1e6);
        micros(0.5).zip(micros(0.99)).context("nothing was answered")
    }
}

impl Moment {
    fn now(proxy: &[u32], backend: &Backend, load: &Load) -> anyhow::Result<Self> {
        let (requests, bytes) = load.answered();
        let (at, proxy) = (Instant::now(), usage::cpu(proxy).context("a proxy's CPU time")?);
        let backend = usage::cpu(&[backend.pid]).context("the backend's CPU time")?;
        Ok(Self { at, proxy, backend, load: load.cpu(), machine: usage::machine(), requests, bytes })
    }

    /// By request, between two moments. `resident_bytes` is left to others.
    fn since(&self, earlier: &Self) -> Sample {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let requests = self.requests - earlier.requests;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
        let proxy = (self.proxy - earlier.proxy).split();
        let backend = (self.backend - earlier.backend).split().total;
        let load = self.load.saturating_sub(earlier.load);
        let others = (self.machine - earlier.machine).saturating_sub(proxy.total + backend + load);
        Sample {
            requests,
            requests_per_second: requests as f64 / seconds,
            bytes_per_second: (self.bytes - earlier.bytes) as f64 / seconds,
            cpu_us: each(proxy.total),
            user_us: each(proxy.user),
            system_us: each(proxy.system),
            load_cpu_us: each(load),
            backend_cpu_us: each(backend),
            others_cores: others.as_secs_f64() / seconds,
            resident_bytes: 0,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Nothing in it is worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
