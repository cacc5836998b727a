//! What each runtime runs, asked of all of them at once: an engine that takes its time to answer, or never does, holds up nothing
//! that another one runs. Until it answers, nothing of its own is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_core::model::replicas::RuntimeKind;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Controller;
use crate::runtime::{ObservedReplica, RuntimeError};

/// How long a plan waits for the looks that it asked for.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) type Looked = (RuntimeKind, Result<Vec<ObservedReplica>, RuntimeError>);

/// The looks that are under way, and who said that something happened.
pub(super) struct Looks {
    under_way: BTreeSet<RuntimeKind>,
    tasks: JoinSet<Looked>,
    /// Answered after the plan that asked had been made; not asked again before there was a plan with it.
    late: BTreeSet<RuntimeKind>,
    hints: BTreeMap<RuntimeKind, watch::Receiver<u64>>,
}

impl Looks {
    pub(super) fn new(hints: BTreeMap<RuntimeKind, watch::Receiver<u64>>) -> Self {
        Self { under_way: BTreeSet::new(), tasks: JoinSet::new(), late: BTreeSet::new(), hints }
    }

    /// When a runtime says that something happened, of those that are not being looked at anyway; or when one that is late
    /// answers.
    pub(super) async fn news(&mut self) -> Option<Looked> {
        let Self { under_way, tasks, late, hints } = self;
        let idle = hints.iter_mut().filter(|(kind, _)| !under_way.contains(*kind));
        let waits: Vec<_> = idle.map(|(_, hint)| Box::pin(hint.changed())).collect();
        let hinted = async {
            // A runtime that is gone hints no more; without any the period is what is left.
            match waits.is_empty() {
                false => drop(futures_util::future::select_all(waits).await),
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hinted => None,
            Some(looked) = tasks.join_next() => {
                let looked = looked.ok()?;
                under_way.remove(&looked.0);
                late.insert(looked.0);
                Some(looked)
            }
        }
    }

    /// The next answer; none when nobody is asked.
    async fn next(&mut self) -> Option<Looked> {
        // One that panicked stays under way: its runtime is unknown from then on.
        let looked = self.tasks.join_next().await?.ok()?;
        self.under_way.remove(&looked.0);
        Some(looked)
    }
}

impl Controller {
    /// Looks at every runtime; those that do not answer in time are unknown until they do.
    pub(super) async fn observe(&self, looks: &mut Looks) {
        let late = std::mem::take(&mut looks.late);
        let mut asked = BTreeSet::new();
        for (kind, runtime) in self.executor.runtimes() {
            if late.contains(kind) || !looks.under_way.insert(*kind) {
                continue;
            }
            // What is hinted at from here on may have been missed by this look.
            if let Some(hint) = looks.hints.get_mut(kind) {
                hint.borrow_and_update();
            }
            asked.insert(*kind);
            let (kind, runtime) = (*kind, runtime.clone());
            looks.tasks.spawn(async move { (kind, runtime.observe().await) });
        }
        let answers = async {
            while !asked.is_disjoint(&looks.under_way) {
                match looks.next().await {
                    Some(looked) => self.saw(looked),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, answers).await.is_err() {
            let mut state = self.lock();
            for kind in &looks.under_way {
                if state.unknown.insert(*kind) {
                    // It may be busy with a start; one that is lost is its provider's to warn of.
                    tracing::info!(runtime = %kind, "has not said yet what runs; nothing of it is touched until it does");
                }
            }
        }
    }

    pub(super) fn saw(&self, (kind, looked): Looked) {
        let mut state = self.lock();
        match looked {
            Ok(replicas) => {
                state.unknown.remove(&kind);
                state.observed.insert(kind, replicas);
            }
            Err(error) => {
                if state.unknown.insert(kind) {
                    tracing::warn!(runtime = %kind, %error, "what runs is not known; nothing of it is touched");
                }
            }
        }
    }
}
