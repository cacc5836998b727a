//! What is wrong with an object, in words an operator can act on. A condition never harms another object.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionKind {
    /// A `mesh.*` label nobody knows.
    UnknownLabel,
    /// A known label with a value that does not fit.
    InvalidLabel,
    /// A name that cannot be a DNS label.
    InvalidName,
    /// Another object has the name already.
    NameClash,
    /// Nothing says on which port it serves.
    NoPort,
    /// Two services want one listening port, and nothing tells them apart.
    PortConflict,
    /// It and those who call it have no network in common.
    NoSharedNetwork,
    /// A container in the host's network namespace is an endpoint, but its own calls are not captured.
    HostNetworkNotCaptured,
    /// Discovery cannot reach the port to see whether it accepts.
    Unreachable,
    /// A file that does not parse; the last good one stays.
    InvalidFile,
    /// The engine does not answer; the last good list stays.
    ProviderUnavailable,
    /// The virtual IP range has no address left.
    VirtualIpExhausted,
    /// No proxy listens where a process sends its HTTP calls.
    NoHttpProxy,
}

impl ConditionKind {
    pub const ALL: [Self; 13] = [
        Self::UnknownLabel,
        Self::InvalidLabel,
        Self::InvalidName,
        Self::NameClash,
        Self::NoPort,
        Self::PortConflict,
        Self::NoSharedNetwork,
        Self::HostNetworkNotCaptured,
        Self::Unreachable,
        Self::InvalidFile,
        Self::ProviderUnavailable,
        Self::VirtualIpExhausted,
        Self::NoHttpProxy,
    ];
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// `container/shop-web-1`, `service/web.shop`, `file/mesh.yaml`, `provider/docker`.
    pub object: Arc<str>,
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Names the key and the value, and what would be right.
    pub message: Arc<str>,
}

impl Condition {
    #[must_use]
    pub fn new(object: impl AsRef<str>, kind: ConditionKind, message: impl AsRef<str>) -> Self {
        Self { object: object.as_ref().into(), kind, message: message.as_ref().into() }
    }
}
