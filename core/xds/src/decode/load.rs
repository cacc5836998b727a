//! A load report: LRS. Reports of Envoy and others are read like our own; nobody is out in them, since LRS has no word for it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{Address, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, Struct, value};
use mesh_core::model::names::EndpointId;
use thiserror::Error;

use crate::load::{ClusterLoad, Ejection, EndpointLoad, Extra, ID_BYTES_MAX, LoadReport, REASON_CHARACTERS_MAX};
use crate::metadata;

/// What stands for a reason where the client gave none.
const NO_REASON: &str = "outlier detection";

/// One endpoint's numbers that make no sense; those beside it are taken.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("load of {cluster:?}: an endpoint's address is {found}; an IP address and a port are wanted")]
    Address { cluster: Arc<str>, found: String },
    #[error("load of {cluster:?}, endpoint {address}: metadata.mesh makes no sense to us")]
    Metadata { cluster: Arc<str>, address: SocketAddr, source: serde_json::Error },
    #[error("load of {cluster:?}, endpoint {address}: metadata.mesh is not an object such as {{\"id\": \"c1@0\"}}")]
    NotAnObject { cluster: Arc<str>, address: SocketAddr },
    #[error("load of {cluster:?}, endpoint {address}: its id has {length} bytes; at most {ID_BYTES_MAX} are taken")]
    LongId { cluster: Arc<str>, address: SocketAddr, length: usize },
}

/// What a message says.
#[derive(Debug, Default)]
pub struct Taken {
    pub report: LoadReport,
    /// Endpoints that were left out.
    pub refused: usize,
    /// What was wrong with the first of them.
    pub first_error: Option<LoadError>,
}

/// Decodes one message of a client. What makes no sense in it is left out; all else is taken.
#[must_use]
pub fn report(message: &LoadStatsRequest) -> Taken {
    let mut taken = Taken::default();
    for stats in &message.cluster_stats {
        let name: Arc<str> = stats.cluster_name.as_str().into();
        let mut endpoints = Vec::new();
        for group in &stats.upstream_locality_stats {
            for stats in &group.upstream_endpoint_stats {
                match endpoint(&name, group, stats) {
                    Ok(Some(load)) => endpoints.push(load),
                    Ok(None) => {}
                    Err(error) => {
                        taken.refused += 1;
                        taken.first_error.get_or_insert(error);
                    }
                }
            }
        }
        let interval = stats.load_report_interval.as_ref().and_then(interval).unwrap_or_default();
        taken.report.clusters.push(ClusterLoad { cluster: name, interval, endpoints });
    }
    taken
}

/// None for an endpoint that is no socket (a pipe, or internal to the client): others may have such.
fn endpoint(
    cluster: &Arc<str>,
    group: &pb::UpstreamLocalityStats,
    stats: &pb::UpstreamEndpointStats,
) -> Result<Option<EndpointLoad>, LoadError> {
    let Some(address) = socket(cluster, stats.address.as_ref())? else { return Ok(None) };
    let (id, ejection) = match extra(cluster, address, stats.metadata.as_ref())? {
        Some(Extra { id, ejected_for_ms, reason }) => {
            (id, ejected_for_ms.map(|left| ejection(left, reason.as_deref())))
        }
        None => (EndpointId::new(&address.to_string(), 0), None),
    };
    let zone = group.locality.as_ref().map(|locality| locality.zone.as_str()).filter(|zone| !zone.is_empty());
    Ok(Some(EndpointLoad {
        id,
        address,
        zone: zone.map(Arc::from),
        priority: group.priority,
        issued: stats.total_issued_requests,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        in_progress: stats.total_requests_in_progress,
        ejection,
    }))
}

fn extra(cluster: &Arc<str>, address: SocketAddr, fields: Option<&Struct>) -> Result<Option<Extra>, LoadError> {
    let ours = match fields.and_then(|fields| fields.fields.get(metadata::KEY)).map(|value| &value.kind) {
        None => return Ok(None),
        Some(Some(value::Kind::StructValue(ours))) => ours,
        Some(_) => return Err(LoadError::NotAnObject { cluster: cluster.clone(), address }),
    };
    let wrong = |source| LoadError::Metadata { cluster: cluster.clone(), address, source };
    let extra: Extra = metadata::from_struct(ours).map_err(wrong)?;
    let length = extra.id.unit.len();
    if length > ID_BYTES_MAX {
        return Err(LoadError::LongId { cluster: cluster.clone(), address, length });
    }
    Ok(Some(extra))
}

/// A reason is printed on terminals: a short line of text is wanted, whoever sent it.
fn ejection(left_ms: u64, reason: Option<&str>) -> Ejection {
    let line = reason.unwrap_or_default().chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX);
    let line: String = line.collect();
    let reason = if line.is_empty() { NO_REASON.into() } else { line.into() };
    Ejection { left: Duration::from_millis(left_ms), reason }
}

fn socket(cluster: &Arc<str>, address: Option<&Address>) -> Result<Option<SocketAddr>, LoadError> {
    let wrong = |found: String| LoadError::Address { cluster: cluster.clone(), found };
    let socket = match address.and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket,
        Some(address::Address::Pipe(_) | address::Address::EnvoyInternalAddress(_)) => return Ok(None),
        None => return Err(wrong("missing".to_owned())),
    };
    let shown = || format!("{:?}", socket.address.chars().take(REASON_CHARACTERS_MAX).collect::<String>());
    let ip: IpAddr = socket.address.parse().map_err(|_| wrong(shown()))?;
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => {
            let port = u16::try_from(port).map_err(|_| wrong(format!("{ip} with port {port}")))?;
            Ok(Some(SocketAddr::new(ip, port)))
        }
        Some(socket_address::PortSpecifier::NamedPort(_)) | None => {
            Err(wrong(format!("{ip} without a number of a port")))
        }
    }
}

/// None when it is negative or not normalised, which nobody sends on purpose.
#[must_use]
pub fn interval(duration: &ProtoDuration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests;
