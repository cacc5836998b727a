//! What goes out comes back, and what others send does no harm.

use envoy_types::pb::envoy::config::core::v3::{Locality, Pipe};
use fastrand::Rng;
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::encode::load::{self as encode, Granularity};
use crate::sample;

fn by_id(mut report: LoadReport) -> LoadReport {
    for cluster in &mut report.clusters {
        cluster.endpoints.sort_by(|one, other| one.id.cmp(&other.id));
    }
    report
}

#[test]
fn what_goes_out_comes_back() {
    for seed in 0..300 {
        let original = sample::load_report(&mut Rng::with_seed(seed));
        let bytes = encode::report(&original, Granularity::Endpoint).encode_to_vec();
        let taken = report(&LoadStatsRequest::decode(bytes.as_slice()).unwrap());
        assert_eq!((taken.refused, by_id(taken.report)), (0, by_id(original)), "seed {seed}");
    }
}

#[test]
fn sums_are_there_for_those_who_do_not_ask_for_endpoints() {
    for seed in 0..50 {
        let original = sample::load_report(&mut Rng::with_seed(seed));
        let message = encode::report(&original, Granularity::Locality);
        for (cluster, stats) in original.clusters.iter().zip(&message.cluster_stats) {
            let groups = &stats.upstream_locality_stats;
            assert!(groups.iter().all(|group| group.upstream_endpoint_stats.is_empty()));
            let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0_u64, u64::saturating_add);
            let issued = sum(&mut cluster.endpoints.iter().map(|endpoint| endpoint.issued));
            assert_eq!(sum(&mut groups.iter().map(|group| group.total_issued_requests)), issued, "seed {seed}");
        }
    }
}

fn socket_address(ip: &str, port: u32) -> Option<Address> {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(port));
    let socket = envoy_types::pb::envoy::config::core::v3::SocketAddress {
        address: ip.into(),
        port_specifier,
        ..Default::default()
    };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn message(endpoints: Vec<pb::UpstreamEndpointStats>) -> LoadStatsRequest {
    let locality = Some(Locality { zone: "a".into(), ..Locality::default() });
    let group = pb::UpstreamLocalityStats { locality, upstream_endpoint_stats: endpoints, ..Default::default() };
    let stats =
        pb::ClusterStats { cluster_name: "web".into(), upstream_locality_stats: vec![group], ..Default::default() };
    LoadStatsRequest { cluster_stats: vec![stats], ..LoadStatsRequest::default() }
}

fn endpoint_with(address: Option<Address>, mesh: Option<serde_json::Value>) -> pb::UpstreamEndpointStats {
    let metadata = mesh.map(|mesh| metadata::to_struct(&json!({ "mesh": mesh })));
    pb::UpstreamEndpointStats { address, metadata, total_issued_requests: 7, ..Default::default() }
}

#[test]
fn reports_of_others_are_read() {
    let pipe = Address { address: Some(address::Address::Pipe(Pipe { path: "/run/x".into(), mode: 0 })) };
    let taken =
        report(&message(vec![endpoint_with(socket_address("10.0.0.5", 8080), None), endpoint_with(Some(pipe), None)]));
    assert!(taken.first_error.is_none(), "{:?}", taken.first_error);
    let [endpoint] = &taken.report.clusters[0].endpoints[..] else { panic!("{taken:?}") };
    assert_eq!((endpoint.id.to_string(), endpoint.issued), ("10.0.0.5:8080@0".to_owned(), 7));
    assert_eq!((endpoint.zone.as_deref(), &endpoint.ejection), (Some("a"), &None));
}

#[test]
fn what_makes_no_sense_is_left_out_alone() {
    let good =
        || endpoint_with(socket_address("10.0.0.5", 8080), Some(json!({"id": "c1@1", "ejected_for_ms": 30_000})));
    let check = |bad: pb::UpstreamEndpointStats, expected: &str| {
        let taken = report(&message(vec![bad, good()]));
        let error = taken.first_error.expect("one is bad").to_string();
        assert!(error.contains(expected), "{error}: {expected} is not in it");
        assert_eq!(taken.refused, 1, "{error}");
        let [(id, ejection)] = &taken.report.ejections().collect::<Vec<_>>()[..] else { panic!("{error}") };
        assert_eq!((id.to_string(), ejection.left), ("c1@1".to_owned(), Duration::from_secs(30)));
        assert_eq!(&*ejection.reason, NO_REASON);
    };
    let at = |port| socket_address("10.0.0.6", port);
    check(endpoint_with(None, None), "missing");
    check(endpoint_with(socket_address("web", 80), None), "\"web\"");
    check(endpoint_with(at(70_000), None), "10.0.0.6 with port 70000");
    check(endpoint_with(at(80), Some(json!(1))), "not an object");
    check(endpoint_with(at(80), Some(json!({"id": "c1"}))), "metadata.mesh makes no sense");
    check(endpoint_with(at(80), Some(json!({"id": "c1@1", "ejected_for_ms": -1}))), "metadata.mesh makes no sense");
    check(endpoint_with(at(80), Some(json!({"id": format!("{}@1", "c".repeat(300))}))), "300 bytes");
}

#[test]
fn a_reason_is_one_short_line() {
    let check = |reason: &str, expected: &str| assert_eq!(&*ejection(1, Some(reason)).reason, expected);
    check("5 failures in a row", "5 failures in a row");
    check("\u{1b}[31mred\r\nnext", "[31mrednext");
    check("\n", NO_REASON);
    assert_eq!(ejection(1, Some(&"ä".repeat(500))).reason.chars().count(), REASON_CHARACTERS_MAX);
}

#[test]
fn intervals_are_not_negative() {
    let check = |seconds, nanos, expected| assert_eq!(interval(&ProtoDuration { seconds, nanos }), expected);
    check(5, 500_000_000, Some(Duration::from_millis(5500)));
    check(0, 0, Some(Duration::ZERO));
    check(-1, 0, None);
    check(1, -1, None);
    check(1, 1_000_000_000, None);
}
