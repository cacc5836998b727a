//! A load report: LRS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};

use super::{duration, socket};
use crate::load::{ClusterLoad, EndpointLoad, Extra, LoadReport};
use crate::metadata;

/// How much a server wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// Sums by locality and priority.
    Locality,
    /// Each endpoint's own numbers beside them.
    Endpoint,
}

/// What a server wants to be told: everything of every cluster, no more often than this.
#[must_use]
pub fn asking(interval: Duration) -> LoadStatsResponse {
    LoadStatsResponse {
        send_all_clusters: true,
        load_reporting_interval: Some(duration(interval)),
        report_endpoint_granularity: true,
        ..LoadStatsResponse::default()
    }
}

/// Encodes a report, as a later message of a stream: the first one, which carries the node, says nothing else.
#[must_use]
pub fn report(report: &LoadReport, granularity: Granularity) -> LoadStatsRequest {
    let cluster_stats = report.clusters.iter().map(|load| cluster(load, granularity)).collect();
    LoadStatsRequest { cluster_stats, ..LoadStatsRequest::default() }
}

fn cluster(load: &ClusterLoad, granularity: Granularity) -> pb::ClusterStats {
    let mut groups: BTreeMap<(u32, Option<&Arc<str>>), Vec<&EndpointLoad>> = BTreeMap::new();
    for endpoint in &load.endpoints {
        groups.entry((endpoint.priority, endpoint.zone.as_ref())).or_default().push(endpoint);
    }
    let groups = groups.into_iter().map(|((priority, zone), loads)| group(priority, zone, &loads, granularity));
    pb::ClusterStats {
        cluster_name: load.cluster.to_string(),
        upstream_locality_stats: groups.collect(),
        load_report_interval: Some(duration(load.interval)),
        ..pb::ClusterStats::default()
    }
}

fn group(
    priority: u32,
    zone: Option<&Arc<str>>,
    loads: &[&EndpointLoad],
    granularity: Granularity,
) -> pb::UpstreamLocalityStats {
    let sum = |of: fn(&EndpointLoad) -> u64| loads.iter().fold(0_u64, |sum, load| sum.saturating_add(of(load)));
    let zone = zone.map(|zone| zone.to_string()).unwrap_or_default();
    let own = match granularity {
        Granularity::Locality => Vec::new(),
        Granularity::Endpoint => loads.iter().map(|load| endpoint(load)).collect(),
    };
    pb::UpstreamLocalityStats {
        locality: Some(Locality { zone, ..Locality::default() }),
        priority,
        total_issued_requests: sum(|load| load.issued),
        total_successful_requests: sum(|load| load.succeeded),
        total_error_requests: sum(|load| load.failed),
        total_requests_in_progress: sum(|load| load.in_progress),
        upstream_endpoint_stats: own,
        ..pb::UpstreamLocalityStats::default()
    }
}

fn endpoint(load: &EndpointLoad) -> pb::UpstreamEndpointStats {
    let extra = Extra {
        id: load.id.clone(),
        ejected_for_ms: load.ejection.as_ref().map(|out| u64::try_from(out.left.as_millis()).unwrap_or(u64::MAX)),
        reason: load.ejection.as_ref().map(|out| out.reason.clone()),
    };
    pb::UpstreamEndpointStats {
        address: Some(socket(load.address)),
        metadata: Some(metadata::to_struct(&serde_json::json!({ metadata::KEY: extra }))),
        total_issued_requests: load.issued,
        total_successful_requests: load.succeeded,
        total_error_requests: load.failed,
        total_requests_in_progress: load.in_progress,
        ..pb::UpstreamEndpointStats::default()
    }
}
