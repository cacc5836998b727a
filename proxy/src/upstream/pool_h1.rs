//! HTTP/1.1 connections to endpoints: one exchange at a time on each, driven inline by the request that uses it.
//!
//! ```text
//!   connect ──▶ in use (one request) ──▶ idle in the pool ──▶ in use ...
//!                  │ error, cut, not reusable   │ closed by the peer, too old, too many
//!                  ▼                            ▼
//!                dropped                      dropped
//! ```
//! The pool is last in, first out, so that what is not needed ages and goes. An idle connection is looked at once before it is
//! used again; one that the peer closes in between is found out by the exchange, which may then be replayed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::connect::{CountedStream, Traffic};
use super::request_body::RequestBody;
use crate::endpoint::{ClusterStats, EndpointStats, LiveEndpoint, OpenConnection};
use crate::error::ProxyError;
use crate::resilience::breaker::Permit;

/// Idle connections are closed after this long. Common servers close theirs after 5 s (Node.js, Gunicorn, Apache), and the side
/// that closes first wins no race: being the first here keeps requests from being sent into a closing connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Idle connections kept per worker, endpoint and origin.
pub const IDLE_MAX: usize = 256;

/// Which connections may stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    origin: u64,
    /// The address of the endpoint's counters, which live as long as anything in a pool refers to them.
    endpoint: usize,
    address: SocketAddr,
}

impl PoolKey {
    #[must_use]
    pub fn new(origin: u64, endpoint: &LiveEndpoint, address: SocketAddr) -> Self {
        Self { origin, endpoint: Arc::as_ptr(&endpoint.stats) as usize, address }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn origin(&self) -> u64 {
        self.origin
    }
}

type Driver = Connection<TokioIo<CountedStream>, RequestBody>;

/// One connection. In use it belongs to its request.
pub struct H1Connection {
    key: PoolKey,
    sender: SendRequest<RequestBody>,
    driver: Driver,
    traffic: Rc<Traffic>,
    /// It has carried a whole exchange before.
    reused: bool,
    idle_since: Instant,
    /// Keeps the counters' address, which is part of the key, from being used again.
    _endpoint: Arc<EndpointStats>,
    _open: OpenConnection,
    permit: Permit,
}

/// What the pool did, for metrics.
#[derive(Debug, Default)]
pub struct PoolCounters {
    pub reused: Cell<u64>,
    /// Closed because the pool had its limit of idle ones already.
    pub idle_overflow: Cell<u64>,
    pub idle_expired: Cell<u64>,
    /// The peer had closed it while it was idle.
    pub idle_closed: Cell<u64>,
}

/// One worker's idle connections.
#[derive(Default)]
pub struct PoolH1 {
    #[expect(clippy::vec_box, reason = "a connection is large, and moves between pool, request and body")]
    idle: RefCell<HashMap<PoolKey, Vec<Box<H1Connection>>>>,
    pub counters: PoolCounters,
}

impl PoolH1 {
    /// The idle connection used last that is still open.
    pub fn take(&self, key: &PoolKey) -> Option<Box<H1Connection>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(key)?;
        while let Some(mut connection) = list.pop() {
            if connection.is_open() {
                bump(&self.counters.reused);
                return Some(connection);
            }
            bump(&self.counters.idle_closed);
        }
        None
    }

    /// Takes a connection back whose exchange is over; drops it when nothing more can be sent on it.
    pub fn put(&self, mut connection: Box<H1Connection>, now: Instant) {
        if !connection.sender.is_ready() {
            return;
        }
        connection.reused = true;
        connection.idle_since = now;
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(connection.key).or_default();
        if list.len() >= IDLE_MAX {
            bump(&self.counters.idle_overflow);
            return;
        }
        list.push(connection);
    }

    /// Drops what is too old or was closed by its peer. Run once in a while.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| {
                let expired = now.saturating_duration_since(connection.idle_since) >= IDLE_TIMEOUT;
                let open = !expired && connection.is_open();
                match (expired, open) {
                    (true, _) => bump(&self.counters.idle_expired),
                    (false, false) => bump(&self.counters.idle_closed),
                    (false, true) => {}
                }
                open
            });
            !list.is_empty()
        });
    }

    /// Drops all that was opened from `origin`, whose network is gone.
    pub fn forget_origin(&self, origin: u64) {
        self.idle.borrow_mut().retain(|key, _| key.origin != origin);
    }

    /// Drops one idle connection of the cluster that `stats` count, to make room under its limit.
    pub fn evict(&self, stats: &Arc<ClusterStats>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let of_cluster = |connection: &H1Connection| connection.permit.is_of(stats);
        for list in idle.values_mut() {
            if let Some(oldest) = list.iter().position(|connection| of_cluster(connection)) {
                list.remove(oldest);
                return true;
            }
        }
        false
    }

    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// A new connection on an open stream. No byte is sent yet.
///
/// # Errors
/// Never for HTTP/1.1; hyper's signature has one.
pub async fn handshake(
    key: PoolKey,
    endpoint: &LiveEndpoint,
    stream: TcpStream,
    permit: Permit,
) -> Result<Box<H1Connection>, ProxyError> {
    let traffic = Rc::new(Traffic::default());
    let io = TokioIo::new(CountedStream { stream, traffic: Rc::clone(&traffic) });
    let built = Builder::new().handshake(io).await;
    let (sender, driver) = built.map_err(|source| ProxyError::NotSent { address: key.address, source })?;
    Ok(Box::new(H1Connection {
        key,
        sender,
        driver,
        traffic,
        reused: false,
        idle_since: Instant::now(),
        _endpoint: Arc::clone(&endpoint.stats),
        _open: endpoint.open_connection(),
        permit,
    }))
}

/// How one exchange failed before its response head was whole.
#[derive(Debug)]
pub struct ExchangeError {
    pub error: ProxyError,
    /// Some of the request was written.
    pub bytes_sent: bool,
    /// Some of the response was read.
    pub response_begun: bool,
}

impl H1Connection {
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.key.address
    }

    /// Looks once whether the peer has closed it, or sent what nobody asked for.
    fn is_open(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.driver).poll(&mut context).is_pending() && self.sender.is_ready()
    }

    /// Sends `request` and waits for the response head; the body then drives the connection.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is of no use afterwards.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, ExchangeError> {
        let (sent_before, received_before) = (self.traffic.sent.get(), self.traffic.received.get());
        let answered = {
            let driver = &mut self.driver;
            let mut answer = pin!(self.sender.try_send_request(request));
            std::future::poll_fn(|cx| {
                // The driver writes the request and reads the response; the answer only hands it over.
                let _ = Pin::new(&mut *driver).poll(cx);
                answer.as_mut().poll(cx)
            })
            .await
        };
        answered.map_err(|mut error| {
            let address = self.key.address;
            let bytes_sent = self.traffic.sent.get() != sent_before;
            let response_begun = self.traffic.received.get() != received_before;
            let unsent = error.take_message().is_some();
            let source = error.into_error();
            let error = if source.is_parse() {
                ProxyError::Protocol { address, source }
            } else if unsent && !bytes_sent {
                ProxyError::NotSent { address, source }
            } else {
                ProxyError::Closed { address, reused: self.reused, source }
            };
            ExchangeError { error, bytes_sent, response_begun }
        })
    }

    /// Drives the connection one step: `Ready` when it is over.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.driver).poll(cx).map(|_| ())
    }

    /// The bare stream after a 101, with what was read beyond the response head.
    ///
    /// # Errors
    /// [`ProxyError::Upgrade`].
    pub async fn into_stream(mut self: Box<Self>) -> Result<(TcpStream, bytes::Bytes, UpgradedGuard), ProxyError> {
        let address = self.key.address;
        std::future::poll_fn(|cx| self.driver.poll_without_shutdown(cx))
            .await
            .map_err(|source| ProxyError::Upgrade { address, source })?;
        let Self { driver, _open, permit, .. } = *self;
        let parts = driver.into_parts();
        Ok((parts.io.into_inner().stream, parts.read_buf, UpgradedGuard { _open, _permit: permit }))
    }
}

/// Keeps a switched connection counted as what it is: open.
pub struct UpgradedGuard {
    _open: OpenConnection,
    _permit: Permit,
}
