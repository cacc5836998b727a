//! Who is connected, what was sent and acknowledged, and the words of the last rejection: for the HTTP API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::model::snapshot::Snapshot;
use mesh_xds::server::{Flavor, KindStatus};
use serde::Serialize;

use super::node::ClientKind;

/// Streams that may be open at once.
pub const CLIENTS_MAX: usize = 4096;

/// One connected client, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    pub node: String,
    /// What it says it is: `envoy`, `gRPC C-core`.
    pub user_agent: String,
    pub address: String,
    /// `delta` or `sotw`.
    pub variant: &'static str,
    pub bind_address: Option<String>,
    pub capture: bool,
    pub http_proxy: Option<String>,
    /// The snapshot it was last brought up to; it may not have acknowledged all of it yet.
    pub snapshot: u64,
    pub types: Vec<ClientType>,
}

/// How one resource type stands with a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientType {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub wildcard: bool,
    pub names: usize,
    pub sent: Option<String>,
    pub acknowledged: Option<String>,
    /// The words of the last rejection, until something is accepted again.
    pub rejected: Option<String>,
}

/// All connected clients. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    connected: Arc<Mutex<Connected>>,
}

#[derive(Debug, Default)]
struct Connected {
    next: u64,
    clients: BTreeMap<u64, Client>,
}

/// Held by a stream; dropping it says that the client is gone.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    clients: Clients,
}

/// What a stream knows of its client from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    pub node: String,
    pub user_agent: String,
    pub address: String,
    pub flavor: Flavor,
    pub kind: ClientKind,
}

impl Clients {
    /// Everybody, in order of node id.
    #[must_use]
    pub fn list(&self) -> Vec<Client> {
        let mut all: Vec<Client> = self.lock().clients.values().cloned().collect();
        all.sort_by(|one, other| one.node.cmp(&other.node));
        all
    }

    /// Adds a client; none when there are too many.
    pub(super) fn connect(&self, introduction: Introduction) -> Option<Connection> {
        let mut connected = self.lock();
        if connected.clients.len() >= CLIENTS_MAX {
            return None;
        }
        let number = connected.next;
        connected.next += 1;
        let Introduction { node, user_agent, address, flavor, kind } = introduction;
        let client = Client {
            node,
            user_agent,
            address,
            variant: match flavor {
                Flavor::Delta => "delta",
                Flavor::StateOfTheWorld => "sotw",
            },
            bind_address: kind.bind_address.map(|address| address.to_string()),
            capture: kind.outbound.is_some(),
            http_proxy: kind.http_proxy.map(|address| address.to_string()),
            snapshot: 0,
            types: Vec::new(),
        };
        connected.clients.insert(number, client);
        Some(Connection { number, clients: self.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn update(&self, snapshot: &Snapshot, status: Vec<KindStatus>) {
        let types = status.into_iter().map(|one| ClientType {
            kind: one.kind.short(),
            wildcard: one.wildcard,
            names: one.names,
            sent: one.sent_version.map(|version| version.to_string()),
            acknowledged: one.acked_version.map(|version| version.to_string()),
            rejected: one.rejected,
        });
        let types = types.collect();
        if let Some(client) = self.clients.lock().clients.get_mut(&self.number) {
            client.snapshot = snapshot.number;
            client.types = types;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.clients.lock().clients.remove(&self.number);
    }
}
