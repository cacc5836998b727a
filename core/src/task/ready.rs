//! Readiness as a guard: each part that is not ready yet holds one; `/readyz` says yes when the last one is dropped, and names
//! who is still awaited until then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who is not ready yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Held while its owner is not ready.
#[derive(Debug)]
pub struct NotReady {
    part: &'static str,
    readiness: Readiness,
}

impl Readiness {
    #[must_use]
    pub fn hold(&self, part: &'static str) -> NotReady {
        *self.lock().entry(part).or_insert(0) += 1;
        NotReady { part, readiness: self.clone() }
    }

    /// The parts still awaited; empty when ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NotReady {
    fn drop(&mut self) {
        let mut waiting = self.readiness.lock();
        if let Some(count) = waiting.get_mut(self.part) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn ready_when_the_last_guard_drops() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.hold("dns"), readiness.hold("xds"));
        assert_eq!(readiness.waiting_for(), ["dns", "xds"]);
        drop(first);
        assert!(!readiness.is_ready());
        drop(second);
        assert!(readiness.is_ready());
    }
}
