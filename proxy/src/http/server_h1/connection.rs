//! What is read and written on a client's connection, and how far.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{StatusCode, Version};
use tokio::io::AsyncWrite;

use crate::error::Broken;
use crate::h1::framing::Length;
use crate::h1::head::{BadHead, HeadLimits, Scan, is_foreign};
use crate::h1::inbox::Inbox;
use crate::h1::outbox::Outbox;
use crate::h1::unread::{Piece, Unread};
use crate::h1::write;
use crate::listen::stream::ClientStream;
use crate::message::{Frame, RequestHead, ResponseHead};

/// What a client sends ahead of its answer is read so far; the rest waits in the kernel.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// What still comes on a connection that is closed is read so far.
const LAST_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Connection {
    stream: ClientStream,
    inbox: Inbox,
    pub(super) outbox: Outbox,
    limits: HeadLimits,
    scan: Scan,
    unread: Unread,
    /// Requests that began so far.
    number: u64,
    /// The client is done sending.
    is_half_closed: bool,
    /// Its version has interim responses.
    takes_interim: bool,
    told_continue: bool,
    closing: Closing,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy)]
enum Closing {
    Writing,
    /// Our side is over; so much was read since.
    Reading(usize),
}

impl Connection {
    pub(super) fn new(stream: ClientStream, limits: HeadLimits) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            limits,
            scan: Scan::default(),
            unread: Unread::Nothing,
            number: 0,
            is_half_closed: false,
            takes_interim: false,
            told_continue: false,
            closing: Closing::Writing,
        }
    }

    /// The next request head; none when the client has no more.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RequestHead>, Broken>> {
        loop {
            if !self.inbox.is_empty() {
                let whole = self.scan.request(self.inbox.bytes(), self.limits);
                if let Some(whole) = whole.map_err(|source| Broken::Head { source })? {
                    self.scan = Scan::default();
                    self.inbox.skip(whole.length);
                    return Poll::Ready(Ok(Some(whole.head)));
                }
            }
            if self.is_half_closed {
                return Poll::Ready(if self.has_begun() { Err(CUT_HEAD) } else { Ok(None) });
            }
            ready!(self.poll_fill(cx, 0))?;
        }
    }

    /// Whether no request came yet, but something of another protocol.
    pub(super) fn is_foreign(&self) -> bool {
        self.number == 0 && is_foreign(self.inbox.bytes())
    }

    /// Whether more than empty lines came of a next request.
    pub(super) fn has_begun(&self) -> bool {
        self.inbox.bytes().iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Reads once. The end is noted.
    fn poll_fill(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<Result<(), Broken>> {
        match ready!(self.inbox.poll_fill(&mut self.stream, cx, expected)) {
            Ok(read) => self.is_half_closed = read == 0,
            Err(source) => return Poll::Ready(Err(Broken::Connection { source })),
        }
        Poll::Ready(Ok(()))
    }

    /// A request begins, of which so much follows; its number.
    pub(super) fn begin(&mut self, length: Length, version: Version) -> u64 {
        self.unread = Unread::of(length);
        self.takes_interim = version != Version::HTTP_10;
        self.told_continue = false;
        self.number += 1;
        self.number
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Nothing is left of the request.
    pub(super) fn is_read(&self) -> bool {
        self.unread.is_nothing()
    }

    pub(super) fn unread_bytes(&self) -> Option<u64> {
        self.unread.bytes()
    }

    /// Whether what is left of the request may come, for the connection to go on. A client that waits for its 100
    /// and got a final answer may send its body or not, and nobody knows which (RFC 9110 section 10.1.1).
    pub(super) fn may_be_read_away(&self, awaits_continue: bool) -> bool {
        match self.unread {
            Unread::Nothing => true,
            Unread::Lost => false,
            _ if awaits_continue && !self.told_continue && self.inbox.is_empty() => false,
            Unread::Sized(_) | Unread::Chunked(_) | Unread::UntilClose => true,
        }
    }

    /// The next piece of the request's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        if matches!(self.unread, Unread::Lost) {
            return self.lost(Broken::Ended);
        }
        loop {
            let expected = match self.unread.next(&mut self.inbox, self.limits) {
                Ok(Piece::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Wanting(expected)) => expected,
                Err(source) => return self.lost(Broken::Chunks { source }),
            };
            if self.is_half_closed {
                return self.lost(Broken::Ended);
            }
            if let Err(broken) = ready!(self.poll_fill(cx, expected)) {
                return self.lost(broken);
            }
        }
    }

    fn lost<T>(&mut self, broken: Broken) -> Poll<Option<Result<T, Broken>>> {
        self.unread = Unread::Lost;
        Poll::Ready(Some(Err(broken)))
    }

    /// While a request that was read is answered: ready when the client is done sending. What it sends ahead is kept.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.is_half_closed {
            if !self.is_read() || self.inbox.bytes().len() >= AHEAD_BYTES_MAX {
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx, 0))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether it broke off, which a connection tells that is read or written, and this one only when it is asked.
    pub(super) fn look(&self) -> Result<(), Broken> {
        match self.stream.error() {
            Some(source) => Err(Broken::Connection { source }),
            None => Ok(()),
        }
    }

    pub(super) fn write_interim(&mut self, head: &ResponseHead) {
        let is_continue = head.status == StatusCode::CONTINUE;
        if self.takes_interim && !(is_continue && self.told_continue) {
            self.told_continue |= is_continue;
            write::response(self.outbox.batch().text(), head, Length::None, None);
        }
    }

    /// A response in one piece, the last on its connection; without its text to HEAD.
    pub(super) fn write_last(&mut self, head: &ResponseHead, text: Option<Bytes>) {
        let mut batch = self.outbox.batch();
        let length = text.as_ref().map_or(Length::None, |text| Length::Sized(text.len() as u64));
        write::response(batch.text(), head, length, Some(b"close"));
        if let Some(text) = text {
            batch.data(text);
        }
    }

    pub(super) fn write_switch(&mut self, head: &ResponseHead) {
        write::response(self.outbox.batch().text(), head, Length::None, Some(b"upgrade"));
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Self { stream, outbox, .. } = self;
        outbox.poll_flush(stream, cx).map_err(|source| Broken::Connection { source })
    }

    /// Where a response is put together, and where it goes.
    pub(super) fn stream(&mut self) -> &mut ClientStream {
        &mut self.stream
    }

    /// Writes what is left, ends our side, and reads until the client has ended its own. Ready too when nothing can be done any more.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.closing {
                Closing::Writing => {
                    let written = match ready!(self.poll_flush(cx)) {
                        Ok(()) => ready!(Pin::new(&mut self.stream).poll_shutdown(cx)),
                        Err(_) => break,
                    };
                    if written.is_err() {
                        break;
                    }
                    self.closing = Closing::Reading(0);
                }
                Closing::Reading(_) if self.is_half_closed => break,
                Closing::Reading(read) => {
                    let unused = self.inbox.bytes().len();
                    self.inbox.skip(unused);
                    if read + unused > LAST_BYTES_MAX {
                        break;
                    }
                    self.closing = Closing::Reading(read + unused);
                    if ready!(self.poll_fill(cx, 0)).is_err() {
                        break;
                    }
                }
            }
        }
        Poll::Ready(())
    }

    /// The bare connection, with what was read of it and not used put back in front.
    pub(super) fn into_stream(self) -> ClientStream {
        let Self { mut stream, mut inbox, .. } = self;
        let ahead = inbox.take_all();
        if !ahead.is_empty() {
            stream.put_back(ahead);
        }
        stream
    }
}

const CUT_HEAD: Broken =
    Broken::Head { source: BadHead::Malformed { problem: "the connection ended in the middle of a request head" } };
