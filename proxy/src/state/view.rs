//! The whole truth at one moment: resources, routing tables made of them, and live clusters that all workers share.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use mesh_core::model::resource::{Listener, Resources};
use rustc_hash::FxHashMap;

use crate::endpoint::LiveCluster;
use crate::route::Router;
use crate::route::dialled::AddressBook;

/// Immutable but for the counters inside the live clusters.
#[derive(Debug, Default)]
pub struct View {
    /// Grows by one with each change.
    pub number: u64,
    pub resources: Arc<Resources>,
    pub routers: FxHashMap<Arc<str>, Arc<Router>>,
    pub clusters: FxHashMap<Arc<str>, Arc<LiveCluster>>,
    /// What captured connections may have dialled.
    pub book: AddressBook,
}

/// The one swap.
pub type SharedView = Arc<ArcSwap<View>>;

impl View {
    /// The view of `resources`, following `old`. What did not change is the very same value as before.
    #[must_use]
    pub fn next(old: &View, resources: Arc<Resources>, now: Instant) -> Self {
        let routers = resources.routes.iter().map(|(name, table)| {
            let unchanged = old.resources.routes.get(name).is_some_and(|before| before == table);
            let kept = old.routers.get(name).filter(|_| unchanged).map(Arc::clone);
            (Arc::clone(name), kept.unwrap_or_else(|| Arc::new(Router::build(table))))
        });
        let clusters = resources.clusters.iter().map(|(name, cluster)| {
            let assignment = resources.assignments.get(name);
            let before = old.clusters.get(name);
            let unchanged = before.is_some_and(|live| live.cluster() == cluster)
                && old.resources.assignments.get(name) == assignment;
            let live = match before {
                Some(live) if unchanged => Arc::clone(live),
                _ => {
                    let before = before.map(|live| &**live);
                    Arc::new(LiveCluster::update(before, Arc::clone(cluster), assignment.cloned(), now))
                }
            };
            (Arc::clone(name), live)
        });
        let (routers, clusters) = (routers.collect(), clusters.collect());
        let book = AddressBook::build(&resources);
        Self { number: old.number + 1, routers, clusters, book, resources }
    }

    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.resources.listeners.get(name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_core::model::policy::Policy;
    use mesh_core::model::protocol::UpstreamProtocol;
    use mesh_core::model::resource::{Cluster, EndpointSource, RouteTable};

    use super::*;

    fn resources(timeout_seconds: u64) -> Arc<Resources> {
        let timeout = Some(std::time::Duration::from_secs(timeout_seconds));
        let cluster = |name: &str, policy: Policy| {
            let (protocol, source) = (UpstreamProtocol::Http1, EndpointSource::Assignment);
            Arc::new(Cluster { name: name.into(), service: None, protocol, policy, source })
        };
        let changing = cluster("changing", Policy { timeout, ..Policy::default() });
        let steady = cluster("steady", Policy::default());
        let table = Arc::new(RouteTable { name: "table".into(), hosts: Vec::new() });
        Arc::new(Resources {
            routes: BTreeMap::from([("table".into(), table)]),
            clusters: [changing, steady].into_iter().map(|cluster| (Arc::clone(&cluster.name), cluster)).collect(),
            ..Resources::default()
        })
    }

    #[test]
    fn what_did_not_change_stays_the_very_same() {
        let now = Instant::now();
        let first = View::next(&View::default(), resources(1), now);
        let second = View::next(&first, resources(2), now);
        assert_eq!((first.number, second.number), (1, 2));
        assert!(Arc::ptr_eq(&first.clusters["steady"], &second.clusters["steady"]));
        assert!(Arc::ptr_eq(&first.routers["table"], &second.routers["table"]));
        assert!(!Arc::ptr_eq(&first.clusters["changing"], &second.clusters["changing"]));
        assert!(
            Arc::ptr_eq(first.clusters["changing"].stats(), second.clusters["changing"].stats()),
            "counters survive"
        );
    }
}
