//! What the controller did, step by step, each with its reason: a bounded ring of numbered events that callers follow.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_core::model::replicas::{Step, StepEvent, StepOutcome};
use tokio::sync::watch;

/// Older events than so many are forgotten.
const EVENTS_MAX: usize = 1024;

#[derive(Debug)]
pub struct Story {
    events: Mutex<VecDeque<StepEvent>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

impl Default for Story {
    fn default() -> Self {
        Self { events: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Story {
    pub fn tell(&self, plan: u64, step: Step, outcome: StepOutcome) {
        match &outcome {
            StepOutcome::Begun => {
                tracing::info!(plan, replica = %step.replica, action = %step.action, reason = step.reason, "step")
            }
            StepOutcome::Done => tracing::debug!(plan, replica = %step.replica, action = %step.action, "step done"),
            StepOutcome::Failed { error, .. } => {
                tracing::warn!(plan, replica = %step.replica, action = %step.action, error, "step failed");
            }
        }
        let mut events = self.lock();
        let number = *self.newest.borrow() + 1;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        events.push_back(StepEvent { number, at_millis, plan, step, outcome });
        if events.len() > EVENTS_MAX {
            events.pop_front();
        }
        self.newest.send_replace(number);
    }

    /// Every kept event with a higher number than `after`; waits up to `wait` for the first.
    pub async fn after(&self, after: u64, wait: Duration) -> Vec<StepEvent> {
        let mut newest = self.newest.subscribe();
        let newer = newest.wait_for(|newest| *newest > after);
        // Neither the end of the wait nor of the story is an error: the answer is an empty list then.
        let _ = tokio::time::timeout(wait, newer).await;
        self.lock().iter().filter(|event| event.number > after).cloned().collect()
    }

    /// The number of the newest event; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<StepEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
