//! Doing one step of a plan. Idempotent: a step that was done already, half or whole, by this or another controller, is done
//! again without harm, since it names the very unit that it takes out, and the runtime starts nothing twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::model::replicas::{Action, RuntimeKind, Step};
use thiserror::Error;

use crate::runtime::{ReplicaSpec, Runtime, RuntimeError, StopOrder};

/// The engines by their kind.
pub type Runtimes = BTreeMap<RuntimeKind, Arc<dyn Runtime>>;

/// A step with all it takes to do it.
#[derive(Debug, Clone)]
pub struct Work {
    pub step: Step,
    /// Where the unit that is taken out is, and how it is asked to end.
    pub old: Option<(RuntimeKind, StopOrder)>,
    /// What the slot is filled with.
    pub new: Option<Arc<ReplicaSpec>>,
}

#[derive(Debug, Error)]
pub enum ExecuteError {
    #[error("plan {number} is stale: plan {newest} was begun already")]
    Stale { number: u64, newest: u64 },
    #[error("no {kind} runtime is there; start discovery with one, or use another runtime")]
    NoRuntime { kind: RuntimeKind },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl ExecuteError {
    /// As [`RuntimeError::is_lasting`].
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Stale { .. } => false,
            Self::NoRuntime { .. } => true,
            Self::Runtime(error) => error.is_lasting(),
        }
    }
}

/// Executes plans, newer ones over older ones.
pub struct Executor {
    runtimes: Runtimes,
    newest: AtomicU64,
}

impl Executor {
    #[must_use]
    pub fn new(runtimes: Runtimes) -> Self {
        Self { runtimes, newest: AtomicU64::new(0) }
    }

    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Does one step of plan `number`.
    ///
    /// # Errors
    /// [`ExecuteError::Stale`] when a newer plan was begun; what the runtime says otherwise.
    pub async fn execute(&self, number: u64, work: &Work) -> Result<(), ExecuteError> {
        let newest = self.newest.fetch_max(number, Ordering::SeqCst);
        if number < newest {
            return Err(ExecuteError::Stale { number, newest });
        }
        if let (Some(spec), Action::Replace) = (&work.new, work.step.action) {
            self.runtime(spec.service.runtime)?.prepare(spec.clone()).await?;
        }
        if let (Some(unit), Some((kind, order))) = (&work.step.unit, &work.old) {
            let runtime = self.runtime(*kind)?;
            runtime.stop(unit.clone(), order.clone()).await?;
            runtime.remove(unit.clone()).await?;
        }
        if let (Some(spec), Action::Start | Action::Replace) = (&work.new, work.step.action) {
            self.runtime(spec.service.runtime)?.start(spec.clone()).await?;
        }
        Ok(())
    }

    fn runtime(&self, kind: RuntimeKind) -> Result<&Arc<dyn Runtime>, ExecuteError> {
        self.runtimes.get(&kind).ok_or(ExecuteError::NoRuntime { kind })
    }
}
