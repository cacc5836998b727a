//! Which address a service is called at: the one it always had; else one preferred by a hash of its name, so that even a lost
//! store most likely gives the same again; else the next free one.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mesh_core::model::names::ServiceId;

/// Only when the range is full: a service that nobody has seen for this long loses its address to another. Far longer than
/// any resolver keeps an answer (30 s).
pub const RECLAIM_AFTER: Duration = Duration::from_secs(600);

/// What has to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllotmentChange {
    Allotted { service: ServiceId, address: IpAddr },
    Reclaimed { service: ServiceId },
}

/// Who has which address.
#[derive(Debug)]
pub struct VirtualIps {
    range: IpNet,
    by_service: BTreeMap<ServiceId, Allotment>,
    taken: BTreeSet<IpAddr>,
    changes: Vec<AllotmentChange>,
}

#[derive(Debug, Clone, Copy)]
struct Allotment {
    address: IpAddr,
    /// None while some provider sees the service.
    absent_since: Option<Instant>,
}

impl VirtualIps {
    /// `allotted` outside of `range` is forgotten: the range was changed.
    #[must_use]
    pub fn new(range: IpNet, allotted: BTreeMap<ServiceId, IpAddr>, now: Instant) -> Self {
        let mut ips = Self { range, by_service: BTreeMap::new(), taken: BTreeSet::new(), changes: Vec::new() };
        for (service, address) in allotted {
            if ips.is_usable(address) && ips.taken.insert(address) {
                ips.by_service.insert(service, Allotment { address, absent_since: Some(now) });
            }
        }
        ips
    }

    #[must_use]
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// Notes which services are there now.
    pub fn seen<'a>(&mut self, services: impl Iterator<Item = &'a ServiceId>, now: Instant) {
        let present: BTreeSet<&ServiceId> = services.collect();
        for (service, allotment) in &mut self.by_service {
            if present.contains(service) {
                allotment.absent_since = None;
            } else {
                allotment.absent_since.get_or_insert(now);
            }
        }
    }

    /// The address of `service`; none when the range is full.
    pub fn allot(&mut self, service: &ServiceId, now: Instant) -> Option<IpAddr> {
        if let Some(allotment) = self.by_service.get(service) {
            return Some(allotment.address);
        }
        let address = self.free(service).or_else(|| self.reclaim(now))?;
        self.taken.insert(address);
        self.by_service.insert(service.clone(), Allotment { address, absent_since: None });
        self.changes.push(AllotmentChange::Allotted { service: service.clone(), address });
        Some(address)
    }

    pub fn take_changes(&mut self) -> Vec<AllotmentChange> {
        std::mem::take(&mut self.changes)
    }

    /// # Panics
    /// When two services have one address, or one has an address outside the range.
    pub fn check_invariants(&self) {
        let addresses: BTreeSet<IpAddr> = self.by_service.values().map(|allotment| allotment.address).collect();
        assert_eq!(addresses, self.taken, "the addresses taken are not those allotted");
        assert_eq!(addresses.len(), self.by_service.len(), "two services have one virtual IP");
        assert!(addresses.iter().all(|address| self.is_usable(*address)), "a virtual IP is outside of {}", self.range);
    }

    /// The first free address from the preferred one on.
    fn free(&self, service: &ServiceId) -> Option<IpAddr> {
        let usable = self.usable_count();
        if self.taken.len() as u128 >= usable {
            return None;
        }
        let preferred = u128::from(fnv1a(&service.to_string())) % usable;
        // At least one is free, so this ends after as many tries as addresses are taken, at the latest.
        (0..=self.taken.len() as u128)
            .map(|step| self.address_at((preferred + step) % usable))
            .find(|address| !self.taken.contains(address))
    }

    /// Takes the address of the service that has been gone for longest, if that is long enough.
    fn reclaim(&mut self, now: Instant) -> Option<IpAddr> {
        let gone = self.by_service.iter().filter_map(|(service, allotment)| Some((allotment.absent_since?, service)));
        let (since, service) = gone.min()?;
        if now.saturating_duration_since(since) < RECLAIM_AFTER {
            return None;
        }
        let service = service.clone();
        let allotment = self.by_service.remove(&service)?;
        self.taken.remove(&allotment.address);
        self.changes.push(AllotmentChange::Reclaimed { service });
        Some(allotment.address)
    }

    /// First and last of the range stay unused, as network and broadcast address do.
    fn usable_count(&self) -> u128 {
        let bits = u32::from(self.range.max_prefix_len() - self.range.prefix_len()).min(64);
        (1_u128 << bits).saturating_sub(2)
    }

    fn address_at(&self, index: u128) -> IpAddr {
        let offset = index + 1;
        match self.range.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).expect("an IPv4 range has fewer than 2^32 addresses");
                IpAddr::V4(Ipv4Addr::from(u32::from(base) + offset))
            }
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + offset)),
        }
    }

    fn is_usable(&self, address: IpAddr) -> bool {
        self.range.contains(&address) && address != self.range.network() && address != self.range.broadcast()
    }
}

/// FNV-1a, 64 bit: the same on every machine and in every version, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::names::Name;

    fn service(name: &str) -> ServiceId {
        ServiceId::new(Name::new(name).unwrap(), Name::new("shop").unwrap())
    }

    fn ips(range: &str, now: Instant) -> VirtualIps {
        VirtualIps::new(range.parse().unwrap(), BTreeMap::new(), now)
    }

    #[test]
    fn the_same_name_prefers_the_same_address_whatever_came_before() {
        let now = Instant::now();
        let (mut first, mut second) = (ips("240.240.0.0/16", now), ips("240.240.0.0/16", now));
        let address = first.allot(&service("web"), now).unwrap();
        second.allot(&service("api"), now).unwrap();
        assert_eq!(second.allot(&service("web"), now), Some(address));
        // A changed hash would give every service of every user another address on the next start without a store.
        assert_eq!(address, "240.240.202.38".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_range_is_used_to_its_last_address_and_reclaimed_only_from_those_long_gone() {
        let start = Instant::now();
        let mut ips = ips("10.9.0.0/29", start);
        let names: Vec<ServiceId> = (0..6).map(|i| service(&format!("s{i}"))).collect();
        let given: BTreeSet<IpAddr> = names.iter().map(|name| ips.allot(name, start).unwrap()).collect();
        assert_eq!(given.len(), 6, "6 of the 8 addresses of a /29 are usable");
        assert_eq!(ips.allot(&service("late"), start), None);
        ips.seen(names[1..].iter(), start);
        assert_eq!(ips.allot(&service("late"), start + Duration::from_secs(599)), None, "s0 may come back");
        let freed = ips.by_service[&names[0]].address;
        assert_eq!(ips.allot(&service("late"), start + RECLAIM_AFTER), Some(freed));
        assert!(ips.take_changes().contains(&AllotmentChange::Reclaimed { service: names[0].clone() }));
        ips.check_invariants();
    }

    #[test]
    fn what_an_earlier_run_gave_holds_unless_the_range_changed() {
        let now = Instant::now();
        let allotted = BTreeMap::from([
            (service("web"), "10.9.0.3".parse().unwrap()),
            (service("old"), "192.168.0.1".parse().unwrap()),
        ]);
        let mut ips = VirtualIps::new("10.9.0.0/24".parse().unwrap(), allotted, now);
        assert_eq!(ips.allot(&service("web"), now), Some("10.9.0.3".parse().unwrap()));
        assert!(ips.take_changes().is_empty(), "nothing to save");
        let moved = ips.allot(&service("old"), now).unwrap();
        assert!(ips.range().contains(&moved));
        assert!(
            VirtualIps::new("fd00::/64".parse().unwrap(), BTreeMap::new(), now).allot(&service("web"), now).is_some()
        );
        assert!(
            VirtualIps::new("10.0.0.0/31".parse().unwrap(), BTreeMap::new(), now).allot(&service("a"), now).is_none()
        );
    }
}
