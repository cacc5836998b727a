//! Starts programs on chosen cores, keeps their output, and ends them by their process ids whatever happens.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getsid};
use tokio::signal::unix::{SignalKind, signal};

use crate::usage;

/// How long a program may take to end once it is told to; then it is killed.
const END: Duration = Duration::from_secs(5);

/// A program that runs; ended on drop.
#[derive(Debug)]
pub struct Program {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` on those cores. Its output goes to `log`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(name: &str, command: &[String], cores: &[usize], log: PathBuf) -> anyhow::Result<Self> {
        let mut launcher = launcher(cores)?;
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let output = file.try_clone().context("a second handle of the log")?;
        let child = launcher.args(command).stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        Ok(Self { name: name.to_owned(), child: child.with_context(|| format!("{name} does not start"))?, log })
    }

    /// Its process and all below it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        usage::tree(self.child.id())
    }

    /// The end of what it has written.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let mut bytes = Vec::new();
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Whether it still runs; if not, why.
    ///
    /// # Errors
    /// When it has ended.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("waiting for a program")? {
            None => Ok(()),
            Some(status) => bail!("{} has ended: {status}\n{}", self.name, self.log_tail()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let below = self.pids();
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its children first: without their parent they would be nobody's.
            for pid in below.iter().rev() {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// This program as a launcher of others: see [`become_program`].
///
/// # Errors
/// When this program does not know its own path.
pub fn launcher(cores: &[usize]) -> anyhow::Result<Command> {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut launcher = Command::new(std::env::current_exe().context("no path of its own")?);
    launcher.args(["launch", "--cores", &cores.join(","), "--"]);
    Ok(launcher)
}

/// Pins this process, has it ended with its parent, and becomes the program.
///
/// # Errors
/// When any of that fails; otherwise it does not return.
pub fn become_program(cores: &[usize], command: &[String]) -> anyhow::Result<()> {
    pin(cores)?;
    set_pdeathsig(Signal::SIGTERM).context("ending with the parent")?;
    let (program, arguments) = command.split_first().context("no program is named")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone())
}

/// Keeps this process, and threads that it starts from now on, on those cores.
///
/// # Errors
/// When the machine has no such core.
pub fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).context("a core's number")?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("this process cannot run on cores {cores:?}"))
}

/// Allows as many open files as the machine does: connections of load, proxy and backend.
///
/// # Errors
/// When the limit cannot be read or set.
pub fn raise_files_limit() -> anyhow::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
    Ok(most)
}

/// Goes before what else runs on this machine, as far as this user may: a busy machine should cost the numbers little. The group is
/// that of the session, so only a session of this program's own is changed.
pub fn go_first() {
    if getsid(None) == Ok(getpid()) {
        let _ = std::fs::write("/proc/self/autogroup", "-20");
    }
}

/// Ctrl-C and SIGTERM become a message, so that everything that was started is ended in order.
///
/// # Errors
/// When signals cannot be listened to.
pub fn interrupts() -> anyhow::Result<Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let listen = move || {
        runtime.block_on(async {
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            let _ = sender.send(());
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context("no thread for signals")?;
    Ok(receiver)
}

/// A port of the loopback address that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no address")?.port())
}
