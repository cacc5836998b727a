//! A response, from its head to its last byte. As many pieces as are there go out in one write, the head with the first of them.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{StatusCode, Version};
use mesh_core::model::resource::Limits;

use super::{Expected, Shared};
use crate::error::{Broken, ProxyError};
use crate::h1::framing::Length;
use crate::h1::limits::Limit;
use crate::h1::outbox::{Batch, Outbox};
use crate::h1::write;
use crate::http::timer::LazyTimer;
use crate::message::body::Body;
use crate::message::{Frame, ResponseHead};

/// So much is put together before it is written.
const BATCH_BYTES: usize = 64 * 1024;

/// How a response ends for its client.
pub(super) fn length<B: Body>(head: &ResponseHead, body: &B, expected: Expected) -> Length {
    let without = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match body.length() {
        _ if expected.is_head || without => Length::None,
        Some(length) => Length::Sized(length),
        // Chunks are of HTTP/1.1; before, the end of the connection is the end of the body.
        None if expected.version == Version::HTTP_10 => Length::UntilClose,
        None => Length::Chunked,
    }
}

/// A response on its way.
pub(super) struct Response<'s, B> {
    connection: &'s Shared,
    head: Option<ResponseHead>,
    connection_field: Option<&'static [u8]>,
    /// None once it is over: whatever ends with it is told before the client has its last byte.
    body: Option<B>,
    length: Length,
    /// What a sized body still owes.
    left: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Collecting,
    /// All of it is in the outbox.
    Ending,
    /// It will never be whole.
    Cut(Broken),
}

impl<'s, B: Body<Error = ProxyError>> Response<'s, B> {
    pub(super) fn new(
        connection: &'s Shared,
        head: ResponseHead,
        body: B,
        length: Length,
        connection_field: Option<&'static [u8]>,
    ) -> Self {
        let left = if let Length::Sized(left) = length { left } else { 0 };
        Self {
            connection,
            head: Some(head),
            connection_field,
            body: Some(body),
            length,
            left,
            state: State::Collecting,
        }
    }

    /// Writes it to its last byte. A client that takes nothing of it for too long is given up, and `reached` hears why.
    ///
    /// # Errors
    /// [`Broken`]: the client does not have all of it, and can tell.
    pub(super) async fn run(
        mut self,
        timer: &mut LazyTimer,
        limits: &Limits,
        reached: &dyn Fn(Limit),
    ) -> Result<(), Broken> {
        let mut waiting: Option<(u64, Instant)> = None;
        let ended = std::future::poll_fn(|cx| {
            let polled = self.poll(cx);
            if polled.is_ready() {
                return polled;
            }
            let mut connection = self.connection.borrow_mut();
            let is_blocked = !connection.outbox.is_empty();
            let is_half_closed = match connection.poll_watch(cx) {
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let (patience, limit) = match (is_blocked, is_half_closed) {
                // The client takes nothing for now.
                (true, _) => (limits.body_idle_timeout, Limit::BodyIdle),
                // It may have left, which shows when it is written to.
                (false, true) => (limits.half_closed_timeout, Limit::HalfClosed),
                (false, false) => {
                    waiting = None;
                    return Poll::Pending;
                }
            };
            let sent = connection.outbox.sent_bytes();
            let since = match waiting {
                Some((before, since)) if before == sent => since,
                _ => Instant::now(),
            };
            waiting = Some((sent, since));
            ready!(timer.poll_until(since + patience, cx));
            reached(limit);
            // What it does not take shall not lie in the kernel for it.
            connection.stream().flags().reset_on_close();
            Poll::Ready(Err(Broken::Connection { source: io::ErrorKind::TimedOut.into() }))
        })
        .await;
        if ended.is_err() && self.length == Length::UntilClose {
            // An orderly end would make what was cut look whole.
            self.connection.borrow_mut().stream().flags().reset_on_close();
        }
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            // What waits goes first: nobody reads more than the client takes. What has to go on meanwhile goes on.
            let flushed = self.connection.borrow_mut().poll_flush(cx);
            if flushed.is_pending() && self.body.poll_aside(cx).is_ready() {
                return Poll::Ready(Err(Broken::Ended));
            }
            ready!(flushed)?;
            match std::mem::replace(&mut self.state, State::Ending) {
                State::Collecting => {}
                State::Ending => return Poll::Ready(Ok(())),
                State::Cut(broken) => return Poll::Ready(Err(broken)),
            }
            // Reading the body may read from this very connection, so nothing of it is held meanwhile.
            let mut outbox = std::mem::take(&mut self.connection.borrow_mut().outbox);
            let written = self.collect(&mut outbox, cx);
            self.connection.borrow_mut().outbox = outbox;
            let waits = matches!(self.state, State::Collecting);
            match written {
                Poll::Ready(Ok(true)) | Poll::Pending => {}
                Poll::Ready(Ok(false)) if waits => return Poll::Pending,
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(source)) => return Poll::Ready(Err(Broken::Connection { source })),
            }
        }
    }

    /// Puts together what is there and writes it; false when the body has no more for now.
    fn collect(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut batch = outbox.batch();
        let mut more = true;
        self.state = State::Collecting;
        if let Some(head) = self.head.take() {
            write::response(batch.text(), &head, self.length, self.connection_field);
        }
        while more && matches!(self.state, State::Collecting) && batch.waiting_bytes() < BATCH_BYTES {
            if self.length == Length::None || (self.body.is_end() && self.left == 0) {
                self.end(&mut batch, None);
                break;
            }
            match self.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.frame(&mut batch, frame),
                Poll::Ready(Some(Err(_))) => self.state = State::Cut(Broken::Ended),
                Poll::Ready(None) => self.end(&mut batch, None),
                Poll::Pending => more = false,
            }
        }
        if batch.waiting_bytes() == 0 {
            return Poll::Ready(Ok(more));
        }
        let mut connection = self.connection.borrow_mut();
        batch.poll_write(connection.stream(), cx).map_ok(|()| more)
    }

    fn frame(&mut self, batch: &mut Batch<'_>, frame: Frame) {
        match (frame, self.length) {
            (Frame::Data(data), Length::Chunked) => {
                write::chunk_size(batch.text(), data.len());
                batch.data(data);
                batch.text().extend_from_slice(b"\r\n");
            }
            (Frame::Data(data), Length::Sized(_)) => match self.left.checked_sub(data.len() as u64) {
                Some(left) => {
                    self.left = left;
                    batch.data(data);
                }
                None => self.state = State::Cut(Broken::Ended),
            },
            (Frame::Data(data), _) => batch.data(data),
            (Frame::Trailers(trailers), _) => self.end(batch, Some(&trailers)),
        }
    }

    fn end(&mut self, batch: &mut Batch<'_>, trailers: Option<&crate::message::fields::Fields>) {
        self.state = if self.left == 0 { State::Ending } else { State::Cut(Broken::Ended) };
        self.body = None;
        if self.length == Length::Chunked {
            write::last_chunk(batch.text(), trailers);
        }
    }
}
