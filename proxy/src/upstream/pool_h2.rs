//! h2 connections to endpoints: many streams on each, one driver task per connection, owned by the pool.
//!
//! A new connection is opened when every open one has as many streams as its peer allows. One that said GOAWAY takes no new
//! stream, and is dropped when its last one ends.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::h1::ExchangeError;
use super::pool_h1::PoolKey;
use super::request_body::RequestBody;
use crate::endpoint::{EndpointStats, LiveEndpoint, OpenConnection};
use crate::error::{Broken, ProxyError};
use crate::message::hyper::Carried;
use crate::resilience::breaker::Permit;

/// A connection without a stream is closed after this long. h2 peers announce that they close (GOAWAY), so that this may be
/// longer than for HTTP/1.1.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of responses may be under way unread, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A peer that answers no PING for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy, Default)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// One open connection.
struct H2Connection {
    sender: SendRequest<Carried<RequestBody>>,
    /// As many as the peer allows at the moment.
    streams_max: Rc<Cell<usize>>,
    streams: Cell<usize>,
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    driver: JoinHandle<()>,
    _endpoint: Arc<EndpointStats>,
    _open: OpenConnection,
    _permit: Permit,
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        // Without a stream nobody waits for it. With one, the driver ends by itself when the last sender and stream are gone.
        if self.streams.get() == 0 {
            self.driver.abort();
        }
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
    slots: RefCell<HashMap<PoolKey, Slot>>,
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
        slot.connections.retain(|connection| !connection.sender.is_closed());
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
                    && now.saturating_duration_since(connection.idle_since.get()) >= IDLE_TIMEOUT;
                !idle && !connection.sender.is_closed()
            });
            slot.connecting || !slot.connections.is_empty()
        });
    }

    /// Drops all that was opened from `origin`, whose network is gone.
    pub fn forget_origin(&self, origin: u64) {
        self.slots.borrow_mut().retain(|key, _| key.origin() != origin);
    }

    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.connections.len()).sum()
    }
}

impl Connecting {
    /// Starts h2 on an open stream, and takes the first stream of it.
    ///
    /// # Errors
    /// [`ProxyError::NotSent`] when the peer does not take the preface.
    pub async fn opened(
        self,
        endpoint: &LiveEndpoint,
        stream: TcpStream,
        permit: Permit,
    ) -> Result<H2Stream, ProxyError> {
        let address = self.key.address();
        let io = TokioIo::new(stream);
        let built = Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .handshake(io)
            .await;
        let (sender, mut driver) =
            built.map_err(|source| ProxyError::NotSent { address, source: Broken::Http2 { source } })?;
        let streams_max = Rc::new(Cell::new(driver.current_max_send_streams()));
        let told = Rc::clone(&streams_max);
        let driver = tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut driver).poll(cx);
                // The peer's settings may have come.
                told.set(driver.current_max_send_streams());
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%address, error = %crate::error::chain(&error), "an h2 connection ended");
            }
        });
        let connection = Rc::new(H2Connection {
            sender,
            streams_max,
            streams: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            driver,
            _endpoint: Arc::clone(&endpoint.stats),
            _open: endpoint.open_connection(),
            _permit: permit,
        });
        let stream = H2Stream::open(&connection);
        self.pool.slots.borrow_mut().entry(self.key).or_default().connections.push(connection);
        Ok(stream)
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
    fn has_room(&self) -> bool {
        self.streams.get() < self.streams_max.get()
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

    /// Sends `request` and waits for the response head.
    ///
    /// # Errors
    /// [`ExchangeError`]; other streams of the connection are not affected.
    pub async fn exchange(
        &self,
        address: SocketAddr,
        request: Request<Carried<RequestBody>>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut sender = self.connection.sender.clone();
        sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let source = error.into_error();
            let failure = stream_failure(&source);
            let source = Broken::Http2 { source };
            let error = match failure {
                _ if unsent => ProxyError::NotSent { address, source },
                StreamFailure::Refused => ProxyError::StreamRefused { address, source },
                StreamFailure::Reset => ProxyError::StreamReset { address, source },
                StreamFailure::Protocol => ProxyError::Protocol { address, source },
                StreamFailure::Connection => ProxyError::Closed { address, reused: self.reused, source },
            };
            // Which bytes belong to which stream is known to hyper alone: a head that began is not told from one that did not.
            ExchangeError { error, bytes_sent: !unsent, response_begun: false }
        })
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.set(streams.get() - 1);
        if streams.get() == 0 {
            self.connection.idle_since.set(Instant::now());
        }
    }
}

/// What an h2 error means for the one request.
enum StreamFailure {
    /// The peer promises that it did nothing (RFC 9113 section 8.7).
    Refused,
    Reset,
    Protocol,
    Connection,
}

fn stream_failure(error: &hyper::Error) -> StreamFailure {
    use std::error::Error;
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) => StreamFailure::Refused,
                Some(h2::Reason::NO_ERROR) if h2.is_go_away() && h2.is_remote() => StreamFailure::Refused,
                Some(_) if h2.is_reset() && h2.is_remote() => StreamFailure::Reset,
                Some(_) if h2.is_library() => StreamFailure::Protocol,
                Some(_) if h2.is_go_away() => StreamFailure::Reset,
                _ => StreamFailure::Connection,
            };
        }
        source = cause.source();
    }
    StreamFailure::Connection
}
