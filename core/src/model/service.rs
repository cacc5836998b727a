//! What is asked for by name: a service, its virtual IP and its ports.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::names::{Name, ServiceId};
use super::policy::Policy;
use super::protocol::Protocol;

/// One port of a service. The service port is what callers dial; each endpoint has its own target for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// An unnamed port is named by its number.
    pub name: Name,
    pub port: u16,
    pub protocol: Protocol,
}

/// A service. It exists, and keeps its virtual IP, with no endpoint at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub virtual_ip: IpAddr,
    /// In order of port number.
    pub ports: Vec<ServicePort>,
    #[serde(default)]
    pub policy: Policy,
}

impl Service {
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.name.as_str() == name)
    }

    #[must_use]
    pub fn port_numbered(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
