//! One timer for a whole connection. It is moved when it fires too early, not whenever its deadline moves on, so that a busy
//! connection costs no timer at all.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// Runs `future` up to `deadline`; none when it took longer. `timer` is what requests on one connection use in turn: one that finds
/// it in use makes another.
pub async fn within<F: Future>(
    timer: &RefCell<LazyTimer>,
    deadline: Instant,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut taken = timer.take();
    let output = std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => taken.poll_until(deadline, cx).map(|()| None),
    });
    let output = output.await;
    timer.replace(taken);
    output
}

/// Fires at whatever deadline it is asked for; made when it is first asked.
#[derive(Debug, Default)]
pub struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires; none while it has fired and was not asked again.
    armed: Option<Instant>,
}

impl LazyTimer {
    /// Ready once `deadline` has passed. Whoever is woken asks again.
    pub fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if self.armed.is_none_or(|armed| deadline < armed) {
            sleep.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
    }
}
