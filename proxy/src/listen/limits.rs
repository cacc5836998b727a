//! How many connections a listener has open, over all workers, and who may still come in.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// That a listener is full is told this often at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The connections of one listener. Counted when they begin and end, never by a request.
#[derive(Debug, Default)]
pub struct Admission {
    open: AtomicU32,
    /// When it was told last that it is full. Locked by refusals alone.
    told: Mutex<Option<Instant>>,
}

impl Admission {
    /// One more, unless there are `max` already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<Admitted> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(Arc::clone(self));
        (before < max).then_some(admitted)
    }

    /// Whether a refusal at this moment is worth a line in the log.
    #[must_use]
    pub fn tells_refusal(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let tells = told.is_none_or(|last| now.duration_since(last) >= TOLD_EVERY);
        if tells {
            *told = Some(now);
        }
        tells
    }
}

/// Held by a connection for as long as it is open.
#[derive(Debug)]
pub struct Admitted(Arc<Admission>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_are_allowed_come_in_and_leavers_make_room() {
        let listener = Arc::new(Admission::default());
        let first = listener.enter(2).unwrap();
        let _second = listener.enter(2).unwrap();
        assert!(listener.enter(2).is_none() && listener.enter(2).is_none(), "refusals take no place");
        drop(first);
        let _third = listener.enter(2).unwrap();
        assert!(listener.enter(1).is_none(), "a limit that was lowered holds for who comes");
        assert!(listener.enter(3).is_some());
    }

    #[test]
    fn refusals_are_told_now_and_then() {
        let (listener, now) = (Admission::default(), Instant::now());
        let told = [0, 1, 9, 10, 11].map(|second| listener.tells_refusal(now + Duration::from_secs(second)));
        assert_eq!(told, [true, false, false, true, false]);
    }
}
