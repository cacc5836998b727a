use std::collections::BTreeSet;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use mesh_core::model::endpoint::CaptureMode;
use mesh_core::model::names::EndpointId;
use mesh_core::model::protocol::Protocol;
use serde_json::{Value, json};

use super::*;

#[expect(clippy::disallowed_methods, reason = "the test's clock begins here")]
fn now() -> Instant {
    Instant::now()
}

/// What the engine answers about a running container `name` on the network `net`, with `change` laid over it.
fn container(name: &str, number: u8, change: Value) -> Container {
    let id = format!("{number:02x}").repeat(32);
    let mut answer = json!({
        "Id": id, "Name": format!("/{name}"),
        "State": {"Status": "running", "Running": true, "StartedAt": format!("1970-01-01T00:00:{number:02}Z")},
        "Config": {"Hostname": &id[..12], "Labels": {}, "ExposedPorts": {"8080/tcp": {}}},
        "HostConfig": {"NetworkMode": "net"},
        "NetworkSettings": {"SandboxKey": format!("/run/docker/netns/{name}"), "Networks": {"net": {
            "NetworkID": "n1", "IPAddress": format!("10.0.0.{number}"), "Gateway": "10.0.0.254",
            "Aliases": [&id[..12], name]}}},
    });
    merge(&mut answer, change);
    Container::from_inspect(serde_json::from_value::<ContainerInspectResponse>(answer).unwrap()).unwrap()
}

/// RFC 7396: objects are merged, all else is replaced.
fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn labels(labels: Value) -> Value {
    json!({"Config": {"Labels": labels}})
}

fn compose(project: &str, service: &str, more: Value) -> Value {
    let mut all = json!({"com.docker.compose.project": project, "com.docker.compose.service": service});
    merge(&mut all, more);
    labels(all)
}

fn map(containers: Vec<Container>) -> Containers {
    containers.into_iter().map(|container| (container.id.unit.clone(), container)).collect()
}

/// All exposed.
fn seen(containers: Vec<Container>) -> Observation {
    let scope = Scope { exposed_by_default: true, ..Scope::default() };
    observe(&map(containers), &scope, &DrainBook::default(), now())
}

fn only(observation: &Observation) -> &Endpoint {
    assert_eq!(observation.endpoints.len(), 1, "{observation:?}");
    &observation.endpoints[0].endpoint
}

fn kinds(observation: &Observation) -> Vec<(&str, ConditionKind)> {
    observation.conditions.iter().map(|condition| (&*condition.object, condition.kind)).collect()
}

#[test]
fn labels_and_the_flag_decide_who_takes_part() {
    let check = |exposed_by_default: bool, set: Value, expected: bool| {
        let scope = Scope { exposed_by_default, ..Scope::default() };
        let all = map(vec![container("web", 1, labels(set.clone()))]);
        let observation = observe(&all, &scope, &DrainBook::default(), now());
        assert_eq!(observation.endpoints.len(), usize::from(expected), "exposed {exposed_by_default}, {set}");
        assert_eq!(observation.workloads.len(), usize::from(expected));
    };
    check(false, json!({}), false);
    check(false, json!({"mesh.enable": "true"}), true);
    check(false, json!({"mesh.enable": "yes"}), false);
    check(true, json!({}), true);
    check(true, json!({"mesh.enable": "false"}), false);
    check(true, json!({"com.docker.compose.oneoff": "False"}), true);
    check(true, json!({"com.docker.compose.oneoff": "True"}), false);
    check(false, json!({"com.docker.compose.oneoff": "True", "mesh.enable": "true"}), false);
}

#[test]
fn the_address_of_one_that_will_take_part_is_its_services_beforehand() {
    let check = |set: Value, expected: &str| {
        let scope = Scope { exposed_by_default: true, ..Scope::default() };
        let labels: BTreeMap<String, String> = serde_json::from_value(set.clone()).unwrap();
        let arrival = Arrival {
            container: "c1".into(),
            name: "shop-web-1".into(),
            labels,
            network: "n1".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let found = arriving(std::iter::once(&arrival), &scope);
        let shown: Vec<String> = found.iter().map(|(at, one)| format!("{at} {} {}", one.service, one.id)).collect();
        assert_eq!(shown.join(","), expected, "{set}");
    };
    check(json!({}), "10.0.0.1 shop-web-1.default c1@0");
    let compose = json!({"com.docker.compose.project": "shop", "com.docker.compose.service": "web"});
    check(compose, "10.0.0.1 web.shop c1@0");
    check(json!({"mesh.service": "api", "mesh.capture": "service"}), "10.0.0.1 api.default c1@0");
    for nobody in [
        json!({"mesh.enable": "false"}),
        json!({"mesh.capture": "off"}),
        json!({"mesh.capture": "pinned"}),
        json!({"com.docker.compose.oneoff": "True"}),
    ] {
        check(nobody, "");
    }
}

#[test]
fn a_network_of_both_families_is_reached_by_both_ipv4_first() {
    let both = json!({"GlobalIPv6Address": "fd00::5", "IPv6Gateway": "fd00::1"});
    let observation = seen(vec![container("web", 5, json!({"NetworkSettings": {"Networks": {"net": both}}}))]);
    let addresses: Vec<String> = only(&observation).addresses.iter().map(|at| at.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.5", "fd00::5"]);
    let foreign: Vec<String> = observation.foreign_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(foreign, ["10.0.0.254", "fd00::1"], "the host's own");
    let six = json!({"IPAddress": "", "Gateway": "", "GlobalIPv6Address": "fd00::5"});
    let observation = seen(vec![container("web", 5, json!({"NetworkSettings": {"Networks": {"net": six}}}))]);
    assert_eq!(only(&observation).addresses[0].address.to_string(), "fd00::5");
}

#[test]
fn others_without_the_wanted_label_do_not_exist() {
    let scope =
        Scope { exposed_by_default: true, only_label: Some(("mesh.run".into(), "7".into())), host_address: None };
    let mine = container("mine", 1, labels(json!({"mesh.run": "7"})));
    let theirs = container("theirs", 2, labels(json!({"mesh.nonsense": "7"})));
    let observation = observe(&map(vec![mine, theirs]), &scope, &DrainBook::default(), now());
    assert_eq!(&*only(&observation).name, "mine");
    assert_eq!(observation.conditions, []);
}

#[test]
fn service_and_namespace_are_composes_else_the_containers() {
    let check = |name: &str, change: Value, expected: &str| {
        assert_eq!(only(&seen(vec![container(name, 1, change)])).service.to_string(), expected);
    };
    check("shop-web-1", compose("shop", "web", json!({})), "web.shop");
    check("My.App", json!({}), "my-app.default");
    check("x", compose("shop", "api-canary", json!({"mesh.service": "api"})), "api.shop");
    check("x", compose("shop", "web", json!({"mesh.namespace": "other"})), "web.other");
}

#[test]
fn a_name_that_fits_no_dns_label_and_a_clash_are_conditions_on_that_container() {
    let observation = seen(vec![
        container("my.app", 1, json!({})),
        container("my-app", 2, json!({})),
        container(&"x".repeat(64), 3, json!({})),
    ]);
    assert_eq!(&*only(&observation).name, "my.app", "the elder keeps the name");
    let long = format!("container/{}", "x".repeat(64));
    assert_eq!(
        kinds(&observation),
        [("container/my-app", ConditionKind::NameClash), (long.as_str(), ConditionKind::InvalidName)]
    );
}

#[test]
fn ports_come_from_labels_else_from_what_is_exposed() {
    let check = |change: Value, expected: &[(&str, u16, Protocol)]| {
        let observation = seen(vec![container("web", 1, change)]);
        let ports = observation.services[0].ports.iter();
        let ports: Vec<_> = ports.map(|port| (port.name.as_str(), port.port, port.protocol)).collect();
        assert_eq!(ports, expected);
        let targets: Vec<_> = only(&observation).ports.iter().map(|(name, port)| (name.as_str(), *port)).collect();
        let named: BTreeSet<_> = expected.iter().map(|(name, port, _)| (*name, *port)).collect();
        assert_eq!(targets, named.into_iter().collect::<Vec<_>>());
    };
    check(json!({}), &[("8080", 8080, Protocol::Auto)]);
    let more = json!({"ExposedPorts": {"9090/tcp": {}, "53/udp": {}}, "Labels": {"mesh.protocol": "http"}});
    check(json!({"Config": more}), &[("8080", 8080, Protocol::Http), ("9090", 9090, Protocol::Http)]);
    check(labels(json!({"mesh.port": "5000"})), &[("5000", 5000, Protocol::Auto)]);
    let named = json!({"mesh.ports.http.port": "5000", "mesh.ports.http.protocol": "grpc"});
    check(labels(named), &[("http", 5000, Protocol::Grpc)]);
}

#[test]
fn without_a_port_it_is_ready_while_it_runs_and_told() {
    let observation = seen(vec![container("web", 1, json!({"Config": {"ExposedPorts": null}}))]);
    assert_eq!(kinds(&observation), [("container/web", ConditionKind::NoPort)]);
    assert_eq!(only(&observation).state, EndpointState::Ready);
    assert_eq!(observation.workloads.len(), 1, "its own calls are captured all the same");
}

#[test]
fn members_of_a_service_agree_on_its_ports() {
    let observation = seen(vec![
        container("a", 1, compose("shop", "api", json!({"mesh.timeout": "1s"}))),
        container(
            "b",
            2,
            compose(
                "shop",
                "canary",
                json!({"mesh.service": "api", "mesh.ports.http.port": "8080",
            "mesh.ports.http.protocol": "http", "mesh.weight": "10", "mesh.timeout": "2s"}),
            ),
        ),
        container("c", 3, compose("shop", "api", json!({"mesh.ports.http.port": "9000"}))),
    ]);
    assert_eq!(observation.services.len(), 1);
    let service = &observation.services[0];
    let ports: Vec<_> = service.ports.iter().map(|port| (port.name.as_str(), port.port, port.protocol)).collect();
    assert_eq!(ports, [("http", 8080, Protocol::Http)], "8080 is called http, and 9000 is one member's own target");
    assert_eq!(service.policy.timeout, Some(Duration::from_secs(2)), "the youngest that says it");
    let targets: Vec<_> = observation.endpoints.iter().map(|one| one.endpoint.ports.values().next().copied()).collect();
    assert_eq!(targets, [Some(8080), Some(8080), Some(9000)]);
    let weights: Vec<_> = observation.endpoints.iter().map(|one| one.endpoint.weight).collect();
    assert_eq!(weights, [100, 10, 100]);
}

#[test]
fn the_state_is_what_docker_says_until_it_is_told_to_stop() {
    use EndpointState::{Draining, NotReady, Ready};
    let health = |status: &str| json!({"State": {"Health": {"Status": status}}});
    let check = |change: Value, expected: (EndpointState, ReadySource)| {
        let observation = seen(vec![container("web", 1, change.clone())]);
        let found = &observation.endpoints[0];
        assert_eq!((found.endpoint.state, found.ready), expected, "{change}");
        let all = map(vec![container("web", 1, change)]);
        let mut drains = DrainBook::default();
        drains.note(&found.endpoint.id, Duration::from_secs(10), now());
        let scope = Scope { exposed_by_default: true, ..Scope::default() };
        assert_eq!(only(&observe(&all, &scope, &drains, now())).state, Draining);
        let later = now() + Duration::from_secs(13);
        assert_eq!(only(&observe(&all, &scope, &drains, later)).state, expected.0, "not stopped after all");
    };
    check(json!({}), (NotReady, ReadySource::FirstAccept));
    check(health("starting"), (NotReady, ReadySource::Stated));
    check(health("healthy"), (Ready, ReadySource::Stated));
    check(health("unhealthy"), (NotReady, ReadySource::Stated));
    check(health("none"), (NotReady, ReadySource::FirstAccept));
    check(
        json!({"State": {"Status": "paused", "Paused": true, "Health": {"Status": "healthy"}}}),
        (NotReady, ReadySource::Stated),
    );
    for gone in ["created", "restarting", "removing", "exited", "dead"] {
        let restarting = gone == "restarting";
        let state = json!({"State": {"Status": gone, "Running": restarting, "Restarting": restarting}});
        assert_eq!(seen(vec![container("web", 1, state)]), Observation::default(), "{gone}");
    }
}

#[test]
fn addresses_are_those_on_each_network_less_what_mesh_network_leaves_out() {
    let two = |set: Value| {
        let mut change = compose("shop", "web", set);
        let other = json!({"NetworkID": "n0", "IPAddress": "10.1.0.1", "Aliases": ["web", "www"]});
        merge(&mut change, json!({"NetworkSettings": {"Networks": {"shop_back": other}}}));
        seen(vec![container("shop-web-1", 1, change)])
    };
    let addresses = |observation: &Observation| -> Vec<String> {
        only(observation).addresses.iter().map(|at| format!("{}={}", at.network, at.address)).collect()
    };
    assert_eq!(addresses(&two(json!({}))), ["n1=10.0.0.1", "n0=10.1.0.1"]);
    for written in ["back", "shop_back"] {
        let observation = two(json!({"mesh.network": written}));
        assert_eq!(addresses(&observation), ["n0=10.1.0.1"]);
        assert_eq!(observation.workloads[0].networks, ["n0".into(), "n1".into()].into(), "its calls take both");
    }
    let wrong = two(json!({"mesh.network": "shop_bakc"}));
    assert_eq!(addresses(&wrong).len(), 2, "all hold");
    assert_eq!(kinds(&wrong), [("container/shop-web-1", ConditionKind::InvalidLabel)]);
    assert!(wrong.conditions[0].message.contains("did you mean shop_back?"), "{}", wrong.conditions[0].message);
}

#[test]
fn names_of_one_and_names_of_the_service_are_told_apart() {
    let change = json!({"Config": {"Hostname": "h1"}, "NetworkSettings": {"Networks": {"net": {
        "Aliases": ["shop-web-1", "web", "010101010101", "01".repeat(32), "h1"]}}}});
    let observation = seen(vec![container("shop-web-1", 1, change)]);
    let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&only(&observation).own_names), ["shop-web-1", "010101010101", "h1"]);
    assert_eq!(names(&only(&observation).aliases), ["web"]);
    assert_eq!(only(&observation).id, EndpointId::new(&"01".repeat(32), 1000));
}

#[test]
fn who_lives_in_anothers_network_has_its_addresses_and_its_namespace() {
    let shares = |owner: &str| {
        json!({"HostConfig": {"NetworkMode": format!("container:{owner}")}, "NetworkSettings": null,
            "Config": {"Hostname": "owners"}})
    };
    let owner = container("owner", 1, labels(json!({"mesh.enable": "false"})));
    for reference in ["owner", &"01".repeat(32), "010101010101"] {
        let observation = seen(vec![owner.clone(), container("app", 2, shares(reference))]);
        assert_eq!(only(&observation).addresses[0].address.to_string(), "10.0.0.1");
        assert!(!only(&observation).own_names.contains(&"owners".into()));
        assert_eq!(&*observation.workloads[0].namespace_path, "/run/docker/netns/owner");
        assert_eq!(&*observation.workloads[0].name, "app");
    }
    let both = seen(vec![container("owner", 3, json!({})), container("app", 2, shares("owner"))]);
    assert_eq!(both.endpoints.len(), 2);
    assert_eq!(both.workloads.len(), 1, "one namespace, one workload");
    assert_eq!(&*both.workloads[0].name, "owner", "though the other is older");
    let orphan = seen(vec![container("app", 2, shares("nobody"))]);
    assert_eq!(orphan.endpoints, []);
    assert_eq!(kinds(&orphan), [("container/app", ConditionKind::NoSharedNetwork)]);
    let ring = seen(vec![container("a", 1, shares("b")), container("b", 2, shares("a"))]);
    assert_eq!((ring.endpoints.len(), ring.conditions.len()), (0, 2));
}

#[test]
fn on_the_hosts_network_it_is_an_endpoint_and_not_captured() {
    let host = json!({"HostConfig": {"NetworkMode": "host"}, "NetworkSettings": {"SandboxKey": "/run/docker/netns/default",
        "Networks": {"net": {"IPAddress": "", "Gateway": ""}, "host": {"NetworkID": "hh", "IPAddress": ""}}}});
    let scope =
        Scope { exposed_by_default: true, only_label: None, host_address: Some("192.168.7.7".parse().unwrap()) };
    let all = map(vec![container("db", 1, host), container("app", 2, json!({}))]);
    let observation = observe(&all, &scope, &DrainBook::default(), now());
    let db = &observation.endpoints[0].endpoint;
    let addresses: Vec<_> = db.addresses.iter().map(|at| format!("{}={}", at.network, at.address)).collect();
    assert_eq!(addresses, ["host=192.168.7.7", "n1=10.0.0.254"], "as itself, and as seen from each bridge");
    assert_eq!(kinds(&observation), [("container/db", ConditionKind::HostNetworkNotCaptured)]);
    assert_eq!(observation.workloads.iter().map(|workload| &*workload.name).collect::<Vec<_>>(), ["app"]);
}

#[test]
fn a_mistake_in_one_containers_labels_harms_no_other() {
    let observation = seen(vec![
        container("bad", 1, labels(json!({"mesh.wieght": "3", "mesh.capture": "pinned", "mesh.port": "http"}))),
        container("good", 2, json!({})),
    ]);
    assert_eq!(observation.endpoints.len(), 2);
    assert_eq!(observation.endpoints[0].endpoint.capture, CaptureMode::Pinned, "its other labels hold");
    assert_eq!(
        kinds(&observation),
        [("container/bad", ConditionKind::UnknownLabel), ("container/bad", ConditionKind::InvalidLabel)]
    );
    // A typo is told of where it kept the container out, too.
    let typo = map(vec![container("typo", 1, labels(json!({"mesh.enabel": "true"})))]);
    let observation = observe(&typo, &Scope::default(), &DrainBook::default(), now());
    assert_eq!((observation.endpoints.len(), kinds(&observation).len()), (0, 1));
}

#[test]
fn the_version_is_the_labels_else_the_images() {
    let image = json!({"org.opencontainers.image.version": "1.27"});
    assert_eq!(only(&seen(vec![container("a", 1, labels(image))])).version.as_deref(), Some("1.27"));
    let both = json!({"org.opencontainers.image.version": "1.27", "mesh.version": "2"});
    assert_eq!(only(&seen(vec![container("a", 1, labels(both))])).version.as_deref(), Some("2"));
}

#[test]
fn addresses_of_others_are_told_and_our_own_are_not() {
    let check = |containers: Vec<Container>, expected: &[&str]| {
        let seen: Vec<String> = seen(containers).foreign_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(seen, expected);
    };
    let outside = json!({"mesh.enable": "false"});
    check(vec![container("web", 1, json!({}))], &["10.0.0.254"]);
    check(
        vec![container("web", 1, json!({})), container("out", 2, labels(outside.clone()))],
        &["10.0.0.2", "10.0.0.254"],
    );
    // One that is on its way out has given its address back, or is about to.
    let mut gone = labels(outside);
    merge(&mut gone, json!({"State": {"Status": "exited", "Running": false}}));
    check(vec![container("web", 1, json!({})), container("out", 2, gone)], &["10.0.0.254"]);
    // The host's own address on the network is not lost to whoever is the host.
    let host = json!({"HostConfig": {"NetworkMode": "host"}, "NetworkSettings": {"Networks": {"net": {"IPAddress": "", "Gateway": ""}}}});
    check(vec![container("web", 1, json!({})), container("host", 2, host)], &[]);
}

#[test]
fn what_another_mesh_made_for_itself_is_left_alone() {
    let demo = || container("shop", 3, labels(json!({"mesh.run": "demo", "mesh.enable": "true"})));
    let names = |scope: &Scope| {
        let observed = observe(&map(vec![container("web", 2, json!({})), demo()]), scope, &DrainBook::default(), now());
        let names: Vec<String> = observed.endpoints.iter().map(|one| one.endpoint.name.to_string()).collect();
        (names, observed)
    };
    let (all, observed) = names(&Scope { exposed_by_default: true, ..Scope::default() });
    assert_eq!(all, ["web"]);
    let foreign: Vec<&str> = observed.foreign_namespaces.iter().map(|path| &**path).collect();
    assert_eq!(foreign, ["/run/docker/netns/shop"], "so that its namespace is let go at once");
    assert!(observed.foreign_addresses.contains(&"10.0.0.3".parse().unwrap()));
    let only_label = Some(("mesh.run".to_owned(), "demo".to_owned()));
    let (own, _) = names(&Scope { exposed_by_default: true, only_label, host_address: None });
    assert_eq!(own, ["shop"]);
}
