//! Composer: where the proxy is told what to carry. A file, a control plane, or both; SRV clusters are resolved on top. What
//! comes out is one value behind one channel, whoever said it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::model::resource::Resources;
use mesh_core::task::ready::{NotReady, Readiness, Remark};
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::config::merge::{Clashes, Merged, merge};
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
                let (resources, status, run) = XdsClient::start(config, metrics, file.clone());
                tasks.push(tokio::spawn(run).abort_handle());
                tasks.push(tokio::spawn(hold_until_told(status.clone(), readiness)).abort_handle());
                (Some(resources), Some(status))
            }
            None => (None, None),
        };
        let both = match (file, control) {
            (Some(file), Some(control)) => follow_both(file, control, readiness, &mut tasks),
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

/// Both together, again whenever one changes.
fn follow_both(
    mut file: Channel,
    mut control: Channel,
    readiness: &Readiness,
    tasks: &mut Vec<AbortHandle>,
) -> Channel {
    let mut both = Both::new(readiness.clone());
    let (sender, receiver) = watch::channel(both.merged(&file.borrow_and_update(), &control.borrow_and_update()));
    let follow = async move {
        loop {
            let changed = tokio::select! {
                changed = file.changed() => changed,
                changed = control.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            sender.send_replace(both.merged(&file.borrow_and_update(), &control.borrow_and_update()));
        }
    };
    tasks.push(tokio::spawn(follow).abort_handle());
    receiver
}

/// How a file and a control plane get on. A proxy that clashes with the control plane from its start does not become ready: its
/// file is wrong, and shall not be rolled out. One that was right before stays ready: whoever adds a name to the control
/// plane later must not take every proxy out that has it in a file.
struct Both {
    readiness: Readiness,
    /// What was told last, and is not logged again.
    told: Option<(Clashes, Remark)>,
    /// The control plane said something once that did not clash.
    agreed: bool,
    not_ready: Option<NotReady>,
}

impl Both {
    fn new(readiness: Readiness) -> Self {
        Self { readiness, told: None, agreed: false, not_ready: None }
    }

    fn merged(&mut self, file: &Resources, control: &Resources) -> Arc<Resources> {
        let Merged { resources, refused } = merge(file, control);
        let Some(clashes) = refused else {
            (self.told, self.not_ready) = (None, None);
            self.agreed |= *control != Resources::default();
            return Arc::new(resources);
        };
        if !self.agreed && self.not_ready.is_none() {
            let part = "the file: it has names that the control plane has too (the log and /readyz?verbose name them)";
            self.not_ready = Some(self.readiness.hold(part));
        }
        if self.told.as_ref().is_none_or(|(told, _)| *told != clashes) {
            let words = chain(&clashes);
            tracing::error!("{words}");
            self.told = Some((clashes, self.readiness.remark(words)));
        }
        Arc::new(resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn with_service(name: &str) -> Resources {
        parse("proxy.yaml", &format!("services: {{ {name}: {{ endpoints: [] }} }}")).unwrap().resources
    }

    #[test]
    fn a_clash_from_the_start_is_not_ready_and_a_later_one_is() {
        let readiness = Readiness::default();
        let (a, b, nothing) = (with_service("a"), with_service("b"), Resources::default());
        let mut both = Both::new(readiness.clone());
        both.merged(&a, &nothing);
        assert!(readiness.is_ready(), "there is nothing to clash with yet");
        both.merged(&a, &a);
        assert!(!readiness.is_ready());
        let merged = both.merged(&a, &b);
        assert!(readiness.is_ready(), "the clash is gone");
        assert_eq!(merged.clusters.len(), 2);
        both.merged(&a, &a);
        assert!(readiness.is_ready(), "it was right before");
        assert_eq!(readiness.remarks().len(), 1, "{:?}", readiness.remarks());
        both.merged(&a, &b);
        assert!(readiness.remarks().is_empty());
    }
}
