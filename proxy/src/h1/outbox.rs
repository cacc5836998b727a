//! What is to be written to a connection and was not yet taken. What the kernel takes at once is never kept: all connections of a
//! thread put their small pieces together in one buffer, and only what is left of it is copied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// A piece of a body that is longer is written from where it lies; a shorter one is copied behind its head.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// A buffer that grew larger for one head is not kept.
const SCRATCH_KEPT_BYTES_MAX: usize = 256 * 1024;

/// Pieces given to one write.
const SLICES_MAX: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Unwritten bytes of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// No piece is empty.
    pieces: VecDeque<Bytes>,
    sent_bytes: u64,
    /// Something was written since the last flush.
    unflushed: bool,
}

/// Puts together what goes out in one write.
pub struct Batch<'o> {
    outbox: &'o mut Outbox,
    text: Vec<u8>,
}

impl Outbox {
    /// Begins a write.
    pub fn batch(&mut self) -> Batch<'_> {
        let mut text = SCRATCH.take();
        text.clear();
        Batch { outbox: self, text }
    }

    /// Nothing waits, neither here nor in the connection's own buffer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.unflushed
    }

    /// How much was taken by the connection so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Writes what is left, until it is all on its way.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub fn poll_flush(&mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.pieces.len().min(SLICES_MAX);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count]))?;
            self.wrote(written)?;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent_bytes += written as u64;
        self.unflushed = true;
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.pieces.front_mut() {
            let length = first.len().min(written);
            first.advance(length);
            written -= length;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

impl Batch<'_> {
    /// Where heads and chunk sizes are written.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// A piece of a body.
    pub fn data(&mut self, data: Bytes) {
        if data.len() <= COPIED_BYTES_MAX {
            self.text.extend_from_slice(&data);
            return;
        }
        self.keep_text();
        self.outbox.pieces.push_back(data);
    }

    /// How much of it waits to be written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.text.len() + self.outbox.pieces.iter().map(Bytes::len).sum::<usize>()
    }

    /// Writes all of it, as far as the connection takes it; the rest is kept for [`Outbox::poll_flush`].
    ///
    /// # Errors
    /// Whatever the connection says.
    pub fn poll_write(mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.pieces.is_empty() && !self.text.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.text) {
                Poll::Ready(written) => {
                    let written = written?;
                    self.outbox.wrote(written)?;
                    if written < self.text.len() {
                        self.outbox.pieces.push_back(Bytes::copy_from_slice(&self.text[written..]));
                    }
                    self.text.clear();
                }
                Poll::Pending => self.keep_text(),
            }
        }
        self.keep_text();
        self.outbox.poll_flush(stream, cx)
    }

    fn keep_text(&mut self) {
        if !self.text.is_empty() {
            self.outbox.pieces.push_back(Bytes::copy_from_slice(&self.text));
            self.text.clear();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.keep_text();
        let text = std::mem::take(&mut self.text);
        if text.capacity() <= SCRATCH_KEPT_BYTES_MAX {
            SCRATCH.set(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_not_taken_at_once_follows_in_order() {
        let (mut peer, mut stream) = duplex(10);
        let mut outbox = Outbox::default();
        let long = Bytes::from(vec![b'x'; COPIED_BYTES_MAX + 1]);
        let mut batch = outbox.batch();
        batch.text().extend_from_slice(b"head of it all ");
        batch.data(Bytes::from_static(b"short "));
        batch.data(long.clone());
        batch.text().extend_from_slice(b" end");
        let expected = [b"head of it all short ".as_slice(), &long, b" end"].concat();
        assert_eq!(batch.waiting_bytes(), expected.len());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(batch.poll_write(&mut stream, &mut context).is_pending());
        assert!(!outbox.is_empty() && outbox.sent_bytes() == 10);
        let reads = async {
            let mut read = vec![0; expected.len()];
            peer.read_exact(&mut read).await.unwrap();
            read
        };
        let (flushed, read) = tokio::join!(std::future::poll_fn(|cx| outbox.poll_flush(&mut stream, cx)), reads);
        flushed.unwrap();
        assert!(read == expected && outbox.is_empty());
        assert_eq!(outbox.sent_bytes(), expected.len() as u64);
    }

    #[tokio::test]
    async fn a_batch_that_is_dropped_is_kept() {
        let (mut peer, mut stream) = duplex(64);
        let mut outbox = Outbox::default();
        outbox.batch().text().extend_from_slice(b"a");
        outbox.batch().text().extend_from_slice(b"b");
        std::future::poll_fn(|cx| outbox.poll_flush(&mut stream, cx)).await.unwrap();
        drop(stream);
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"ab");
    }
}
