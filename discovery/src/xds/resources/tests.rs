use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::condition::ConditionKind;
use mesh_core::model::endpoint::{CaptureMode, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::{EndpointId, Name, ServiceId};
use mesh_core::model::protocol::{ListenProtocol, Protocol};
use mesh_core::model::resource::{Bind, CaptureMap, Listener, RouteTable};
use mesh_core::model::service::{Service, ServicePort};
use mesh_core::model::snapshot::{Arriving, Snapshot, Workload};
use mesh_xds::decode::{self, Decoded};
use mesh_xds::{Kind, ResourceSet};

use super::{ClientKind, Settings, build, port_conflicts};

fn id(text: &str) -> ServiceId {
    let (name, namespace) = text.split_once('.').unwrap();
    ServiceId::new(Name::new(name).unwrap(), Name::new(namespace).unwrap())
}

/// A catalogue written `web.shop:8080/http,9000/tcp api.shop:8080/auto`.
fn snapshot(text: &str) -> Snapshot {
    let mut snapshot = Snapshot { number: 1, ..Snapshot::default() };
    for (index, word) in text.split_whitespace().enumerate() {
        let (service, ports) = word.split_once(':').unwrap();
        let port = |text: &str| {
            let (number, protocol) = text.split_once('/').unwrap();
            let protocol = Protocol::ALL.into_iter().find(|one| one.as_str() == protocol).unwrap();
            ServicePort { name: Name::new(number).unwrap(), port: number.parse().unwrap(), protocol }
        };
        let virtual_ip = IpAddr::from([240, 240, 0, index as u8 + 1]);
        let ports = ports.split(',').filter(|text| !text.is_empty()).map(port).collect();
        let service = Service { id: id(service), virtual_ip, ports, policy: Default::default() };
        snapshot.services.insert(service.id.clone(), Arc::new(service));
    }
    snapshot
}

fn endpoint(service: &str, unit: &str, address: &str, ports: &[(&str, u16)]) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        id: EndpointId::new(unit, 1),
        name: unit.into(),
        service: id(service),
        addresses: vec![NetworkAddress { network: "net".into(), address: address.parse().unwrap() }],
        ports: ports.iter().map(|(name, port)| (Name::new(name).unwrap(), *port)).collect::<BTreeMap<_, _>>(),
        weight: 100,
        priority: 0,
        zone: None,
        version: None,
        state: EndpointState::Ready,
        reason: "".into(),
        publish_not_ready: false,
        capture: CaptureMode::Pinned,
        own_names: vec![unit.into()],
        aliases: vec!["alias".into()],
    })
}

fn built(snapshot: &Snapshot, kind: &ClientKind) -> ResourceSet {
    build(snapshot, kind, &Settings::new("240.240.0.0/16".parse().unwrap()))
}

fn bound() -> ClientKind {
    ClientKind { bind_address: Some("127.0.0.1".parse().unwrap()), ..ClientKind::default() }
}

fn decoded(set: &ResourceSet, kind: Kind, name: &str) -> Option<Decoded> {
    let packed = set.by_name(kind, name)?;
    Some(decode::resource(kind, name, &packed.body).unwrap())
}

fn listener(set: &ResourceSet, name: &str) -> Option<Arc<Listener>> {
    match decoded(set, Kind::Listener, name)? {
        Decoded::Listener(listener) => Some(listener),
        other => panic!("{other:?}"),
    }
}

fn table(set: &ResourceSet, name: &str) -> Arc<RouteTable> {
    match decoded(set, Kind::Route, name) {
        Some(Decoded::Routes(routes)) => routes.table.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// `cluster: domain domain`, one line per host.
fn hosts(table: &RouteTable) -> Vec<String> {
    table.hosts.iter().map(|host| format!("{}: {}", host.cluster, host.domains.join(" "))).collect()
}

fn names(set: &ResourceSet, kind: Kind) -> Vec<&str> {
    set.offered(kind).keys().map(|name| &**name).collect()
}

#[test]
fn services_that_share_a_port_are_told_apart_by_authority() {
    let set = built(&snapshot("web.shop:8080/http web.blog:8080/http api.shop:8080/auto"), &bound());
    assert_eq!(names(&set, Kind::Listener), ["127.0.0.1:8080"]);
    let listener = listener(&set, "127.0.0.1:8080").unwrap();
    assert_eq!(listener.protocol, ListenProtocol::Http);
    assert_eq!(listener.tcp_cluster, None, "bytes cannot be told apart");
    let fqdn = "svc.mesh.internal";
    let expected = [
        format!(
            "outbound|8080||api.shop.{fqdn}: api.shop.{fqdn} api.shop.{fqdn}:8080 api.shop api.shop:8080 api api:8080"
        ),
        format!("outbound|8080||web.blog.{fqdn}: web.blog.{fqdn} web.blog.{fqdn}:8080 web.blog web.blog:8080"),
        format!("outbound|8080||web.shop.{fqdn}: web.shop.{fqdn} web.shop.{fqdn}:8080 web.shop web.shop:8080"),
    ];
    assert_eq!(hosts(&table(&set, "8080")), expected);
}

#[test]
fn the_only_http_service_on_a_port_is_its_default() {
    let set = built(&snapshot("web.shop:8080/http api.shop:9090/auto"), &bound());
    assert!(hosts(&table(&set, "8080"))[0].ends_with(" web web:8080 *"));
    let auto = listener(&set, "127.0.0.1:9090").unwrap();
    assert_eq!(auto.protocol, ListenProtocol::Auto);
    assert_eq!(auto.tcp_cluster.as_deref(), Some("outbound|9090||api.shop.svc.mesh.internal"));
}

#[test]
fn a_tcp_service_has_its_port_alone_and_the_first_by_name_has_it() {
    let check = |catalogue: &str, cluster: Option<&str>, losers: &[&str]| {
        let snapshot = snapshot(catalogue);
        let set = built(&snapshot, &bound());
        let listener = listener(&set, "127.0.0.1:7000").unwrap();
        assert_eq!(listener.tcp_cluster.as_deref(), cluster, "{catalogue}");
        assert_eq!(listener.routes.is_some(), cluster.is_none(), "{catalogue}");
        let conditions = port_conflicts(&snapshot);
        let objects: Vec<_> = conditions.iter().map(|condition| &*condition.object).collect();
        assert_eq!(objects, losers, "{catalogue}");
        assert!(conditions.iter().all(|condition| condition.kind == ConditionKind::PortConflict));
        assert_eq!(set.offered(Kind::Cluster).len(), snapshot.services.len(), "clusters are there all the same");
    };
    let a = Some("outbound|7000||a.shop.svc.mesh.internal");
    check("b.shop:7000/tcp a.shop:7000/tcp", a, &["service/b.shop"]);
    check("b.shop:7000/http a.shop:7000/tcp", a, &["service/b.shop"]);
    check("b.shop:7000/tcp a.shop:7000/http c.shop:7000/http", None, &["service/b.shop"]);
    // By name first: namespaces only settle a draw.
    check("b.blog:7000/tcp a.shop:7000/tcp", a, &["service/b.blog"]);
}

#[test]
fn undeclared_ports_that_are_known_as_raw_are_bytes() {
    let set = built(&snapshot("db.shop:5432/auto db2.shop:3306/http"), &bound());
    assert_eq!(listener(&set, "127.0.0.1:5432").unwrap().protocol, ListenProtocol::Tcp);
    assert_eq!(listener(&set, "127.0.0.1:3306").unwrap().protocol, ListenProtocol::Http, "a declared one is not");
}

#[test]
fn a_plain_client_gets_clusters_and_endpoints_and_listeners_by_name_only() {
    let set = built(&snapshot("web.shop:80/http db.shop:5432/tcp"), &ClientKind::default());
    assert_eq!(set.offered(Kind::Cluster).len(), 2);
    assert_eq!(set.offered(Kind::Assignment).len(), 2);
    assert_eq!(names(&set, Kind::Listener), [""; 0]);
    assert_eq!(names(&set, Kind::Capture), [""; 0]);
    let api = listener(&set, "web.shop.svc.mesh.internal:80").unwrap();
    assert_eq!(api.bind, Bind::Api);
    let routes = table(&set, api.routes.as_deref().unwrap());
    assert_eq!(hosts(&routes), ["outbound|80||web.shop.svc.mesh.internal: *"]);
    assert_eq!(listener(&set, "db.shop.svc.mesh.internal:5432"), None, "no gRPC over bytes");
}

#[test]
fn the_http_proxy_tells_all_ports_apart_by_authority() {
    let kind = ClientKind { http_proxy: Some("127.0.0.1:14008".parse().unwrap()), ..bound() };
    let set = built(
        &snapshot("api.shop:8080/http web.shop:80/http,8081/auto db.shop:5432/tcp many.shop:1/http,2/http"),
        &kind,
    );
    let all = hosts(&table(&set, "http_proxy"));
    let of =
        |cluster: &str| all.iter().find(|line| line.starts_with(cluster)).map(|line| line.split_once(": ").unwrap().1);
    let api = "api.shop.svc.mesh.internal api.shop.svc.mesh.internal:8080 api.shop api.shop:8080 api api:8080";
    assert_eq!(of("outbound|8080||api"), Some(api), "its only port needs no number");
    assert!(of("outbound|80||web").unwrap().contains(" web web:80"), "port 80 needs no number");
    assert!(
        of("outbound|8081||web").unwrap().ends_with(" web:8081") && !of("outbound|8081||web").unwrap().contains("web ")
    );
    assert!(!of("outbound|1||many").unwrap().contains("many "), "of several ports each needs its number");
    assert_eq!(of("outbound|5432"), None);
    assert_eq!(listener(&set, "http_proxy").unwrap().bind, Bind::Address("127.0.0.1:14008".parse().unwrap()));
}

#[test]
fn virtual_ips_that_are_loopback_addresses_are_listened_on_by_who_asks_for_it() {
    let mut snapshot = snapshot("web.shop:8080/auto db.shop:5432/tcp db2.shop:5432/tcp");
    for (service, ip) in [("web.shop", "127.240.0.1"), ("db.shop", "127.240.0.2"), ("db2.shop", "127.240.0.3")] {
        let service = snapshot.services.get_mut(&id(service)).unwrap();
        Arc::make_mut(service).virtual_ip = ip.parse().unwrap();
    }
    let listeners = |kind: &ClientKind, range: &str| {
        let set = build(&snapshot, kind, &Settings::new(range.parse().unwrap()));
        names(&set, Kind::Listener).join(" ")
    };
    let kind = ClientKind { virtual_ips: true, ..bound() };
    let all = "127.0.0.1:5432 127.0.0.1:8080 127.240.0.1:8080 127.240.0.2:5432 127.240.0.3:5432";
    assert_eq!(listeners(&kind, "127.240.0.0/16"), all);
    let without = "127.0.0.1:5432 127.0.0.1:8080";
    assert_eq!(listeners(&bound(), "127.240.0.0/16"), without, "not asked for");
    assert_eq!(listeners(&kind, "240.240.0.0/16"), without);
    assert_eq!(listeners(&kind, "126.0.0.0/7"), without, "only in part");
    let everywhere = ClientKind { bind_address: "0.0.0.0".parse().ok(), ..kind.clone() };
    assert_eq!(listeners(&everywhere, "127.240.0.0/16"), "0.0.0.0:5432 0.0.0.0:8080", "it has them already");
    let capturing = ClientKind { outbound: "0.0.0.0:14001".parse().ok(), ..kind.clone() };
    assert_eq!(listeners(&capturing, "127.240.0.0/16"), format!("{all} outbound"));
    let proxy = ClientKind { http_proxy: "0.0.0.0:8080".parse().ok(), bind_address: None, ..kind.clone() };
    assert_eq!(listeners(&proxy, "127.240.0.0/16"), "127.240.0.2:5432 127.240.0.3:5432 http_proxy");

    let set = build(&snapshot, &kind, &Settings::new("127.240.0.0/16".parse().unwrap()));
    let (web, db2) = (listener(&set, "127.240.0.1:8080").unwrap(), listener(&set, "127.240.0.3:5432").unwrap());
    assert_eq!(web.bind, Bind::Address("127.240.0.1:8080".parse().unwrap()));
    assert_eq!(web.protocol, ListenProtocol::Auto);
    assert_eq!(hosts(&table(&set, web.routes.as_deref().unwrap())), ["outbound|8080||web.shop.svc.mesh.internal: *"]);
    assert_eq!(
        db2.tcp_cluster.as_deref(),
        Some("outbound|5432||db2.shop.svc.mesh.internal"),
        "though db has 127.0.0.1:5432"
    );
}

#[test]
fn a_capturing_client_gets_every_virtual_ip_and_what_to_capture() {
    let mut snapshot = snapshot("web.shop:8080/auto db.shop:5432/auto");
    let web = endpoint("web.shop", "web-1", "172.18.0.5", &[("8080", 80)]);
    snapshot.endpoints.insert(id("web.shop"), vec![web].into());
    snapshot.departed.insert("172.18.0.9".parse().unwrap(), id("web.shop"));
    let coming = Arriving { id: EndpointId::new("web-2", 0), service: id("web.shop"), network: "net".into() };
    snapshot.arriving.insert("172.18.0.10".parse().unwrap(), coming);
    snapshot.workloads.push(Arc::new(Workload {
        id: EndpointId::new("web-1", 1),
        name: "web-1".into(),
        service: id("web.shop"),
        namespace_path: "/run/docker/netns/x".into(),
        networks: ["net".into()].into(),
    }));
    let kind = ClientKind { outbound: Some("0.0.0.0:14001".parse().unwrap()), ..ClientKind::default() };
    let set = built(&snapshot, &kind);
    assert_eq!(names(&set, Kind::Listener), ["240.240.0.1:8080", "240.240.0.2:5432", "outbound"]);
    let web = listener(&set, "240.240.0.1:8080").unwrap();
    assert_eq!(web.bind, Bind::Captured("240.240.0.1:8080".parse().unwrap()));
    assert_eq!(hosts(&table(&set, web.routes.as_deref().unwrap())), ["outbound|8080||web.shop.svc.mesh.internal: *"]);
    assert_eq!(web.tcp_cluster.as_deref(), Some("outbound|8080||web.shop.svc.mesh.internal"));
    assert_eq!(listener(&set, "240.240.0.2:5432").unwrap().routes, None);
    let outbound = listener(&set, "outbound").unwrap();
    assert_eq!(outbound.bind, Bind::OriginalDestination("0.0.0.0:14001".parse().unwrap()));

    let Some(Decoded::Capture(map)) = decoded(&set, Kind::Capture, CaptureMap::NAME) else { panic!("no capture map") };
    assert_eq!(map.virtual_ip_range, "240.240.0.0/16".parse().unwrap());
    assert_eq!(map.workloads[0].namespace_path.as_ref(), "/run/docker/netns/x");
    let [present, departed, coming] = &map.addresses[..] else { panic!("{:?}", map.addresses) };
    assert_eq!((present.mode, present.endpoint.clone()), (CaptureMode::Pinned, Some(EndpointId::new("web-1", 1))));
    assert_eq!((present.ports[0].target, present.ports[0].service_port), (80, 8080));
    assert_eq!(present.own_names, ["web-1".into()]);
    let mesh_names = ["alias", "web", "web.shop", "web.shop.svc.mesh.internal"].map(Arc::from);
    assert_eq!(present.service_names, mesh_names);
    assert_eq!((departed.endpoint.clone(), departed.mode), (None, CaptureMode::Auto));
    assert_eq!(departed.ports[0].target, 80, "as its sibling's");
    assert_eq!((coming.endpoint.clone(), &*coming.network), (Some(EndpointId::new("web-2", 0)), "net"));
    assert_eq!((&coming.ports, &coming.service_names), (&departed.ports, &departed.service_names));
}

#[test]
fn a_service_without_ports_has_every_port_for_those_who_capture() {
    let mut snapshot = snapshot("tool.shop:");
    snapshot.endpoints.insert(id("tool.shop"), vec![endpoint("tool.shop", "tool-1", "172.18.0.5", &[])].into());
    let kind = ClientKind { outbound: Some("0.0.0.0:14001".parse().unwrap()), ..ClientKind::default() };
    let set = built(&snapshot, &kind);
    let any = listener(&set, "240.240.0.1:0").unwrap();
    assert_eq!((any.bind, any.protocol), (Bind::Captured("240.240.0.1:0".parse().unwrap()), ListenProtocol::Tcp));
    let cluster = any.tcp_cluster.as_deref().unwrap();
    assert_eq!(names(&set, Kind::Cluster), [cluster]);
    let Some(Decoded::Assignment(assignment)) = decoded(&set, Kind::Assignment, cluster) else { panic!("{cluster}") };
    assert_eq!(assignment.endpoints[0].address.to_string(), "172.18.0.5:0");
    for kind in [ClientKind::default(), bound()] {
        assert_eq!(names(&built(&snapshot, &kind), Kind::Cluster), [""; 0], "nobody else can dial it");
    }
}

#[test]
fn endpoints_keep_their_own_target_port_and_state() {
    let mut snapshot = snapshot("web.shop:8080/http,9090/http");
    let mut draining = Endpoint::clone(&endpoint("web.shop", "b", "10.0.0.2", &[("8080", 81), ("9090", 90)]));
    draining.state = EndpointState::Draining;
    let list = vec![endpoint("web.shop", "a", "10.0.0.1", &[("8080", 80)]), Arc::new(draining)];
    snapshot.endpoints.insert(id("web.shop"), list.into());
    let set = built(&snapshot, &ClientKind::default());
    let targets = |port: u16| match decoded(&set, Kind::Assignment, &id("web.shop").cluster_name(port, "mesh.internal"))
    {
        Some(Decoded::Assignment(assignment)) => {
            assignment.endpoints.iter().map(|one| format!("{} {}", one.address, one.state)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(targets(8080), ["10.0.0.1:80 ready", "10.0.0.2:81 draining"]);
    assert_eq!(targets(9090), ["10.0.0.2:90 draining"], "whoever does not serve a port is not in it");
}
