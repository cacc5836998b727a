//! What was read off a connection and not yet used. Empty, it holds no memory: all connections of a thread read into one buffer,
//! and what was read is copied out of it once.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// As much as one read takes.
const SCRATCH_BYTES: usize = 32 * 1024;

/// What a long body is read into, so that one read takes more.
const BULK_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// Unread bytes of one connection.
#[derive(Debug, Default)]
pub struct Inbox {
    held: BytesMut,
}

impl Inbox {
    /// What is there already.
    #[must_use]
    pub fn with(bytes: &[u8]) -> Self {
        Self { held: BytesMut::from(bytes) }
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.held
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Reads once, and says how much; 0 is the end. `expected`: what is known to come, for large bodies.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        expected: u64,
    ) -> Poll<io::Result<usize>> {
        if expected > SCRATCH_BYTES as u64 && self.held.is_empty() {
            return self.poll_fill_bulk(stream, cx, expected);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            std::task::ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if self.held.capacity() - self.held.len() < read.len() && self.held.is_empty() {
                // Exactly as much as there is: the usual message comes in one piece.
                self.held = BytesMut::with_capacity(read.len());
            }
            self.held.extend_from_slice(read);
            Poll::Ready(Ok(read.len()))
        })
    }

    fn poll_fill_bulk(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        expected: u64,
    ) -> Poll<io::Result<usize>> {
        let wanted = usize::try_from(expected).unwrap_or(BULK_BYTES).min(BULK_BYTES);
        self.held.reserve(wanted);
        // A read that is dropped while it waits has taken nothing.
        let polled = pin!(stream.read_buf(&mut self.held)).poll(cx);
        match &polled {
            // Nothing comes for now.
            Poll::Pending => self.held = BytesMut::new(),
            // A few bytes shall not hold all that room for as long as somebody keeps them.
            Poll::Ready(Ok(read)) if *read < SCRATCH_BYTES => self.held = BytesMut::from(&self.held[..]),
            Poll::Ready(_) => {}
        }
        polled
    }

    /// These many bytes were used.
    pub fn skip(&mut self, count: usize) {
        self.held.advance(count);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Takes the first bytes out.
    #[must_use]
    pub fn take(&mut self, count: usize) -> Bytes {
        if count == self.held.len() {
            std::mem::take(&mut self.held).freeze()
        } else {
            self.held.split_to(count).freeze()
        }
    }

    /// Takes everything out.
    #[must_use]
    pub fn take_all(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn fill(inbox: &mut Inbox, stream: &mut (impl AsyncRead + Unpin), expected: u64) -> usize {
        std::future::poll_fn(|cx| inbox.poll_fill(stream, cx, expected)).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_read_is_used_in_order_and_holds_nothing_after() {
        let (mut peer, mut stream) = duplex(1 << 20);
        let mut inbox = Inbox::with(b"ab");
        peer.write_all(b"cdef").await.unwrap();
        assert_eq!(fill(&mut inbox, &mut stream, 0).await, 4);
        inbox.skip(1);
        assert_eq!(&inbox.take(3)[..], b"bcd");
        assert_eq!(&inbox.take_all()[..], b"ef");
        assert!(inbox.is_empty() && inbox.held.capacity() == 0);
        drop(peer);
        assert_eq!(fill(&mut inbox, &mut stream, 0).await, 0);
    }

    #[tokio::test]
    async fn long_bodies_come_in_large_pieces() {
        let (mut peer, mut stream) = duplex(1 << 20);
        peer.write_all(&[7; 1 << 18]).await.unwrap();
        let mut inbox = Inbox::default();
        assert!(fill(&mut inbox, &mut stream, 1 << 30).await > SCRATCH_BYTES);
        let silent = std::future::poll_fn(|cx| {
            inbox.skip(inbox.bytes().len());
            Poll::Ready(inbox.poll_fill(&mut stream, cx, 1 << 30).is_pending())
        });
        assert!(silent.await && inbox.held.capacity() == 0, "nothing is held while nothing comes");
    }
}
