//! A socket to an address, as seen from somewhere: the proxy's own network, or the network namespace of a captured caller.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mesh_core::model::resource::Target;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
        if self.networks.is_empty() || target.networks.is_empty() {
            return Some(target.address);
        }
        // A place without a network is reached from all of them.
        let is_shared = |network: &Arc<str>| network.is_empty() || self.networks.contains(network);
        let shared = target.networks.iter().find(|place| is_shared(&place.network))?;
        Some(SocketAddr::new(shared.address, target.address.port()))
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
        Err(_) => Err(ProxyError::ConnectTimeout { address, after: started.elapsed() }),
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

/// Bytes that went each way on one connection.
#[derive(Debug, Default)]
pub struct Traffic {
    pub sent: Cell<u64>,
    pub received: Cell<u64>,
}

/// A connection that counts what goes over it: whether a byte of a request was sent decides whether it may be sent again.
#[derive(Debug)]
pub struct CountedStream {
    pub stream: TcpStream,
    pub traffic: Rc<Traffic>,
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let received = &self.traffic.received;
        received.set(received.get() + (buf.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count_sent(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count_sent(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl CountedStream {
    fn count_sent(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = polled {
            self.traffic.sent.set(self.traffic.sent.get() + *count as u64);
        }
    }
}
