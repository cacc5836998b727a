//! What comes back: a body that drives the connection it comes from, and gives it back when it is whole. One that breaks off
//! is an error to whoever reads it, so that it never looks whole.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::idle::IdleTimer;
use super::pool_h1::{H1Connection, PoolH1};
use super::pool_h2::H2Stream;
use crate::error::ProxyError;

/// An unwanted body is read this far for the sake of its connection.
const DISCARDED_FRAMES_MAX: usize = 4;

/// The body of a response from an endpoint.
pub struct UpstreamBody {
    incoming: Incoming,
    carrier: Carrier,
    idle: IdleTimer,
    address: std::net::SocketAddr,
}

/// What the body comes on.
enum Carrier {
    H1 {
        connection: Box<H1Connection>,
        pool: Rc<PoolH1>,
    },
    /// Held for as long as the stream is open; its connection has a driver of its own.
    H2 {
        _stream: H2Stream,
    },
    /// Given back, or over.
    Done,
}

impl UpstreamBody {
    #[must_use]
    pub fn h1(incoming: Incoming, connection: Box<H1Connection>, pool: Rc<PoolH1>, idle: Option<Duration>) -> Self {
        let address = connection.address();
        Self { incoming, carrier: Carrier::H1 { connection, pool }, idle: IdleTimer::new(idle), address }
    }

    #[must_use]
    pub fn h2(incoming: Incoming, stream: H2Stream, address: std::net::SocketAddr, idle: Option<Duration>) -> Self {
        Self { incoming, carrier: Carrier::H2 { _stream: stream }, idle: IdleTimer::new(idle), address }
    }

    /// Whether its length was told with its head.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.incoming.size_hint().exact().is_some()
    }

    /// It is a stream of messages or events: silence is no fault.
    pub fn may_be_silent(&mut self) {
        self.idle = IdleTimer::new(None);
    }

    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// The connection of a response that has no body, to be switched to another protocol.
    #[must_use]
    pub fn into_connection(mut self) -> Option<Box<H1Connection>> {
        match std::mem::replace(&mut self.carrier, Carrier::Done) {
            Carrier::H1 { connection, .. } => Some(connection),
            Carrier::H2 { .. } | Carrier::Done => None,
        }
    }

    /// Nobody wants this response. What is there of it already is thrown away; if that is all, its connection is kept.
    pub fn discard(mut self) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..DISCARDED_FRAMES_MAX {
            match self.poll_incoming(&mut context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return self.finish(Some(&mut context)),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        if self.incoming.is_end_stream() {
            self.finish(Some(&mut context));
        }
    }

    /// The response is whole: the connection goes back to its pool once it has noticed that itself.
    fn finish(&mut self, cx: Option<&mut Context<'_>>) {
        let Carrier::H1 { mut connection, pool } = std::mem::replace(&mut self.carrier, Carrier::Done) else { return };
        let mut noop = Context::from_waker(std::task::Waker::noop());
        if connection.poll_drive(cx.unwrap_or(&mut noop)).is_pending() {
            pool.put(connection, Instant::now());
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Carrier::H1 { connection, .. } = &mut self.carrier else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // What is there already is taken first. Asking for more is what lets the connection read on.
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let _ = connection.poll_drive(cx);
        Pin::new(&mut self.incoming).poll_frame(cx)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        match this.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.progressed();
                if this.incoming.is_end_stream() {
                    this.finish(Some(cx));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => {
                this.carrier = Carrier::Done;
                Poll::Ready(Some(Err(ProxyError::ResponseCut { address: this.address, source })))
            }
            Poll::Ready(None) => {
                this.finish(Some(cx));
                Poll::Ready(None)
            }
            Poll::Pending => match this.idle.poll_silent(cx) {
                Poll::Ready(after) => {
                    this.carrier = Carrier::Done;
                    Poll::Ready(Some(Err(ProxyError::ResponseIdle { address: this.address, after })))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // A response without a body, to HEAD for one, is never polled.
        if self.incoming.is_end_stream() {
            self.finish(None);
        }
    }
}
