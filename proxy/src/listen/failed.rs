//! Listeners that should be open and are not: for whoever asks, and to be tried again. They harm no other listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::task::backoff::Backoff;
use prometheus::PullingGauge;

use super::socket::BindError;

/// Between two tries to open one: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Those of one proxy. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FailedListeners {
    failed: Arc<Mutex<BTreeMap<Arc<str>, Failed>>>,
}

#[derive(Debug)]
struct Failed {
    address: SocketAddr,
    /// What is wrong, and what to do.
    problem: String,
    backoff: Backoff,
    again_at: Instant,
}

impl FailedListeners {
    /// Notes that it cannot be opened. The words for it, if they are new.
    pub fn note(&self, name: &Arc<str>, error: &BindError, now: Instant) -> Option<String> {
        let problem = error.to_string();
        let mut all = self.lock();
        // Not in step with another proxy that waits for the same port.
        let backoff = || Backoff::new(BACKOFF.0, BACKOFF.1, fastrand::u64(..));
        let known = all.get(name).is_some_and(|failed| failed.problem == problem);
        let failed = all.entry(Arc::clone(name)).or_insert_with(|| Failed {
            address: error.address,
            problem: String::new(),
            backoff: backoff(),
            again_at: now,
        });
        (failed.address, failed.again_at) = (error.address, now + failed.backoff.next_wait());
        failed.problem.clone_from(&problem);
        (!known).then_some(problem)
    }

    /// Whether it is to be tried now: it has not failed, or waited for long enough.
    #[must_use]
    pub fn is_due(&self, name: &str, now: Instant) -> bool {
        self.lock().get(name).is_none_or(|failed| failed.again_at <= now)
    }

    /// It is open.
    pub fn opened(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Forgets those that nobody wants any more, or not there.
    pub fn retain(&self, is_wanted: impl Fn(&Arc<str>, SocketAddr) -> bool) {
        self.lock().retain(|name, failed| is_wanted(name, failed.address));
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many there are, for a scrape.
    ///
    /// # Errors
    /// When its name is none, which it is.
    pub fn gauge(&self) -> Result<PullingGauge, prometheus::Error> {
        let (name, help) = ("mesh_listeners_failed", "Listeners that cannot be opened, and are tried again.");
        let failed = self.clone();
        PullingGauge::new(name, help, Box::new(move || failed.count() as f64))
    }

    /// One line for each of the first `count`: its name, what is wrong, what to do.
    #[must_use]
    pub fn lines(&self, count: usize) -> Vec<String> {
        let all = self.lock();
        all.iter()
            .take(count)
            .map(|(name, failed)| format!("listener {name} is not open: {}", failed.problem))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn taken() -> BindError {
        BindError { address: "127.0.0.1:80".parse().unwrap(), cause: ErrorKind::AddrInUse.into() }
    }

    #[test]
    fn told_once_and_tried_again_ever_more_rarely() {
        let (failed, name, mut now) = (FailedListeners::default(), Arc::from("web"), Instant::now());
        assert!(failed.is_due("web", now));
        let words = failed.note(&name, &taken(), now).unwrap();
        assert!(
            words.contains("cannot listen on 127.0.0.1:80: ") && words.contains("`ss -Hltnp sport = :80`"),
            "{words}"
        );
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let begun = now;
            assert!(!failed.is_due("web", now));
            while !failed.is_due("web", now) {
                now += Duration::from_millis(100);
            }
            longest = longest.max(now - begun);
            assert_eq!(failed.note(&name, &taken(), now), None, "told already");
        }
        assert!(longest > Duration::from_secs(2) && longest <= BACKOFF.1 + Duration::from_millis(100), "{longest:?}");
        assert_eq!((failed.count(), failed.lines(5).len(), failed.lines(0).len()), (1, 1, 0));
        let other = BindError { cause: ErrorKind::AddrNotAvailable.into(), ..taken() };
        assert!(failed.note(&name, &other, now).unwrap().contains("no address 127.0.0.1"), "another reason is news");
        failed.retain(|_, address| address.port() == 80);
        assert_eq!(failed.count(), 1);
        failed.opened("web");
        assert_eq!((failed.count(), failed.is_due("web", now)), (0, true));
    }
}
