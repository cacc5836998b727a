//! A socket to an address, as seen from somewhere: the proxy's own network, or the network namespace of a captured caller.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::model::endpoint::reached_at;
use mesh_core::model::resource::Target;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::error::ProxyError;

/// A silent connection is probed after this long, so that the kernel finds out about a peer that is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens sockets somewhere. It enters, creates the socket and comes back without waiting: a socket keeps the network it was
/// created in, so connecting happens outside.
pub trait OpenSocket: Send + Sync {
    /// An unconnected TCP socket fit for `address`.
    ///
    /// # Errors
    /// Whatever the system says.
    fn open(&self, address: SocketAddr) -> io::Result<TcpSocket>;
}

/// The proxy's own network.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnNetwork;

impl OpenSocket for OwnNetwork {
    fn open(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    }
}

/// Where upstream connections of a caller are opened from, and who the caller is. Cheap to clone.
#[derive(Clone)]
pub struct Origin {
    /// Tells pools apart: 0 is the proxy's own network, a namespace has its inode.
    pub id: u64,
    /// The calling service, for metrics and the access log; `unknown` where nobody knows.
    pub source: Arc<str>,
    /// The networks it knows itself to be on; empty where every address is reached alike.
    pub networks: Arc<[Arc<str>]>,
    pub network: Arc<dyn OpenSocket>,
}

impl Origin {
    /// Where `target` is reached from here; none when they have no network in common.
    #[must_use]
    pub fn address_of(&self, target: &Target) -> Option<SocketAddr> {
        let address = reached_at(target.address.ip(), &target.networks, &self.networks)?;
        Some(SocketAddr::new(address, target.address.port()))
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self { id: 0, source: Arc::from("unknown"), networks: Arc::default(), network: Arc::new(OwnNetwork) }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("id", &self.id).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Connects, within `until`.
///
/// # Errors
/// [`ProxyError::Connect`] or [`ProxyError::ConnectTimeout`].
pub async fn connect(origin: &Origin, address: SocketAddr, until: Instant) -> Result<TcpStream, ProxyError> {
    let started = Instant::now();
    let socket = origin.network.open(address).map_err(|source| ProxyError::Connect { address, source })?;
    let connecting = socket.connect(address);
    match tokio::time::timeout_at(until.into(), connecting).await {
        Ok(Ok(stream)) => {
            tune(&stream);
            Ok(stream)
        }
        Ok(Err(source)) => Err(ProxyError::Connect { address, source }),
        Err(_) => Err(ProxyError::ConnectTimeout { address, after: until.saturating_duration_since(started) }),
    }
}

/// What every connection gets, on both legs. A failure is no reason to refuse it.
pub fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options were refused");
    }
}
