//! Resources are built once per snapshot and kind of client, however many clients there are of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::model::snapshot::Snapshot;
use mesh_xds::ResourceSet;

use super::node::ClientKind;
use super::resources::{self, Settings};

/// Kinds of clients kept for one snapshot; those beyond it are built for each client anew.
const KINDS_MAX: usize = 64;

/// The sets of the newest snapshot that was asked for.
#[derive(Debug)]
pub struct Cache {
    settings: Settings,
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    snapshot: Arc<Snapshot>,
    sets: BTreeMap<ClientKind, Arc<ResourceSet>>,
}

impl Cache {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, newest: Mutex::default() }
    }

    /// What a client of this kind gets of this snapshot. Building takes milliseconds, and whoever asks for the same waits for it
    /// rather than building it too.
    pub fn get(&self, snapshot: &Arc<Snapshot>, kind: &ClientKind) -> Arc<ResourceSet> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&newest.snapshot, snapshot) {
            if snapshot.number < newest.snapshot.number {
                // A stream that is behind by one; it asks again in a moment.
                drop(newest);
                return Arc::new(resources::build(snapshot, kind, &self.settings));
            }
            *newest = Newest { snapshot: snapshot.clone(), sets: BTreeMap::new() };
        }
        if let Some(set) = newest.sets.get(kind) {
            return set.clone();
        }
        let set = Arc::new(resources::build(snapshot, kind, &self.settings));
        if newest.sets.len() < KINDS_MAX {
            newest.sets.insert(kind.clone(), set.clone());
        }
        set
    }
}
