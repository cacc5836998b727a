//! What each name holds: the mesh zone in the shape of the Kubernetes DNS specification 1.1.0, the reverse names of addresses
//! we know, and the names that RFC 6761 keeps local. A name is absent (NXDOMAIN), present with other types only (NODATA,
//! RFC 2308), or somebody else's.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;
use mesh_core::model::endpoint::{Endpoint, EndpointState};
use mesh_core::model::names::{Name as MeshName, ServiceId};
use mesh_core::model::service::{Service, ServicePort};
use mesh_core::model::snapshot::Snapshot;

/// How long a virtual IP may be remembered: it never changes while its service exists.
pub const VIRTUAL_IP_TTL_SECONDS: u32 = 30;
/// How long a list of endpoints may be remembered; also of what is not there (RFC 2308 section 5).
pub const ENDPOINTS_TTL_SECONDS: u32 = 5;
/// Names fixed by an RFC or by the configuration.
const FIXED_TTL_SECONDS: u32 = 3600;
/// The edition of the Kubernetes DNS specification that the names follow.
const DNS_VERSION: &str = "1.1.0";

/// The zone we are the authority for.
#[derive(Debug, Clone)]
pub struct Zone {
    apex: Name,
    /// Labels of the apex, lower case.
    depth: usize,
    /// Where the name server named by the NS record is, where that is one address.
    server: Option<IpAddr>,
    /// Their reverse names are ours, whether a service has them or not.
    virtual_ips: Option<IpNet>,
}

/// What a question found.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// Not ours to answer.
    Foreign,
    /// Ours, and nobody can say yet: no catalogue has been published.
    Unknown,
    /// Ours, and no such name; `authority` is the zone whose SOA says so.
    Missing { authority: Name },
    /// The name exists; without an answer it has no record of the type (NODATA).
    Present { authority: Name, answers: Vec<Record>, additionals: Vec<Record> },
}

/// One question, its name as it was asked: answers repeat its case (0x20).
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub name: &'a Name,
    pub kind: RecordType,
    /// Where it comes from: an endpoint that is on several networks is named by its address on one that the asker is on too.
    pub source: Option<IpAddr>,
}

impl Zone {
    /// The zone called `zone` (`mesh.internal`), served at `server`.
    ///
    /// # Errors
    /// When `zone` is no domain name.
    pub fn new(zone: &str, server: Option<IpAddr>) -> Result<Self, ProtoError> {
        let mut apex = Name::from_ascii(zone)?.to_lowercase();
        apex.set_fqdn(true);
        let depth = apex.iter().len();
        Ok(Self { apex, depth, server, virtual_ips: None })
    }

    /// Answers for the reverse names of `range` too.
    #[must_use]
    pub fn with_virtual_ips(self, range: IpNet) -> Self {
        Self { virtual_ips: Some(range), ..self }
    }

    #[must_use]
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Looks `question` up. `random` orders lists of endpoints.
    #[must_use]
    pub fn lookup(&self, question: Question<'_>, snapshot: &Snapshot, random: &mut fastrand::Rng) -> Lookup {
        if self.apex.zone_of(question.name) {
            if snapshot.number == 0 {
                return Lookup::Unknown;
            }
            return self.lookup_own(question, snapshot, random);
        }
        if let Some(found) = self.lookup_reverse(question, snapshot) {
            return found;
        }
        lookup_special(question)
    }

    /// Start of authority, for the apex and for every negative answer.
    #[must_use]
    pub fn soa(&self, authority: &Name, serial: u64) -> Record {
        let mailbox = prefixed(&["hostmaster"], &self.apex);
        // A serial wraps around (RFC 1982), so the low half is the right one.
        let data = SOA::new(self.server_name(), mailbox, serial as u32, 7200, 1800, 86_400, ENDPOINTS_TTL_SECONDS);
        Record::from_rdata(authority.clone(), ENDPOINTS_TTL_SECONDS, RData::SOA(data))
    }

    fn server_name(&self) -> Name {
        prefixed(&["ns", "dns"], &self.apex)
    }

    fn lookup_own(&self, question: Question<'_>, snapshot: &Snapshot, random: &mut fastrand::Rng) -> Lookup {
        let lower = question.name.to_lowercase();
        let labels: Vec<&str> = match lower.iter().rev().skip(self.depth).map(std::str::from_utf8).collect() {
            Ok(labels) => labels,
            // Our names are ASCII: bytes that are not UTF-8 name nothing here.
            Err(_) => return self.missing(),
        };
        match labels.as_slice() {
            [] => self.apex_records(question, snapshot),
            ["dns"] | ["svc"] => self.present(Vec::new()),
            ["dns", "ns"] => self.present(address_records(question, self.server, FIXED_TTL_SECONDS)),
            ["dns-version"] if question.kind == RecordType::TXT => {
                let text = RData::TXT(TXT::new(vec![DNS_VERSION.to_owned()]));
                self.present(vec![Record::from_rdata(question.name.clone(), VIRTUAL_IP_TTL_SECONDS, text)])
            }
            ["dns-version"] => self.present(Vec::new()),
            ["svc", namespace] => {
                let known = snapshot.services.keys().any(|id| id.namespace.as_str() == *namespace);
                if known { self.present(Vec::new()) } else { self.missing() }
            }
            ["svc", namespace, name, rest @ ..] => match find_service(snapshot, name, namespace) {
                Some(service) => self.lookup_service(question, service, rest, snapshot, random),
                None => self.missing(),
            },
            _ => self.missing(),
        }
    }

    /// Names at and below a service; `rest` are the labels below it, nearest first.
    fn lookup_service(
        &self,
        question: Question<'_>,
        service: &Service,
        rest: &[&str],
        snapshot: &Snapshot,
        random: &mut fastrand::Rng,
    ) -> Lookup {
        let endpoints = snapshot.endpoints_of(&service.id);
        match rest {
            [] => self.present(address_records(question, Some(service.virtual_ip), VIRTUAL_IP_TTL_SECONDS)),
            ["tasks"] => {
                let named = endpoints.iter().filter(|endpoint| is_task(endpoint)).map(AsRef::as_ref);
                let networks = networks_of(question.source, snapshot);
                let named = shuffled(named, random).into_iter();
                let addresses = named.filter_map(|endpoint| address_for(endpoint, &networks));
                self.present(address_records(question, addresses, ENDPOINTS_TTL_SECONDS))
            }
            ["_tcp"] if !service.ports.is_empty() => self.present(Vec::new()),
            ["_tcp", port] => match port.strip_prefix('_').and_then(|port| find_port(service, port)) {
                Some(_) if question.kind != RecordType::SRV => self.present(Vec::new()),
                Some(port) => {
                    let takers = endpoints.iter().filter(|endpoint| endpoint.takes_requests()).map(AsRef::as_ref);
                    let networks = networks_of(question.source, snapshot);
                    let reached = shuffled(takers, random).into_iter();
                    let reached = reached.filter_map(|one| Some((one, address_for(one, &networks)?))).collect();
                    self.service_records(question, &service.id, port, reached)
                }
                None => self.missing(),
            },
            [dashed] => {
                // Any state: a target that was just handed out still resolves while its endpoint drains.
                let address = address_of_label(dashed).filter(|address| {
                    endpoints.iter().flat_map(|endpoint| &endpoint.addresses).any(|known| known.address == *address)
                });
                match address {
                    Some(address) => self.present(address_records(question, Some(address), ENDPOINTS_TTL_SECONDS)),
                    None => self.missing(),
                }
            }
            _ => self.missing(),
        }
    }

    /// SRV records (RFC 2782), and their targets' addresses as additional ones.
    fn service_records(
        &self,
        question: Question<'_>,
        service: &ServiceId,
        port: &ServicePort,
        endpoints: Vec<(&Endpoint, IpAddr)>,
    ) -> Lookup {
        let parent = self.service_name(service);
        // A weight has 16 bits there: larger ones shrink together, so that their ratio stays.
        let heaviest =
            endpoints.iter().map(|(endpoint, _)| endpoint.weight).max().unwrap_or(0).max(u32::from(u16::MAX));
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (endpoint, address) in endpoints {
            let Some(target_port) = endpoint.ports.get(&port.name) else { continue };
            let target = prefixed(&[&label_of_address(address)], &parent);
            let weight = u64::from(endpoint.weight) * u64::from(u16::MAX) / u64::from(heaviest);
            let weight = u16::try_from(weight).unwrap_or(u16::MAX).max(1);
            let priority = u16::try_from(endpoint.priority).unwrap_or(u16::MAX);
            let data = RData::SRV(SRV::new(priority, weight, *target_port, target.clone()));
            answers.push(Record::from_rdata(question.name.clone(), ENDPOINTS_TTL_SECONDS, data));
            let additional = Record::from_rdata(target, ENDPOINTS_TTL_SECONDS, address_data(address));
            // Several endpoints may share an address and differ by port.
            if !additionals.contains(&additional) {
                additionals.push(additional);
            }
        }
        Lookup::Present { authority: self.apex.clone(), answers, additionals }
    }

    fn apex_records(&self, question: Question<'_>, snapshot: &Snapshot) -> Lookup {
        match question.kind {
            RecordType::SOA => self.present(vec![self.soa(question.name, snapshot.number)]),
            RecordType::NS => {
                let data = RData::NS(NS(self.server_name()));
                self.present(vec![Record::from_rdata(question.name.clone(), FIXED_TTL_SECONDS, data)])
            }
            _ => self.present(Vec::new()),
        }
    }

    /// Names of addresses that we know, of all virtual IPs, and of the loopback address; others are somebody else's.
    fn lookup_reverse(&self, question: Question<'_>, snapshot: &Snapshot) -> Option<Lookup> {
        let mut lower = question.name.to_lowercase();
        lower.set_fqdn(true);
        let network = lower.parse_arpa_name().ok()?;
        let is_address = network.prefix_len() == network.max_prefix_len();
        let ours = self.virtual_ips.filter(|range| range.contains(&network));
        let known = is_address.then(|| self.name_of_address(network.addr(), snapshot)).flatten();
        let (target, ttl) = match (ours, known) {
            (Some(_), _) if snapshot.number == 0 => return Some(Lookup::Unknown),
            (_, Some(known)) => known,
            // Never asked elsewhere: nobody else can know, and need not see.
            (Some(range), None) => {
                let labels_of_prefix = range.prefix_len() / if range.addr().is_ipv4() { 8 } else { 4 };
                let authority = question.name.trim_to(2 + usize::from(labels_of_prefix));
                let empty = Lookup::Present { authority: authority.clone(), answers: vec![], additionals: vec![] };
                return Some(if is_address { Lookup::Missing { authority } } else { empty });
            }
            (None, None) => return None,
        };
        let mut answers = Vec::new();
        if question.kind == RecordType::PTR {
            answers.push(Record::from_rdata(question.name.clone(), ttl, RData::PTR(PTR(target))));
        }
        Some(Lookup::Present { authority: question.name.clone(), answers, additionals: Vec::new() })
    }

    fn name_of_address(&self, address: IpAddr, snapshot: &Snapshot) -> Option<(Name, u32)> {
        if let Some(service) = snapshot.services.values().find(|service| service.virtual_ip == address) {
            return Some((self.service_name(&service.id), VIRTUAL_IP_TTL_SECONDS));
        }
        let mut endpoints = snapshot.endpoints.values().flat_map(|list| list.iter());
        let known = endpoints.find(|endpoint| endpoint.addresses.iter().any(|known| known.address == address));
        if let Some(endpoint) = known {
            let name = prefixed(&[&label_of_address(address)], &self.service_name(&endpoint.service));
            return Some((name, ENDPOINTS_TTL_SECONDS));
        }
        // RFC 6303 section 4: the loopback's reverse name is answered locally.
        let loopback = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
        loopback.then(|| (prefixed(&["localhost"], &Name::root()), FIXED_TTL_SECONDS))
    }

    fn service_name(&self, id: &ServiceId) -> Name {
        prefixed(&[id.name.as_str(), id.namespace.as_str(), "svc"], &self.apex)
    }

    fn present(&self, answers: Vec<Record>) -> Lookup {
        Lookup::Present { authority: self.apex.clone(), answers, additionals: Vec::new() }
    }

    fn missing(&self) -> Lookup {
        Lookup::Missing { authority: self.apex.clone() }
    }
}

/// RFC 6761 section 6.3 (`localhost`) and 6.4 (`invalid`); RFC 7686 (`onion`).
fn lookup_special(question: Question<'_>) -> Lookup {
    let Some(top) = question.name.iter().next_back() else { return Lookup::Foreign };
    let is = |name: &str| top.eq_ignore_ascii_case(name.as_bytes());
    let authority = |name: &str| prefixed(&[name], &Name::root());
    if is("localhost") {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let answers = address_records(question, loopback, FIXED_TTL_SECONDS);
        return Lookup::Present { authority: authority("localhost"), answers, additionals: Vec::new() };
    }
    for name in ["invalid", "onion"] {
        if is(name) {
            return Lookup::Missing { authority: authority(name) };
        }
    }
    Lookup::Foreign
}

fn find_service<'a>(snapshot: &'a Snapshot, name: &str, namespace: &str) -> Option<&'a Service> {
    let id = ServiceId::new(MeshName::new(name).ok()?, MeshName::new(namespace).ok()?);
    snapshot.services.get(&id).map(AsRef::as_ref)
}

/// By name first: a port may be called `80` and be another one.
fn find_port<'a>(service: &'a Service, port: &str) -> Option<&'a ServicePort> {
    service.port_named(port).or_else(|| {
        // `_080` and `_+80` are not how a number is written.
        let number: u16 = port.parse().ok().filter(|number: &u16| number.to_string() == port)?;
        service.port_numbered(number)
    })
}

/// The networks of the container that asks from `source`; none where no container of the mesh has that address.
fn networks_of(source: Option<IpAddr>, snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    let Some(source) = source else { return BTreeSet::new() };
    let mut endpoints = snapshot.endpoints.values().flat_map(|list| list.iter());
    let asks = endpoints.find(|endpoint| endpoint.addresses.iter().any(|own| own.address == source));
    let Some(asks) = asks else { return BTreeSet::new() };
    let its = snapshot.workloads.iter().filter(|workload| workload.id == asks.id);
    let networks = its.flat_map(|workload| &workload.networks);
    networks.chain(asks.addresses.iter().map(|own| &own.network)).cloned().collect()
}

/// The endpoint's address on a network that the asker is on too; else the first.
fn address_for(endpoint: &Endpoint, networks: &BTreeSet<Arc<str>>) -> Option<IpAddr> {
    let shared = endpoint.addresses.iter().find(|address| networks.contains(&address.network));
    shared.map(|address| address.address).or_else(|| endpoint.address())
}

fn is_task(endpoint: &Endpoint) -> bool {
    match endpoint.state {
        EndpointState::Ready => true,
        EndpointState::NotReady => endpoint.publish_not_ready,
        EndpointState::Draining => false,
    }
}

/// A random order in which a heavier endpoint tends to stand earlier, in proportion to its weight; lower priority numbers
/// first, and weight 0 last within its priority. (Each draws an arrival time at the rate of its weight.)
fn shuffled<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, random: &mut fastrand::Rng) -> Vec<&'a Endpoint> {
    let mut drawn: Vec<(u32, f64, &Endpoint)> = endpoints
        .map(|endpoint| {
            let arrival = -(1.0 - random.f64()).ln() / f64::from(endpoint.weight);
            (endpoint.priority, if endpoint.weight == 0 { f64::INFINITY } else { arrival }, endpoint)
        })
        .collect();
    drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    drawn.into_iter().map(|(_, _, endpoint)| endpoint).collect()
}

fn address_records(question: Question<'_>, addresses: impl IntoIterator<Item = IpAddr>, ttl: u32) -> Vec<Record> {
    // An RRset holds no record twice (RFC 2181 section 5), and endpoints may share an address.
    let mut seen = BTreeSet::new();
    let of_kind = |address: &IpAddr| match address {
        IpAddr::V4(_) => question.kind == RecordType::A,
        IpAddr::V6(_) => question.kind == RecordType::AAAA,
    };
    let chosen = addresses.into_iter().filter(of_kind).filter(|address| seen.insert(*address));
    chosen.map(|address| Record::from_rdata(question.name.clone(), ttl, address_data(address))).collect()
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// `10-0-0-5`; `fd00--5`, with a 0 where a dash would stand at an end.
fn label_of_address(address: IpAddr) -> String {
    let dashed = address.to_string().replace(['.', ':'], "-");
    let first = if dashed.starts_with('-') { "0" } else { "" };
    let last = if dashed.ends_with('-') { "0" } else { "" };
    format!("{first}{dashed}{last}")
}

fn address_of_label(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    let address = v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()?;
    // One spelling of each address, or one endpoint would have many names.
    (label_of_address(address) == label).then_some(address)
}

/// `labels` in front of `parent`.
fn prefixed(labels: &[&str], parent: &Name) -> Name {
    let all = labels.iter().map(|label| label.as_bytes()).chain(parent.iter());
    // Only a zone of more than a hundred characters could make a name too long (RFC 1035 section 2.3.4): then its parent
    // stands in, and never a panic.
    Name::from_labels(all).unwrap_or_else(|_| parent.clone())
}
