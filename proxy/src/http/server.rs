//! HTTP/1.1 and h2 on one connection, with what a client may take of us: time for a request head, time between requests.
//!
//! One timer serves a connection for its whole life. It is moved when it fires too early, not on every request, so that a busy
//! connection costs no timer at all.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::task::drain::Drain;
use tokio::io::AsyncWriteExt;
use tokio::time::Sleep;

use super::client::Client;
use crate::error::ProxyError;
use crate::listen::stream::{ClientStream, StreamFlags};

/// Streams one h2 client may have open at once.
const STREAMS_MAX: u32 = 1024;

/// How much of a client's bodies may be under way unread, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// An h2 client that answers no PING for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that is done sending may have left, or wait for its answer: so long without a byte for it, it is taken for waiting.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);

/// What a client that is too slow with its request head is told (RFC 9110 section 15.5.9).
const HEADER_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\
    proxy-status: mesh; error=http_request_error; details=\"SI stream_idle_timeout\"\r\n\r\n";

/// How a connection ended.
#[derive(Debug)]
pub enum Served {
    /// By the client, or by us after its last request.
    Closed,
    /// A request head took too long.
    HeaderTimeout,
    /// No request came for too long.
    Idle,
    /// We were told to end.
    Drained,
    /// Broken off, by either side.
    Broken(hyper::Error),
}

/// What answers requests on a connection.
pub trait Answer<B>: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: 'static> {}

impl<S, B> Answer<B> for S where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: 'static>
{
}

/// Serves HTTP/1.1 until the connection ends. A connection that is switched to another protocol ends here, and lives on with
/// whoever switched it.
pub async fn serve_h1<B>(stream: ClientStream, client: Rc<Client>, drain: Drain, answer: impl Answer<B>) -> Served
where
    B: Body<Data = Bytes, Error = ProxyError> + 'static,
{
    let flags = stream.flags();
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(client.limits.header_bytes_max)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    let mut clock = Clock::new(&client, flags.clone(), true);
    let mut driven = Driven { drain, draining: false };
    let served = driven
        .run(&mut clock, |cx, graceful| {
            let mut connection = Pin::new(&mut connection);
            if graceful {
                connection.as_mut().graceful_shutdown();
            }
            connection.poll(cx)
        })
        .await;
    match served {
        Served::HeaderTimeout => {
            if let Some(parts) = connection.into_parts() {
                let mut stream = parts.io.into_inner();
                // The client may not be reading any more: what the kernel takes at once is enough.
                let told = stream.write_all(HEADER_TIMEOUT);
                let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
            }
        }
        // A response broke off. A client of HTTP/1.0 knows its end by the end of the connection alone.
        Served::Broken(_) if client.ends_by_close() => flags.reset_on_close(),
        _ => {}
    }
    served
}

/// Serves h2 until the connection ends. `executor` runs its streams on this thread.
pub async fn serve_h2<B, S, E>(stream: ClientStream, client: Rc<Client>, drain: Drain, answer: S, executor: E) -> Served
where
    B: Body<Data = Bytes, Error = ProxyError> + 'static,
    S: Answer<B>,
    E: Http2ServerConnExec<S::Future, B>,
{
    let flags = stream.flags();
    let mut connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(client.limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer);
    let mut clock = Clock::new(&client, flags, false);
    let mut driven = Driven { drain, draining: false };
    driven
        .run(&mut clock, |cx, graceful| {
            let mut connection = Pin::new(&mut connection);
            if graceful {
                connection.as_mut().graceful_shutdown();
            }
            connection.poll(cx)
        })
        .await
}

/// For clients that know nothing of us: one that ends its side with its request gets an answer all the same, as it would from most
/// servers.
#[must_use]
pub fn answering_half_closed(stream: ClientStream, client: &Client) -> ClientStream {
    stream.holding_end_while(client.answering())
}

/// Polls a connection until it ends, drains, or its client has taken too long.
struct Driven {
    drain: Drain,
    draining: bool,
}

impl Driven {
    async fn run(
        &mut self,
        clock: &mut Clock<'_>,
        mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), hyper::Error>>,
    ) -> Served {
        let mut timer = pin!(tokio::time::sleep_until(clock.idle_deadline().into()));
        let mut started = pin!(self.drain.started());
        let (draining, mut last) = (&mut self.draining, false);
        std::future::poll_fn(|cx| {
            let mut graceful = false;
            if !*draining && started.as_mut().poll(cx).is_ready() {
                *draining = true;
                graceful = true;
            }
            let mut polled = poll(cx, graceful);
            // Nothing more is to come: this request is its last.
            if polled.is_pending() && !last && clock.flags.end_is_held_back() {
                last = true;
                polled = poll(cx, true);
            }
            match polled {
                Poll::Ready(Ok(())) if *draining => Poll::Ready(Served::Drained),
                Poll::Ready(Ok(())) => Poll::Ready(Served::Closed),
                Poll::Ready(Err(error)) => Poll::Ready(Served::Broken(error)),
                Poll::Pending => clock.poll_timer(timer.as_mut(), cx),
            }
        })
        .await
    }
}

/// What a connection is doing, and until when it may.
struct Clock<'c> {
    client: &'c Client,
    flags: std::sync::Arc<StreamFlags>,
    /// Whether heads come one after the other, so that one that began can be told.
    one_at_a_time: bool,
    phase: Phase,
    requests_seen: u64,
    /// The client is done sending: when it was last written to, and how much it was by then.
    half_closed: Option<(Instant, u64)>,
    /// When the timer fires; none while it has fired and nobody needs it.
    armed: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request; so many bytes had been read by then.
    Idle { read: u64 },
    /// A head has begun.
    Head { since: Instant },
    /// A request is being answered.
    Busy,
}

impl<'c> Clock<'c> {
    fn new(client: &'c Client, flags: std::sync::Arc<StreamFlags>, one_at_a_time: bool) -> Self {
        let phase = Phase::Idle { read: 0 };
        let mut clock = Self { client, flags, one_at_a_time, phase, requests_seen: 0, half_closed: None, armed: None };
        clock.armed = Some(clock.idle_deadline());
        clock
    }

    fn idle_deadline(&self) -> Instant {
        self.client.idle_since() + self.client.limits.idle_timeout
    }

    /// Looks at what happened in the poll just done.
    fn observe(&mut self) {
        if self.flags.end_is_held_back() {
            let written = self.flags.written_after_end();
            if self.flags.is_full() || self.half_closed.is_none_or(|(_, before)| before != written) {
                self.half_closed = Some((Instant::now(), written));
            }
        }
        let read = self.flags.read_bytes();
        let seen = std::mem::replace(&mut self.requests_seen, self.client.requests());
        self.phase = match self.phase {
            _ if !self.client.is_idle() => Phase::Busy,
            Phase::Busy => Phase::Idle { read },
            _ if seen != self.requests_seen => Phase::Idle { read },
            Phase::Idle { read: before } if self.one_at_a_time && read > before => {
                Phase::Head { since: Instant::now() }
            }
            unchanged => unchanged,
        };
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { .. } => Some(self.idle_deadline()),
            Phase::Head { since } => Some(since + self.client.limits.header_timeout),
            Phase::Busy if self.flags.is_full() => None,
            Phase::Busy => self.half_closed.map(|(since, _)| since + HALF_CLOSED_MAX),
        }
    }

    fn poll_timer(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Served> {
        self.observe();
        if let Some(deadline) = self.deadline()
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            timer.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        while self.armed.is_some() && timer.as_mut().poll(cx).is_ready() {
            match self.deadline() {
                None => self.armed = None,
                Some(deadline) if deadline > Instant::now() => {
                    timer.as_mut().reset(deadline.into());
                    self.armed = Some(deadline);
                }
                Some(_) if matches!(self.phase, Phase::Head { .. }) => return Poll::Ready(Served::HeaderTimeout),
                Some(_) if self.phase == Phase::Busy => return Poll::Ready(Served::Closed),
                Some(_) => return Poll::Ready(Served::Idle),
            }
        }
        Poll::Pending
    }
}
