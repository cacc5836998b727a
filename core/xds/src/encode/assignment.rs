//! The endpoints of one cluster: EDS, grouped by priority and zone.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality};
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use mesh_core::model::endpoint::{EndpointState, NetworkAddress};
use mesh_core::model::names::EndpointId;
use mesh_core::model::resource::{Assignment, Target};
use serde::{Deserialize, Serialize};

use super::{number, pack, socket};
use crate::kind::Kind;
use crate::metadata;
use crate::packed::{Packed, version_of};

/// Weights of one locality are added up in 32 bits by Envoy, which refuses an overflow; 4096 endpoints of this one fit.
const WIRE_WEIGHT_MAX: u32 = 1 << 20;

/// Envoy's highest priority number.
const WIRE_PRIORITY_MAX: usize = 128;

/// What an endpoint carries for us.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub id: EndpointId,
    pub networks: Vec<NetworkAddress>,
    pub weight: u32,
    pub priority: u32,
    pub zone: Option<Arc<str>>,
    pub version: Option<Arc<str>>,
    pub state: EndpointState,
}

/// Encodes one assignment.
///
/// A weight of 0 is not legal on the wire, and means "takes nothing new" in ours: such an endpoint goes out as DRAINING with
/// weight 1. Priorities go out without gaps, since gRPC refuses gaps. Both come back exactly, from the metadata.
#[must_use]
pub fn assignment(assignment: &Assignment) -> Packed {
    let priorities: BTreeSet<u32> = assignment.endpoints.iter().map(|target| target.priority).collect();
    let ranks: BTreeMap<u32, usize> = priorities.into_iter().enumerate().map(|(rank, number)| (number, rank)).collect();
    let mut groups: BTreeMap<(u32, Option<&Arc<str>>), Vec<&Target>> = BTreeMap::new();
    for target in &assignment.endpoints {
        let rank = ranks[&target.priority].min(WIRE_PRIORITY_MAX) as u32;
        groups.entry((rank, target.zone.as_ref())).or_default().push(target);
    }
    let endpoints = groups.into_iter().map(|((rank, zone), targets)| group(rank, zone, &targets)).collect();
    let message = pb::ClusterLoadAssignment {
        cluster_name: assignment.cluster.to_string(),
        endpoints,
        ..pb::ClusterLoadAssignment::default()
    };
    let version = version_of(Kind::Assignment, assignment);
    Packed { name: assignment.cluster.clone(), version, body: pack(&message) }
}

fn group(priority: u32, zone: Option<&Arc<str>>, targets: &[&Target]) -> pb::LocalityLbEndpoints {
    let zone = zone.map(|zone| zone.to_string()).unwrap_or_default();
    let weight = targets.iter().fold(0_u32, |sum, target| sum.saturating_add(wire_weight(target.weight)));
    pb::LocalityLbEndpoints {
        locality: Some(Locality { zone, ..Locality::default() }),
        priority,
        // gRPC skips a locality without a weight; Envoy reads it only where it is told to.
        load_balancing_weight: Some(number(weight)),
        lb_endpoints: targets.iter().map(|target| endpoint(target)).collect(),
        ..pb::LocalityLbEndpoints::default()
    }
}

fn endpoint(target: &Target) -> pb::LbEndpoint {
    let extra = Extra {
        id: target.id.clone(),
        networks: target.networks.clone(),
        weight: target.weight,
        priority: target.priority,
        zone: target.zone.clone(),
        version: target.version.clone(),
        state: target.state,
    };
    pb::LbEndpoint {
        health_status: health(target).into(),
        metadata: Some(metadata::carrying(&extra)),
        load_balancing_weight: Some(number(wire_weight(target.weight))),
        host_identifier: Some(HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(socket(target.address)),
            ..pb::Endpoint::default()
        })),
    }
}

fn wire_weight(weight: u32) -> u32 {
    weight.clamp(1, WIRE_WEIGHT_MAX)
}

fn health(target: &Target) -> HealthStatus {
    match target.state {
        EndpointState::Ready if target.weight == 0 => HealthStatus::Draining,
        EndpointState::Ready => HealthStatus::Healthy,
        EndpointState::NotReady => HealthStatus::Unhealthy,
        EndpointState::Draining => HealthStatus::Draining,
    }
}
