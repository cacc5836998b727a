//! How long a body may be silent. The timer is made when a body first has nothing to give, so that one that arrives in a piece
//! costs none; progress only notes the time, and the timer is moved when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The silence of one body in one direction.
#[derive(Debug)]
pub struct IdleTimer {
    /// None: may be silent for ever.
    after: Option<Duration>,
    progress: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How long an endpoint takes nothing of a request that waits for it.
#[derive(Debug)]
pub struct StallTimer {
    idle: IdleTimer,
    taken: u64,
}

impl StallTimer {
    /// None: for ever.
    #[must_use]
    pub fn new(after: Option<Duration>) -> Self {
        Self { idle: IdleTimer::new(after), taken: 0 }
    }

    /// Ready when it has been too long. `taken` is any count that changes whenever something is taken.
    pub fn poll(&mut self, taken: u64, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.taken, taken) != taken {
            self.idle.progressed();
        }
        self.idle.poll_silent(cx).map(drop)
    }
}

impl IdleTimer {
    #[must_use]
    pub fn new(after: Option<Duration>) -> Self {
        Self { after, progress: None, sleep: None }
    }

    /// Something moved.
    pub fn progressed(&mut self) {
        if self.sleep.is_some() {
            self.progress = Some(Instant::now());
        }
    }

    /// Nothing moves at the moment: says for how long nothing may, when that is over.
    pub fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(after) = self.after else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.progress.take() {
                Some(progress) if progress.elapsed() < after => sleep.as_mut().reset((progress + after).into()),
                _ => return Poll::Ready(after),
            }
        }
    }
}
