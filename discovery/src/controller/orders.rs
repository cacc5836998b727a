//! What people ask of the controller, by its HTTP API or in the same process: written into the store, and answered with the plan
//! that follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::compose::{Project, REPLICAS_MAX};
use mesh_core::config::suggest;
use mesh_core::model::names::Name;
use mesh_core::model::replicas::Plan;
use tokio::sync::watch;

use super::spec::{Desired, DesiredProjects};
use super::story::Story;
use super::{Controller, ControllerError, PERIOD, desired, endpoint_states, plan};
use crate::store::{Expect, Revision};

impl Controller {
    /// Asks for a project, in place of what was asked for under its name; answers the plan that follows from it. What could not
    /// be started is tried again at once.
    ///
    /// # Errors
    /// A service wants a runtime that is not there, or the store fails; nothing was changed then.
    pub async fn apply(&self, project: Project) -> Result<Plan, ControllerError> {
        self.lock().history.retry_now(&project.name);
        self.save(project, Expect::Anything).await
    }

    /// The plan that would follow if this were asked for; nothing is changed.
    ///
    /// # Errors
    /// A service wants a runtime that is not there.
    pub async fn dry_run(&self, project: Project) -> Result<Plan, ControllerError> {
        let present = self.executor.runtimes();
        for (service, wanted) in &project.services {
            if !present.contains_key(&wanted.runtime) {
                let present = present.keys().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
                let present = if present.is_empty() { "none".to_owned() } else { present };
                return Err(ControllerError::NoRuntime { service: service.clone(), kind: wanted.runtime, present });
            }
        }
        Ok(self.plan_for(Desired { project, is_down: false }).await)
    }

    async fn save(&self, project: Project, expect: Expect) -> Result<Plan, ControllerError> {
        let plan = self.dry_run(project.clone()).await?;
        desired::save(&self.store, &Desired { project, is_down: false }, expect).await?;
        // Whoever asks from here on is told by what was asked for just now.
        self.load().await;
        Ok(plan)
    }

    /// Asks for other numbers of replicas.
    ///
    /// # Errors
    /// No such project or service, more than [`REPLICAS_MAX`], or the store fails; nothing was changed then.
    pub async fn scale(&self, project: &str, replicas: &BTreeMap<String, u32>) -> Result<Plan, ControllerError> {
        let (Desired { mut project, .. }, revision) = self.stored(project).await?;
        for (name, count) in replicas {
            if *count > REPLICAS_MAX {
                return Err(ControllerError::TooMany { name: name.clone(), count: *count });
            }
            let service = Name::new(name).ok().and_then(|name| project.services.get_mut(&name));
            match service {
                Some(service) => service.replicas = *count,
                None => {
                    let known = project.services.keys().map(Name::as_str);
                    let suggestion = suggest::nearest(name, known).map(str::to_owned);
                    return Err(ControllerError::UnknownService {
                        project: project.name,
                        name: name.clone(),
                        suggestion,
                    });
                }
            }
        }
        self.save(project, Expect::Revision(revision)).await
    }

    /// Asks for the end of a project.
    ///
    /// # Errors
    /// No such project, or the store fails.
    pub async fn take_down(&self, project: &str) -> Result<Plan, ControllerError> {
        let (desired, revision) = self.stored(project).await?;
        let desired = Desired { is_down: true, ..desired };
        desired::save(&self.store, &desired, Expect::Revision(revision)).await?;
        self.load().await;
        Ok(self.plan_for(desired).await)
    }

    /// As the store has it, which the last look may not have seen yet.
    async fn stored(&self, project: &str) -> Result<(Desired, Revision), ControllerError> {
        let found = match Name::new(project) {
            Ok(name) => desired::load_one(&self.store, &name).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| self.unknown_project(project))
    }

    fn unknown_project(&self, name: &str) -> ControllerError {
        let state = self.lock();
        let suggestion = suggest::nearest(name, state.desired.keys().map(Name::as_str)).map(str::to_owned);
        ControllerError::UnknownProject { name: name.to_owned(), suggestion }
    }

    /// # Errors
    /// No such project.
    pub fn project(&self, name: &str) -> Result<Arc<Desired>, ControllerError> {
        let found =
            self.lock().desired.iter().find(|(known, _)| known.as_str() == name).map(|(_, desired)| desired.clone());
        found.ok_or_else(|| self.unknown_project(name))
    }

    /// What was asked for, whenever that changes; none before it was read for the first time.
    #[must_use]
    pub fn declared(&self) -> watch::Receiver<Option<DesiredProjects>> {
        self.declared.subscribe()
    }

    #[must_use]
    pub fn projects(&self) -> DesiredProjects {
        self.lock().desired.clone()
    }

    /// The newest plan, over all projects.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.lock().plan.clone()
    }

    #[must_use]
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// What would be planned now if this project were desired so; only its own steps.
    async fn plan_for(&self, wanted: Desired) -> Plan {
        // Right after the start nothing is known yet; without an answer of the runtimes it is planned without them.
        let _ = tokio::time::timeout(PERIOD, self.has_looked.subscribe().wait_for(|looked| *looked)).await;
        let name = wanted.project.name.clone();
        let snapshot = self.snapshots.borrow().clone();
        let endpoints = endpoint_states(&snapshot);
        let state = self.lock();
        let desired = DesiredProjects::from([(name, Arc::new(wanted))]);
        let observed = state.all_observed();
        let mut plan = plan::plan(state.world(&desired, &observed, &endpoints, self.started.elapsed())).plan;
        (plan.number, plan.snapshot) = (state.plan.number + 1, snapshot.number);
        plan
    }
}
