//! What we were told, and how every endpoint stands, as JSON.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::balance::{Standing, explain};
use crate::endpoint::{LiveCluster, LiveEndpoint};
use crate::resilience::breaker::Limit;
use crate::state::view::View;

#[derive(Serialize)]
struct Clusters {
    view: u64,
    clusters: Vec<ClusterState>,
}

#[derive(Serialize)]
struct ClusterState {
    name: Arc<str>,
    service: Option<String>,
    balance: &'static str,
    circuit: Vec<CircuitState>,
    endpoints: Vec<EndpointState>,
}

#[derive(Serialize)]
struct CircuitState {
    limit: &'static str,
    active: u32,
    max: u32,
    open: bool,
}

#[derive(Serialize)]
struct EndpointState {
    id: String,
    address: std::net::SocketAddr,
    weight: u32,
    priority: u32,
    state: mesh_core::model::endpoint::EndpointState,
    /// Whether requests go to it, and why not.
    standing: &'static str,
    reason: Option<&'static str>,
    ejected_for_ms: Option<u128>,
    active_requests: u32,
    connections: u32,
    consecutive_failures: u32,
    requests_total: u64,
    failures_total: u64,
    ejections_total: u64,
}

/// All resources.
pub fn resources(view: &View) -> Response {
    json(&*view.resources)
}

/// All clusters with their endpoints.
pub fn clusters(view: &View) -> Response {
    let now = Instant::now();
    let mut clusters: Vec<_> = view.clusters.values().map(|live| cluster(live, now)).collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    json(&Clusters { view: view.number, clusters })
}

fn cluster(live: &LiveCluster, now: Instant) -> ClusterState {
    let circuit = Limit::ALL.into_iter().map(|limit| {
        let stats = live.stats();
        let active = match limit {
            Limit::Connections => stats.connections(),
            Limit::Pending => stats.pending(),
            Limit::Requests => stats.requests(),
        };
        let max = limit.max(&live.policy().circuit);
        CircuitState { limit: limit.as_str(), active, max, open: active >= max }
    });
    ClusterState {
        name: Arc::clone(live.name()),
        service: live.cluster().service.as_ref().map(ToString::to_string),
        balance: live.policy().balance.as_str(),
        circuit: circuit.collect(),
        endpoints: explain(live, now).iter().map(|(live, standing)| endpoint(live, *standing)).collect(),
    }
}

fn endpoint(live: &LiveEndpoint, standing: Standing) -> EndpointState {
    let ejected_for_ms = match standing {
        Standing::Ejected { ejected_for } | Standing::TakenInPanic { ejected_for } => Some(ejected_for.as_millis()),
        _ => None,
    };
    EndpointState {
        id: live.id().to_string(),
        address: live.target.address,
        weight: live.target.weight,
        priority: live.target.priority,
        state: live.target.state,
        standing: standing.as_str(),
        reason: standing.reason().map(|reason| reason.flag()),
        ejected_for_ms,
        active_requests: live.stats.active_requests(),
        connections: live.stats.connections(),
        consecutive_failures: live.stats.consecutive_failures(),
        requests_total: live.stats.requests_total(),
        failures_total: live.stats.failures_total(),
        ejections_total: live.stats.ejections_total(),
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
