//! Who is connected, what was sent and acknowledged, and the words of the last rejection: for the HTTP API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::model::snapshot::Snapshot;
use mesh_xds::server::{Flavor, KindStatus};
use serde::Serialize;
use tokio::sync::watch;

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
    /// Where the proxy of this host listens for HTTP clients.
    http_proxy: watch::Sender<Option<SocketAddr>>,
}

#[derive(Debug, Default)]
struct Connected {
    next: u64,
    clients: BTreeMap<u64, Client>,
    /// The HTTP proxies of this host.
    http_proxies: BTreeMap<u64, SocketAddr>,
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

    /// Where the proxy of this host listens for clients that know it as their HTTP proxy; none while none is connected. Of
    /// several the one that came first holds, for as long as it stays. One that comes from elsewhere is no use to
    /// processes of this host.
    #[must_use]
    pub fn http_proxy(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.http_proxy.subscribe()
    }

    fn tell_http_proxy(&self, connected: &Connected) {
        let first = connected.http_proxies.values().next().copied();
        self.http_proxy.send_if_modified(|told| {
            let is_news = *told != first;
            *told = first;
            is_news
        });
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
        if let Some(http_proxy) = kind.http_proxy.filter(|_| is_local(&client.address)) {
            connected.http_proxies.insert(number, reachable(http_proxy));
            self.tell_http_proxy(&connected);
        }
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
        let mut connected = self.clients.lock();
        connected.clients.remove(&self.number);
        if connected.http_proxies.remove(&self.number).is_some() {
            self.clients.tell_http_proxy(&connected);
        }
    }
}

/// Whether a client at `address` is on this host for sure.
fn is_local(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback())
}

/// Who listens on all addresses is reached at this one.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(clients: &Clients, from: &str, http_proxy: &str) -> Connection {
        let kind = ClientKind { http_proxy: http_proxy.parse().ok(), ..ClientKind::default() };
        let (node, user_agent, address) = (String::new(), String::new(), from.to_owned());
        clients.connect(Introduction { node, user_agent, address, flavor: Flavor::Delta, kind }).unwrap()
    }

    #[test]
    fn the_first_proxy_of_this_host_holds_until_it_goes() {
        let clients = Clients::default();
        let told = clients.http_proxy();
        let check = |expected: Option<&str>| assert_eq!(told.borrow().map(|one| one.to_string()).as_deref(), expected);
        check(None);
        let _far = connect(&clients, "10.0.0.5:1", "127.0.0.1:1");
        let _envoy = connect(&clients, "127.0.0.1:2", "");
        check(None);
        let first = connect(&clients, "[::ffff:127.0.0.1]:2", "0.0.0.0:14008");
        check(Some("127.0.0.1:14008"));
        let second = connect(&clients, "127.0.0.1:3", "127.0.0.1:14009");
        check(Some("127.0.0.1:14008"));
        drop(first);
        check(Some("127.0.0.1:14009"));
        drop(second);
        check(None);
    }
}
