//! Whose an address was that nobody has now. Callers remember addresses for longer than containers live; for a while a
//! connection to one that left can still be told to belong to its service.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::{Endpoint, NetworkAddress};
use mesh_core::model::names::ServiceId;
use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;

/// How long an address is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Addresses remembered at most; the ones that would expire first go first.
pub const REMEMBERED_MAX: usize = 16_384;

/// The addresses of those that left.
#[derive(Debug, Default)]
pub struct Departed {
    left: BTreeMap<IpAddr, Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    service: ServiceId,
    until: Instant,
}

impl Departed {
    /// Remembers what `before` had and `endpoints` has no more; forgets what was given out again, be it to an endpoint or to
    /// somebody outside the mesh (`foreign`), and what is too old.
    pub fn update(&mut self, before: &Snapshot, endpoints: &Endpoints, foreign: &BTreeSet<IpAddr>, now: Instant) {
        let mut alive: BTreeSet<IpAddr> = addresses(endpoints).map(|(_, address)| address.address).collect();
        alive.extend(foreign);
        for (service, endpoint) in all(&before.endpoints).filter(|(_, endpoint)| is_lent(endpoint)) {
            for address in endpoint.addresses.iter().filter(|address| !alive.contains(&address.address)) {
                let remembered = Remembered { service: service.clone(), until: now + REMEMBERED_FOR };
                self.left.entry(address.address).or_insert(remembered);
            }
        }
        self.left.retain(|address, remembered| remembered.until > now && !alive.contains(address));
        while self.left.len() > REMEMBERED_MAX {
            let oldest = self.left.iter().min_by_key(|(_, remembered)| remembered.until).map(|(address, _)| *address);
            oldest.map(|address| self.left.remove(&address));
        }
    }

    /// Those whose service is there: it may be gone for a moment while all its containers are made anew.
    #[must_use]
    pub fn known_to(&self, services: &BTreeMap<ServiceId, Arc<Service>>) -> BTreeMap<IpAddr, ServiceId> {
        let known = self.left.iter().filter(|(_, remembered)| services.contains_key(&remembered.service));
        known.map(|(address, remembered)| (*address, remembered.service.clone())).collect()
    }

    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.left.values().map(|remembered| remembered.until).min()
    }
}

/// Whether an engine lent its addresses to the endpoint, and may give them out again. Not what a file says; and not the host's
/// own, under whichever of its addresses a network knows it (its gateways).
fn is_lent(endpoint: &Endpoint) -> bool {
    endpoint.addresses.iter().all(|address| !address.network.is_empty() && &*address.network != "host")
}

type Endpoints = BTreeMap<ServiceId, Arc<[Arc<Endpoint>]>>;

fn all(endpoints: &Endpoints) -> impl Iterator<Item = (&ServiceId, &Arc<Endpoint>)> {
    endpoints.iter().flat_map(|(service, list)| list.iter().map(move |endpoint| (service, endpoint)))
}

fn addresses(endpoints: &Endpoints) -> impl Iterator<Item = (&ServiceId, &NetworkAddress)> {
    all(endpoints).flat_map(|(service, endpoint)| endpoint.addresses.iter().map(move |address| (service, address)))
}
