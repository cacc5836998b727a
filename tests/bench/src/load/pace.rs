//! When requests are due: at once, or by a clock that nothing holds up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

use super::{Due, Run, Told};

/// A load that is so far behind measures nothing but its own queue; the queue has an end.
const QUEUE_MAX: usize = 1 << 20;

pub(super) enum Pace {
    Closed,
    Open { period: Duration, due: RefCell<VecDeque<Due>>, added: Notify, ended: Cell<bool> },
}

impl Pace {
    pub(super) fn of(rate: Option<f64>) -> Self {
        match rate {
            None => Self::Closed,
            Some(rate) => Self::Open {
                period: Duration::from_secs_f64(1.0 / rate),
                due: RefCell::default(),
                added: Notify::new(),
                ended: Cell::new(false),
            },
        }
    }

    /// What is due now, if anything is.
    pub(super) fn try_next(&self, told: &Told) -> Option<Due> {
        match self {
            Self::Closed if told.is_stopped() => None,
            Self::Closed => Some(Due { at: Instant::now(), measured: false }),
            Self::Open { due, .. } => due.borrow_mut().pop_front(),
        }
    }

    /// Waits for a request to be due; none when the load ends and nothing is left over.
    pub(super) async fn next(&self, told: &Told) -> Option<Due> {
        loop {
            let next = self.try_next(told);
            match self {
                Self::Open { added, ended, .. } if next.is_none() && !ended.get() => added.notified().await,
                _ => return next,
            }
        }
    }

    pub(super) fn end(&self) {
        if let Self::Open { added, ended, .. } = self {
            ended.set(true);
            added.notify_waiters();
            // Whoever is about to wait finds a permit.
            added.notify_one();
        }
    }

    /// Whether nothing will be due any more.
    pub(super) fn is_ended(&self, told: &Told) -> bool {
        match self {
            Self::Closed => told.is_stopped(),
            Self::Open { ended, due, .. } => ended.get() && due.borrow().is_empty(),
        }
    }
}

/// Hands out requests of an open load at their times, until the load stops.
pub(super) async fn clock(run: Rc<Run>) {
    if let Err(error) = tick(&run).await {
        run.told.fail(format!("{error:#}"));
    }
}

async fn tick(run: &Run) -> anyhow::Result<()> {
    let Pace::Open { period, due, added, .. } = &run.pace else { return Ok(()) };
    // The runtime's own timer counts milliseconds.
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).context("no timer")?;
    let every = TimeSpec::from_duration(*period);
    let start = Instant::now();
    timer.set(Expiration::IntervalDelayed(every, every), TimerSetTimeFlags::empty()).context("no timer")?;
    // Anything that can be polled and read is a pipe to the runtime.
    let mut timer = Receiver::from_owned_fd_unchecked(OwnedFd::from(timer)).context("no timer")?;
    let mut next = start + *period;
    while !run.told.is_stopped() {
        let mut expirations = [0; 8];
        timer.read_exact(&mut expirations).await.context("waiting for a timer")?;
        let now = Instant::now();
        let measured = run.told.measuring.load(Ordering::Relaxed);
        let mut due = due.borrow_mut();
        while next <= now {
            due.push_back(Due { at: next, measured });
            added.notify_one();
            next += *period;
        }
        anyhow::ensure!(due.len() < QUEUE_MAX, "{}: far below the rate asked for", run.plan.target);
    }
    Ok(())
}
