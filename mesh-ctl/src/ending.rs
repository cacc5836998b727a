//! How a person ends what runs here: Ctrl-C, SIGTERM, a terminal that goes away, or a reader of our output that has enough.

use std::fmt;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Told when nobody reads stdout any more.
static CLOSED: Notify = Notify::const_new();

/// What ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Hangup,
    Interrupt,
    Terminate,
    /// As SIGPIPE would.
    Closed,
}

impl Ending {
    /// 128 plus the signal's number, as shells count.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Closed => 141,
            Self::Terminate => 143,
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "the terminal is gone",
            Self::Interrupt => "Ctrl-C",
            Self::Terminate => "SIGTERM",
            Self::Closed => "nobody reads the output",
        })
    }
}

/// Nobody reads stdout any more.
pub fn note_closed() {
    CLOSED.notify_one();
}

/// Until somebody wants it to end. To be waited for by one at a time.
pub async fn wanted() -> Ending {
    let handlers = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = handlers else { return std::future::pending().await };
    // Where it is ignored (`nohup`), it stays so.
    let mut hangup = if ignores_hangup() { None } else { signal(SignalKind::hangup()).ok() };
    let hung_up = async {
        match &mut hangup {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => Ending::Interrupt,
        _ = terminate.recv() => Ending::Terminate,
        () = hung_up => Ending::Hangup,
        () = CLOSED.notified() => Ending::Closed,
    }
}

/// `SigIgn` of `proc_pid_status(5)`: a mask with a bit for each signal from 1.
fn ignores_hangup() -> bool {
    static AT_FIRST: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AT_FIRST.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
    })
}
