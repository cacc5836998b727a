//! Step 3 of a container event: what every provider sees, and what probing found out, becomes the next immutable, numbered
//! snapshot; or none, when nothing changed. Pure: `now` comes in, values go out.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod merge; // many observations into one catalogue
pub mod virtual_ip; // which address a service is called at
pub mod first_look; // who must have looked before anything is told
pub mod departed; // whose an address was that nobody has now
pub mod diff; // what changed, in words

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use mesh_core::model::condition::{Condition, ConditionKind};
use mesh_core::model::names::{EndpointId, ServiceId};
use mesh_core::model::service::Service;
use mesh_core::model::snapshot::Snapshot;

use crate::provider::{Observation, ProbeTarget, ProviderName, Sight, Verdict};
use departed::Departed;
use virtual_ip::{AllotmentChange, VirtualIps};

/// All that is known now, and the snapshot made of it.
#[derive(Debug)]
pub struct Registry {
    /// The newest of each provider.
    observations: BTreeMap<ProviderName, Observation>,
    verdicts: BTreeMap<EndpointId, Verdict>,
    virtual_ips: VirtualIps,
    departed: Departed,
    /// What only shows once everything is put together.
    also_told: fn(&Snapshot) -> Vec<Condition>,
    /// Number 0 until the first one is made.
    snapshot: Arc<Snapshot>,
    number_last: u64,
}

impl Registry {
    /// `allotted` is what an earlier run gave to its services; numbers go on after `number_last`.
    #[must_use]
    pub fn new(range: IpNet, allotted: BTreeMap<ServiceId, IpAddr>, number_last: u64, now: Instant) -> Self {
        Self {
            observations: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            virtual_ips: VirtualIps::new(range, allotted, now),
            departed: Departed::default(),
            also_told: |_| Vec::new(),
            snapshot: Arc::default(),
            number_last,
        }
    }

    /// Adds conditions that are found by looking at a whole snapshot, by a part that comes later in the walk.
    #[must_use]
    pub fn also_telling(self, also_told: fn(&Snapshot) -> Vec<Condition>) -> Self {
        Self { also_told, ..self }
    }

    /// Takes what a provider sees now in place of what it saw before.
    pub fn observe(&mut self, provider: ProviderName, observation: Observation) {
        self.observations.insert(provider, observation);
        let known: BTreeSet<&EndpointId> = observed_ids(&self.observations);
        self.verdicts.retain(|id, _| known.contains(id));
    }

    /// Takes what probing found out; an endpoint that left meanwhile is not remembered.
    pub fn judge(&mut self, id: EndpointId, verdict: Verdict) {
        if observed_ids(&self.observations).contains(&id) {
            self.verdicts.insert(id, verdict);
        }
    }

    /// Whether all of `expected` have seen what they tell of, and each endpoint that is to be probed has been, once. Before
    /// that a snapshot would tell the world of losses that are none.
    #[must_use]
    pub fn is_settled(&self, expected: &BTreeSet<ProviderName>) -> bool {
        expected.iter().all(|name| self.sight(name) == Some(Sight::Seen)) && self.is_probed()
    }

    /// Whether each endpoint that is to be probed has been, once.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.probe_targets().iter().all(|target| self.verdicts.contains_key(&target.id))
    }

    /// Whether this provider has seen what it tells of; none when it has not said a word.
    #[must_use]
    pub fn sight(&self, provider: ProviderName) -> Option<Sight> {
        Some(self.observations.get(provider)?.sight)
    }

    /// What this provider says is wrong.
    #[must_use]
    pub fn conditions_of(&self, provider: ProviderName) -> &[Condition] {
        self.observations.get(provider).map_or(&[], |observation| &observation.conditions)
    }

    /// The endpoints whose first accept is still awaited.
    #[must_use]
    pub fn probe_targets(&self) -> Vec<ProbeTarget> {
        let undecided = |id: &EndpointId| matches!(self.verdicts.get(id), None | Some(Verdict::Waiting));
        let observed = self.observations.values().flat_map(|observation| &observation.endpoints);
        observed.filter(|observed| undecided(&observed.endpoint.id)).filter_map(merge::probe_target).collect()
    }

    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// When [`Self::next`] has something to do although nobody said anything.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.departed.next_expiry()
    }

    /// What became of virtual IPs since the last call, to be saved before the snapshot is published.
    pub fn take_allotment_changes(&mut self) -> Vec<AllotmentChange> {
        self.virtual_ips.take_changes()
    }

    /// The next snapshot, when it differs from the one before; the first one in any case.
    pub fn next(&mut self, now: Instant) -> Option<Arc<Snapshot>> {
        let mut merged = merge::merge(&self.observations, &self.verdicts);
        let mut services = BTreeMap::new();
        self.virtual_ips.seen(merged.services.keys(), now);
        for (id, service) in merged.services {
            match self.virtual_ips.allot(&id, now) {
                Some(virtual_ip) => {
                    let service = Service { id: id.clone(), virtual_ip, ports: service.ports, policy: service.policy };
                    services.insert(id, Arc::new(service));
                }
                None => {
                    let message = format!(
                        "no virtual IP is left in {}, so nobody can call it; give --vip-range a larger range",
                        self.virtual_ips.range()
                    );
                    merged.endpoints.remove(&id);
                    let kind = ConditionKind::VirtualIpExhausted;
                    merged.conditions.insert(Condition::new(format!("service/{id}"), kind, message));
                }
            }
        }
        self.departed.update(&self.snapshot, &merged.endpoints, &merged.foreign_addresses, now);
        let arriving = merge::not_there_yet(merged.arriving, &merged.endpoints);
        let mut departed = self.departed.known_to(&services);
        departed.retain(|address, _| !arriving.contains_key(address));
        let mut next = Snapshot {
            number: self.snapshot.number,
            departed,
            arriving,
            services,
            endpoints: merged.endpoints,
            workloads: merged.workloads,
            foreign_namespaces: merged.foreign_namespaces,
            network_names: merged.network_names,
            conditions: merged.conditions,
        };
        next.conditions.extend((self.also_told)(&next));
        if self.snapshot.number > 0 && next == *self.snapshot {
            return None;
        }
        self.number_last += 1;
        self.snapshot = Arc::new(Snapshot { number: self.number_last, ..next });
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        Some(self.snapshot.clone())
    }

    /// What must hold after each change.
    ///
    /// # Panics
    /// When the snapshot contradicts itself, or tells of an endpoint that no provider sees.
    pub fn check_invariants(&self) {
        self.snapshot.check_invariants();
        self.virtual_ips.check_invariants();
        let observed = observed_ids(&self.observations);
        for endpoint in self.snapshot.endpoints.values().flat_map(|list| list.iter()) {
            assert!(observed.contains(&endpoint.id), "endpoint {} is seen by no provider", endpoint.id);
        }
        assert!(self.verdicts.keys().all(|id| observed.contains(id)), "a verdict on nobody is kept");
    }
}

fn observed_ids(observations: &BTreeMap<ProviderName, Observation>) -> BTreeSet<&EndpointId> {
    let endpoints = observations.values().flat_map(|observation| &observation.endpoints);
    endpoints.map(|observed| &observed.endpoint.id).collect()
}

#[cfg(test)]
mod tests;
