//! What a client asks for, by its node metadata: `{"mesh": {"bind_address": "127.0.0.1", "capture": true, …}}`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use mesh_core::config::suggest;
use mesh_xds::metadata;
use serde_json::Value;
use thiserror::Error;

/// Where captured connections arrive unless the client says otherwise.
pub const DEFAULT_OUTBOUND: &str = "0.0.0.0:14001";

const KEYS: [&str; 5] = ["bind_address", "capture", "outbound", "http_proxy", "virtual_ips"];

/// Which resources a client gets. Clients of one kind get the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKind {
    /// Listeners bound to this address, one per service port.
    pub bind_address: Option<IpAddr>,
    /// Where captured connections arrive; then also what to capture, and a listener per virtual IP and port.
    pub outbound: Option<SocketAddr>,
    /// A listener for clients that know us as their HTTP proxy.
    pub http_proxy: Option<SocketAddr>,
    /// A listener at each virtual IP and service port, where virtual IPs are loopback addresses.
    pub virtual_ips: bool,
}

/// Node metadata that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeError {
    #[error("node.metadata.mesh is not an object such as {{\"bind_address\": \"127.0.0.1\"}}")]
    NotAnObject,
    #[error("node.metadata.mesh.{key} is not known{}", did_you_mean(.suggestion))]
    UnknownKey { key: String, suggestion: Option<&'static str> },
    #[error("node.metadata.mesh.{key} is {value}; {wanted}")]
    BadValue { key: &'static str, value: String, wanted: &'static str },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default()
}

impl ClientKind {
    /// What the node asks for. One without metadata of ours asks for clusters and endpoints alone.
    ///
    /// # Errors
    /// [`NodeError`] names the key, its value, and what would be right.
    pub fn of(node: &Node) -> Result<Self, NodeError> {
        let ours =
            node.metadata.as_ref().and_then(|all| all.fields.get(metadata::KEY)).and_then(|one| one.kind.as_ref());
        let fields = match ours {
            None => return Ok(Self::default()),
            Some(ValueKind::StructValue(fields)) => fields,
            Some(_) => return Err(NodeError::NotAnObject),
        };
        let object: serde_json::Map<String, Value> =
            metadata::from_struct(fields).map_err(|_| NodeError::NotAnObject)?;
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(NodeError::UnknownKey { key: key.clone(), suggestion: suggest::nearest(key, KEYS) });
        }
        let flag = |key| match object.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(bad(key, other, "true or false is wanted")),
        };
        let capture = flag("capture")?;
        let outbound = parsed(&object, "outbound", "an address and port such as 0.0.0.0:14001 is wanted")?;
        let default = || DEFAULT_OUTBOUND.parse().expect("the default is an address and port");
        Ok(Self {
            bind_address: parsed(&object, "bind_address", "an IP address such as 127.0.0.1 is wanted")?,
            outbound: capture.then(|| outbound.unwrap_or_else(default)),
            http_proxy: parsed(&object, "http_proxy", "an address and port such as 127.0.0.1:14008 is wanted")?,
            virtual_ips: flag("virtual_ips")?,
        })
    }
}

fn parsed<T: std::str::FromStr>(
    object: &serde_json::Map<String, Value>,
    key: &'static str,
    wanted: &'static str,
) -> Result<Option<T>, NodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| bad(key, &Value::String(text.clone()), wanted)),
        Some(other) => Err(bad(key, other, wanted)),
    }
}

fn bad(key: &'static str, value: &Value, wanted: &'static str) -> NodeError {
    NodeError::BadValue { key, value: value.to_string(), wanted }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind_of(json: Value) -> Result<ClientKind, NodeError> {
        ClientKind::of(&Node { metadata: Some(metadata::to_struct(&json)), ..Node::default() })
    }

    #[test]
    fn metadata_says_what_a_client_gets() {
        let plain = ClientKind::default();
        assert_eq!(ClientKind::of(&Node::default()), Ok(plain.clone()));
        assert_eq!(kind_of(json!({"other": 1})), Ok(plain.clone()));
        assert_eq!(kind_of(json!({"mesh": {}})), Ok(plain.clone()));
        let bound = ClientKind { bind_address: Some("127.0.0.1".parse().unwrap()), ..plain.clone() };
        assert_eq!(kind_of(json!({"mesh": {"bind_address": "127.0.0.1"}})), Ok(bound));
        let capturing = ClientKind { outbound: Some("0.0.0.0:14001".parse().unwrap()), ..plain.clone() };
        assert_eq!(kind_of(json!({"mesh": {"capture": true}})), Ok(capturing));
        assert_eq!(kind_of(json!({"mesh": {"capture": false, "outbound": "0.0.0.0:1"}})), Ok(plain.clone()));
        let proxy = ClientKind { http_proxy: Some("127.0.0.1:14008".parse().unwrap()), ..plain.clone() };
        assert_eq!(kind_of(json!({"mesh": {"http_proxy": "127.0.0.1:14008"}})), Ok(proxy));
        let virtual_ips = ClientKind { virtual_ips: true, ..plain };
        assert_eq!(kind_of(json!({"mesh": {"virtual_ips": true}})), Ok(virtual_ips));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |json, expected: &str| assert_eq!(kind_of(json).unwrap_err().to_string(), expected);
        check(
            json!({"mesh": {"bind_adress": "127.0.0.1"}}),
            "node.metadata.mesh.bind_adress is not known; did you mean \"bind_address\"?",
        );
        check(
            json!({"mesh": {"bind_address": "localhost"}}),
            "node.metadata.mesh.bind_address is \"localhost\"; an IP address such as 127.0.0.1 is wanted",
        );
        check(json!({"mesh": {"capture": "yes"}}), "node.metadata.mesh.capture is \"yes\"; true or false is wanted");
        check(json!({"mesh": {"virtual_ips": 1}}), "node.metadata.mesh.virtual_ips is 1; true or false is wanted");
        check(json!({"mesh": 1}), "node.metadata.mesh is not an object such as {\"bind_address\": \"127.0.0.1\"}");
    }
}
