//! The composer's second half: the controller, and the runtimes it acts through, put together from what is configured.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::replicas::RuntimeKind;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use tokio::sync::watch;

use super::{AppError, Tasks, spawn};
use crate::config::Config;
use crate::controller::Controller;
use crate::controller::execute::Runtimes;
use crate::provider::docker::client::Engine;
use crate::provider::{ObservationSender, process};
use crate::runtime::docker::{DockerRuntime, DockerSettings};
use crate::runtime::process::ProcessRuntime;
use crate::store::SharedStore;

/// Who plans, and through what it acts.
pub struct Acting {
    pub controller: Arc<Controller>,
    pub process: Option<Arc<ProcessRuntime>>,
    docker: Option<Arc<DockerRuntime>>,
}

impl Acting {
    /// Opens what is configured. An engine that does not answer costs containers, not the start.
    ///
    /// # Errors
    /// When the folder of the processes is another's.
    pub async fn open(
        config: &Config,
        store: SharedStore,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Self, AppError> {
        let process = config.process.clone().map(ProcessRuntime::open).transpose()?;
        let docker = match &config.docker {
            Some(docker) => connect(docker).await,
            None => None,
        };
        let mut runtimes = Runtimes::new();
        if let Some(process) = &process {
            runtimes.insert(RuntimeKind::Process, process.clone());
        }
        if let Some(docker) = &docker {
            runtimes.insert(RuntimeKind::Docker, docker.clone());
        }
        let controller = Controller::new(runtimes, store, snapshots, fastrand::u64(..));
        Ok(Self { controller, process, docker })
    }

    /// Starts the tasks of all of them.
    pub(super) fn run(self, tasks: &mut Tasks, observations: &ObservationSender, drain: &Drain) {
        if let Some(runtime) = self.process {
            spawn(tasks, process::run(runtime.clone(), observations.clone(), drain.clone()));
            let drain = drain.clone();
            spawn(tasks, async move { runtime.watch_over(drain).await });
        }
        if let Some(runtime) = self.docker {
            spawn(tasks, runtime.watch_over(drain.clone()));
        }
        spawn(tasks, self.controller.run(drain.clone()));
    }
}

async fn connect(config: &crate::provider::docker::DockerProviderConfig) -> Option<Arc<DockerRuntime>> {
    match Engine::connect(&config.url).await {
        Ok(engine) => {
            // What only shows containers with a certain label has to put it on those it makes.
            let labels = config.only_label.iter().cloned().collect();
            let settings = DockerSettings { labels, announce: None, drain_wait: Duration::ZERO };
            Some(Arc::new(DockerRuntime::new(engine.docker, settings)))
        }
        Err(error) => {
            tracing::warn!(
                "no containers can be started before the engine answers and discovery starts again: {error}"
            );
            None
        }
    }
}
