//! A stream as bytes both ways, once it carries another protocol (RFC 9113 section 8.5, RFC 8441 section 5).
//!
//! Each end of it is flow controlled by the other: DATA is read, and its window given back, when somebody takes it, and nothing is
//! handed over that waits for more than a little.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{Code, FRAME_BYTES_MAX};
use super::link::Stream;
use super::streams::Received;
use crate::message::Frame;

/// A stream behind both of its heads.
#[derive(Debug)]
pub struct Duplex {
    stream: Rc<Stream>,
    /// Received, and more than the reader had room for.
    unread: Bytes,
}

impl Duplex {
    #[must_use]
    pub fn new(stream: Rc<Stream>) -> Self {
        Self { stream, unread: Bytes::new() }
    }

    /// Ends it before its time, where it is not over: what was cut must not look whole.
    pub fn break_off(&self) {
        // What a reset connection is to a tunnel (RFC 8441 section 5).
        self.stream.reset(Code::CANCEL);
    }
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.stream.poll_read(cx)) {
                Received::Frame(Frame::Data(data)) => self.unread = data,
                Received::Frame(Frame::Trailers(_)) => {
                    // There are none in a tunnel (RFC 9113 section 8.5).
                    self.stream.reset(Code::PROTOCOL_ERROR);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Received::End => return Poll::Ready(Ok(())),
                Received::Reset(reset) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, reset)));
                }
                Received::Head(_) => {}
            }
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_room(cx));
        let taken = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        let sent = self.stream.send_data(Bytes::copy_from_slice(taken), false);
        Poll::Ready(sent.map(|()| taken.len()).map_err(|over| io::Error::new(io::ErrorKind::BrokenPipe, over)))
    }

    /// What was handed over goes out by itself. Whoever waits for something to write hears that nobody wants it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.poll_reset(cx) {
            // Its end was orderly, and is still to be read.
            Poll::Ready(_) if self.stream.is_unread_end() || !self.unread.is_empty() => Poll::Ready(Ok(())),
            Poll::Ready(reset) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, reset))),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.stream.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(|over| io::Error::new(io::ErrorKind::BrokenPipe, over)))
    }
}
