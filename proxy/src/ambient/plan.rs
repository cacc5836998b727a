//! What should be captured in which namespace, and who calls from there: out of the map that discovery sends, and of what is
//! there. Pure; namespaces are whatever identity the caller has for them.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::model::endpoint::CaptureMode;
use mesh_core::model::names::ServiceId;
use mesh_core::model::resource::{CaptureMap, CaptureWorkload};

/// The source of calls in metrics and logs while nobody has said whose they are.
pub const UNKNOWN_SOURCE: &str = "unknown";

/// What should hold in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose calls these are, in metrics and logs.
    pub source: Arc<str>,
    /// The services of all containers in it.
    pub services: Arc<[ServiceId]>,
    /// The networks it is on; none while nobody knows.
    pub networks: Arc<[Arc<str>]>,
    /// Somebody has said whose it is.
    pub is_known: bool,
    /// Endpoint addresses whose connections are redirected.
    pub addresses: BTreeSet<IpAddr>,
}

/// What the map wants of each namespace. `namespaces` says which namespace a workload's path is; a path without one is not there.
#[must_use]
pub fn of_workloads<N: Ord + Copy>(map: &CaptureMap, namespaces: &BTreeMap<Arc<str>, N>) -> BTreeMap<N, Wanted> {
    let mut sharing: BTreeMap<N, Vec<&CaptureWorkload>> = BTreeMap::new();
    for workload in &map.workloads {
        if let Some(namespace) = namespaces.get(&workload.namespace_path) {
            sharing.entry(*namespace).or_default().push(workload);
        }
    }
    sharing.into_iter().map(|(namespace, workloads)| (namespace, of_sharing(map, &workloads))).collect()
}

/// Containers that share one namespace: the one that started first owns it, and gives the calls its name.
fn of_sharing(map: &CaptureMap, workloads: &[&CaptureWorkload]) -> Wanted {
    let owner = workloads.iter().min_by_key(|workload| (workload.id.start, &workload.id.unit));
    let source = owner.map_or_else(|| UNKNOWN_SOURCE.into(), |owner| owner.service.to_string().into());
    let services: BTreeSet<&ServiceId> = workloads.iter().map(|workload| &workload.service).collect();
    let networks: BTreeSet<&Arc<str>> = workloads.iter().flat_map(|workload| &workload.networks).collect();
    on_networks(map, source, services, &networks)
}

/// What the namespace that this process shares with an application should have: who that is, is found by its `interfaces`.
#[must_use]
pub fn of_own(map: &CaptureMap, interfaces: &[IpNet]) -> Wanted {
    let mine = |ip: &IpAddr| interfaces.iter().any(|interface| interface.addr() == *ip);
    let own: Vec<_> = map.addresses.iter().filter(|at| at.endpoint.is_some() && mine(&at.address)).collect();
    let ids: BTreeSet<_> = own.iter().filter_map(|at| at.endpoint.as_ref()).collect();
    let workloads: Vec<&CaptureWorkload> = map.workloads.iter().filter(|workload| ids.contains(&workload.id)).collect();
    if !workloads.is_empty() {
        // Its namespace as discovery sees it: containers that share it are told apart by their path alone.
        let path = &workloads[0].namespace_path;
        let sharing: Vec<_> = map.workloads.iter().filter(|workload| workload.namespace_path == *path).collect();
        return of_sharing(map, &sharing);
    }
    let services: BTreeSet<&ServiceId> = own.iter().map(|at| &at.service).collect();
    // One that serves nothing has no address in the map; those of its networks have neighbours that do.
    let reached = |ip: &IpAddr| interfaces.iter().any(|interface| interface.contains(ip));
    let on = map.addresses.iter().filter(|at| !at.network.is_empty() && reached(&at.address));
    let networks: BTreeSet<&Arc<str>> = on.map(|at| &at.network).collect();
    let source = services.first().map_or_else(|| UNKNOWN_SOURCE.into(), |service| service.to_string().into());
    on_networks(map, source, services, &networks)
}

/// A namespace that just appeared, which nobody has named yet: it may turn out to be on any network.
#[must_use]
pub fn of_unnamed(map: &CaptureMap) -> Wanted {
    let addresses = map.addresses.iter().filter(|at| at.mode != CaptureMode::Off).map(|at| at.address).collect();
    Wanted {
        source: UNKNOWN_SOURCE.into(),
        services: Arc::default(),
        networks: Arc::default(),
        is_known: false,
        addresses,
    }
}

/// Whether somebody has said that the namespace at this path is none of ours. Only the file's name is compared: a proxy in a
/// container may see the engine's folder elsewhere.
#[must_use]
pub fn is_foreign(map: &CaptureMap, path: &str) -> bool {
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    map.foreign.iter().any(|foreign| name(foreign) == name(path))
}

/// The host's own namespace: virtual IPs alone. Everything else on the host goes its own way.
#[must_use]
pub fn of_host() -> Wanted {
    Wanted {
        source: "host".into(),
        services: Arc::default(),
        networks: Arc::default(),
        is_known: true,
        addresses: BTreeSet::new(),
    }
}

fn on_networks(
    map: &CaptureMap,
    source: Arc<str>,
    services: BTreeSet<&ServiceId>,
    networks: &BTreeSet<&Arc<str>>,
) -> Wanted {
    // Of an address that is only remembered nobody knows where it was.
    let captured = map
        .addresses
        .iter()
        .filter(|at| at.mode != CaptureMode::Off && (at.network.is_empty() || networks.contains(&at.network)));
    Wanted {
        source,
        services: services.into_iter().cloned().collect(),
        networks: networks.iter().map(|network| Arc::clone(network)).collect(),
        is_known: true,
        addresses: captured.map(|at| at.address).collect(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::model::names::{EndpointId, Name};
    use mesh_core::model::resource::CapturedAddress;

    use super::*;

    fn service(text: &str) -> ServiceId {
        let (name, namespace) = text.split_once('.').unwrap();
        ServiceId::new(Name::new(name).unwrap(), Name::new(namespace).unwrap())
    }

    fn workload(unit: &str, start: u64, of: &str, path: &str, networks: &[&str]) -> CaptureWorkload {
        CaptureWorkload {
            id: EndpointId::new(unit, start),
            name: unit.into(),
            service: service(of),
            namespace_path: path.into(),
            networks: networks.iter().map(|network| Arc::from(*network)).collect(),
        }
    }

    fn address(ip: &str, network: &str, of: &str, endpoint: Option<(&str, u64)>, mode: CaptureMode) -> CapturedAddress {
        CapturedAddress {
            address: ip.parse().unwrap(),
            network: network.into(),
            service: service(of),
            endpoint: endpoint.map(|(unit, start)| EndpointId::new(unit, start)),
            mode,
            ports: Vec::new(),
            own_names: Vec::new(),
            service_names: Vec::new(),
        }
    }

    fn map() -> CaptureMap {
        CaptureMap {
            foreign: Vec::new(),
            virtual_ip_range: "240.240.0.0/16".parse().unwrap(),
            workloads: vec![
                workload("web", 2, "web.shop", "/1", &["front"]),
                workload("helper", 5, "helper.shop", "/1", &["front"]),
                workload("api", 3, "api.shop", "/2", &["front", "back"]),
                workload("gone", 1, "gone.shop", "/3", &["front"]),
            ],
            addresses: vec![
                address("10.0.0.2", "front", "web.shop", Some(("web", 2)), CaptureMode::Auto),
                address("10.0.0.3", "front", "api.shop", Some(("api", 3)), CaptureMode::Pinned),
                address("10.1.0.3", "back", "api.shop", Some(("api", 3)), CaptureMode::Pinned),
                address("10.1.0.4", "back", "db.shop", Some(("db", 3)), CaptureMode::Off),
                address("10.0.0.9", "", "web.shop", None, CaptureMode::Auto),
            ],
        }
    }

    fn shown(wanted: &Wanted) -> String {
        let services: Vec<_> = wanted.services.iter().map(ToString::to_string).collect();
        let addresses: Vec<_> = wanted.addresses.iter().map(ToString::to_string).collect();
        format!("{}: {} on {}: {}", wanted.source, services.join(","), wanted.networks.join(","), addresses.join(","))
    }

    #[test]
    fn each_namespace_is_wanted_once_with_the_addresses_of_its_networks() {
        let namespaces = BTreeMap::from([("/1".into(), 11), ("/2".into(), 22)]);
        let wanted = of_workloads(&map(), &namespaces);
        let found: Vec<_> = wanted.iter().map(|(namespace, wanted)| (*namespace, shown(wanted))).collect();
        let web = "web.shop: helper.shop,web.shop on front: 10.0.0.2,10.0.0.3,10.0.0.9";
        let api = "api.shop: api.shop on back,front: 10.0.0.2,10.0.0.3,10.0.0.9,10.1.0.3";
        assert_eq!(found, [(11, web.to_owned()), (22, api.to_owned())]);
        // Two paths may be one namespace.
        let one = of_workloads(&map(), &BTreeMap::from([("/1".into(), 11), ("/2".into(), 11)]));
        assert_eq!(one.len(), 1);
        assert_eq!(&*one[&11].networks, [Arc::from("back"), Arc::from("front")]);
    }

    #[test]
    fn whose_namespace_it_lives_in_is_found_by_its_addresses() {
        let check = |interfaces: &[&str], expected: &str| {
            let interfaces: Vec<IpNet> = interfaces.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(shown(&of_own(&map(), &interfaces)), expected, "{interfaces:?}");
        };
        check(&["127.0.0.1/8", "10.0.0.2/24"], "web.shop: helper.shop,web.shop on front: 10.0.0.2,10.0.0.3,10.0.0.9");
        // It serves nothing: its network is told by its neighbours.
        check(&["10.1.0.77/24"], "unknown:  on back: 10.0.0.9,10.1.0.3");
        // An endpoint that is no workload.
        check(&["10.1.0.4/24"], "db.shop: db.shop on back: 10.0.0.9,10.1.0.3");
        check(&["192.0.2.1/24"], "unknown:  on : 10.0.0.9");
    }

    #[test]
    fn one_that_nobody_named_yet_may_be_on_any_network() {
        let wanted = of_unnamed(&map());
        assert_eq!(shown(&wanted), "unknown:  on : 10.0.0.2,10.0.0.3,10.0.0.9,10.1.0.3");
        assert!(!wanted.is_known && of_host().is_known && of_host().addresses.is_empty());
    }
}
