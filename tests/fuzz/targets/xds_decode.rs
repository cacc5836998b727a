//! What a control plane may send: one resource of any kind, and whole responses to the proxy's end of a stream; and what a client
//! may report. Input: one byte for the kind (255: a load report), then protobuf.
#![no_main]

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use envoy_types::pb::google::protobuf::Any;
use libfuzzer_sys::fuzz_target;
use mesh_xds::client::Session;
use mesh_xds::{Kind, decode};
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, value)) = bytes.split_first() else { return };
    if let Some(kind) = Kind::ALL.get(usize::from(*first)) {
        let body = Any { type_url: kind.type_url().to_owned(), value: value.to_vec() };
        if let Err(error) = decode::resource(*kind, "web", &body) {
            assert!(!error.to_string().is_empty());
        }
        return;
    }
    if *first == u8::MAX {
        let Ok(message) = LoadStatsRequest::decode(value) else { return };
        let taken = decode::load::report(&message);
        assert_eq!(taken.refused > 0, taken.first_error.is_some());
        for (_, ejection) in taken.report.ejections() {
            assert!(!ejection.reason.is_empty() && !ejection.reason.contains(char::is_control), "{ejection:?}");
        }
        return;
    }
    let Ok(response) = DeltaDiscoveryResponse::decode(value) else { return };
    let mut session = Session::new(first & 1 == 0);
    session.connected(Node::default());
    for kind in [Kind::Cluster, Kind::Listener, Kind::Capture] {
        session.response(DeltaDiscoveryResponse { type_url: kind.type_url().to_owned(), ..Default::default() });
    }
    session.response(response.clone());
    session.response(response);
    session.settle();
    let Some(resources) = session.published() else { return };
    for listener in resources.listeners.values() {
        let table = listener.routes.as_ref();
        assert!(table.is_none_or(|table| resources.routes.contains_key(table)), "{listener:?}: no route table");
        let cluster = listener.tcp_cluster.as_ref();
        assert!(cluster.is_none_or(|cluster| resources.clusters.contains_key(cluster)), "{listener:?}: no cluster");
    }
    let mut restored = Session::new(first & 1 == 0);
    restored.restore(session.wire());
});
