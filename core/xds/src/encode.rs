//! Core types to xDS v3 messages that Envoy 1.40 and gRPC's clients accept and serve. What they have no word for is carried
//! beside it, see [`crate::metadata`], so that [`crate::decode`] gives back exactly what went in.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod cluster;
pub mod assignment;
pub mod listener;
pub mod route;
pub mod load;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, TypedExtensionConfig, address,
    config_source::ConfigSourceSpecifier, socket_address,
};
use envoy_types::pb::google::protobuf::{Any, Duration as ProtoDuration, StringValue, UInt32Value};
use mesh_core::model::resource::CaptureMap;
use prost::{Message, Name};
use thiserror::Error;

use crate::kind::Kind;
use crate::packed::{Packed, version_of};

/// A resource that does not go over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    #[error("listener {listener:?} terminates TLS from files; such a listener stays in the proxy that has the files")]
    ListenerWithTls { listener: Arc<str> },
    #[error("listener {listener:?} has neither a route table nor a cluster")]
    ListenerToNowhere { listener: Arc<str> },
    #[error("cluster {cluster:?} takes its endpoints from DNS {name:?}; only assignments go over the wire")]
    ClusterFromDns { cluster: Arc<str>, name: Arc<str> },
}

/// What to capture, as one resource of our own type: JSON in a `google.protobuf.StringValue`.
#[must_use]
pub fn capture(map: &CaptureMap) -> Packed {
    let json = serde_json::to_string(map).expect("a capture map has string keys and serialises to JSON");
    let body =
        Any { type_url: Kind::Capture.type_url().to_owned(), value: StringValue { value: json }.encode_to_vec() };
    Packed { name: CaptureMap::NAME.into(), version: version_of(Kind::Capture, map), body }
}

pub(crate) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn extension<M: Message + Name>(name: &str, message: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack(message)) }
}

/// "It comes over this same stream."
pub(crate) fn over_ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(crate) fn duration(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: duration.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().try_into().unwrap_or_default(),
    }
}

pub(crate) fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(crate) fn socket(socket: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: match socket.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => ip.to_string(),
            },
            port_specifier: Some(socket_address::PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        })),
    }
}
