use std::collections::BTreeSet;
use std::time::Duration;

use mesh_core::config::percent::Percent;
use mesh_core::model::policy::{Balance, RetryOn, Upstream};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn good(pairs: &[(&str, &str)]) -> Settings {
    let (settings, problems) = read(&labels(pairs));
    assert_eq!(problems, [], "{pairs:?}");
    settings
}

fn problem(key: &str, value: &str, kind: ConditionKind, part: &str) {
    let (settings, problems) = read(&labels(&[(key, value), ("mesh.version", "7")]));
    assert_eq!(problems.len(), 1, "{key}={value}: {problems:?}");
    assert_eq!((problems[0].key.as_str(), problems[0].kind), (key, kind), "{key}={value}");
    let message = &problems[0].message;
    assert!(message.contains(part) && message.contains(key) && message.contains(value), "{message}");
    assert_eq!(
        settings,
        Settings { version: Some("7".into()), ..Settings::default() },
        "{key}={value}: the rest holds"
    );
}

#[test]
fn every_key_is_read() {
    let settings = good(&[
        ("mesh.enable", "true"),
        ("mesh.service", "web"),
        ("mesh.namespace", "shop"),
        ("mesh.port", "8080"),
        ("mesh.ports.admin.port", "9000"),
        ("mesh.ports.admin.protocol", "grpc"),
        ("mesh.protocol", "http"),
        ("mesh.weight", "0"),
        ("mesh.version", "1.4.2"),
        ("mesh.zone", "a"),
        ("mesh.network", "backend"),
        ("mesh.publish-not-ready", "true"),
        ("mesh.capture", "pinned"),
        ("mesh.run", "anything"),
        ("com.example.mesh.enable", "not ours"),
    ]);
    let port = |name: &str, port, protocol| PortSetting { name: Name::new(name).unwrap(), port, protocol };
    let expected = Settings {
        enable: Some(true),
        service: Some(Name::new("web").unwrap()),
        namespace: Some(Name::new("shop").unwrap()),
        ports: vec![port("8080", 8080, Protocol::Http), port("admin", 9000, Protocol::Grpc)],
        protocol: Protocol::Http,
        weight: Some(0),
        version: Some("1.4.2".into()),
        zone: Some("a".into()),
        network: Some("backend".into()),
        publish_not_ready: true,
        capture: CaptureMode::Pinned,
        policy: None,
    };
    assert_eq!(settings, expected);
    assert_eq!(good(&[]), Settings::default());
}

#[test]
fn the_long_form_is_an_alias_and_the_short_one_wins() {
    assert_eq!(good(&[("internal.mesh.weight", "5")]).weight, Some(5));
    assert_eq!(good(&[("internal.mesh.weight", "x"), ("mesh.weight", "6")]).weight, Some(6));
}

#[test]
fn a_port_named_by_its_number_needs_no_second_label() {
    let ports = good(&[("mesh.ports.8080.protocol", "http2")]).ports;
    assert_eq!(ports, [PortSetting { name: number_name(8080), port: 8080, protocol: Protocol::Http2 }]);
    let both = good(&[("mesh.port", "80"), ("mesh.ports.http.port", "80")]).ports;
    assert_eq!(both, [PortSetting { name: Name::new("http").unwrap(), port: 80, protocol: Protocol::Auto }]);
}

#[test]
fn mistakes_name_key_and_value_and_what_would_be_right() {
    use ConditionKind::{InvalidLabel, UnknownLabel};
    problem("mesh.enabel", "true", UnknownLabel, "did you mean mesh.enable?");
    problem("mesh.wieght", "3", UnknownLabel, "did you mean mesh.weight?");
    problem("internal.mesh.prot", "80", UnknownLabel, "did you mean mesh.port?");
    problem("mesh.retry.atempts", "3", UnknownLabel, "did you mean mesh.retry.attempts?");
    problem("mesh.ports.http.prot", "80", UnknownLabel, "did you mean port?");
    problem("mesh.ports.http", "80", UnknownLabel, "mesh.ports.<name>.port");
    problem("mesh.tier", "critical", UnknownLabel, "not supported yet");
    problem("mesh.health.path", "/ready", UnknownLabel, "not supported yet");
    problem("mesh.enable", "yes", InvalidLabel, "true or false");
    problem("mesh.enable", "True", InvalidLabel, "true or false");
    problem("mesh.port", "0", InvalidLabel, "1 to 65535");
    problem("mesh.port", "65536", InvalidLabel, "1 to 65535");
    problem("mesh.ports.http.port", "http", InvalidLabel, "1 to 65535");
    problem("mesh.ports.A.port", "80", InvalidLabel, "a-z");
    problem("mesh.weight", "-1", InvalidLabel, "from 0 to");
    problem("mesh.protocol", "gprc", InvalidLabel, "did you mean grpc?");
    problem("mesh.capture", "on", InvalidLabel, "auto, service, pinned, off");
    problem("mesh.service", "Web.Front", InvalidLabel, "a-z");
    problem("mesh.network", "", InvalidLabel, "1 to 128");
    problem("mesh.lb", "maglev", InvalidLabel, "not supported yet");
    problem("mesh.timeout", "5", InvalidLabel, "1m30s");
    problem("mesh.retry.on", "5xx,rest", InvalidLabel, "did you mean reset?");
    problem("mesh.retry.budget", "20", InvalidLabel, "20%");
    problem("mesh.outlier.base-ejection-time", "0s", InvalidLabel, "more than 0s");
    problem("mesh.", "1", UnknownLabel, "no such label");
}

#[test]
fn a_protocol_without_its_port_is_told() {
    let (settings, problems) = read(&labels(&[("mesh.ports.http.protocol", "http")]));
    assert_eq!(settings.ports, []);
    assert!(problems[0].message.contains("mesh.ports.http.port is missing"), "{problems:?}");
}

#[test]
fn policies_are_read_and_absent_without_a_key() {
    let policy = good(&[
        ("mesh.lb", "round_robin"),
        ("mesh.timeout", "1m30s"),
        ("mesh.retry.on", "connect-failure, 5xx"),
        ("mesh.retry.attempts", "3"),
        ("mesh.retry.budget", "10%"),
        ("mesh.circuit.max-requests", "7"),
        ("mesh.outlier.consecutive-5xx", "2"),
        ("mesh.upstream.idle-timeout", "2s"),
        ("mesh.upstream.max-idle-connections", "9"),
        ("mesh.upstream.max-header-bytes", "16KiB"),
        ("mesh.upstream.max-headers", "50"),
    ])
    .policy
    .unwrap();
    let upstream = Upstream {
        idle_timeout: Some(Duration::from_secs(2)),
        idle_connections_max: 9,
        header_bytes_max: 16 << 10,
        header_count_max: 50,
    };
    assert_eq!(policy.upstream, upstream);
    assert_eq!(policy.balance, Balance::RoundRobin);
    assert_eq!(policy.timeout, Some(Duration::from_secs(90)));
    assert_eq!(policy.retry.on, [RetryOn::ConnectFailure, RetryOn::ServerError].into());
    assert_eq!((policy.retry.attempts, policy.retry.budget), (3, Percent::from_hundredths(10_00)));
    assert_eq!((policy.circuit.requests_max, policy.outlier.consecutive_5xx), (7, 2));
    assert_eq!(good(&[("mesh.timeout", "0s")]).policy.unwrap().timeout, None);
    assert_eq!(good(&[("mesh.retry.on", "")]).policy.unwrap().retry.on, BTreeSet::new());
    assert_eq!(good(&[("mesh.weight", "1")]).policy, None);
}

/// Whatever stands there, reading ends, and a problem's key is one of the labels or of the ports they speak of.
#[test]
fn no_labels_make_it_fail() {
    let mut random = fastrand::Rng::with_seed(7);
    let pieces =
        ["mesh", ".", "ports", "port", "protocol", "8080", "ä", "\0", "retry", "on", "-", "true", "9999999999", ","];
    for _ in 0..5_000 {
        let mut draw = || (0..random.usize(..8)).map(|_| pieces[random.usize(..pieces.len())]).collect::<String>();
        let set: BTreeMap<String, String> = (0..4).map(|_| (format!("mesh.{}", draw()), draw())).collect();
        let (settings, _) = read(&set);
        assert!(settings.ports.iter().all(|port| port.port > 0), "{set:?}");
    }
}
