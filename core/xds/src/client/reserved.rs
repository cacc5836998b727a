//! What is somebody else's on this side: the names, and the addresses to listen on, that a proxy's own file has. What a control
//! plane says under them is rejected, so that whoever runs it learns of it; it is kept all the same, for the day when the
//! file gives the name up.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::resource::{Bind, Resources};

use crate::decode::{DecodeError, Decoded};
use crate::kind::Kind;

/// Names by kind, and addresses with the name of the listener there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    names: BTreeMap<Kind, BTreeSet<Arc<str>>>,
    addresses: BTreeMap<SocketAddr, Arc<str>>,
}

impl Reserved {
    /// Everything that `resources` name.
    #[must_use]
    pub fn by(resources: &Resources) -> Self {
        let names = [
            (Kind::Cluster, resources.clusters.keys().cloned().collect()),
            (Kind::Assignment, resources.assignments.keys().cloned().collect()),
            (Kind::Listener, resources.listeners.keys().cloned().collect()),
            (Kind::Route, resources.routes.keys().cloned().collect()),
        ];
        let listeners = resources.listeners.values();
        let addresses = listeners.filter_map(|listener| Some((address(listener.bind)?, listener.name.clone())));
        Self { names: names.into(), addresses: addresses.collect() }
    }

    /// Why a resource cannot be had beside these; none if it can.
    pub(super) fn objection(&self, kind: Kind, decoded: &Decoded) -> Option<DecodeError> {
        let resource = decoded.name();
        if self.names.get(&kind).is_some_and(|names| names.contains(resource)) {
            return Some(DecodeError::Taken { kind, resource: resource.to_owned() });
        }
        let Decoded::Listener(listener) = decoded else { return None };
        let address = address(listener.bind)?;
        let holder = self.addresses.get(&address)?;
        let (resource, holder) = (resource.to_owned(), holder.to_string());
        Some(DecodeError::AddressTaken { resource, address, holder })
    }
}

/// The address a listener takes on this host; port 0 takes whatever is free.
fn address(bind: Bind) -> Option<SocketAddr> {
    match bind {
        Bind::Address(address) | Bind::OriginalDestination(address) => Some(address).filter(|it| it.port() != 0),
        Bind::Captured(_) | Bind::Api => None,
    }
}
