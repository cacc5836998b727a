//! Readiness as a guard: each part that is not ready yet holds one; `/readyz` says yes when the last one is dropped, and names
//! who is still awaited until then. What is wrong, and is no reason to send nothing any more, is a remark: `/readyz?verbose` tells it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is not ready yet, and what else is wrong. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Counted<&'static str>,
    remarks: Counted<Arc<str>>,
}

/// How many guards say the same.
type Counted<T> = Arc<Mutex<BTreeMap<T, usize>>>;

/// Held while its owner is not ready.
#[derive(Debug)]
pub struct NotReady {
    _waiting: Guard<&'static str>,
}

/// Held while what it says is so.
#[derive(Debug)]
pub struct Remark {
    _remark: Guard<Arc<str>>,
}

#[derive(Debug)]
struct Guard<T: Ord> {
    said: T,
    all: Counted<T>,
}

impl Readiness {
    #[must_use]
    pub fn hold(&self, part: &'static str) -> NotReady {
        NotReady { _waiting: Guard::new(part, &self.waiting) }
    }

    #[must_use]
    pub fn remark(&self, words: impl Into<Arc<str>>) -> Remark {
        Remark { _remark: Guard::new(words.into(), &self.remarks) }
    }

    /// The parts still awaited; empty when ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        lock(&self.waiting).keys().copied().collect()
    }

    /// What is wrong although it may be ready.
    #[must_use]
    pub fn remarks(&self) -> Vec<Arc<str>> {
        lock(&self.remarks).keys().cloned().collect()
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        lock(&self.waiting).is_empty()
    }
}

impl<T: Ord + Clone> Guard<T> {
    fn new(said: T, all: &Counted<T>) -> Self {
        *lock(all).entry(said.clone()).or_insert(0) += 1;
        Self { said, all: Arc::clone(all) }
    }
}

impl<T: Ord> Drop for Guard<T> {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if let Some(count) = all.get_mut(&self.said) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.said);
            }
        }
    }
}

fn lock<T>(all: &Counted<T>) -> MutexGuard<'_, BTreeMap<T, usize>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_remark_is_told_for_as_long_as_it_is_held() {
        let readiness = Readiness::default();
        let (one, same) = (readiness.remark("a port is taken"), readiness.remark("a port is taken".to_owned()));
        drop(one);
        assert!(readiness.is_ready());
        assert_eq!(readiness.remarks(), ["a port is taken".into()]);
        drop(same);
        assert!(readiness.remarks().is_empty());
    }
}
