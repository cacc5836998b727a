//! The second way in, complete by itself: clusters whose endpoints are SRV records (RFC 2782). A stage between whoever
//! configures the proxy and its state: resources come in, and go out with the assignments that DNS gave.

pub mod records; // messages to an assignment (pure)
pub mod exchange; // one question, one answer

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::resource::{Assignment, EndpointSource, Resources};
use mesh_core::task::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// The first wait after a failure is within this, ...
const RETRY_BASE: Duration = Duration::from_millis(500);
/// ... and no later one is longer than this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Resolved assignments that wait to be merged; their resolvers wait too when it is full.
const RESOLVED_QUEUE_LEN_MAX: usize = 64;

/// What is resolved for one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: Arc<str>,
    resolver: Option<SocketAddr>,
}

/// A cluster under resolution. Dropping it ends that.
#[derive(Debug)]
struct Watched {
    source: Source,
    /// None until the first answer.
    assignment: Option<Arc<Assignment>>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resolves SRV clusters for as long as somebody gives and somebody takes resources.
#[derive(Debug)]
pub struct DnsClusters {
    watched: BTreeMap<Arc<str>, Watched>,
    tasks: JoinSet<()>,
    resolved: mpsc::Sender<(Source, Arc<Assignment>)>,
}

impl DnsClusters {
    /// Passes `input` on, with an assignment for each cluster whose endpoints come from DNS, and again whenever one changes.
    /// Runs on the current runtime until `input`'s sender or every receiver is gone.
    #[must_use]
    pub fn start(mut input: watch::Receiver<Arc<Resources>>) -> watch::Receiver<Arc<Resources>> {
        let first = input.borrow_and_update().clone();
        let (output, receiver) = watch::channel(first);
        tokio::spawn(run(input, output));
        receiver
    }

    /// Begins with clusters that are new, and ends with those that are gone or changed their name or resolver.
    fn follow(&mut self, resources: &Resources) {
        let wanted: BTreeMap<Arc<str>, Source> = resources.clusters.values().filter_map(|c| source_of(c)).collect();
        self.watched.retain(|cluster, watched| wanted.get(cluster) == Some(&watched.source));
        for (cluster, source) in wanted {
            if self.watched.contains_key(&cluster) {
                continue;
            }
            let task = self.tasks.spawn(resolve(cluster.clone(), source.clone(), self.resolved.clone()));
            self.watched.insert(cluster, Watched { source, assignment: None, task });
        }
    }

    /// Whether it was news. An answer to a question that is no longer asked is none.
    fn accept(&mut self, source: &Source, assignment: Arc<Assignment>) -> bool {
        match self.watched.get_mut(&assignment.cluster) {
            Some(watched) if watched.source == *source && watched.assignment.as_ref() != Some(&assignment) => {
                watched.assignment = Some(assignment);
                true
            }
            _ => false,
        }
    }

    fn overlay(&self, resources: &Arc<Resources>) -> Arc<Resources> {
        if self.watched.is_empty() {
            return resources.clone();
        }
        let mut all = Resources::clone(resources);
        let known = self.watched.iter().filter_map(|(name, watched)| Some((name.clone(), watched.assignment.clone()?)));
        all.assignments.extend(known);
        Arc::new(all)
    }
}

fn source_of(cluster: &mesh_core::model::resource::Cluster) -> Option<(Arc<str>, Source)> {
    match &cluster.source {
        EndpointSource::Assignment => None,
        EndpointSource::Dns { name, resolver } => {
            Some((cluster.name.clone(), Source { name: name.clone(), resolver: *resolver }))
        }
    }
}

async fn run(mut input: watch::Receiver<Arc<Resources>>, output: watch::Sender<Arc<Resources>>) {
    let (sender, mut resolved) = mpsc::channel(RESOLVED_QUEUE_LEN_MAX);
    let mut clusters = DnsClusters { watched: BTreeMap::new(), tasks: JoinSet::new(), resolved: sender };
    let mut resources = input.borrow_and_update().clone();
    clusters.follow(&resources);
    loop {
        tokio::select! {
            changed = input.changed() => {
                if changed.is_err() {
                    return;
                }
                resources = input.borrow_and_update().clone();
                clusters.follow(&resources);
            }
            Some((source, assignment)) = resolved.recv() => {
                if !clusters.accept(&source, assignment) {
                    continue;
                }
            }
            () = output.closed() => return,
        }
        // Tasks that were ended leave their results behind.
        while clusters.tasks.try_join_next().is_some() {}
        output.send_replace(clusters.overlay(&resources));
    }
}

/// Resolves one cluster by its records' TTL, for ever. A failure keeps what was known, and is tried again ever later.
async fn resolve(cluster: Arc<str>, source: Source, resolved: mpsc::Sender<(Source, Arc<Assignment>)>) {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX, fastrand::u64(..));
    loop {
        let wait = match exchange::resolve_srv(&source.name, source.resolver).await {
            Ok(answer) => {
                backoff.reset();
                let assignment = Arc::new(records::assignment(&cluster, &answer));
                if resolved.send((source.clone(), assignment)).await.is_err() {
                    return;
                }
                answer.ttl
            }
            Err(error) => {
                let wait = backoff.next_wait();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%cluster, name = %source.name, error, retry_in = ?wait, "keeping the last endpoints");
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}
