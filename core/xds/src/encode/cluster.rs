//! How one service port is called: CDS. Endpoints come by EDS over the same stream.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds::RetryBudget};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy as LbPolicyEntry;
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::{
    least_request::v3::LeastRequest, round_robin::v3::RoundRobin, wrr_locality::v3::WrrLocality,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent as ProtoPercent;
use mesh_core::config::percent::Percent;
use mesh_core::model::names::ServiceId;
use mesh_core::model::policy::{Balance, Circuit, Outlier, Policy, Retry, Upstream};
use mesh_core::model::protocol::UpstreamProtocol;
use mesh_core::model::resource::{Cluster, EndpointSource};
use serde::{Deserialize, Serialize};

use super::{EncodeError, duration, extension, number, over_ads, pack};
use crate::kind::Kind;
use crate::metadata;
use crate::packed::{Packed, version_of};

/// Envoy refuses more.
const ENVOY_HEADERS_KB_MAX: u32 = 8192;

/// The key Envoy reads the protocol towards endpoints from.
pub(crate) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a cluster carries for us: exactly what was decided, where Envoy's words are coarser.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub service: Option<ServiceId>,
    pub policy: Policy,
}

/// Encodes one cluster.
///
/// # Errors
/// [`EncodeError::ClusterFromDns`]: only a proxy's own file has such clusters.
pub fn cluster(cluster: &Cluster) -> Result<Packed, EncodeError> {
    if let EndpointSource::Dns { name, .. } = &cluster.source {
        return Err(EncodeError::ClusterFromDns { cluster: cluster.name.clone(), name: name.clone() });
    }
    let message = message(cluster);
    Ok(Packed { name: cluster.name.clone(), version: version_of(Kind::Cluster, cluster), body: pack(&message) })
}

fn message(cluster: &Cluster) -> pb::Cluster {
    let policy = &cluster.policy;
    pb::Cluster {
        name: cluster.name.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(over_ads()), service_name: String::new() }),
        connect_timeout: Some(duration(at_least_a_millisecond(policy.connect_timeout.0))),
        lb_policy: LbPolicy::RoundRobin.into(),
        load_balancing_policy: Some(load_balancing(policy.balance)),
        // Without this, Envoy sends to endpoints that are not ready once fewer than half are.
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(ProtoPercent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        circuit_breakers: Some(circuit_breakers(policy.circuit, &policy.retry)),
        outlier_detection: outlier_detection(policy.outlier),
        typed_extension_protocol_options: [(
            HTTP_OPTIONS.to_owned(),
            pack(&http_options(cluster.protocol, policy.upstream)),
        )]
        .into(),
        metadata: Some(metadata::carrying(&Extra { service: cluster.service.clone(), policy: policy.clone() })),
        ..pb::Cluster::default()
    }
}

/// A list, of which each client takes the first that it knows: gRPC's C core knows no least-request, and refuses a cluster
/// that names it in `lb_policy`.
fn load_balancing(balance: Balance) -> pb::LoadBalancingPolicy {
    let entry = |config| LbPolicyEntry { typed_extension_config: Some(config) };
    let round_robin = || entry(extension("envoy.load_balancing_policies.round_robin", &RoundRobin::default()));
    let picking = pb::LoadBalancingPolicy { policies: vec![round_robin()] };
    let by_locality = WrrLocality { endpoint_picking_policy: Some(picking) };
    let policies = match balance {
        Balance::LeastRequest => vec![
            entry(extension("envoy.load_balancing_policies.least_request", &LeastRequest::default())),
            entry(extension("envoy.load_balancing_policies.wrr_locality", &by_locality)),
        ],
        Balance::RoundRobin => vec![round_robin()],
    };
    pb::LoadBalancingPolicy { policies }
}

fn circuit_breakers(circuit: Circuit, retry: &Retry) -> pb::CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: Some(number(circuit.connections_max)),
        max_pending_requests: Some(number(circuit.pending_max)),
        max_requests: Some(number(circuit.requests_max)),
        retry_budget: Some(RetryBudget {
            budget_percent: Some(ProtoPercent { value: retry.budget.as_fraction().min(1.0) * 100.0 }),
            budget_interval: None,
            // Envoy counts retries under way, we count retries a second; the exact number is carried beside.
            min_retry_concurrency: Some(number(retry.budget_min_per_second)),
        }),
        ..Thresholds::default()
    };
    pb::CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

fn outlier_detection(outlier: Outlier) -> Option<pb::OutlierDetection> {
    if outlier.consecutive_5xx == 0 {
        return None;
    }
    let base = at_least_a_millisecond(outlier.base_ejection_time);
    Some(pb::OutlierDetection {
        consecutive_5xx: Some(number(outlier.consecutive_5xx)),
        enforcing_consecutive_5xx: Some(number(100)),
        // Envoy's other detectors are on by default; nobody asked for them.
        enforcing_success_rate: Some(number(0)),
        enforcing_consecutive_gateway_failure: Some(number(0)),
        interval: Some(duration(Duration::from_secs(1))),
        base_ejection_time: Some(duration(base)),
        max_ejection_time: Some(duration(outlier.max_ejection_time.max(base))),
        max_ejection_percent: Some(number(whole_percent(outlier.max_ejection_percent))),
        ..pb::OutlierDetection::default()
    })
}

fn whole_percent(percent: Percent) -> u32 {
    (percent.hundredths() / 100).min(100)
}

/// Envoy refuses a zero duration here.
fn at_least_a_millisecond(duration: Duration) -> Duration {
    duration.max(Duration::from_millis(1))
}

fn http_options(protocol: UpstreamProtocol, upstream: Upstream) -> HttpProtocolOptions {
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let options = match protocol {
        UpstreamProtocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
        UpstreamProtocol::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                http3_protocol_options: None,
            })
        }
    };
    // Where nobody asked for anything else, Envoy has its own ideas.
    let common = (upstream != Upstream::default()).then(|| CommonHttpOptions {
        idle_timeout: upstream.idle_timeout.map(duration),
        max_headers_count: Some(number(upstream.header_count_max.max(1))),
        max_response_headers_kb: Some(number(upstream.header_bytes_max.div_ceil(1024).clamp(1, ENVOY_HEADERS_KB_MAX))),
        ..CommonHttpOptions::default()
    });
    HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        common_http_protocol_options: common,
        ..HttpProtocolOptions::default()
    }
}
