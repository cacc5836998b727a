//! HTTP/1.1 on one connection: a head → its answer → the response, again and again, until one of both ends it.
//!
//! ```text
//!   idle ──first byte──▶ head ──whole──▶ answering ──▶ responding ──kept alive──▶ idle
//!    │ idle_timeout        │ malformed: refused    │ the client left      │ cut: broken off, never ended orderly
//!    ▼                     ▼ header_timeout: 408   ▼                      ▼
//!                               closing: what is still sent to us is read for a moment, so that the last words arrive
//! ```
//! All of it is one task. What the client sends while it is answered is read by whoever reads the request's body, or waits here.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Method, Version};
use mesh_core::task::drain::Drain;

use super::asked::{Answer, Asked};
use super::client::Client;
use super::refuse;
use super::timer::LazyTimer;
use crate::error::{Broken, ProxyError};
use crate::h1::framing::{self, Length};
use crate::h1::head::HeadLimits;
use crate::h1::limits::Limit;
use crate::listen::stream::ClientStream;
use crate::message::body::{Body, ClientBody, Interim};
use crate::message::name::Name;
use crate::message::{Frame, RequestHead, ResponseHead};

mod connection; // what is read and written, and how far
mod respond; // a response, to its last byte

use connection::Connection;

/// A connection that is drained is ended once it has had no request for this long. One in use has its next request on the way more
/// often than not, which a sudden end would lose: the response to it says that it is the last.
const DRAINED_WHEN_IDLE_FOR: Duration = Duration::from_millis(250);

/// Of a client whose body nobody reads for now, because the endpoint takes no more, one looks so often whether it broke off: unread
/// bytes hide that from whoever waits for more of them.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// How a connection ended.
pub enum Served<S> {
    /// By the client, or by us after its last request.
    Closed,
    /// No request came for too long.
    Idle,
    /// We were told to end.
    Drained,
    /// What came was no request, or came too slowly. The client was told.
    Refused(ProxyError),
    /// What came first is of another protocol: whoever sent it could not read an answer, and might take it for something else.
    Foreign(ProxyError),
    /// It broke off, or a response was cut.
    Broken(Broken),
    /// It is something else now. What was read beyond the request has been put back.
    Switched(ClientStream, S),
}

/// A connection, shared by the server and the body of the request that is being answered.
type Shared = Rc<RefCell<Connection>>;

/// What holds for all requests of a connection.
struct Server<'c> {
    connection: Shared,
    client: &'c Client,
    /// Hears of limits that the client reached.
    reached: &'c dyn Fn(Limit),
    timer: LazyTimer,
    drain: Drain,
    /// Whoever began to drain wakes this task.
    asked_for_drain: bool,
}

/// A request, and how much of it follows its head.
struct Request {
    head: RequestHead,
    length: Length,
}

/// What the connection has to know of a request once its head is given away.
#[derive(Clone, Copy)]
struct Expected {
    is_head: bool,
    version: Version,
    /// The client would go on with this connection.
    keep_alive: bool,
    /// It sends its body only when it is told to.
    awaits_continue: bool,
}

/// Serves HTTP/1.1 until the connection ends. `answer` answers each request, `reached` hears of limits.
pub async fn serve_h1<B, S, F>(
    stream: ClientStream,
    client: Rc<Client>,
    drain: Drain,
    answer: impl Fn(Asked) -> F,
    reached: impl Fn(Limit),
) -> Served<S>
where
    B: Body<Error = ProxyError>,
    F: Future<Output = Answer<B, S>>,
{
    let limits =
        HeadLimits { bytes_max: client.limits.header_bytes_max, fields_max: client.limits.header_count_max as usize };
    let connection = Rc::new(RefCell::new(Connection::new(stream, limits)));
    let mut draining = drain.clone();
    let mut draining = pin!(draining.started());
    let (client, reached, timer) = (&*client, &reached, LazyTimer::default());
    let mut server = Server { connection, client, reached, timer, drain, asked_for_drain: false };
    loop {
        let request = match server.next_request(draining.as_mut()).await {
            Ok(request) => request,
            Err(served) => return served,
        };
        let (asked, expected) = server.hand_over(request);
        // Boxed, so that a connection that waits for its next request does not hold the room that answering one takes.
        let answered = match server.wait_for(Box::pin(answer(asked))).await {
            Ok(answered) => answered,
            Err(broken) => return Served::Broken(broken),
        };
        let is_last = matches!(answered, Answer::Last(..));
        let expected = Expected { keep_alive: expected.keep_alive && !is_last, ..expected };
        match answered {
            Answer::Response(head, body) | Answer::Last(head, body) => match server.respond(head, body, expected).await
            {
                Ok(true) => {}
                Ok(false) => return server.close().await,
                Err(broken) => return Served::Broken(broken),
            },
            Answer::Switch(head, with) => {
                return match server.switch(head).await {
                    Ok(stream) => Served::Switched(stream, with),
                    Err(broken) => Served::Broken(broken),
                };
            }
        }
    }
}

impl Server<'_> {
    /// Waits for the next request head, as long as a client may take.
    async fn next_request<S>(
        &mut self,
        mut draining: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Request, Served<S>> {
        let mut head_since = self.connection.borrow_mut().stream().take_begun_at();
        let idle_since = self.client.idle_since();
        let stopped = std::future::poll_fn(|cx| {
            let mut connection = self.connection.borrow_mut();
            match connection.poll_head(cx) {
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(Stopped::Closed)),
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(Stopped::Broken(broken))),
                Poll::Pending => {}
            }
            // What could not be written before goes out while the next request is awaited.
            if let Poll::Ready(Err(broken)) = connection.poll_flush(cx) {
                return Poll::Ready(Err(Stopped::Broken(broken)));
            }
            if connection.has_begun() {
                let since = *head_since.get_or_insert_with(Instant::now);
                let deadline = since + self.client.limits.header_timeout;
                return self.timer.poll_until(deadline, cx).map(|()| Err(Stopped::HeaderTimeout));
            }
            // Asked once, it wakes this task when it begins.
            let asked_before = std::mem::replace(&mut self.asked_for_drain, true);
            let is_draining = self.drain.is_draining() || (!asked_before && draining.as_mut().poll(cx).is_ready());
            let idle_timeout = self.client.limits.idle_timeout;
            let (wait, ended) = if is_draining {
                (idle_timeout.min(DRAINED_WHEN_IDLE_FOR), Stopped::Drained)
            } else {
                (idle_timeout, Stopped::Idle)
            };
            self.timer.poll_until(idle_since + wait, cx).map(|()| Err(ended))
        });
        let mut is_head = false;
        let refused = match stopped.await {
            Ok(head) => match framing::of_request(&head) {
                Ok(length) => return Ok(Request { head, length }),
                Err(source) => {
                    is_head = head.method == Method::HEAD;
                    ProxyError::BadMessage { source }
                }
            },
            Err(Stopped::Closed) => return Err(Served::Closed),
            Err(Stopped::Idle) => return Err(Served::Idle),
            Err(Stopped::Drained) => return Err(Served::Drained),
            Err(Stopped::HeaderTimeout) => ProxyError::HeaderTimeout,
            Err(Stopped::Broken(Broken::Head { source })) if self.connection.borrow().is_foreign() => {
                let _: Served<()> = self.close().await;
                return Err(Served::Foreign(ProxyError::BadMessage { source }));
            }
            Err(Stopped::Broken(Broken::Head { source })) => {
                Limit::of_head(&source).into_iter().for_each(self.reached);
                ProxyError::BadMessage { source }
            }
            Err(Stopped::Broken(broken)) => return Err(Served::Broken(broken)),
        };
        self.refuse(&refused, is_head).await;
        Err(Served::Refused(refused))
    }

    /// Tells what is wrong, and closes: where the next message would begin nobody knows.
    async fn refuse(&mut self, error: &ProxyError, is_head: bool) {
        let (head, text) = refuse::response(error, false);
        self.connection.borrow_mut().write_last(&head, (!is_head).then_some(text));
        let _: Served<()> = self.close().await;
    }

    /// The request for whoever answers it, and what has to be known of it here.
    fn hand_over(&self, request: Request) -> (Asked, Expected) {
        let Request { head, length } = request;
        let expected = Expected::of(&head);
        let number = self.connection.borrow_mut().begin(length, expected.version);
        let body: Option<ClientBody> = match length {
            Length::None | Length::Sized(0) | Length::UntilClose => None,
            Length::Sized(_) | Length::Chunked => {
                Some(Box::new(H1Body { connection: Rc::clone(&self.connection), number }))
            }
        };
        let interim: Rc<dyn Interim> = Rc::clone(&self.connection) as _;
        (Asked { head, body, interim }, expected)
    }

    /// Waits for the answer, and looks whether the client still does.
    async fn wait_for<A>(&mut self, mut answered: Pin<Box<impl Future<Output = A>>>) -> Result<A, Broken> {
        let mut half_closed = None;
        let mut looked_at = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = answered.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            let mut connection = self.connection.borrow_mut();
            if let Poll::Ready(Err(broken)) = connection.poll_flush(cx) {
                return Poll::Ready(Err(broken));
            }
            match connection.poll_watch(cx) {
                Poll::Ready(Err(broken)) => Poll::Ready(Err(broken)),
                // It is done sending.
                Poll::Ready(Ok(())) => {
                    let since = *half_closed.get_or_insert_with(Instant::now);
                    let deadline = since + self.client.limits.half_closed_timeout;
                    ready!(self.timer.poll_until(deadline, cx));
                    (self.reached)(Limit::HalfClosed);
                    Poll::Ready(Err(Broken::Ended))
                }
                Poll::Pending if connection.is_read() => Poll::Pending,
                Poll::Pending => loop {
                    let since = *looked_at.get_or_insert_with(Instant::now);
                    ready!(self.timer.poll_until(since + LOOKED_AT_EVERY, cx));
                    connection.look()?;
                    looked_at = None;
                },
            }
        })
        .await
    }

    /// Writes the whole response; whether the connection goes on. Whatever stops it in the middle is seen by the client.
    async fn respond<B>(&mut self, head: ResponseHead, body: B, expected: Expected) -> Result<bool, Broken>
    where
        B: Body<Error = ProxyError>,
    {
        let length = respond::length(&head, &body, expected);
        let limits = &self.client.limits;
        let is_readable = {
            let connection = self.connection.borrow();
            let is_small = connection.unread_bytes().is_none_or(|unread| unread <= limits.unread_body_bytes_max);
            if !is_small {
                (self.reached)(Limit::UnreadBody);
            }
            is_small && connection.may_be_read_away(expected.awaits_continue)
        };
        let goes_on = expected.keep_alive && is_readable && length != Length::UntilClose && !self.drain.is_draining();
        let connection_field = match (goes_on, expected.version) {
            (false, _) => Some(b"close".as_slice()),
            (true, Version::HTTP_10) => Some(b"keep-alive".as_slice()),
            (true, _) => None,
        };
        let response = respond::Response::new(&self.connection, head, body, length, connection_field);
        response.run(&mut self.timer, limits, self.reached).await?;
        Ok(goes_on && self.read_away().await)
    }

    /// Reads what the client still sends of a request that was answered already; false when it does not come to an end.
    async fn read_away(&mut self) -> bool {
        if self.connection.borrow().is_read() {
            return true;
        }
        let limits = &self.client.limits;
        let deadline = Instant::now() + limits.linger_timeout;
        let mut left = limits.unread_body_bytes_max;
        std::future::poll_fn(|cx| {
            let mut connection = self.connection.borrow_mut();
            if let Poll::Ready(Err(_)) = connection.poll_flush(cx) {
                return Poll::Ready(false);
            }
            loop {
                match connection.poll_body(cx) {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => match left.checked_sub(data.len() as u64) {
                        Some(less) => left = less,
                        None => {
                            (self.reached)(Limit::UnreadBody);
                            return Poll::Ready(false);
                        }
                    },
                    Poll::Ready(Some(Ok(Frame::Trailers(_)))) => {}
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Pending => {
                        ready!(self.timer.poll_until(deadline, cx));
                        (self.reached)(Limit::Linger);
                        return Poll::Ready(false);
                    }
                }
            }
        })
        .await
    }

    /// Writes what is left and ends our side. The kernel resets a connection that is closed over unread bytes, and what we said last
    /// would be lost with it: so what still comes is read for a moment.
    async fn close<S>(&mut self) -> Served<S> {
        let deadline = Instant::now() + self.client.limits.linger_timeout;
        std::future::poll_fn(|cx| {
            let mut connection = self.connection.borrow_mut();
            match connection.poll_close(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => self.timer.poll_until(deadline, cx).map(|()| (self.reached)(Limit::Linger)),
            }
        })
        .await;
        Served::Closed
    }

    /// Tells the client that its connection is something else from here on, and gives it away.
    async fn switch(self, head: ResponseHead) -> Result<ClientStream, Broken> {
        let connection = self.connection;
        connection.borrow_mut().write_switch(&head);
        std::future::poll_fn(|cx| connection.borrow_mut().poll_flush(cx)).await?;
        // The request is over, and whoever read its body is gone.
        Rc::into_inner(connection).map(|connection| connection.into_inner().into_stream()).ok_or(Broken::Ended)
    }
}

/// Why no request came.
enum Stopped {
    Closed,
    Idle,
    HeaderTimeout,
    Drained,
    Broken(Broken),
}

impl Expected {
    fn of(head: &RequestHead) -> Self {
        let wants = |token: &[u8]| head.fields.has_member(Name::Connection, token);
        let keep_alive = match head.version {
            Version::HTTP_10 => wants(b"keep-alive") && !wants(b"close"),
            _ => !wants(b"close"),
        };
        // HTTP/1.0 knows no expectations (RFC 9110 section 10.1.1).
        let awaits_continue = head.version != Version::HTTP_10 && head.fields.has_member(Name::Expect, b"100-continue");
        Self { is_head: head.method == Method::HEAD, version: head.version, keep_alive, awaits_continue }
    }
}

/// The body of the request that is being answered.
struct H1Body {
    connection: Shared,
    number: u64,
}

impl Body for H1Body {
    type Error = Broken;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        let mut connection = self.connection.borrow_mut();
        // Whoever still holds the body of an earlier request reads nothing of a later one.
        if connection.number() == self.number {
            connection.poll_body(cx)
        } else {
            Poll::Ready(Some(Err(Broken::Ended)))
        }
    }

    fn is_end(&self) -> bool {
        let connection = self.connection.borrow();
        // Of an earlier request nothing comes, but it never was whole.
        connection.number() == self.number && connection.is_read()
    }

    fn length(&self) -> Option<u64> {
        self.connection.borrow().unread_bytes()
    }
}

impl Interim for RefCell<Connection> {
    fn tell(&self, head: &ResponseHead) {
        self.borrow_mut().write_interim(head);
    }
}
