//! A file and a control plane together: each says its own part, and a name that both use is a mistake, which is told. The file
//! keeps such a name, since somebody wrote it for this very proxy; what the control plane says of it is refused, and of
//! nothing else.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::resource::{Bind, Resources};
use thiserror::Error;

/// A name, or an address to listen on, that the file and the control plane both use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clash {
    pub kind: Kind,
    pub name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Listener,
    /// Two listeners of different names.
    Address,
    Routes,
    Cluster,
    Assignment,
}

/// Both together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub resources: Resources,
    /// What was refused of the control plane, if anything.
    pub refused: Option<Clashes>,
}

/// Every clash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the file and the control plane both have {}; the file's stays; rename it in the file", list(.clashes))]
pub struct Clashes {
    /// In order, never empty.
    pub clashes: Vec<Clash>,
}

/// Both together, without what clashes of the control plane. Capture is the control plane's alone: a file has none.
#[must_use]
pub fn merge(file: &Resources, control: &Resources) -> Merged {
    let mut clashes = Vec::new();
    let mut resources = Resources {
        listeners: join(Kind::Listener, &file.listeners, &control.listeners, &mut clashes),
        routes: join(Kind::Routes, &file.routes, &control.routes, &mut clashes),
        clusters: join(Kind::Cluster, &file.clusters, &control.clusters, &mut clashes),
        assignments: join(Kind::Assignment, &file.assignments, &control.assignments, &mut clashes),
        capture: control.capture.clone().or_else(|| file.capture.clone()),
    };
    // A cluster of the file whose endpoints are looked up by name has none here, and shall not get the other one's.
    resources.assignments.retain(|name, _| file.assignments.contains_key(name) || !file.clusters.contains_key(name));
    let taken: BTreeMap<SocketAddr, &Arc<str>> =
        file.listeners.values().filter_map(|listener| Some((address(listener.bind)?, &listener.name))).collect();
    for (name, listener) in &control.listeners {
        let address =
            address(listener.bind).filter(|address| taken.get(address).is_some_and(|name| **name != listener.name));
        let Some(address) = address else { continue };
        clashes.push(Clash { kind: Kind::Address, name: address.to_string().into() });
        if !file.listeners.contains_key(name) {
            resources.listeners.remove(name);
        }
    }
    clashes.sort();
    Merged { resources, refused: (!clashes.is_empty()).then_some(Clashes { clashes }) }
}

fn join<T>(
    kind: Kind,
    file: &BTreeMap<Arc<str>, Arc<T>>,
    control: &BTreeMap<Arc<str>, Arc<T>>,
    clashes: &mut Vec<Clash>,
) -> BTreeMap<Arc<str>, Arc<T>> {
    let both = file.keys().filter(|name| control.contains_key(*name));
    clashes.extend(both.map(|name| Clash { kind, name: Arc::clone(name) }));
    control.iter().chain(file).map(|(name, value)| (Arc::clone(name), Arc::clone(value))).collect()
}

/// The address a listener takes on this host; port 0 takes whatever is free.
fn address(bind: Bind) -> Option<SocketAddr> {
    match bind {
        Bind::Address(address) | Bind::OriginalDestination(address) => {
            Some(address).filter(|address| address.port() != 0)
        }
        Bind::Captured(_) | Bind::Api => None,
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Listener => "a listener named",
            Kind::Address => "a listener on",
            Kind::Routes => "a route table named",
            Kind::Cluster => "a cluster named",
            Kind::Assignment => "endpoints for",
        };
        write!(f, "{kind} {}", self.name)
    }
}

fn list(clashes: &[Clash]) -> String {
    clashes.iter().map(Clash::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn file(listen: &str, service: &str) -> Resources {
        let text = format!(
            "listeners: [{{ listen: {listen:?}, service: {service} }}]\nservices: {{ {service}: {{ endpoints: [] }} }}"
        );
        parse("proxy.yaml", &text).unwrap().resources
    }

    #[test]
    fn each_brings_its_own() {
        let both = merge(&file("127.0.0.1:1", "a"), &file("127.0.0.1:2", "b"));
        assert_eq!(both.refused, None);
        let both = both.resources;
        assert_eq!(both.listeners.len(), 2);
        assert_eq!(both.clusters.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(merge(&both, &Resources::default()).resources, both);
        assert_eq!(merge(&Resources::default(), &both).resources, both);
    }

    #[test]
    fn a_name_in_both_is_told() {
        let error = merge(&file("127.0.0.1:1", "a"), &file("127.0.0.1:1", "a")).refused.unwrap();
        let all = "a listener named 127.0.0.1:1, a route table named a, a cluster named a, endpoints for a";
        assert_eq!(
            error.to_string(),
            format!("the file and the control plane both have {all}; the file's stays; rename it in the file")
        );
    }

    #[test]
    fn an_address_in_both_is_told_whatever_its_listeners_are_called() {
        let mut control = file("127.0.0.1:1", "b");
        let (_, mut listener) = control.listeners.pop_first().unwrap();
        Arc::make_mut(&mut listener).name = "web".into();
        control.listeners.insert("web".into(), Arc::clone(&listener));
        let error = merge(&file("127.0.0.1:1", "a"), &control);
        assert_eq!(error.resources.listeners.keys().map(|name| &**name).collect::<Vec<_>>(), ["127.0.0.1:1"]);
        assert!(error.resources.clusters.contains_key("b"), "the cluster is not what clashes");
        let error = error.refused.unwrap();
        assert_eq!(error.clashes, [Clash { kind: Kind::Address, name: "127.0.0.1:1".into() }]);
        Arc::make_mut(&mut listener).bind = Bind::Captured("127.0.0.1:1".parse().unwrap());
        control.listeners.insert("web".into(), listener);
        assert!(merge(&file("127.0.0.1:1", "a"), &control).refused.is_none());
        assert!(
            merge(&file("127.0.0.1:0", "a"), &file("127.0.0.1:0", "b")).refused.is_some(),
            "both named 127.0.0.1:0"
        );
    }

    #[test]
    fn the_file_keeps_a_name_that_both_use_and_nothing_else_is_lost() {
        let own = file("127.0.0.1:1", "a");
        let control = merge(&file("127.0.0.1:2", "a"), &file("127.0.0.1:3", "b")).resources;
        let Merged { resources, refused } = merge(&own, &control);
        assert!(refused.is_some());
        assert!(Arc::ptr_eq(&resources.clusters["a"], &own.clusters["a"]), "the file's stays");
        assert_eq!(resources.listeners.len(), 3);
        assert!(resources.clusters.contains_key("b") && resources.assignments.contains_key("b"));
    }
}
