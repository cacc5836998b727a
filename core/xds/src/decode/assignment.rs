//! The endpoints of one cluster: EDS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use mesh_core::model::endpoint::{EndpointState, NetworkAddress};
use mesh_core::model::names::EndpointId;
use mesh_core::model::resource::{Assignment, Target};

use super::{At, DecodeError};
use crate::encode::assignment::Extra;

pub(crate) fn assignment(at: At<'_>, value: &[u8]) -> Result<Assignment, DecodeError> {
    let message: pb::ClusterLoadAssignment = at.message("assignment", value)?;
    if message.policy.as_ref().is_some_and(|policy| !policy.drop_overloads.is_empty()) {
        return Err(at.unsupported("policy.drop_overloads", "a drop category", "no load is dropped on purpose"));
    }
    let mut endpoints = Vec::new();
    for locality in &message.endpoints {
        if locality.lb_config.is_some() {
            return Err(at.unsupported("endpoints.lb_config", "LEDS", "the endpoints themselves are wanted"));
        }
        for endpoint in &locality.lb_endpoints {
            endpoints.push(target(at, locality, endpoint)?);
        }
    }
    endpoints.sort_by(|one: &Target, other| one.id.cmp(&other.id));
    if let Some(twice) = endpoints.windows(2).find(|two| two[0].id == two[1].id) {
        return Err(at.invalid("endpoints", &twice[0].id, "each endpoint once is wanted"));
    }
    Ok(Assignment { cluster: message.cluster_name.into(), endpoints })
}

fn target(at: At<'_>, group: &pb::LocalityLbEndpoints, message: &pb::LbEndpoint) -> Result<Target, DecodeError> {
    let field = "endpoints.lb_endpoints.endpoint.address";
    let address = match &message.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => at.socket(field, endpoint.address.as_ref())?,
        Some(HostIdentifier::EndpointName(name)) => {
            return Err(at.unsupported("endpoints.lb_endpoints.endpoint_name", name, "an address is wanted"));
        }
        None => return Err(at.missing(field, "an address is wanted")),
    };
    if let Some(extra) = at.extra::<Extra>("endpoints.lb_endpoints.metadata", message.metadata.as_ref())? {
        let Extra { id, networks, weight, priority, zone, version, state } = extra;
        return Ok(Target { id, address, networks, weight, priority, zone, version, state });
    }
    let zone = group.locality.as_ref().map(|locality| locality.zone.as_str()).filter(|zone| !zone.is_empty());
    Ok(Target {
        id: EndpointId::new(&address.to_string(), 0),
        address,
        networks: vec![NetworkAddress { network: "".into(), address: address.ip() }],
        weight: message.load_balancing_weight.as_ref().map_or(1, |weight| weight.value),
        priority: group.priority,
        zone: zone.map(Arc::from),
        version: None,
        state: state(at, message.health_status)?,
    })
}

fn state(at: At<'_>, status: i32) -> Result<EndpointState, DecodeError> {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Ok(EndpointState::Ready),
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Ok(EndpointState::NotReady),
        Ok(HealthStatus::Draining) => Ok(EndpointState::Draining),
        Err(_) => Err(at.invalid("endpoints.lb_endpoints.health_status", status, "0 to 5 is wanted")),
    }
}
