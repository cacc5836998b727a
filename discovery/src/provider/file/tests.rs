//! What the parser says, and real files that change in the ways editors and config managers change them.

use std::fs;

use mesh_core::model::endpoint::Endpoint;
use mesh_core::model::names::Name;
use mesh_core::task::drain;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

const GOOD: &str = r#"
services:
  - name: web
    namespace: shop
    ports: [{name: http, port: 80, protocol: http}, {name: admin, port: 9000}]
    endpoints:
      - {address: "10.0.0.5:8080", port: http, weight: 3, priority: 1, zone: a}
      - {address: "10.0.0.5:8080", port: admin, weight: 3, priority: 1}
      - {address: "[fd00::5]:8080", port: http}
  - name: db
    ports: [{port: 5432, protocol: tcp}]
    endpoints: [{address: "10.0.0.7:15432"}]
  - name: later
    ports: [{port: 1}]
"#;

#[test]
fn a_file_says_what_it_says() {
    let observation = parse::parse("mesh.yaml", GOOD).unwrap();
    let services: Vec<String> = observation
        .services
        .iter()
        .map(|service| {
            let ports = service.ports.iter().map(|p| format!("{}={}/{}", p.name, p.port, p.protocol));
            format!("{} {}", service.id, ports.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        services,
        ["web.shop http=80/http admin=9000/auto", "db.default 5432=5432/tcp", "later.default 1=1/auto"]
    );
    let endpoints: Vec<String> = observation
        .endpoints
        .iter()
        .map(|observed| {
            let e = &observed.endpoint;
            let ports = e.ports.iter().map(|(name, port)| format!("{name}={port}")).collect::<Vec<_>>().join(" ");
            format!("{} {} {} w{} p{} {:?} {}", e.id, e.service, ports, e.weight, e.priority, e.zone, e.state)
        })
        .collect();
    let expected = [
        r#"10.0.0.5:8080@0 web.shop admin=8080 http=8080 w3 p1 Some("a") ready"#,
        "[fd00::5]:8080@0 web.shop http=8080 w100 p0 None ready",
        "10.0.0.7:15432@0 db.default 5432=15432 w100 p0 None ready",
    ];
    assert_eq!(endpoints, expected);
    assert_eq!(parse::parse("mesh.yaml", "services: []").unwrap(), Observation::default());
    let half = parse::parse("mesh.yaml", "services:\n").unwrap_err().to_string();
    assert!(half.contains("services: null: is empty; [] is how"), "{half}");
    assert!(parse::parse("mesh.yaml", "").unwrap_err().to_string().contains("is empty"), "it is about to be written");
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_would_be_right() {
    let check = |text: &str, expected: &[&str]| {
        let told = parse::parse("mesh.yaml", text).unwrap_err().to_string();
        let expected: Vec<_> = expected.iter().map(|line| format!("mesh.yaml: {line}")).collect();
        assert_eq!(told, expected.join("\n"), "{text}");
    };
    check(
        r#"
services:
  - name: Web
    namespce: shop
    ports: [{name: http, port: 0, protocol: htp}, {port: 81}, {name: "81", port: 82}, {name: x, port: 81}]
    endpoints: [{address: "10.0.0.5", port: "81", weight: 70000, priority: -1}]
  - ports: []
    endpoints: [{address: "10.0.0.5:1"}, {address: "10.0.0.5:1", port: http}]
  - {name: db, ports: [{port: 5432}], endpoints: [{address: "10.0.0.7:0"}]}
  - {name: db, ports: [{port: 5432}]}
servces: []
"#,
        &[
            r#"services[0].name: "Web": "Web" contains 'W'; a name is made of a-z, 0-9 and -, and does not begin or end with -"#,
            "services[0].ports[0].port: 0: a port from 1 to 65535 is wanted",
            r#"services[0].ports[0].protocol: "htp": one of auto, http, http2, grpc, tcp is wanted; did you mean http?"#,
            r#"services[0].ports[2].name: "81": is a duplicate: another port of this service is named 81"#,
            "services[0].ports[3].port: 81: is a duplicate: the port named 81 has this number",
            r#"services[0].endpoints[0].address: "10.0.0.5": an address such as 127.0.0.1:8080 is wanted"#,
            "services[0].endpoints[0].weight: 70000: a whole number from 0 to 65535 is wanted",
            "services[0].endpoints[0].priority: -1: a whole number from 0 to 127 is wanted",
            "services[0].namespce: is not a key here; did you mean namespace?",
            "services[1].name: is missing; a name such as web is wanted",
            "services[1].endpoints[0].port: is missing, and the service lists none under ports: [{name: http, port: 80}]",
            r#"services[1].endpoints[1].port: "http": names a port, but the service lists none under ports"#,
            r#"services[2].endpoints[0].address: "10.0.0.7:0": an address that can be dialled, such as 10.0.0.5:8080, is wanted"#,
            r#"services[3].name: "db": is a duplicate: services[2] is db.default already"#,
            "servces: is not a key here; did you mean services?",
        ],
    );
    let ports = "ports: [{name: http, port: 80}, {name: admin, port: 90}]";
    let with = |endpoints: &str| format!("services: [{{name: web, {ports}, endpoints: [{endpoints}]}}]");
    check(
        &with(r#"{address: "10.0.0.5:1"}, {address: "10.0.0.5:1", port: htp}"#),
        &[
            "services[0].endpoints[0].port: is missing; the service has several: one of http, admin is wanted",
            r#"services[0].endpoints[1].port: "htp": one of http, admin is wanted; did you mean http?"#,
        ],
    );
    check(
        &with(
            r#"{address: "10.0.0.5:1", port: http}, {address: "10.0.0.5:1", port: http},
               {address: "10.0.0.5:1", port: admin, weight: 7}, {address: "10.0.0.5:1", port: admin}"#,
        ),
        &[
            r#"services[0].endpoints[1].address: "10.0.0.5:1": is a duplicate: this service has it for port http already"#,
            r#"services[0].endpoints[3].address: "10.0.0.5:1": is a duplicate: this service has it for port admin already"#,
        ],
    );
    check("services: {}", &["services: {}: a list is wanted"]);
    check("services: [web]", &[r#"services[0]: "web": a mapping of keys to values is wanted"#]);
}

#[test]
fn one_address_may_have_another_weight_for_another_port() {
    let text = r#"
services:
  - name: web
    ports: [{name: http, port: 80}, {name: admin, port: 90}, {name: extra, port: 91}]
    endpoints:
      - {address: "10.0.0.5:1", port: http, weight: 3}
      - {address: "10.0.0.5:1", port: admin, weight: 7}
      - {address: "10.0.0.5:1", port: extra, weight: 3}
"#;
    let observed = parse::parse("mesh.yaml", text).unwrap();
    let told = observed.endpoints.iter().map(|observed| {
        let Endpoint { id, name, weight, ports, .. } = &observed.endpoint;
        let ports = ports.keys().map(Name::as_str).collect::<Vec<_>>().join(",");
        format!("{} {name} {weight} {ports}", id.unit)
    });
    assert_eq!(told.collect::<Vec<_>>(), ["10.0.0.5:1 10.0.0.5:1 3 extra,http", "10.0.0.5:1/admin 10.0.0.5:1 7 admin"]);
}

#[test]
fn nothing_that_is_written_panics() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        let mut bytes = GOOD.as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.drain(at..(at + random.usize(0..20)).min(bytes.len()))),
                _ => bytes.insert(at, *random.choice(b"{}[]:,-\n\" 0a&*!").unwrap()),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let _ = parse::parse("f", &String::from_utf8_lossy(&bytes));
    }
}

/// A provider at work on a file.
struct Running {
    observations: mpsc::Receiver<(ProviderName, Observation)>,
    registry: prometheus::Registry,
    _drainer: drain::Drainer,
}

fn start(path: &Path) -> Running {
    let registry = prometheus::Registry::new();
    let (sender, observations) = mpsc::channel(4);
    let (drainer, drain) = drain::channel();
    let provider = FileProvider::new(path.to_owned(), Metrics::register(&registry).unwrap());
    tokio::spawn(provider.run(sender, drain));
    Running { observations, registry, _drainer: drainer }
}

impl Running {
    /// The next observation as (services, conditions). Sooner than the poll would find it, so that the watch is what is tested.
    async fn next(&mut self) -> (Vec<String>, Vec<Condition>) {
        let (name, seen) = timeout(PATIENCE, self.observations.recv()).await.expect("told in time").unwrap();
        assert_eq!(name, NAME);
        (seen.services.iter().map(|service| service.id.to_string()).collect(), seen.conditions)
    }

    async fn next_by_watch(&mut self) -> (Vec<String>, Vec<Condition>) {
        let begun = Instant::now();
        let next = self.next().await;
        assert!(begun.elapsed() < POLL_INTERVAL / 2, "found by the poll, not by the watch");
        next
    }

    fn metric(&self, series: &str) -> bool {
        mesh_core::telemetry::metrics::render(&self.registry).contains(series)
    }
}

fn text(service: &str) -> String {
    format!("services: [{{name: {service}}}]")
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, text("one")).unwrap();
    let mut running = start(&path);
    assert_eq!(running.next().await, (vec!["one.default".to_owned()], vec![]));
    fs::write(&path, "services: [{nam: two}]").unwrap();
    let (services, conditions) = running.next_by_watch().await;
    assert_eq!(services, ["one.default"]);
    assert_eq!(conditions.len(), 1);
    assert_eq!(*conditions[0].object, format!("file/{}", path.display()));
    assert_eq!(conditions[0].kind, ConditionKind::InvalidFile);
    let message = &conditions[0].message;
    assert!(message.contains("did you mean name?") && message.ends_with("the last good one stays"), "{message}");
    assert!(running.metric(r#"mesh_discovery_file_reads_total{result="invalid"} 1"#));
    assert!(running.metric("mesh_discovery_file_stale 1"));
    fs::remove_file(&path).unwrap();
    let (services, conditions) = running.next_by_watch().await;
    assert_eq!(services, ["one.default"]);
    assert!(conditions[0].message.contains("cannot be read: No such file"), "{}", conditions[0].message);
    fs::write(&path, text("two")).unwrap();
    assert_eq!(running.next_by_watch().await, (vec!["two.default".to_owned()], vec![]));
    assert!(running.metric("mesh_discovery_file_stale 0"));
}

#[tokio::test]
async fn a_file_put_in_its_place_and_a_swapped_link_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    fs::write(&path, text("one")).unwrap();
    let mut running = start(&path);
    assert_eq!(running.next().await.0, ["one.default"]);
    for service in ["two", "three"] {
        let temporary = folder.path().join("mesh.yaml.tmp");
        fs::write(&temporary, text(service)).unwrap();
        fs::rename(&temporary, &path).unwrap();
        assert_eq!(running.next_by_watch().await.0, [format!("{service}.default")]);
    }
    // As mounted config maps do it: mesh.yaml -> ..data/mesh.yaml, ..data -> v1, and then ..data -> v2.
    for (version, service) in [("v1", "four"), ("v2", "five")] {
        fs::create_dir(folder.path().join(version)).unwrap();
        fs::write(folder.path().join(version).join("mesh.yaml"), text(service)).unwrap();
        let link = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        fs::rename(&link, folder.path().join("..data")).unwrap();
        if version == "v1" {
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("..data/mesh.yaml", &path).unwrap();
        }
        let mut seen = running.next_by_watch().await.0;
        if seen == ["three.default"] {
            seen = running.next().await.0; // between the removal and the link
        }
        assert_eq!(seen, [format!("{service}.default")]);
    }
}

#[tokio::test]
async fn a_missing_file_is_a_condition_and_then_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    let mut running = start(&path);
    let (services, conditions) = running.next().await;
    assert!(services.is_empty());
    assert!(conditions[0].message.ends_with("nothing is known from it"), "{}", conditions[0].message);
    fs::write(&path, text("one")).unwrap();
    assert_eq!(running.next_by_watch().await, (vec!["one.default".to_owned()], vec![]));
}
