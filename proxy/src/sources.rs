//! Composer: where the proxy is told what to carry. A file, a control plane, or both; SRV clusters are resolved on top. What
//! comes out is one value behind one channel, whoever said it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::model::resource::Resources;
use mesh_core::task::ready::Readiness;
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::config::merge::{Clashes, merge};
use crate::config::watch::{ConfigWatch, WatchError};
use crate::dns::DnsClusters;
use crate::error::chain;
use crate::state::view::SharedView;
use crate::xds::{self, XdsClient, XdsConfig, XdsStatus};

/// Who tells.
#[derive(Debug, Default)]
pub struct Sources {
    /// A file that was read already, and is followed.
    pub file: Option<(PathBuf, Config)>,
    pub control: Option<XdsConfig>,
}

/// Why sources cannot be listened to.
#[derive(Debug, Error)]
pub enum SourcesError {
    #[error("the file cannot be followed")]
    File(#[from] WatchError),
    #[error("what the client of the control plane counts cannot be shown")]
    Metrics(#[from] prometheus::Error),
}

/// What is told, for as long as this is held.
#[derive(Debug)]
pub struct Told {
    pub resources: watch::Receiver<Arc<Resources>>,
    /// How it stands with the control plane; none without one.
    pub status: Option<watch::Receiver<XdsStatus>>,
    /// Who is told back.
    control: Option<(XdsConfig, xds::Metrics)>,
    tasks: Vec<AbortHandle>,
}

impl Told {
    /// From here on the control plane is told back how endpoints fare, as `view` shows them; and `registry` shows how it goes with
    /// the control plane. Without one, nothing happens.
    ///
    /// # Errors
    /// [`SourcesError::Metrics`] when the registry has such metrics already.
    pub fn tell_back(&mut self, view: SharedView, registry: &Registry) -> Result<(), SourcesError> {
        let (Some((config, metrics)), Some(status)) = (&self.control, &self.status) else { return Ok(()) };
        metrics.register(registry)?;
        let clusters = Box::new(move || view.load().clusters.values().map(Arc::clone).collect());
        let run = XdsClient::report(config.clone(), status.clone(), clusters, metrics.clone());
        self.tasks.push(tokio::spawn(run).abort_handle());
        Ok(())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Sources {
    /// Starts listening to all of them, on the current runtime. The proxy is not ready before the control plane has said
    /// something, or its last words were found on disk.
    ///
    /// # Errors
    /// [`SourcesError::File`] when the file cannot be followed.
    pub fn start(self, readiness: &Readiness) -> Result<Told, SourcesError> {
        let mut tasks = Vec::new();
        let file = match self.file {
            Some((path, config)) => Some(follow_file(&path, config, &mut tasks)?),
            None => None,
        };
        let told_back = match self.control {
            Some(config) => Some((config, xds::Metrics::new()?)),
            None => None,
        };
        let (control, status) = match told_back.clone() {
            Some((config, metrics)) => {
                let (resources, status, run) = XdsClient::start(config, metrics);
                tasks.push(tokio::spawn(run).abort_handle());
                tasks.push(tokio::spawn(hold_until_told(status.clone(), readiness)).abort_handle());
                (Some(resources), Some(status))
            }
            None => (None, None),
        };
        let both = match (file, control) {
            (Some(file), Some(control)) => follow_both(file, control, &mut tasks),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => watch::channel(Arc::default()).1,
        };
        Ok(Told { resources: DnsClusters::start(both), status, control: told_back, tasks })
    }
}

type Channel = watch::Receiver<Arc<Resources>>;

fn follow_file(path: &Path, config: Config, tasks: &mut Vec<AbortHandle>) -> Result<Channel, WatchError> {
    let (sender, receiver) = watch::channel(Arc::new(config.resources.clone()));
    let mut file = ConfigWatch::start(path, config)?;
    let follow = async move {
        loop {
            let changed = file.changed().await;
            if sender.send(Arc::new(changed.resources)).is_err() {
                return;
            }
        }
    };
    tasks.push(tokio::spawn(follow).abort_handle());
    Ok(receiver)
}

fn hold_until_told(mut status: watch::Receiver<XdsStatus>, readiness: &Readiness) -> impl Future<Output = ()> + use<> {
    let not_ready = readiness.hold("the control plane's first answer");
    async move {
        // The sender lives as long as the client; without it nobody will be told any more.
        let _ = status.wait_for(|status| status.published).await;
        drop(not_ready);
    }
}

/// Both together, again whenever one changes. While they clash, what was last without a clash stays.
fn follow_both(mut file: Channel, mut control: Channel, tasks: &mut Vec<AbortHandle>) -> Channel {
    let first = merged(&file.borrow_and_update(), &control.borrow_and_update());
    let (sender, receiver) = watch::channel(first.unwrap_or_default());
    let follow = async move {
        loop {
            let changed = tokio::select! {
                changed = file.changed() => changed,
                changed = control.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            if let Some(both) = merged(&file.borrow_and_update(), &control.borrow_and_update()) {
                sender.send_replace(both);
            }
        }
    };
    tasks.push(tokio::spawn(follow).abort_handle());
    receiver
}

fn merged(file: &Resources, control: &Resources) -> Option<Arc<Resources>> {
    let told = |clashes: Clashes| tracing::error!("{}; what was told before stays", chain(&clashes));
    merge(file, control).map_err(told).map(Arc::new).ok()
}
