//! Rows of what providers see against what the snapshot says, and a long seeded churn under invariants.

use std::time::Duration;

use mesh_core::model::endpoint::{CaptureMode, Endpoint, EndpointState, NetworkAddress};
use mesh_core::model::names::Name;
use mesh_core::model::policy::Policy;
use mesh_core::model::protocol::Protocol;
use mesh_core::model::service::ServicePort;
use mesh_core::model::snapshot::Arriving;

use super::*;
use crate::provider::{ObservedEndpoint, ObservedService, ReadySource};
use departed::REMEMBERED_FOR;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(service: &str) -> ServiceId {
    ServiceId::new(name(service), name("shop"))
}

fn port(port_name: &str, number: u16, protocol: Protocol) -> ServicePort {
    ServicePort { name: name(port_name), port: number, protocol }
}

fn service(service: &str, ports: Vec<ServicePort>) -> ObservedService {
    ObservedService { id: id(service), ports, policy: Policy::default() }
}

fn endpoint(unit: &str, start: u64, service: &str, address: &str) -> ObservedEndpoint {
    let endpoint = Endpoint {
        id: EndpointId::new(unit, start),
        name: format!("shop-{service}-{unit}").into(),
        service: id(service),
        addresses: vec![NetworkAddress { network: "net1".into(), address: address.parse().unwrap() }],
        ports: BTreeMap::from([(name("http"), 8080)]),
        weight: 100,
        priority: 0,
        zone: None,
        version: None,
        state: EndpointState::Ready,
        reason: "runs".into(),
        publish_not_ready: false,
        capture: CaptureMode::Auto,
        own_names: Vec::new(),
        aliases: Vec::new(),
    };
    ObservedEndpoint { endpoint, ready: ReadySource::Stated }
}

fn first_accept(mut observed: ObservedEndpoint) -> ObservedEndpoint {
    observed.ready = ReadySource::FirstAccept;
    observed.endpoint.state = EndpointState::NotReady;
    observed
}

fn sees(services: Vec<ObservedService>, endpoints: Vec<ObservedEndpoint>) -> Observation {
    Observation { services, endpoints, ..Observation::default() }
}

fn registry(range: &str, now: Instant) -> Registry {
    Registry::new(range.parse().unwrap(), BTreeMap::new(), 0, now)
}

fn http() -> ServicePort {
    port("http", 80, Protocol::Http)
}

#[test]
fn a_number_is_spent_on_a_change_and_on_nothing_else() {
    let now = Instant::now();
    let mut registry = Registry::new("10.9.0.0/24".parse().unwrap(), BTreeMap::new(), 41, now);
    assert_eq!(registry.next(now).unwrap().number, 42, "the first one is published even when it is empty");
    assert!(registry.next(now).is_none());
    let web = || sees(vec![service("web", vec![http()])], vec![endpoint("c1", 1, "web", "10.0.0.1")]);
    registry.observe("docker", web());
    assert_eq!(registry.next(now).unwrap().number, 43);
    registry.observe("docker", web());
    assert!(registry.next(now).is_none(), "the same list again changes nothing");
    let mut reordered = web();
    reordered.endpoints.insert(0, endpoint("c2", 1, "web", "10.0.0.2"));
    registry.observe("docker", reordered.clone());
    assert_eq!(registry.next(now).unwrap().number, 44);
    reordered.endpoints.reverse();
    registry.observe("docker", reordered);
    assert!(registry.next(now).is_none(), "the order of a list means nothing");
}

#[test]
fn providers_are_united_and_clashes_are_told_on_the_later_one() {
    let check = |by_docker: Vec<ServicePort>, by_file: Vec<ServicePort>, ports: &[(&str, u16)], clashes: usize| {
        let now = Instant::now();
        let mut registry = registry("10.9.0.0/24", now);
        registry.observe("file", sees(vec![service("web", by_file)], vec![endpoint("f", 0, "web", "10.1.0.1")]));
        registry.observe("docker", sees(vec![service("web", by_docker)], vec![endpoint("c", 1, "web", "10.0.0.1")]));
        let snapshot = registry.next(now).unwrap();
        let seen: Vec<_> = snapshot.services[&id("web")].ports.iter().map(|p| (p.name.as_str(), p.port)).collect();
        assert_eq!(seen, ports);
        assert_eq!(snapshot.conditions.len(), clashes, "{:?}", snapshot.conditions);
        assert!(
            snapshot.conditions.iter().all(|c| &*c.object == "service/web.shop" && c.message.contains("as docker"))
        );
        assert_eq!(snapshot.endpoints_of(&id("web")).len(), 2, "a clash of ports costs no endpoint");
    };
    let tcp = |number| port(&format!("p{number}"), number, Protocol::Tcp);
    check(vec![http()], vec![http()], &[("http", 80)], 0);
    check(vec![tcp(90)], vec![http()], &[("http", 80), ("p90", 90)], 0);
    check(vec![http()], vec![port("http", 81, Protocol::Http)], &[("http", 81)], 0);
    check(vec![http()], vec![port("http", 80, Protocol::Auto)], &[("http", 80)], 0);
    check(vec![http()], vec![port("http", 80, Protocol::Tcp)], &[("http", 80)], 1);
    check(vec![http()], vec![port("web", 80, Protocol::Http), tcp(70)], &[("p70", 70), ("web", 80)], 1);
}

#[test]
fn endpoints_of_every_provider_serve_the_services_ports_by_name() {
    let check = |others: ProviderName,
                 derived: ServicePort,
                 written: ServicePort,
                 expected: &[(&str, u16)],
                 targets: [&[(&str, u16)]; 2],
                 clashes: usize| {
        let now = Instant::now();
        let mut registry = registry("10.9.0.0/24", now);
        let (mut container, mut host) = (endpoint("c", 1, "web", "10.0.0.1"), endpoint("f", 0, "web", "10.1.0.1"));
        container.endpoint.ports = [(derived.name.clone(), 8080)].into();
        host.endpoint.ports = [(written.name.clone(), 9000)].into();
        registry.observe("docker", sees(vec![service("web", vec![derived])], vec![container]));
        registry.observe(others, sees(vec![service("web", vec![written])], vec![host]));
        let snapshot = registry.next(now).unwrap();
        let ports: Vec<_> = snapshot.services[&id("web")].ports.iter().map(|p| (p.name.as_str(), p.port)).collect();
        assert_eq!(ports, expected);
        let its = |endpoint: &Arc<Endpoint>| -> Vec<(String, u16)> {
            endpoint.ports.iter().map(|(name, target)| (name.to_string(), *target)).collect()
        };
        let seen: Vec<_> = snapshot.endpoints_of(&id("web")).iter().map(its).collect();
        let wanted = targets.map(|list| list.iter().map(|(name, target)| ((*name).to_owned(), *target)).collect());
        assert_eq!(seen, Vec::<Vec<_>>::from(wanted));
        assert_eq!(snapshot.conditions.len(), clashes, "{:?}", snapshot.conditions);
    };
    let (http, auto) = (Protocol::Http, Protocol::Auto);
    // The container's own number gives way to the one that was written down; both serve it.
    let both: [&[_]; 2] = [&[("http", 8080)], &[("http", 9000)]];
    check("file", port("http", 8080, auto), port("http", 80, http), &[("http", 80)], both, 0);
    // Named by its number alone, on either side.
    check("file", port("80", 80, auto), port("http", 80, http), &[("http", 80)], both, 0);
    check("file", port("http", 80, http), port("80", 80, auto), &[("http", 80)], both, 0);
    // Another number, without a name: another port.
    let apart: [&[_]; 2] = [&[("8080", 8080)], &[("http", 9000)]];
    check("file", port("8080", 8080, auto), port("http", 80, http), &[("http", 80), ("8080", 8080)], apart, 0);
    // Nobody wrote either down: the earlier holds, by name all the same, and it is told.
    check("process", port("http", 8080, auto), port("http", 80, http), &[("http", 8080)], both, 1);
    // Two names for one number: nobody can tell.
    let unclear: [&[_]; 2] = [&[("http", 8080)], &[("web", 9000)]];
    check("file", port("http", 80, http), port("web", 80, http), &[("web", 80)], unclear, 1);
}

#[test]
fn one_id_twice_is_one_endpoint_and_a_condition() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/24", now);
    registry.observe("docker", sees(vec![], vec![endpoint("c1", 1, "web", "10.0.0.1"); 2]));
    let snapshot = registry.next(now).unwrap();
    assert_eq!(snapshot.endpoints_of(&id("web")).len(), 1);
    let told: Vec<_> = snapshot.conditions.iter().map(|c| (&*c.object, c.kind)).collect();
    assert_eq!(told, [("container/shop-web-c1", ConditionKind::NameClash)]);
}

#[test]
fn readiness_is_what_is_stated_or_what_probing_found() {
    use EndpointState::{Draining, NotReady, Ready};
    let check =
        |observed: ObservedEndpoint, verdict: Option<Verdict>, state: EndpointState, probed: bool, told: usize| {
            let now = Instant::now();
            let mut registry = registry("10.9.0.0/24", now);
            let id = observed.endpoint.id.clone();
            registry.observe("docker", sees(vec![], vec![observed]));
            if let Some(verdict) = verdict {
                registry.judge(id, verdict);
            }
            let snapshot = registry.next(now).unwrap();
            assert_eq!(snapshot.endpoints[&self::id("web")][0].state, state);
            assert_eq!(registry.probe_targets().len(), usize::from(probed));
            assert_eq!(snapshot.conditions.len(), told);
        };
    let web = || endpoint("c1", 1, "web", "10.0.0.1");
    let unreachable = || Some(Verdict::Unreachable { error: "10.0.0.1:8080: no route".into() });
    check(web(), None, Ready, false, 0);
    check(first_accept(web()), None, NotReady, true, 0);
    check(first_accept(web()), Some(Verdict::Waiting), NotReady, true, 0);
    check(first_accept(web()), Some(Verdict::Accepted), Ready, false, 0);
    check(first_accept(web()), unreachable(), Ready, false, 1);
    let mut draining = first_accept(web());
    draining.endpoint.state = Draining;
    check(draining.clone(), None, Draining, false, 0);
    check(draining, Some(Verdict::Accepted), Draining, false, 0);
    let mut portless = first_accept(web());
    portless.endpoint.ports.clear();
    check(portless, None, Ready, false, 0);
}

#[test]
fn a_restart_is_asked_anew() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/24", now);
    registry.observe("docker", sees(vec![], vec![first_accept(endpoint("c1", 1, "web", "10.0.0.1"))]));
    registry.judge(EndpointId::new("c1", 1), Verdict::Accepted);
    registry.next(now);
    registry.observe("docker", sees(vec![], vec![first_accept(endpoint("c1", 2, "web", "10.0.0.1"))]));
    // A verdict on the life before comes late.
    registry.judge(EndpointId::new("c1", 1), Verdict::Accepted);
    let snapshot = registry.next(now).unwrap();
    assert_eq!(snapshot.endpoints[&id("web")][0].state, EndpointState::NotReady);
    assert_eq!(registry.probe_targets()[0].id, EndpointId::new("c1", 2));
}

#[test]
fn nothing_is_settled_before_everyone_spoke_and_was_asked() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/24", now);
    let expected = BTreeSet::from(["docker", "file"]);
    registry.observe("docker", sees(vec![], vec![first_accept(endpoint("c1", 1, "web", "10.0.0.1"))]));
    assert!(!registry.is_settled(&expected));
    registry.observe("file", Observation::default());
    assert!(!registry.is_settled(&expected), "c1 has not been asked yet");
    registry.judge(EndpointId::new("c1", 1), Verdict::Waiting);
    assert!(registry.is_settled(&expected));
}

#[test]
fn an_address_stays_its_services_until_it_is_anothers_or_ten_minutes_passed() {
    let start = Instant::now();
    let mut registry = registry("10.9.0.0/24", start);
    let web = |endpoints| sees(vec![service("web", vec![http()]), service("api", vec![http()])], endpoints);
    let both = vec![endpoint("c1", 1, "web", "10.0.0.1"), endpoint("c2", 1, "web", "10.0.0.2")];
    registry.observe("docker", web(both));
    registry.next(start);
    registry.observe("docker", web(vec![]));
    let left = registry.next(start).unwrap();
    let departed = |snapshot: &Snapshot| snapshot.departed.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(departed(&left), ["10.0.0.1", "10.0.0.2"]);
    registry.observe("docker", web(vec![endpoint("c3", 1, "api", "10.0.0.2")]));
    let given = registry.next(start + Duration::from_secs(1)).unwrap();
    assert_eq!(departed(&given), ["10.0.0.1"], "10.0.0.2 is api's now");
    let given_away = |address: &str| {
        let foreign_addresses = BTreeSet::from([address.parse().unwrap()]);
        Observation { foreign_addresses, ..web(vec![endpoint("c3", 1, "api", "10.0.0.2")]) }
    };
    registry.observe("docker", given_away("10.0.0.9"));
    assert!(registry.next(start + Duration::from_secs(1)).is_none(), "it was nobody's");
    assert_eq!(registry.next_expiry(), Some(start + REMEMBERED_FOR));
    assert!(registry.next(start + REMEMBERED_FOR - Duration::from_millis(1)).is_none());
    let forgotten = registry.next(start + REMEMBERED_FOR).unwrap();
    assert!(forgotten.departed.is_empty());
    assert_eq!(registry.next_expiry(), None);
    registry.observe("docker", web(vec![]));
    assert_eq!(departed(&registry.next(start + REMEMBERED_FOR).unwrap()), ["10.0.0.2"]);
    registry.observe("docker", given_away("10.0.0.2"));
    registry.observe("docker", Observation { endpoints: vec![], ..given_away("10.0.0.2") });
    let released = registry.next(start + REMEMBERED_FOR).unwrap();
    assert!(released.departed.is_empty(), "somebody outside the mesh has it now");
}

#[test]
fn an_address_is_its_services_before_its_endpoint_is_there() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/24", now);
    let coming =
        |service: &str| Arriving { id: EndpointId::new("c2", 0), service: id(service), network: "net1".into() };
    let web = |endpoints, of: &str| Observation {
        arriving: BTreeMap::from([("10.0.0.2".parse().unwrap(), coming(of))]),
        ..sees(vec![service("web", vec![])], endpoints)
    };
    let arriving = |snapshot: &Snapshot| snapshot.arriving.keys().map(ToString::to_string).collect::<String>();
    registry.observe("docker", web(vec![endpoint("c1", 1, "web", "10.0.0.2")], "web"));
    assert_eq!(arriving(&registry.next(now).unwrap()), "", "somebody has it");
    registry.observe("docker", web(vec![], "web"));
    let next = registry.next(now).unwrap();
    assert_eq!((&*arriving(&next), next.departed.len()), ("10.0.0.2", 0), "who comes counts before who left");
    registry.observe("docker", web(vec![], "unknown"));
    let next = registry.next(now).unwrap();
    assert_eq!((&*arriving(&next), next.departed.len()), ("10.0.0.2", 0), "the first of its service too");
}

#[test]
fn what_no_engine_lent_is_not_remembered() {
    let check = |networks: &[&str], remembered: bool| {
        let now = Instant::now();
        let mut registry = registry("10.9.0.0/24", now);
        let mut observed = endpoint("c1", 1, "web", "10.0.0.1");
        let address = |(at, network): (usize, &&str)| NetworkAddress {
            network: (*network).into(),
            address: format!("10.0.0.{at}").parse().unwrap(),
        };
        observed.endpoint.addresses = networks.iter().enumerate().map(address).collect();
        registry.observe("docker", sees(vec![service("web", vec![])], vec![observed]));
        registry.next(now);
        registry.observe("docker", sees(vec![service("web", vec![])], vec![]));
        assert_eq!(!registry.next(now).unwrap().departed.is_empty(), remembered, "{networks:?}");
    };
    check(&["net1"], true);
    check(&["net1", "net2"], true);
    check(&["host"], false);
    // The host, as two networks know it: by their gateways.
    check(&["host", "net1", "net2"], false);
    check(&[""], false);
}

#[test]
fn a_full_range_costs_the_late_service_and_nobody_else() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/30", now);
    let services = |names: &[&str]| names.iter().map(|name| service(name, vec![http()])).collect::<Vec<_>>();
    registry.observe("docker", sees(services(&["b", "c"]), vec![]));
    let before = registry.next(now).unwrap();
    registry.observe("docker", sees(services(&["a", "b", "c"]), vec![endpoint("c1", 1, "a", "10.0.0.1")]));
    let after = registry.next(now).unwrap();
    assert_eq!(before.services, after.services);
    assert!(after.endpoints.is_empty());
    let told: Vec<_> = after.conditions.iter().map(|c| (&*c.object, c.kind)).collect();
    assert_eq!(told, [("service/a.shop", ConditionKind::VirtualIpExhausted)]);
}

#[test]
fn changes_are_told_one_line_each() {
    let now = Instant::now();
    let mut registry = registry("10.9.0.0/24", now);
    let lines = |before: &Snapshot, after: &Snapshot| {
        diff::diff(before, after).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ports = vec![http(), port("9000", 9000, Protocol::Tcp)];
    registry.observe("docker", sees(vec![service("web", ports)], vec![endpoint("c1", 1, "web", "10.0.0.1")]));
    let first = registry.next(now).unwrap();
    let address = first.services[&id("web")].virtual_ip;
    let expected = [
        format!("service web.shop added at {address}, ports http 80 http, 9000 tcp"),
        "endpoint shop-web-c1 (c1) of web.shop added, ready: runs".to_owned(),
    ];
    assert_eq!(lines(&Snapshot::default(), &first), expected);
    let mut drains = endpoint("c1", 1, "web", "10.0.0.1");
    drains.endpoint.state = EndpointState::Draining;
    drains.endpoint.reason = "was sent SIGTERM".into();
    let mut observation = sees(vec![], vec![drains, first_accept(endpoint("c2", 1, "web", "10.0.0.2"))]);
    observation.conditions.push(Condition::new("container/x", ConditionKind::NoPort, "exposes none"));
    registry.observe("docker", observation);
    let second = registry.next(now).unwrap();
    let expected = [
        "service web.shop changed: no port",
        "endpoint shop-web-c1 (c1) of web.shop was ready, is draining: was sent SIGTERM",
        "endpoint shop-web-c2 (c2) of web.shop added, not-ready: none of its ports has accepted a connection since it started",
        "condition NoPort on container/x: exposes none",
    ];
    assert_eq!(lines(&first, &second), expected);
    registry.observe("docker", Observation::default());
    let third = registry.next(now).unwrap();
    let expected = [
        "endpoint shop-web-c1 (c1) of web.shop removed: no provider sees it",
        "endpoint shop-web-c2 (c2) of web.shop removed: no provider sees it",
        "service web.shop removed: nobody serves or declares it",
        "condition NoPort on container/x is over: exposes none",
    ];
    assert_eq!(lines(&second, &third), expected);
    assert!(lines(&third, &third).is_empty());
}

/// Two providers and the probes at random, with restarts of discovery in between. Besides what `check_invariants` asserts
/// after each step: numbers only grow, a virtual IP never changes, nobody who left stays, and what is told adds up.
#[test]
fn churn_keeps_every_promise() {
    for seed in 0..20 {
        churn(seed);
    }
}

fn churn(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut now = Instant::now();
    let mut saved: BTreeMap<ServiceId, IpAddr> = BTreeMap::new();
    let mut registry = registry("10.9.0.0/26", now);
    let mut number = 0;
    let mut seen: BTreeMap<ProviderName, Vec<ObservedEndpoint>> = BTreeMap::new();
    for step in 0..300 {
        now += Duration::from_secs(random.u64(0..30));
        let provider = *random.choice(&["docker", "process"]).unwrap();
        let list = seen.entry(provider).or_default();
        match random.u8(0..10) {
            0..=3 => {
                let (unit, host) = (random.u32(0..40), random.u32(0..60));
                let service = format!("s{}", random.u32(0..8));
                let unit = format!("{provider}{unit}");
                let observed = endpoint(&unit, random.u64(0..3), &service, &format!("10.0.0.{host}"));
                list.retain(|known| known.endpoint.id.unit != observed.endpoint.id.unit);
                list.push(if random.bool() { first_accept(observed) } else { observed });
            }
            4..=5 if !list.is_empty() => drop(list.swap_remove(random.usize(0..list.len()))),
            6 => random.shuffle(list),
            7 => list.clear(),
            8 => {
                let verdict =
                    if random.bool() { Verdict::Accepted } else { Verdict::Unreachable { error: "e".into() } };
                for target in registry.probe_targets() {
                    registry.judge(target.id, verdict.clone());
                }
            }
            9 if random.u8(0..4) == 0 => {
                registry = Registry::new("10.9.0.0/26".parse().unwrap(), saved.clone(), number, now);
                for (provider, list) in &seen {
                    registry.observe(provider, sees(vec![], list.clone()));
                }
            }
            _ => {}
        }
        let list = seen[provider].clone();
        registry.observe(provider, sees(vec![], list));
        let before = registry.snapshot().clone();
        let Some(snapshot) = registry.next(now) else { continue };
        assert!(snapshot.number > number, "seed {seed}, step {step}: the number went back");
        number = snapshot.number;
        for change in registry.take_allotment_changes() {
            let AllotmentChange::Allotted { service, address } = change else { panic!("{change:?} with room left") };
            assert_eq!(saved.insert(service, address), None, "seed {seed}, step {step}: allotted twice");
        }
        for service in snapshot.services.values() {
            assert_eq!(saved[&service.id], service.virtual_ip, "seed {seed}, step {step}: another virtual IP");
        }
        let alive: BTreeSet<&EndpointId> = seen.values().flatten().map(|observed| &observed.endpoint.id).collect();
        for told in snapshot.endpoints.values().flat_map(|list| list.iter()) {
            assert!(alive.contains(&told.id), "seed {seed}, step {step}: {} stays", told.id);
        }
        let told = snapshot.endpoints.values().map(|list| list.len()).sum::<usize>();
        assert_eq!(told, alive.len(), "seed {seed}, step {step}: one is missing");
        if before.number > 0 {
            let changed = !diff::diff(&before, &snapshot).is_empty() || before.departed != snapshot.departed;
            assert!(changed, "seed {seed}, step {step}: a number for nothing that anybody could be told");
        }
    }
}
