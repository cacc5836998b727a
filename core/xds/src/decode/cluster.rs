//! How one service port is called: CDS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::extensions::load_balancing_policies::{
    least_request::v3::LeastRequest, round_robin::v3::RoundRobin, wrr_locality::v3::WrrLocality,
};
use mesh_core::config::percent::Percent;
use mesh_core::model::policy::{Balance, Circuit, ConnectTimeout, Outlier, Policy, Retry, RetryMethods, Upstream};
use mesh_core::model::resource::{Cluster, EndpointSource};
use std::collections::BTreeSet;
use std::time::Duration;

use super::http_options::HttpOptions;
use super::{At, DecodeError};
use crate::encode::cluster::Extra;

/// A cluster, and what only the stream needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedCluster {
    pub cluster: Arc<Cluster>,
    /// What its assignment is called; the cluster's own name unless it says otherwise.
    pub assignment: Arc<str>,
    /// Made by another control plane: timeout and retries are then found in the routes that lead to it.
    pub foreign: bool,
}

pub(crate) fn cluster(at: At<'_>, value: &[u8]) -> Result<DecodedCluster, DecodeError> {
    let message: pb::Cluster = at.message("cluster", value)?;
    let assignment = assignment_name(at, &message)?;
    if message.transport_socket.is_some() || !message.transport_socket_matches.is_empty() {
        return Err(at.unsupported("transport_socket", "TLS", "endpoints are spoken to in plain text"));
    }
    let http = HttpOptions::of(at, &message)?;
    let extra: Option<Extra> = at.extra("metadata", message.metadata.as_ref())?;
    let foreign = extra.is_none();
    let (service, policy) = match extra {
        Some(Extra { service, policy }) => (service, policy),
        None => (None, foreign_policy(at, &message, http.upstream)?),
    };
    let name: Arc<str> = message.name.into();
    let cluster = Cluster { name, service, protocol: http.protocol, policy, source: EndpointSource::Assignment };
    Ok(DecodedCluster { cluster: Arc::new(cluster), assignment, foreign })
}

fn assignment_name(at: At<'_>, message: &pb::Cluster) -> Result<Arc<str>, DecodeError> {
    let wanted = "EDS is wanted";
    match &message.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::Eds) => {}
        Some(ClusterDiscoveryType::Type(kind)) => {
            let found = DiscoveryType::try_from(*kind).map_or("an unknown number", |kind| kind.as_str_name());
            return Err(at.unsupported("type", found, wanted));
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(at.unsupported("cluster_type", &custom.name, wanted));
        }
        None => return Err(at.missing("type", wanted)),
    }
    let eds = message.eds_cluster_config.as_ref().ok_or_else(|| at.missing("eds_cluster_config", wanted))?;
    at.over_ads("eds_cluster_config.eds_config", eds.eds_config.as_ref())?;
    let name = if eds.service_name.is_empty() { &message.name } else { &eds.service_name };
    Ok(name.as_str().into())
}

/// What another control plane decided, as far as a cluster tells it.
fn foreign_policy(at: At<'_>, message: &pb::Cluster, upstream: Upstream) -> Result<Policy, DecodeError> {
    let connect_timeout = match &message.connect_timeout {
        Some(timeout) => at.duration("connect_timeout", timeout)?,
        None => Duration::from_secs(5), // Envoy's default
    };
    let (circuit, retry) = thresholds(message);
    Ok(Policy {
        balance: balance(at, message)?,
        timeout: None,
        connect_timeout: ConnectTimeout(connect_timeout),
        retry,
        circuit,
        outlier: outlier(at, message.outlier_detection.as_ref())?,
        upstream,
    })
}

/// The first algorithm of the list that we know, else the old enumeration.
fn balance(at: At<'_>, message: &pb::Cluster) -> Result<Balance, DecodeError> {
    let wanted = "ROUND_ROBIN or LEAST_REQUEST is wanted";
    if let Some(list) = &message.load_balancing_policy {
        return first_known(list).ok_or_else(|| at.unsupported("load_balancing_policy", names_in(list), wanted));
    }
    match LbPolicy::try_from(message.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Ok(Balance::RoundRobin),
        Ok(LbPolicy::LeastRequest) => Ok(Balance::LeastRequest),
        Ok(other) => Err(at.unsupported("lb_policy", other.as_str_name(), wanted)),
        Err(_) => Err(at.invalid("lb_policy", message.lb_policy, wanted)),
    }
}

fn first_known(list: &pb::LoadBalancingPolicy) -> Option<Balance> {
    use prost::Name as _;
    let urls = list.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref());
    urls.map(|any| any.type_url.as_str()).find_map(|url| match url {
        url if url == LeastRequest::type_url() => Some(Balance::LeastRequest),
        url if url == RoundRobin::type_url() || url == WrrLocality::type_url() => Some(Balance::RoundRobin),
        _ => None,
    })
}

fn names_in(list: &pb::LoadBalancingPolicy) -> String {
    let configs = list.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref());
    configs.map(|config| config.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Envoy's defaults where nothing is said; retries themselves come from the routes.
fn thresholds(message: &pb::Cluster) -> (Circuit, Retry) {
    let mut circuit = Circuit { connections_max: 1024, pending_max: 1024, requests_max: 1024 };
    let mut retry = Retry { on: BTreeSet::new(), attempts: 0, methods: RetryMethods::Any, ..Retry::default() };
    let breakers = message.circuit_breakers.as_ref();
    let default =
        |threshold: &&pb::circuit_breakers::Thresholds| threshold.priority == i32::from(RoutingPriority::Default);
    if let Some(threshold) = breakers.and_then(|breakers| breakers.thresholds.iter().find(default)) {
        let set = |field: &mut u32, value: &Option<envoy_types::pb::google::protobuf::UInt32Value>| {
            if let Some(value) = value {
                *field = value.value;
            }
        };
        set(&mut circuit.connections_max, &threshold.max_connections);
        set(&mut circuit.pending_max, &threshold.max_pending_requests);
        set(&mut circuit.requests_max, &threshold.max_requests);
        if let Some(budget) = &threshold.retry_budget {
            let percent = budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
            retry.budget = Percent::from_hundredths((percent.clamp(0.0, 100.0) * 100.0).round() as u32);
            retry.budget_min_per_second = budget.min_retry_concurrency.as_ref().map_or(3, |min| min.value);
        }
    }
    (circuit, retry)
}

fn outlier(at: At<'_>, message: Option<&pb::OutlierDetection>) -> Result<Outlier, DecodeError> {
    let Some(message) = message else {
        return Ok(Outlier { consecutive_5xx: 0, ..Outlier::default() });
    };
    let enforced = message.enforcing_consecutive_5xx.as_ref().is_none_or(|percent| percent.value > 0);
    let consecutive = message.consecutive_5xx.as_ref().map_or(5, |count| count.value);
    let or = |field: &str, value: Option<&_>, default: Duration| match value {
        Some(value) => at.duration(field, value),
        None => Ok(default),
    };
    let base =
        or("outlier_detection.base_ejection_time", message.base_ejection_time.as_ref(), Duration::from_secs(30))?;
    let longest =
        or("outlier_detection.max_ejection_time", message.max_ejection_time.as_ref(), Duration::from_secs(300))?;
    let percent = message.max_ejection_percent.as_ref().map_or(10, |percent| percent.value.min(100));
    Ok(Outlier {
        consecutive_5xx: if enforced { consecutive } else { 0 },
        base_ejection_time: base,
        max_ejection_time: longest.max(base),
        max_ejection_percent: Percent::from_hundredths(percent * 100),
    })
}
