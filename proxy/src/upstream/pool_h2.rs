//! h2 connections to endpoints: many streams on each, one driver task per connection, owned by the pool.
//!
//! A new connection is opened when every open one has as many streams as its peer allows. One that said GOAWAY takes no new
//! stream, and is dropped when its last one ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mesh_core::model::policy::Upstream;
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::h1::ExchangeError;
use super::idle::StallTimer;
use super::pool_h1::PoolKey;
use super::request_body::RequestBody;
use crate::endpoint::{ClusterStats, EndpointStats, LiveEndpoint, OpenConnection};
use crate::error::{Broken, ProxyError};
use crate::h2::drive::{Driver, Ended};
use crate::h2::exchange::{Exchange, Failed};
use crate::h2::{Connection, Limits, Link, ResetBy, SendError, Settings};
use crate::message::{RequestHead, ResponseHead};
use crate::resilience::places::Place;

/// A connection without a stream is closed after this long. h2 peers announce that they close (GOAWAY), so that this may be
/// longer than for HTTP/1.1.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// One open connection.
struct H2Connection {
    address: SocketAddr,
    link: Rc<Link>,
    /// Streams that have a place here, opened or not.
    streams: Cell<usize>,
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    idle_timeout: Duration,
    driver: JoinHandle<()>,
    _endpoint: Arc<EndpointStats>,
    _open: OpenConnection,
    place: Place,
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        // Every stream holds its connection: there is none any more.
        self.driver.abort();
    }
}

/// All connections of one key, and whether one more is on its way.
#[derive(Default)]
struct Slot {
    connections: Vec<Rc<H2Connection>>,
    connecting: bool,
    opened: Rc<Notify>,
}

/// One worker's h2 connections.
#[derive(Default)]
pub struct PoolH2 {
    slots: RefCell<FxHashMap<PoolKey, Slot>>,
}

/// A place for one stream.
pub struct H2Stream {
    connection: Rc<H2Connection>,
    reused: bool,
}

/// What a request that wants a stream has to do.
pub enum Checkout {
    Stream(H2Stream),
    /// Open a connection, and hand it to [`Connecting::opened`].
    Connect(Connecting),
    /// Somebody else is connecting: wait, then ask again.
    Wait(Rc<Notify>),
}

/// The one who connects for a key; when it gives up, the next in line does.
pub struct Connecting {
    pool: Rc<PoolH2>,
    key: PoolKey,
}

impl PoolH2 {
    /// A stream on an open connection that has room, or what to do instead.
    pub fn checkout(self: &Rc<Self>, key: &PoolKey) -> Checkout {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(*key).or_default();
        slot.connections.retain(|connection| connection.takes_streams());
        if let Some(connection) = slot.connections.iter().find(|connection| connection.has_room()) {
            return Checkout::Stream(H2Stream::open(connection));
        }
        if slot.connecting {
            return Checkout::Wait(Rc::clone(&slot.opened));
        }
        slot.connecting = true;
        Checkout::Connect(Connecting { pool: Rc::clone(self), key: *key })
    }

    /// Drops connections that have been without a stream for too long.
    pub fn sweep(&self, now: Instant) {
        self.slots.borrow_mut().retain(|_, slot| {
            slot.connections.retain(|connection| {
                let idle = connection.streams.get() == 0
                    && now.saturating_duration_since(connection.idle_since.get()) >= connection.idle_timeout;
                !idle && connection.takes_streams()
            });
            slot.connecting || !slot.connections.is_empty()
        });
    }

    /// Drops all that was opened from `origin`, whose network is gone.
    pub fn forget_origin(&self, origin: u64) {
        self.slots.borrow_mut().retain(|key, _| key.origin() != origin);
    }

    /// Drops one connection without a stream of the cluster that `stats` count, to make room under its limit.
    pub fn evict(&self, stats: &Arc<ClusterStats>) -> bool {
        let mut slots = self.slots.borrow_mut();
        let spare = |connection: &Rc<H2Connection>| connection.streams.get() == 0 && connection.place.is_of(stats);
        for slot in slots.values_mut() {
            if let Some(index) = slot.connections.iter().position(spare) {
                slot.connections.remove(index);
                return true;
            }
        }
        false
    }

    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.connections.len()).sum()
    }
}

impl Connecting {
    /// Starts h2 on an open stream, and takes the first stream of it. Nothing is waited for: the request follows the preface.
    #[must_use]
    pub fn opened(self, endpoint: &LiveEndpoint, stream: TcpStream, place: Place, allowed: Upstream) -> H2Stream {
        let address = self.key.address();
        let limits = Limits {
            head_bytes_max: allowed.header_bytes_max as usize,
            head_fields_max: allowed.header_count_max,
            ..Limits::default()
        };
        let link = Link::new(Connection::client(&Settings::default(), &limits, Instant::now()));
        let driver = Driver::new(stream, Rc::clone(&link));
        let driver = tokio::task::spawn_local(async move {
            match driver.run(()).await {
                Ended::Closed => {}
                Ended::Broken(error) => tracing::debug!(%address, %error, "an h2 connection broke off"),
                Ended::Failed(error) => {
                    tracing::debug!(%address, error = %crate::error::chain(&error), "an h2 connection failed");
                }
            }
        });
        let connection = Rc::new(H2Connection {
            address,
            link,
            streams: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            idle_timeout: allowed.idle_timeout.unwrap_or(IDLE_TIMEOUT),
            driver,
            _endpoint: Arc::clone(&endpoint.stats),
            _open: endpoint.open_connection(),
            place,
        });
        let stream = H2Stream::open(&connection);
        self.pool.slots.borrow_mut().entry(self.key).or_default().connections.push(connection);
        stream
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(slot) = self.pool.slots.borrow_mut().get_mut(&self.key) {
            slot.connecting = false;
            slot.opened.notify_waiters();
        }
    }
}

impl H2Connection {
    fn takes_streams(&self) -> bool {
        self.link.with(|connection| connection.takes_streams())
    }

    fn has_room(&self) -> bool {
        self.link.with(|connection| connection.can_open() && self.streams.get() < connection.streams_max() as usize)
    }
}

impl H2Stream {
    fn open(connection: &Rc<H2Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection: Rc::clone(connection), reused: connection.used.replace(true) }
    }

    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.address
    }

    /// Waits until its peer has said whether it opens tunnels for other protocols (RFC 8441 section 3).
    pub async fn opens_tunnels(&self) -> bool {
        let peer = std::future::poll_fn(|cx| self.connection.link.poll_peer(cx)).await;
        peer.is_some_and(|peer| peer.extended_connect)
    }

    /// Sends a request and waits for the head of its response, which the body of the exchange follows. `interim` hears of 1xx before;
    /// `stalled` says for how long the endpoint may take nothing of what it is sent.
    ///
    /// # Errors
    /// [`ExchangeError`]; other streams of the connection are not affected.
    pub async fn exchange(
        &self,
        head: &RequestHead,
        body: RequestBody,
        mut stalled: StallTimer,
        mut interim: impl FnMut(ResponseHead),
    ) -> Result<(ResponseHead, Exchange<RequestBody>), ExchangeError> {
        let mut exchange = Exchange::begin(&self.connection.link, head, body).map_err(|error| ExchangeError {
            error: match error {
                SendError::HeadTooLarge { .. } => ProxyError::HeadTooLarge { address: self.address() },
                SendError::NoRoom | SendError::Over => {
                    ProxyError::NotSent { address: self.address(), source: Broken::Ended }
                }
            },
            bytes_sent: false,
            response_begun: false,
        })?;
        let mut response_begun = false;
        loop {
            let polled = std::future::poll_fn(|cx| match exchange.poll_head(cx) {
                Poll::Ready(polled) => Poll::Ready(Some(polled)),
                Poll::Pending => match exchange.stream().unsent_bytes() {
                    0 => Poll::Pending,
                    unsent => stalled.poll(unsent as u64, cx).map(|()| None),
                },
            });
            let Some(polled) = polled.await else {
                let source = Broken::Connection { source: io::ErrorKind::TimedOut.into() };
                let error = ProxyError::Closed { address: self.address(), reused: self.reused, source };
                return Err(ExchangeError { error, bytes_sent: true, response_begun });
            };
            match polled {
                Ok(head) if head.status.is_informational() => {
                    response_begun = true;
                    interim(head);
                }
                Ok(head) => return Ok((head, exchange)),
                Err(failed) => {
                    let error = self.failure(failed);
                    return Err(ExchangeError { error, bytes_sent: true, response_begun });
                }
            }
        }
    }

    fn failure<E>(&self, failed: Failed<E>) -> ProxyError {
        let address = self.address();
        let reset = match failed {
            Failed::Stream(reset) => reset,
            // The client's own body broke off, which whoever reads it says.
            Failed::Request(_) => return ProxyError::Closed { address, reused: self.reused, source: Broken::Ended },
            Failed::Nothing => return ProxyError::Protocol { address, source: Broken::Ended },
        };
        let source = Broken::Stream { source: reset };
        match reset.by {
            // The peer promises that it did nothing (RFC 9113 section 8.7).
            _ if !reset.seen => ProxyError::StreamRefused { address, source },
            ResetBy::Peer => ProxyError::StreamReset { address, source },
            ResetBy::Rules { .. } => ProxyError::Protocol { address, source },
            ResetBy::Us | ResetBy::Connection => ProxyError::Closed { address, reused: self.reused, source },
        }
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.set(streams.get() - 1);
        if streams.get() == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        self.connection.place.call();
    }
}
