//! xDS v3 messages to core types: our own exactly, and those of other control planes as far as we can do what they ask for.
//! What we cannot do is refused by resource and field, never passed over in silence.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod cluster;
mod http_options;
pub mod assignment;
pub mod listener;
pub mod route;
pub mod load;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, ConfigSource, Metadata, address, config_source::ConfigSourceSpecifier, socket_address,
};
use envoy_types::pb::google::protobuf::{Any, Duration as ProtoDuration, StringValue};
use mesh_core::model::resource::{Assignment, CaptureMap, Listener};
use prost::{Message, Name};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::kind::Kind;
use crate::metadata;

pub use cluster::DecodedCluster;
pub use route::{DecodedRoutes, RoutePolicy};

/// A resource that we cannot take as it is. A client tells it to the server in its NACK.
#[derive(Debug, Error)]
pub enum DecodeError {
    #[error("{kind} {resource:?}: {field} is no valid protobuf message")]
    Malformed { kind: Kind, resource: String, field: String, source: prost::DecodeError },
    #[error("{kind} {resource:?}: {field} makes no sense to us")]
    Metadata { kind: Kind, resource: String, field: String, source: serde_json::Error },
    #[error("{kind} {resource:?}: {field} is missing; {wanted}")]
    Missing { kind: Kind, resource: String, field: String, wanted: &'static str },
    #[error("{kind} {resource:?}: {field} is {found:?}; {wanted}")]
    Invalid { kind: Kind, resource: String, field: String, found: String, wanted: &'static str },
    #[error("{kind} {resource:?}: {field} is {found:?}, which is not supported; {wanted}")]
    Unsupported { kind: Kind, resource: String, field: String, found: String, wanted: &'static str },
    #[error("{kind} {resource:?}: the proxy's own file has that name, and keeps it; rename it in the file or here")]
    Taken { kind: Kind, resource: String },
    #[error(
        "{} {resource:?}: the proxy's own file listens on {address} ({holder:?}), and keeps it; change it in the file or here",
        Kind::Listener
    )]
    AddressTaken { resource: String, address: SocketAddr, holder: String },
}

impl DecodeError {
    /// Its name.
    #[must_use]
    pub fn resource(&self) -> &str {
        match self {
            Self::Malformed { resource, .. }
            | Self::Metadata { resource, .. }
            | Self::Missing { resource, .. }
            | Self::Invalid { resource, .. }
            | Self::Unsupported { resource, .. }
            | Self::Taken { resource, .. }
            | Self::AddressTaken { resource, .. } => resource,
        }
    }

    /// The resource is a good one, and only clashes with the proxy's own file.
    #[must_use]
    pub fn is_clash(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::AddressTaken { .. })
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Cluster(Arc<DecodedCluster>),
    Assignment(Arc<Assignment>),
    Listener(Arc<Listener>),
    Routes(Arc<DecodedRoutes>),
    Capture(Arc<CaptureMap>),
}

impl Decoded {
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(decoded) => &decoded.cluster.name,
            Self::Assignment(assignment) => &assignment.cluster,
            Self::Listener(listener) => &listener.name,
            Self::Routes(decoded) => &decoded.table.name,
            Self::Capture(_) => CaptureMap::NAME,
        }
    }
}

/// Decodes a resource of a kind. `name` is what its envelope calls it: for error messages, and it has to agree.
///
/// # Errors
/// [`DecodeError`] names resource and field.
pub fn resource(kind: Kind, name: &str, body: &Any) -> Result<Decoded, DecodeError> {
    let at = At { kind, resource: name };
    if body.type_url != kind.type_url() {
        return Err(at.invalid("type_url", &body.type_url, "the type of the response was wanted"));
    }
    let decoded = match kind {
        Kind::Cluster => Decoded::Cluster(Arc::new(cluster::cluster(at, &body.value)?)),
        Kind::Assignment => Decoded::Assignment(Arc::new(assignment::assignment(at, &body.value)?)),
        Kind::Listener => Decoded::Listener(Arc::new(listener::listener(at, &body.value)?)),
        Kind::Route => Decoded::Routes(Arc::new(route::route_table(at, &body.value)?)),
        Kind::Capture => Decoded::Capture(Arc::new(capture(at, &body.value)?)),
    };
    if decoded.name() != name {
        return Err(at.invalid("name", decoded.name(), "the name of its envelope was wanted"));
    }
    Ok(decoded)
}

fn capture(at: At<'_>, value: &[u8]) -> Result<CaptureMap, DecodeError> {
    let json: StringValue = at.message("capture", value)?;
    serde_json::from_str(&json.value).map_err(|source| at.metadata_error("capture", source))
}

/// Where we are, for error messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub kind: Kind,
    pub resource: &'a str,
}

impl At<'_> {
    pub fn missing(self, field: &str, wanted: &'static str) -> DecodeError {
        DecodeError::Missing { kind: self.kind, resource: self.resource.to_owned(), field: field.to_owned(), wanted }
    }

    pub fn invalid(self, field: &str, found: impl ToString, wanted: &'static str) -> DecodeError {
        let (kind, resource) = (self.kind, self.resource.to_owned());
        DecodeError::Invalid { kind, resource, field: field.to_owned(), found: found.to_string(), wanted }
    }

    pub fn unsupported(self, field: &str, found: impl ToString, wanted: &'static str) -> DecodeError {
        let (kind, resource) = (self.kind, self.resource.to_owned());
        DecodeError::Unsupported { kind, resource, field: field.to_owned(), found: found.to_string(), wanted }
    }

    fn metadata_error(self, field: &str, source: serde_json::Error) -> DecodeError {
        DecodeError::Metadata { kind: self.kind, resource: self.resource.to_owned(), field: field.to_owned(), source }
    }

    pub fn message<M: Message + Default>(self, field: &str, value: &[u8]) -> Result<M, DecodeError> {
        M::decode(value).map_err(|source| DecodeError::Malformed {
            kind: self.kind,
            resource: self.resource.to_owned(),
            field: field.to_owned(),
            source,
        })
    }

    /// What an `Any` holds, when it is of type `M`.
    pub fn unpack<M: Message + Name + Default>(self, field: &str, any: &Any) -> Result<Option<M>, DecodeError> {
        if any.type_url == M::type_url() { self.message(field, &any.value).map(Some) } else { Ok(None) }
    }

    /// What we carry in a message's metadata, when we made it.
    pub fn extra<T: DeserializeOwned>(self, field: &str, from: Option<&Metadata>) -> Result<Option<T>, DecodeError> {
        metadata::carried(from).map_err(|source| self.metadata_error(&format!("{field}.filter_metadata.mesh"), source))
    }

    pub fn socket(self, field: &str, address: Option<&Address>) -> Result<SocketAddr, DecodeError> {
        let wanted = "a TCP socket address with an IP address and a port is wanted";
        let socket = match address.and_then(|address| address.address.as_ref()) {
            Some(address::Address::SocketAddress(socket)) => socket,
            Some(address::Address::Pipe(pipe)) => return Err(self.unsupported(field, &pipe.path, wanted)),
            Some(address::Address::EnvoyInternalAddress(_)) => {
                return Err(self.unsupported(field, "an internal address", wanted));
            }
            None => return Err(self.missing(field, wanted)),
        };
        if socket.protocol != i32::from(socket_address::Protocol::Tcp) {
            return Err(self.unsupported(field, "UDP", wanted));
        }
        let ip: IpAddr = socket.address.parse().map_err(|_| self.unsupported(field, &socket.address, wanted))?;
        match &socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => {
                let port =
                    u16::try_from(*port).map_err(|_| self.invalid(field, port, "a port up to 65535 is wanted"))?;
                Ok(SocketAddr::new(ip, port))
            }
            Some(socket_address::PortSpecifier::NamedPort(name)) => Err(self.unsupported(field, name, wanted)),
            None => Ok(SocketAddr::new(ip, 0)),
        }
    }

    pub fn duration(self, field: &str, duration: &ProtoDuration) -> Result<Duration, DecodeError> {
        let wanted = "a duration that is not negative is wanted";
        let shown = || format!("{}s {}ns", duration.seconds, duration.nanos);
        let seconds = u64::try_from(duration.seconds).map_err(|_| self.invalid(field, shown(), wanted))?;
        let nanos = u32::try_from(duration.nanos).map_err(|_| self.invalid(field, shown(), wanted))?;
        if nanos >= 1_000_000_000 {
            return Err(self.invalid(field, shown(), wanted));
        }
        Ok(Duration::new(seconds, nanos))
    }

    /// A referred-to resource has to come over this same stream.
    pub fn over_ads(self, field: &str, source: Option<&ConfigSource>) -> Result<(), DecodeError> {
        match source.and_then(|source| source.config_source_specifier.as_ref()) {
            Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
            Some(_) => Err(self.unsupported(field, "another source", "`ads` or `self` is wanted")),
            None => Err(self.missing(field, "`ads` or `self` is wanted")),
        }
    }
}
