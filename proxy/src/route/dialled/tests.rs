use mesh_core::model::names::Name;
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::{ListenProtocol, UpstreamProtocol};
use mesh_core::model::resource::{CaptureMap, Cluster, EndpointSource, Listener};

use super::*;

const FQDN: &str = "web.shop.svc.mesh.internal";

fn service(text: &str) -> ServiceId {
    let (name, namespace) = text.split_once('.').unwrap();
    ServiceId::new(Name::new(name).unwrap(), Name::new(namespace).unwrap())
}

fn cluster(service: &ServiceId, port: u16) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: service.cluster_name(port, "mesh.internal").into(),
        service: Some(service.clone()),
        protocol: UpstreamProtocol::AsDownstream,
        policy: Policy::default(),
        source: EndpointSource::Assignment,
    })
}

fn captured(ip: &str, network: &str, endpoint: Option<&str>, mode: CaptureMode) -> CapturedAddress {
    let port = |target, service_port| CapturedPort { target, service_port, protocol: Protocol::Auto };
    CapturedAddress {
        address: ip.parse().unwrap(),
        network: network.into(),
        service: service("web.shop"),
        endpoint: endpoint.map(|unit| EndpointId::new(unit, 1)),
        mode,
        // The last one is of a cluster that nobody has told about.
        ports: vec![port(8080, 80), port(9090, 9090), port(7070, 7070)],
        own_names: vec!["shop-web-1".into(), "0123456789ab".into()],
        service_names: [FQDN, "web", "web.shop", "shop-web-1"].map(Arc::from).to_vec(),
    }
}

fn book() -> AddressBook {
    let listeners = ["240.240.0.7:80", "240.240.0.8:0", "240.240.0.8:90"].map(|socket| {
        Arc::new(Listener::new(socket.into(), Bind::Captured(socket.parse().unwrap()), ListenProtocol::Auto))
    });
    let clusters = [cluster(&service("web.shop"), 80), cluster(&service("web.shop"), 9090)];
    let addresses = vec![
        captured("10.0.0.2", "front", Some("a"), CaptureMode::Auto),
        captured("10.0.0.3", "front", Some("b"), CaptureMode::Service),
        captured("10.0.0.4", "front", Some("c"), CaptureMode::Pinned),
        captured("10.0.0.5", "front", Some("d"), CaptureMode::Off),
        captured("10.0.0.6", "", None, CaptureMode::Auto),
        // One address on two networks.
        captured("10.0.0.9", "front", Some("e"), CaptureMode::Auto),
        captured("10.0.0.9", "back", Some("f"), CaptureMode::Auto),
        // The first of its service: nobody knows its ports.
        CapturedAddress {
            endpoint: Some(EndpointId::new("g", 0)),
            ports: Vec::new(),
            ..captured("10.0.0.10", "front", None, CaptureMode::Auto)
        },
    ];
    AddressBook::build(&Resources {
        listeners: listeners.into_iter().map(|listener| (Arc::clone(&listener.name), listener)).collect(),
        clusters: clusters.into_iter().map(|cluster| (Arc::clone(&cluster.name), cluster)).collect(),
        capture: Some(Arc::new(CaptureMap {
            foreign: Vec::new(),
            virtual_ip_range: "240.240.0.0/16".parse().unwrap(),
            workloads: Vec::new(),
            addresses,
        })),
        ..Resources::default()
    })
}

fn look_up(book: &AddressBook, dialled: &str, services: &[&str], networks: &[&str]) -> Destination {
    let services: Vec<_> = services.iter().map(|text| service(text)).collect();
    let networks: Vec<Arc<str>> = networks.iter().map(|network| Arc::from(*network)).collect();
    book.look_up(dialled.parse().unwrap(), CallerView { services: &services, networks: &networks })
}

fn dialled(book: &AddressBook, address: &str, services: &[&str]) -> Dialled {
    match look_up(book, address, services, &["front"]) {
        Destination::Endpoint(dialled) => dialled,
        other => panic!("{address}: {other:?}"),
    }
}

#[test]
fn the_address_says_what_it_is() {
    let book = book();
    let check = |address: &str, expected: &str| {
        let found = match look_up(&book, address, &["client.shop"], &["front"]) {
            Destination::Virtual(listener) => format!("virtual {listener}"),
            Destination::Nobody => "nobody".to_owned(),
            Destination::Endpoint(dialled) => {
                let endpoint = dialled.endpoint.map_or_else(|| "left".to_owned(), |id| id.unit.to_string());
                format!("{endpoint} of {}", dialled.cluster)
            }
            Destination::Coming => "coming".to_owned(),
            Destination::Elsewhere => "elsewhere".to_owned(),
        };
        assert_eq!(found, expected, "{address}");
    };
    check("240.240.0.7:80", "virtual 240.240.0.7:80");
    check("240.240.0.7:81", "nobody");
    check("240.240.0.8:8080", "virtual 240.240.0.8:0");
    check("240.240.0.8:90", "virtual 240.240.0.8:90");
    check("240.240.9.9:80", "nobody");
    check("10.0.0.2:8080", &format!("a of outbound|80||{FQDN}"));
    check("10.0.0.2:9090", &format!("a of outbound|9090||{FQDN}"));
    check("10.0.0.2:80", "elsewhere");
    check("10.0.0.2:7070", "elsewhere");
    check("10.0.0.5:8080", "elsewhere");
    check("10.0.0.6:8080", &format!("left of outbound|80||{FQDN}"));
    check("10.0.0.9:8080", &format!("e of outbound|80||{FQDN}"));
    check("10.0.0.10:8080", "coming");
    check("192.0.2.1:443", "elsewhere");
}

#[test]
fn only_addresses_on_the_callers_networks_count() {
    let book = book();
    let check = |networks: &[&str], expected: Option<&str>| {
        let found = match look_up(&book, "10.0.0.9:8080", &[], networks) {
            Destination::Endpoint(dialled) => dialled.endpoint.map(|id| id.unit.to_string()),
            _ => None,
        };
        assert_eq!(found.as_deref(), expected, "{networks:?}");
    };
    check(&["front", "other"], Some("e"));
    check(&["back"], Some("f"));
    check(&["other"], None);
    // Nobody knows yet where the caller is: better one than none.
    check(&[], Some("e"));
    assert!(matches!(look_up(&book, "10.0.0.6:8080", &[], &["other"]), Destination::Endpoint(_)), "it may be anywhere");
}

#[test]
fn http_is_balanced_when_it_names_the_service() {
    let book = book();
    let check = |authority: &str, expected: Choice| {
        assert_eq!(dialled(&book, "10.0.0.2:8080", &["client.shop"]).choose(authority), expected, "{authority:?}");
    };
    for named in ["web", "web:8080", "web:80", "WEB.shop", "web.shop:8080", FQDN, &format!("{FQDN}.:8080"), "web."] {
        check(named, Choice::Balanced);
    }
    for exact in [
        "10.0.0.2:8080",
        "10.0.0.2",
        "[::1]:8080",
        "web:81",
        "web:x",
        "web:",
        "",
        "shop-web-1:8080",
        "0123456789AB",
        &format!("tasks.{FQDN}"),
        "api",
        "webs",
    ] {
        check(exact, Choice::Exactly);
    }
}

#[test]
fn who_calls_and_what_its_owner_says_hold_over_the_name() {
    let book = book();
    let check = |address: &str, caller: &[&str], by_name: Choice, by_address: Choice, raw: Choice| {
        let dialled = dialled(&book, address, caller);
        let found = (dialled.choose("web:8080"), dialled.choose(address), dialled.choose_raw());
        assert_eq!(found, (by_name, by_address, raw), "{address} by {caller:?}");
    };
    use Choice::{Balanced, DialledFirst, Exactly};
    check("10.0.0.2:8080", &["client.shop"], Balanced, Exactly, DialledFirst);
    check("10.0.0.2:8080", &[], Balanced, Exactly, DialledFirst);
    check("10.0.0.2:8080", &["web.shop"], Exactly, Exactly, Exactly);
    check("10.0.0.2:8080", &["client.shop", "web.shop"], Exactly, Exactly, Exactly);
    check("10.0.0.2:8080", &["web.other"], Balanced, Exactly, DialledFirst);
    check("10.0.0.3:8080", &["client.shop"], Balanced, Balanced, Balanced);
    check("10.0.0.3:8080", &["web.shop"], Balanced, Balanced, Balanced);
    check("10.0.0.4:8080", &["client.shop"], Exactly, Exactly, Exactly);
    // It left: a scrape of its address is answered by nobody else.
    check("10.0.0.6:8080", &["client.shop"], Balanced, Exactly, Balanced);
}

#[test]
fn without_a_map_nothing_is_ours() {
    let book = AddressBook::default();
    assert!(matches!(look_up(&book, "240.240.0.7:80", &[], &[]), Destination::Elsewhere));
    assert!(matches!(look_up(&book, "10.0.0.2:8080", &[], &[]), Destination::Elsewhere));
}
