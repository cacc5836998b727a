//! DNS messages to an assignment.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record};
use mesh_core::model::endpoint::{DEFAULT_WEIGHT, EndpointState};
use mesh_core::model::names::EndpointId;
use mesh_core::model::resource::{Assignment, Target};

/// No answer is used for less: a TTL of 0 must not make a flood of queries.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// No answer is used for longer without asking again.
pub const TTL_MAX: Duration = Duration::from_secs(60);

/// What a resolver said about one SRV name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub services: Vec<SRV>,
    /// By target, in lower case.
    pub addresses: BTreeMap<Name, Vec<IpAddr>>,
    /// When to ask again.
    pub ttl: Duration,
}

impl Answer {
    /// Reads a response to an SRV query. Nothing found is an answer (NODATA); every other code than NOERROR is its error.
    ///
    /// # Errors
    /// The response code. NXDOMAIN too: a resolver that has just started may not know its names yet.
    pub fn read(message: &Message) -> Result<Self, ResponseCode> {
        if message.metadata.response_code != ResponseCode::NoError {
            return Err(message.metadata.response_code);
        }
        let mut answer = Self { ttl: TTL_MAX, ..Self::default() };
        for record in &message.answers {
            if let RData::SRV(service) = &record.data {
                answer.limit_ttl(record.ttl);
                // RFC 2782: the target "." says that the service is decidedly not there.
                if !service.target.is_root() {
                    answer.services.push(service.clone());
                }
            }
        }
        if answer.services.is_empty() {
            for record in &message.authorities {
                if let RData::SOA(soa) = &record.data {
                    answer.limit_ttl(record.ttl.min(soa.minimum)); // RFC 2308 section 5
                }
            }
        }
        answer.add_addresses(&message.additionals);
        Ok(answer)
    }

    /// Takes over the addresses of SRV targets; other names' are none of our business.
    pub fn add_addresses(&mut self, records: &[Record]) {
        for record in records {
            let name = record.name.to_lowercase();
            if !self.services.iter().any(|service| service.target == name) {
                continue;
            }
            let Some(address) = record.data.ip_addr() else { continue };
            self.limit_ttl(record.ttl);
            let known = self.addresses.entry(name).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }

    pub fn limit_ttl(&mut self, seconds: u32) {
        self.ttl = self.ttl.min(Duration::from_secs(seconds.into())).max(TTL_MIN);
    }

    /// Targets whose addresses are still to be asked for.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.services.iter().map(|service| service.target.to_lowercase()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| !self.addresses.contains_key(name));
        names
    }
}

/// The endpoints of `cluster`, in order of id, each address and port once.
#[must_use]
pub fn assignment(cluster: &Arc<str>, answer: &Answer) -> Assignment {
    let all_zero = answer.services.iter().all(|service| service.weight == 0);
    let mut endpoints: BTreeMap<EndpointId, Target> = BTreeMap::new();
    for service in &answer.services {
        // RFC 2782: where nobody weighs anything, weights play no role; beside others, 0 means a very small chance.
        let weight = if all_zero { DEFAULT_WEIGHT } else { u32::from(service.weight.max(1)) };
        let addresses = answer.addresses.get(&service.target.to_lowercase());
        for address in addresses.into_iter().flatten() {
            let address = SocketAddr::new(*address, service.port);
            let target = Target {
                id: EndpointId::new(&address.to_string(), 0),
                address,
                networks: Vec::new(),
                weight,
                priority: u32::from(service.priority),
                zone: None,
                version: None,
                state: EndpointState::Ready,
            };
            // Named twice, the more urgent naming holds, whatever the order of the records.
            let rank = |target: &Target| (target.priority, std::cmp::Reverse(target.weight));
            match endpoints.get(&target.id) {
                Some(known) if rank(known) <= rank(&target) => {}
                _ => drop(endpoints.insert(target.id.clone(), target)),
            }
        }
    }
    Assignment { cluster: cluster.clone(), endpoints: endpoints.into_values().collect() }
}
