//! From what is held to what may be published: nothing before what it refers to.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::model::resource::{Assignment, CaptureMap, Cluster, Listener, Resources, RouteTable};

use super::Session;
use crate::decode::{Decoded, DecodedCluster, DecodedRoutes, RoutePolicy};
use crate::kind::Kind;

impl Session {
    /// Publishes anew if that is possible and anything changed; returns whether.
    pub(super) fn publish(&mut self) -> bool {
        let answered = |kind| self.shelves.get(kind).answered;
        let begun = answered(Kind::Cluster) && answered(Kind::Listener);
        if !begun || (self.wants_capture && !answered(Kind::Capture)) {
            return false;
        }
        let nothing = Resources::default();
        let before = self.published.as_deref().unwrap_or(&nothing);
        let (resources, waiting) = self.assemble(before);
        self.waiting = waiting;
        let hold_back = self.published.is_none() && !self.waiting.is_empty() && !self.impatient;
        if hold_back || self.published.as_deref() == Some(&resources) {
            return false;
        }
        self.published = Some(Arc::new(resources));
        true
    }

    pub(super) fn clusters(&self) -> impl Iterator<Item = &Arc<DecodedCluster>> {
        self.shelves.get(Kind::Cluster).resources.values().filter_map(|held| match &held.decoded {
            Decoded::Cluster(cluster) => Some(cluster),
            _ => None,
        })
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.shelves.get(Kind::Listener).resources.values().filter_map(|held| match &held.decoded {
            Decoded::Listener(listener) => Some(listener),
            _ => None,
        })
    }

    fn tables(&self) -> impl Iterator<Item = &Arc<DecodedRoutes>> {
        self.shelves.get(Kind::Route).resources.values().filter_map(|held| match &held.decoded {
            Decoded::Routes(routes) => Some(routes),
            _ => None,
        })
    }

    fn capture(&self) -> Option<&Arc<CaptureMap>> {
        self.shelves.get(Kind::Capture).resources.values().find_map(|held| match &held.decoded {
            Decoded::Capture(map) => Some(map),
            _ => None,
        })
    }

    /// The endpoints of a cluster, under the cluster's own name; none while they are not known.
    fn assignment(&self, cluster: &DecodedCluster) -> Option<Arc<Assignment>> {
        let shelf = self.shelves.get(Kind::Assignment);
        let name = &cluster.cluster.name;
        match shelf.resources.get(&cluster.assignment).map(|held| &held.decoded) {
            Some(Decoded::Assignment(assignment)) if assignment.cluster == *name => Some(assignment.clone()),
            Some(Decoded::Assignment(assignment)) => {
                Some(Arc::new(Assignment { cluster: name.clone(), endpoints: assignment.endpoints.clone() }))
            }
            _ if shelf.absent.contains(&cluster.assignment) => {
                Some(Arc::new(Assignment { cluster: name.clone(), endpoints: Vec::new() }))
            }
            _ => None,
        }
    }

    fn assemble(&self, before: &Resources) -> (Resources, BTreeSet<String>) {
        let mut now = Resources::default();
        let mut waiting = BTreeSet::new();
        self.assemble_clusters(before, &mut now, &mut waiting);
        self.assemble_tables(before, &mut now, &mut waiting);
        self.assemble_listeners(before, &mut now, &mut waiting);
        // Whoever is captured needs something to answer him, so what to capture changes only when all else is whole; but where
        // nothing more is waited for, capturing for what is whole is better than for nothing.
        let is_first = self.impatient && before.capture.is_none();
        now.capture = if waiting.is_empty() || is_first {
            self.capture().map(|map| reuse(before.capture.as_ref(), map.clone()))
        } else {
            before.capture.clone()
        };
        (now, waiting)
    }

    fn assemble_clusters(&self, before: &Resources, now: &mut Resources, waiting: &mut BTreeSet<String>) {
        let policies = self.route_policies();
        for decoded in self.clusters() {
            let name = &decoded.cluster.name;
            match self.assignment(decoded) {
                Some(assignment) => {
                    let cluster = with_route_policy(decoded, policies.get(name).copied());
                    now.clusters.insert(name.clone(), reuse(before.clusters.get(name), cluster));
                    now.assignments.insert(name.clone(), reuse(before.assignments.get(name), assignment));
                }
                None => {
                    waiting.insert(format!("endpoints of cluster {name}"));
                    keep_cluster(name, before, now);
                }
            }
        }
    }

    /// What routes say of timeout and retries of the clusters they lead to; the first table by name wins.
    fn route_policies(&self) -> BTreeMap<&Arc<str>, &RoutePolicy> {
        let mut policies = BTreeMap::new();
        for (name, policy) in self.tables().flat_map(|routes| &routes.policies) {
            policies.entry(name).or_insert(policy);
        }
        policies
    }

    fn assemble_tables(&self, before: &Resources, now: &mut Resources, waiting: &mut BTreeSet<String>) {
        for routes in self.tables() {
            let table = &routes.table;
            let missing = table.hosts.iter().find(|host| !now.clusters.contains_key(&host.cluster));
            match missing {
                None => {
                    let table = reuse(before.routes.get(&table.name), table.clone());
                    now.routes.insert(table.name.clone(), table);
                }
                Some(host) => {
                    waiting.insert(format!("cluster {} of route table {}", host.cluster, table.name));
                    keep_table(&table.name, before, now);
                }
            }
        }
    }

    fn assemble_listeners(&self, before: &Resources, now: &mut Resources, waiting: &mut BTreeSet<String>) {
        for listener in self.listeners() {
            let no_table = listener.routes.as_ref().filter(|table| !now.routes.contains_key(*table));
            let no_cluster = listener.tcp_cluster.as_ref().filter(|cluster| !now.clusters.contains_key(*cluster));
            let name = &listener.name;
            if no_table.is_none() && no_cluster.is_none() {
                now.listeners.insert(name.clone(), reuse(before.listeners.get(name), listener.clone()));
                continue;
            }
            waiting.extend(no_table.map(|table| format!("route table {table} of listener {name}")));
            waiting.extend(no_cluster.map(|cluster| format!("cluster {cluster} of listener {name}")));
            keep_listener(name, before, now);
        }
    }
}

/// What was published under the name stays, with all that it refers to.
fn keep_listener(name: &Arc<str>, before: &Resources, now: &mut Resources) {
    let Some(listener) = before.listeners.get(name) else { return };
    if let Some(table) = &listener.routes {
        keep_table(table, before, now);
    }
    if let Some(cluster) = &listener.tcp_cluster {
        keep_cluster(cluster, before, now);
    }
    now.listeners.insert(name.clone(), listener.clone());
}

fn keep_table(name: &Arc<str>, before: &Resources, now: &mut Resources) {
    let Some(table) = before.routes.get(name) else { return };
    for host in &table.hosts {
        keep_cluster(&host.cluster, before, now);
    }
    let table: Arc<RouteTable> = table.clone();
    now.routes.entry(name.clone()).or_insert(table);
}

fn keep_cluster(name: &Arc<str>, before: &Resources, now: &mut Resources) {
    let (Some(cluster), Some(assignment)) = (before.clusters.get(name), before.assignments.get(name)) else { return };
    now.clusters.entry(name.clone()).or_insert_with(|| cluster.clone());
    now.assignments.entry(name.clone()).or_insert_with(|| assignment.clone());
}

/// A cluster of another control plane has its timeout and retries in the routes that lead to it.
fn with_route_policy(decoded: &DecodedCluster, policy: Option<&RoutePolicy>) -> Arc<Cluster> {
    let Some(policy) = policy.filter(|_| decoded.foreign) else { return decoded.cluster.clone() };
    let mut cluster = Cluster::clone(&decoded.cluster);
    cluster.policy.timeout = policy.timeout;
    cluster.policy.retry.on = policy.retry_on.clone();
    cluster.policy.retry.attempts = policy.attempts;
    cluster.policy.retry.methods = policy.methods;
    Arc::new(cluster)
}

/// The value as it was published before, where it is equal: readers can then tell by the pointer that nothing changed.
fn reuse<T: PartialEq>(before: Option<&Arc<T>>, now: Arc<T>) -> Arc<T> {
    match before {
        Some(before) if **before == *now => before.clone(),
        _ => now,
    }
}
