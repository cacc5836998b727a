//! What happened to each slot before: how often it failed, and when it may be filled again.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::names::Name;
use mesh_core::model::replicas::ReplicaId;
use mesh_core::task::backoff::Backoff;

/// Waits between tries to fill a slot that keeps failing.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A replica that was ready for so long did not fail because of how it was started: its next failure counts as the first.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Every slot's past. Times are since the controller started.
#[derive(Debug, Clone)]
pub struct History {
    seed: u64,
    slots: BTreeMap<ReplicaId, Slot>,
}

#[derive(Debug, Clone)]
struct Slot {
    config_hash: Arc<str>,
    backoff: Backoff,
    not_before: Duration,
    ready_since: Option<Duration>,
    fills: u32,
    last_reason: Option<String>,
    /// Why it could not be filled the last time.
    last_error: Option<String>,
}

impl History {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, slots: BTreeMap::new() }
    }

    /// When the slot may be filled; failures of another configuration do not count.
    #[must_use]
    pub fn not_before(&self, id: &ReplicaId, config_hash: &str) -> Duration {
        let slot = self.slots.get(id).filter(|slot| &*slot.config_hash == config_hash);
        slot.map_or(Duration::ZERO, |slot| slot.not_before)
    }

    #[must_use]
    pub fn failures(&self, id: &ReplicaId) -> u32 {
        self.slots.get(id).map_or(0, |slot| slot.backoff.failures())
    }

    /// How often it was filled anew.
    #[must_use]
    pub fn restarts(&self, id: &ReplicaId) -> u32 {
        self.slots.get(id).map_or(0, |slot| slot.fills.saturating_sub(1))
    }

    #[must_use]
    pub fn last_reason(&self, id: &ReplicaId) -> Option<&str> {
        self.slots.get(id)?.last_reason.as_deref()
    }

    /// The slot is being filled, because what was in it failed or for another reason. After a failure the next one has to
    /// wait; this one did already.
    pub fn filled(&mut self, id: &ReplicaId, config_hash: &Arc<str>, after_failure: bool, reason: &str, now: Duration) {
        let slot = self.slot(id, config_hash);
        slot.fills += 1;
        slot.ready_since = None;
        slot.last_reason = Some(reason.to_owned());
        if after_failure {
            slot.not_before = now + slot.backoff.next_wait();
        }
    }

    /// What keeps a slot of this project waiting is forgotten: somebody may have set it right.
    pub fn retry_now(&mut self, project: &Name) {
        for (_, slot) in self.slots.iter_mut().filter(|(id, _)| id.project == *project) {
            slot.backoff.reset();
            slot.not_before = Duration::ZERO;
        }
    }

    /// The slot is filled.
    pub fn fill_succeeded(&mut self, id: &ReplicaId) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.last_error = None;
        }
    }

    /// Why it could not be filled the last time, with this configuration.
    #[must_use]
    pub fn last_error(&self, id: &ReplicaId, config_hash: &str) -> Option<&str> {
        self.slots.get(id).filter(|slot| &*slot.config_hash == config_hash)?.last_error.as_deref()
    }

    /// The slot could not be filled.
    pub fn fill_failed(&mut self, id: &ReplicaId, config_hash: &Arc<str>, error: &str, now: Duration) {
        let slot = self.slot(id, config_hash);
        slot.last_error = Some(error.to_owned());
        slot.not_before = now + slot.backoff.next_wait();
    }

    /// What is in the slot is ready, or not.
    pub fn saw(&mut self, id: &ReplicaId, is_ready: bool, now: Duration) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if !is_ready {
            slot.ready_since = None;
            return;
        }
        let since = *slot.ready_since.get_or_insert(now);
        if now.saturating_sub(since) >= STABLE_AFTER && slot.backoff.failures() > 0 {
            slot.backoff.reset();
            slot.not_before = Duration::ZERO;
        }
    }

    /// Slots that are neither wanted nor there are forgotten.
    pub fn retain(&mut self, keep: impl Fn(&ReplicaId) -> bool) {
        self.slots.retain(|id, _| keep(id));
    }

    fn slot(&mut self, id: &ReplicaId, config_hash: &Arc<str>) -> &mut Slot {
        let mut hasher = DefaultHasher::new();
        (self.seed, id).hash(&mut hasher);
        let fresh = || Slot {
            config_hash: config_hash.clone(),
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_MAX, hasher.finish()),
            not_before: Duration::ZERO,
            ready_since: None,
            fills: 0,
            last_reason: None,
            last_error: None,
        };
        let slot = self.slots.entry(id.clone()).or_insert_with(fresh);
        if slot.config_hash != *config_hash {
            slot.config_hash = config_hash.clone();
            slot.backoff.reset();
            slot.not_before = Duration::ZERO;
        }
        slot
    }
}
