//! Ending in order: one side says "drain", every task that holds a [`Drain`] finishes what it has, and the side that said it
//! waits until the last one is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};

/// The side that ends things.
#[derive(Debug)]
pub struct Drainer {
    begun: Arc<AtomicBool>,
    signal: watch::Sender<bool>,
    /// Never sent on: it closes when the last holder drops its sender.
    holders: mpsc::Receiver<()>,
}

/// Held by a task for as long as it has something to finish. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    /// For those who only ask: read by all, written once.
    begun: Arc<AtomicBool>,
    signal: watch::Receiver<bool>,
    _held: mpsc::Sender<()>,
}

/// The two ends.
#[must_use]
pub fn channel() -> (Drainer, Drain) {
    let (signal, watched) = watch::channel(false);
    let (held, holders) = mpsc::channel(1);
    let begun = Arc::new(AtomicBool::new(false));
    (Drainer { begun: Arc::clone(&begun), signal, holders }, Drain { begun, signal: watched, _held: held })
}

impl Drainer {
    /// Says "drain" without waiting; more holders may still appear and drop.
    pub fn start(&self) {
        self.begun.store(true, Ordering::Relaxed);
        self.signal.send_replace(true);
    }

    /// Waits until nobody holds it, without saying anything.
    pub async fn idle(&mut self) {
        while self.holders.recv().await.is_some() {}
    }

    /// Says "drain" and waits for the last holder. The caller bounds it with a timeout.
    pub async fn drain(mut self) {
        self.start();
        while self.holders.recv().await.is_some() {}
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        self.begun.store(true, Ordering::Relaxed);
    }
}

impl Drain {
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends when draining begins, or when the [`Drainer`] is gone.
    pub async fn started(&mut self) {
        // An error means that the drainer is gone, which ends things just as well.
        let _ = self.signal.wait_for(|draining| *draining).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::channel;

    #[tokio::test(start_paused = true)]
    async fn drain_ends_when_its_last_holder_drops() {
        let (drainer, mut first) = channel();
        let second = first.clone();
        assert!(!first.is_draining());
        drainer.start();
        first.started().await;
        assert!(second.is_draining());
        drop(first);
        let mut waiting = tokio::spawn(drainer.drain());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "one is still held");
        drop(second);
        waiting.await.unwrap();
    }
}
