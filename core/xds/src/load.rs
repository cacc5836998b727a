//! What a proxy tells back: how much it sent to whom, and whom it took out for a while. The words of
//! `envoy.service.load_stats.v3.LoadReportingService` (LRS, "Load Reporting Service" of the xDS v3 API), which every xDS client
//! knows. It has no word for an ejection; that rides in an endpoint's `metadata`, below the key of [`crate::metadata`]:
//! `{"id": "<unit>@<start>", "ejected_for_ms": 30000, "reason": "5 failures in a row"}`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::names::EndpointId;
use serde::{Deserialize, Serialize};

/// A client that says so in its node understands `LoadStatsResponse.send_all_clusters`.
pub const SENDS_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// Characters of a reason beyond which it is cut.
pub const REASON_CHARACTERS_MAX: usize = 128;

/// Bytes of an endpoint's id beyond which nobody's is taken.
pub const ID_BYTES_MAX: usize = 256;

/// What happened since the report before. Clusters and endpoints about which there is nothing to say are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    pub clusters: Vec<ClusterLoad>,
}

/// What happened to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLoad {
    pub cluster: Arc<str>,
    /// Over which the numbers were counted.
    pub interval: Duration,
    pub endpoints: Vec<EndpointLoad>,
}

/// What happened to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointLoad {
    pub id: EndpointId,
    pub address: SocketAddr,
    pub zone: Option<Arc<str>>,
    pub priority: u32,
    /// Requests sent to it, ended or not.
    pub issued: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Now.
    pub in_progress: u64,
    /// None: it takes requests, as far as this proxy is concerned.
    pub ejection: Option<Ejection>,
}

/// An endpoint is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Until the proxy lets it in again.
    pub left: Duration,
    /// For people: `5 failures in a row`.
    pub reason: Arc<str>,
}

/// What an endpoint carries for us.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub id: EndpointId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_for_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

impl LoadReport {
    /// Who is out.
    pub fn ejections(&self) -> impl Iterator<Item = (&EndpointId, &Ejection)> {
        let endpoints = self.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        endpoints.filter_map(|endpoint| Some((&endpoint.id, endpoint.ejection.as_ref()?)))
    }
}
