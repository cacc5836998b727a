//! An HTTP/1.1 connection to an endpoint: one exchange at a time, driven inline by the request that uses it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use mesh_core::model::policy::Upstream;
use tokio::net::TcpStream;

use super::idle::StallTimer;
use super::pool_h1::PoolKey;
use super::request_body::RequestBody;
use crate::endpoint::{EndpointStats, LiveEndpoint, OpenConnection};
use crate::error::{Broken, ProxyError};
use crate::h1::framing::{self, Length};
use crate::h1::head::{BadHead, HeadLimits, Scan};
use crate::h1::inbox::Inbox;
use crate::h1::outbox::Outbox;
use crate::h1::unread::{Piece, Unread};
use crate::h1::write;
use crate::message::body::Body;
use crate::message::name::Name;
use crate::message::{Frame, RequestHead, ResponseHead};
use crate::resilience::places::Place;

/// How large the head of a response may be, and its trailers.
/// Interim responses to one request.
const INTERIM_MAX: usize = 1000;

/// So much of a request's body is put together before it is written.
const BATCH_BYTES: usize = 64 * 1024;

/// One connection. In use it belongs to its request.
pub struct H1Connection {
    pub(super) key: PoolKey,
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    /// It has carried a whole exchange before.
    pub(super) reused: bool,
    pub(super) idle_since: Instant,
    /// Keeps the counters' address, which is part of the key, from being used again.
    _endpoint: Arc<EndpointStats>,
    _open: OpenConnection,
    pub(super) place: Place,
    pub(super) allowed: Upstream,
}

/// What is still to be sent of a request.
pub(super) struct Sending {
    pub(super) body: RequestBody,
    length: Length,
    is_over: bool,
}

/// A response head, and what is still to come.
pub(super) struct Begun {
    pub(super) head: ResponseHead,
    pub(super) unread: Unread,
    /// None once the whole request was sent.
    pub(super) sending: Option<Sending>,
    /// The connection may carry another exchange when this one is over.
    pub(super) keeps_alive: bool,
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
    /// A new connection on an open stream. No byte is sent yet.
    #[must_use]
    pub fn new(key: PoolKey, endpoint: &LiveEndpoint, stream: TcpStream, place: Place, allowed: Upstream) -> Box<Self> {
        Box::new(Self {
            key,
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            reused: false,
            idle_since: Instant::now(),
            _endpoint: Arc::clone(&endpoint.stats),
            _open: endpoint.open_connection(),
            place,
            allowed,
        })
    }

    fn head_limits(&self) -> HeadLimits {
        let Upstream { header_bytes_max, header_count_max, .. } = self.allowed;
        HeadLimits { bytes_max: header_bytes_max as usize, fields_max: header_count_max as usize }
    }

    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.key.address()
    }

    /// Looks once whether the peer has closed it, or sent what nobody asked for. Nothing has to be asked of the kernel for that while
    /// nothing happened.
    pub(super) fn is_open(&mut self) -> bool {
        let is_silent = |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.inbox.is_empty() && is_silent(self.stream.try_read(&mut [0]))
    }

    /// Sends the request and waits for the head of its response. Interim responses are handed on as they come.
    ///
    /// # Errors
    /// [`ExchangeError`]; the connection is of no use afterwards.
    pub(super) async fn exchange(
        &mut self,
        head: &RequestHead,
        body: RequestBody,
        stall_timeout: Duration,
        mut interim: impl FnMut(ResponseHead),
    ) -> Result<Begun, ExchangeError> {
        let mut stalled = StallTimer::new(Some(stall_timeout));
        let sent_before = self.outbox.sent_bytes();
        let mut sending = Sending { length: request_length(head, &body), body, is_over: false };
        let mut unsent_head = Some(head);
        let (mut scan, mut interims, mut unsent) = (Scan::default(), 0, None);
        let answered = std::future::poll_fn(|cx| {
            // Who closes early may have answered all the same: what was sent to us is read before that counts.
            if unsent.is_none()
                && let Poll::Ready(Err(broken)) = self.poll_send_from(unsent_head.take(), &mut sending, cx)
            {
                unsent = Some(broken);
            }
            loop {
                match self.poll_head(&mut scan, cx) {
                    Poll::Ready(Ok(head)) if is_interim(head.status) => {
                        interims += 1;
                        if interims > INTERIM_MAX {
                            let problem = "interim responses without end";
                            return Poll::Ready(Err(Broken::Head { source: BadHead::Malformed { problem } }));
                        }
                        interim(head);
                    }
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                    Poll::Ready(Err(broken)) if broken.is_malformed() => return Poll::Ready(Err(broken)),
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(unsent.take().unwrap_or(broken))),
                    // The client's own fault shows at once.
                    Poll::Pending if unsent.is_some() && sending.body.is_broken() => {
                        return Poll::Ready(Err(unsent.take().unwrap_or(Broken::Ended)));
                    }
                    Poll::Pending if self.outbox.is_empty() => return Poll::Pending,
                    Poll::Pending => {
                        let sent = self.outbox.sent_bytes();
                        let too_slow = || Err(Broken::Connection { source: io::ErrorKind::TimedOut.into() });
                        return stalled.poll(sent, cx).map(|()| too_slow());
                    }
                }
            }
        });
        let answered = answered.await.and_then(|answered| {
            let length = framing::of_response(&answered, &head.method);
            length.map(|length| (answered, length)).map_err(|source| Broken::Head { source })
        });
        match answered {
            Ok((answered, length)) => {
                let keeps_alive = keeps_alive(&answered, length) && unsent.is_none();
                // The last of it may still wait for the endpoint to read.
                let sending = (!sending.is_over || !self.outbox.is_empty()).then_some(sending);
                Ok(Begun { head: answered, unread: Unread::of(length), sending, keeps_alive })
            }
            Err(source) => {
                let bytes_sent = self.outbox.sent_bytes() != sent_before;
                let response_begun = interims > 0 || !self.inbox.is_empty();
                Err(self.failed(source, bytes_sent, response_begun))
            }
        }
    }

    fn failed(&self, source: Broken, bytes_sent: bool, response_begun: bool) -> ExchangeError {
        let address = self.address();
        let error = match source {
            source if source.is_malformed() => ProxyError::Protocol { address, source },
            source if !bytes_sent => ProxyError::NotSent { address, source },
            source => ProxyError::Closed { address, reused: self.reused, source },
        };
        ExchangeError { error, bytes_sent, response_begun }
    }

    /// Sends what is there of a request's body; ready when all of it is on its way.
    pub(super) fn poll_send(&mut self, sending: &mut Sending, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.poll_send_from(None, sending, cx)
    }

    /// The same, with the head in front: both go out in one write.
    fn poll_send_from(
        &mut self,
        mut head: Option<&RequestHead>,
        sending: &mut Sending,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let Self { stream, outbox, .. } = self;
        let broken = |source| Broken::Connection { source };
        while !sending.is_over {
            // What waits goes first: nobody reads more of the client than the endpoint takes.
            ready!(outbox.poll_flush(stream, cx)).map_err(broken)?;
            let mut batch = outbox.batch();
            if let Some(head) = head.take() {
                write::request(batch.text(), head, head.authority().unwrap_or_default(), sending.length);
            }
            let mut waits = false;
            while !sending.is_over && !waits && batch.waiting_bytes() < BATCH_BYTES {
                waits = sending.poll_next(&mut batch, cx)?.is_pending();
            }
            if batch.waiting_bytes() > 0 {
                ready!(batch.poll_write(stream, cx)).map_err(broken)?;
            }
            if waits {
                return Poll::Pending;
            }
        }
        outbox.poll_flush(stream, cx).map_err(broken)
    }

    fn poll_head(&mut self, scan: &mut Scan, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Broken>> {
        loop {
            if !self.inbox.is_empty() {
                let whole =
                    scan.response(self.inbox.bytes(), self.head_limits()).map_err(|source| Broken::Head { source })?;
                if let Some(whole) = whole {
                    *scan = Scan::default();
                    self.inbox.skip(whole.length);
                    return Poll::Ready(Ok(whole.head));
                }
            }
            match ready!(self.inbox.poll_fill(&mut self.stream, cx, 0)) {
                Ok(0) => return Poll::Ready(Err(Broken::Ended)),
                Ok(_) => {}
                Err(source) => return Poll::Ready(Err(Broken::Connection { source })),
            }
        }
    }

    /// The next piece of a response's body.
    pub(super) fn poll_body(
        &mut self,
        unread: &mut Unread,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Broken>>> {
        loop {
            let limits = self.head_limits();
            let expected = match unread.next(&mut self.inbox, limits) {
                Ok(Piece::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Wanting(expected)) => expected,
                Err(source) => return Poll::Ready(Some(Err(Broken::Chunks { source }))),
            };
            match ready!(self.inbox.poll_fill(&mut self.stream, cx, expected)) {
                Ok(0) if unread.ended() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(Broken::Ended))),
                Ok(_) => {}
                Err(source) => {
                    *unread = Unread::Lost;
                    return Poll::Ready(Some(Err(Broken::Connection { source })));
                }
            }
        }
    }

    /// The bare stream after a 101, with what was read beyond the response head.
    #[must_use]
    pub fn into_stream(self: Box<Self>) -> (TcpStream, Bytes, UpgradedGuard) {
        let Self { stream, mut inbox, _open, place, .. } = *self;
        (stream, inbox.take_all(), UpgradedGuard { _open, _place: place })
    }

    /// Nothing is left over of the exchange before.
    pub(super) fn is_clean(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }
}

/// Keeps a switched connection counted as what it is: open.
pub struct UpgradedGuard {
    _open: OpenConnection,
    _place: Place,
}

impl Sending {
    /// The next piece of the body, into the batch.
    fn poll_next(
        &mut self,
        batch: &mut crate::h1::outbox::Batch<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Broken> {
        let frame = if self.body.is_end() { Poll::Ready(None) } else { self.body.poll_frame(cx) };
        match (frame, self.length) {
            (Poll::Pending, _) => return Ok(Poll::Pending),
            (Poll::Ready(Some(Err(_))), _) => return Err(Broken::Ended),
            (Poll::Ready(Some(Ok(Frame::Data(data)))), Length::Chunked) => {
                write::chunk_size(batch.text(), data.len());
                batch.data(data);
                batch.text().extend_from_slice(b"\r\n");
            }
            (Poll::Ready(Some(Ok(Frame::Data(data)))), _) => batch.data(data),
            (Poll::Ready(Some(Ok(Frame::Trailers(trailers)))), Length::Chunked) => {
                write::last_chunk(batch.text(), Some(&trailers));
                self.is_over = true;
            }
            (Poll::Ready(Some(Ok(Frame::Trailers(_)))), _) => self.is_over = true,
            (Poll::Ready(None), length) => {
                if length == Length::Chunked {
                    write::last_chunk(batch.text(), None);
                }
                self.is_over = true;
            }
        }
        Ok(Poll::Ready(()))
    }
}

/// How the end of a request is told. One that could have a body says so even if it has none (RFC 9110 section 8.6).
fn request_length(head: &RequestHead, body: &RequestBody) -> Length {
    match body.length() {
        Some(0) => {
            let usual = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
            let says_so = usual || head.fields.has(Name::ContentLength);
            if says_so { Length::Sized(0) } else { Length::None }
        }
        Some(length) => Length::Sized(length),
        None => Length::Chunked,
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// RFC 9112 section 9.3.
fn keeps_alive(head: &ResponseHead, length: Length) -> bool {
    let says = |token: &[u8]| head.fields.has_member(Name::Connection, token);
    let wanted = match head.version {
        Version::HTTP_10 => says(b"keep-alive") && !says(b"close"),
        _ => !says(b"close"),
    };
    wanted && length != Length::UntilClose
}
