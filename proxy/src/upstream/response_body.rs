//! What comes back: a body that drives the connection it comes from, and gives it back when it is whole. One that breaks off
//! is an error to whoever reads it, so that it never looks whole.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::h1::{Begun, ExchangeError, H1Connection, Sending};
use super::idle::{IdleTimer, StallTimer};
use super::pool_h1::PoolH1;
use super::pool_h2::H2Stream;
use super::request_body::RequestBody;
use crate::error::{Broken, ProxyError};
use crate::h1::unread::Unread;
use crate::h2::Stream;
use crate::h2::exchange::Exchange;
use crate::message::body::Body;
use crate::message::{Frame, RequestHead, ResponseHead};

/// An unwanted body is read this far for the sake of its connection.
const DISCARDED_FRAMES_MAX: usize = 4;

/// How long an endpoint is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// That takes nothing of a request; none for calls, which it may take at its own pace.
    pub stalled: Option<Duration>,
    /// That sends nothing of its response.
    pub silent: Duration,
}

/// The body of a response from an endpoint.
pub struct UpstreamBody {
    carrier: Carrier,
    idle: IdleTimer,
    address: std::net::SocketAddr,
}

/// What the body comes on.
enum Carrier {
    H1(OverH1),
    /// The stream is held for as long as it is open; its connection has a driver of its own.
    H2 {
        body: Box<Exchange<RequestBody>>,
        _stream: H2Stream,
    },
    /// Given back, or over.
    Done,
}

/// What carries no HTTP any more.
pub enum Bare {
    Connection(Box<H1Connection>),
    /// And its place on its connection.
    Stream(Rc<Stream>, H2Stream),
}

struct OverH1 {
    connection: Box<H1Connection>,
    pool: Rc<PoolH1>,
    unread: Unread,
    /// What is still to be sent of the request.
    sending: Option<Sending>,
    keeps_alive: bool,
}

/// Sends a request on an HTTP/1.1 connection, and waits for the head of its response.
///
/// # Errors
/// [`ExchangeError`].
pub async fn exchange_h1(
    mut connection: Box<H1Connection>,
    pool: Rc<PoolH1>,
    head: &RequestHead,
    body: RequestBody,
    idle_timeout: Duration,
    interim: impl FnMut(ResponseHead),
) -> Result<(ResponseHead, UpstreamBody), ExchangeError> {
    let Begun { head, unread, sending, keeps_alive } = connection.exchange(head, body, idle_timeout, interim).await?;
    let address = connection.address();
    let carrier = Carrier::H1(OverH1 { connection, pool, unread, sending, keeps_alive });
    Ok((head, UpstreamBody { carrier, idle: IdleTimer::new(Some(idle_timeout)), address }))
}

/// Sends a request on a stream of an h2 connection, and waits for the head of its response.
///
/// # Errors
/// [`ExchangeError`].
pub async fn exchange_h2(
    stream: H2Stream,
    head: &RequestHead,
    body: RequestBody,
    patience: Patience,
    interim: impl FnMut(ResponseHead),
) -> Result<(ResponseHead, UpstreamBody), ExchangeError> {
    let stalled = StallTimer::new(patience.stalled);
    let (head, body) = stream.exchange(head, body, stalled, interim).await?;
    let address = stream.address();
    let carrier = Carrier::H2 { body: Box::new(body), _stream: stream };
    Ok((head, UpstreamBody { carrier, idle: IdleTimer::new(Some(patience.silent)), address }))
}

impl UpstreamBody {
    /// It is a stream of messages or events: silence is no fault.
    pub fn may_be_silent(&mut self) {
        self.idle = IdleTimer::new(None);
    }

    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// What a response that has no body of its own came on, to carry another protocol; none where the request is not over.
    #[must_use]
    pub fn into_carrier(mut self) -> Option<Bare> {
        match std::mem::replace(&mut self.carrier, Carrier::Done) {
            Carrier::H1(OverH1 { connection, sending: None, .. }) => Some(Bare::Connection(connection)),
            Carrier::H2 { body, _stream } => Some(Bare::Stream(Rc::clone(body.stream()), _stream)),
            Carrier::H1(_) | Carrier::Done => None,
        }
    }

    /// Nobody wants this response. What is there of it already is thrown away; if that is all, its connection is kept.
    pub fn discard(mut self) {
        // While the request is still being sent, reading on would take more of it from the client.
        if !matches!(self.carrier, Carrier::H1(OverH1 { sending: None, .. })) {
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..DISCARDED_FRAMES_MAX {
            if !matches!(self.poll_carrier(&mut context), Poll::Ready(Some(Ok(_)))) {
                break;
            }
        }
    }

    /// The response is whole: the connection goes back to its pool if nothing is left over of the exchange.
    fn finish(&mut self) {
        if let Carrier::H1(OverH1 { connection, pool, sending: None, keeps_alive: true, .. }) =
            std::mem::replace(&mut self.carrier, Carrier::Done)
            && connection.is_clean()
        {
            pool.put(connection, Instant::now());
        }
    }

    /// It will never be whole.
    fn cut(&mut self, source: Broken) -> ProxyError {
        self.carrier = Carrier::Done;
        match source {
            Broken::Request => ProxyError::ClientCut { source },
            source => ProxyError::ResponseCut { address: self.address, source },
        }
    }

    fn poll_carrier(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        let polled = match &mut self.carrier {
            Carrier::H1(over) => over.poll_frame(cx),
            Carrier::H2 { body, .. } => body.poll_frame(cx),
            Carrier::Done => return Poll::Ready(None),
        };
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.is_end()) {
            self.finish();
        }
        polled
    }
}

impl OverH1 {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        match self.poll_aside(cx) {
            Poll::Ready(broken) => Poll::Ready(Some(Err(broken))),
            Poll::Pending => self.connection.poll_body(&mut self.unread, cx),
        }
    }

    /// What is left of the request goes on being sent. A peer that takes no more of it may answer all the same; a client that sends no
    /// more of it ends the exchange.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let Some(sending) = &mut self.sending else { return Poll::Pending };
        match self.connection.poll_send(sending, cx) {
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(_)) if sending.body.is_broken() => return Poll::Ready(Broken::Request),
            Poll::Ready(Err(_)) => {
                self.sending = None;
                self.keeps_alive = false;
            }
            Poll::Pending => {}
        }
        Poll::Pending
    }
}

impl Body for UpstreamBody {
    type Error = ProxyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ProxyError>>> {
        match self.poll_carrier(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.progressed();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => Poll::Ready(Some(Err(self.cut(source)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.idle.poll_silent(cx).map(|after| {
                self.carrier = Carrier::Done;
                Some(Err(ProxyError::ResponseIdle { address: self.address, after }))
            }),
        }
    }

    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        let polled = match &mut self.carrier {
            Carrier::H1(over) => over.poll_aside(cx),
            Carrier::H2 { body, .. } => body.poll_aside(cx),
            Carrier::Done => Poll::Pending,
        };
        polled.map(|source| self.cut(source))
    }

    fn is_end(&self) -> bool {
        match &self.carrier {
            Carrier::H1(over) => over.unread.is_nothing(),
            Carrier::H2 { body, .. } => body.is_end(),
            Carrier::Done => true,
        }
    }

    fn length(&self) -> Option<u64> {
        match &self.carrier {
            Carrier::H1(over) => over.unread.bytes(),
            Carrier::H2 { body, .. } => body.length(),
            Carrier::Done => Some(0),
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // A response without a body, to HEAD for one, is never polled.
        if self.is_end() {
            self.finish();
        }
    }
}
