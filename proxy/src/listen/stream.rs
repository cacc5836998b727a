//! A client's connection, as bytes: plain or TLS, with what was read of it to find out its protocol put back in front.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What the owner of a connection's task and the layer that reads it tell each other. Written by one thread; atomic since hyper
/// wants its streams to be `Send`.
#[derive(Debug, Default)]
pub struct StreamFlags {
    /// Bytes read so far.
    read: AtomicU64,
    /// A response was cut: closing must not look like an orderly end.
    reset_on_close: AtomicBool,
    /// The client is done sending, which is kept from whoever reads.
    end_held_back: AtomicBool,
    /// Bytes written since then.
    written_after: AtomicU64,
    /// The client takes no more for now.
    is_full: AtomicBool,
}

/// Whether a request is being answered of which nothing more is to come: from its last byte until the last byte of its answer is
/// on its way.
#[derive(Debug, Default)]
pub struct Answering(AtomicU8);

impl Answering {
    const NO: u8 = 0;
    const YES: u8 = 1;
    /// The answer is whole, but not all of it was taken by the kernel.
    const ALMOST_NO: u8 = 2;

    pub fn begin(&self) {
        self.0.store(Self::YES, Ordering::Relaxed);
    }

    pub fn end(&self) {
        if self.holds() {
            self.0.store(Self::ALMOST_NO, Ordering::Relaxed);
        }
    }

    fn flushed(&self) {
        if self.0.load(Ordering::Relaxed) == Self::ALMOST_NO {
            self.0.store(Self::NO, Ordering::Relaxed);
        }
    }

    fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::NO
    }
}

impl StreamFlags {
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether the client is done sending, and waits for an answer.
    #[must_use]
    pub fn end_is_held_back(&self) -> bool {
        self.end_held_back.load(Ordering::Relaxed)
    }

    /// How much it was answered since.
    #[must_use]
    pub fn written_after_end(&self) -> u64 {
        self.written_after.load(Ordering::Relaxed)
    }

    /// Whether the client has to read before it can be written to: then it has not left, or the kernel will say so.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.is_full.store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(written)) = polled
            && self.end_is_held_back()
        {
            let before = self.written_after.load(Ordering::Relaxed);
            self.written_after.store(before + *written as u64, Ordering::Relaxed);
        }
    }

    pub fn reset_on_close(&self) {
        self.reset_on_close.store(true, Ordering::Relaxed);
    }

    pub fn end_orderly(&self) {
        self.reset_on_close.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's connection.
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    /// Read already, to be read again.
    prefix: Bytes,
    flags: Arc<StreamFlags>,
    /// While a request is answered its end is not told.
    holds_end: Option<Arc<Answering>>,
}

impl ClientStream {
    #[must_use]
    pub fn plain(stream: TcpStream, prefix: Bytes) -> Self {
        Self { transport: Transport::Plain(stream), prefix, flags: Arc::default(), holds_end: None }
    }

    #[must_use]
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        let transport = Transport::Tls(Box::new(stream));
        Self { transport, prefix: Bytes::new(), flags: Arc::default(), holds_end: None }
    }

    /// Its end is not told while a request is answered: a reader that takes it for the client's having left would answer no more.
    /// Nobody is woken for what was not told; [`StreamFlags::end_is_held_back`] says so.
    #[must_use]
    pub fn holding_end_while(mut self, answering: Arc<Answering>) -> Self {
        self.holds_end = Some(answering);
        self
    }

    #[must_use]
    pub fn flags(&self) -> Arc<StreamFlags> {
        Arc::clone(&self.flags)
    }

    /// Puts bytes back in front of what is read next.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.prefix = if self.prefix.is_empty() { bytes } else { [bytes, self.prefix.clone()].concat().into() };
    }

    fn socket(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.flags.reset_on_close.load(Ordering::Relaxed) {
            // An HTTP/1.0 client takes an orderly end for the end of its body.
            let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = if this.prefix.is_empty() {
            match &mut this.transport {
                Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
                Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            }
        } else {
            let length = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..length]);
            this.prefix.advance(length);
            Poll::Ready(Ok(()))
        };
        let read = (buf.filled().len() - before) as u64;
        this.flags.read.store(this.flags.read.load(Ordering::Relaxed) + read, Ordering::Relaxed);
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && read == 0 && buf.remaining() > 0;
        if is_end && this.holds_end.as_ref().is_some_and(|answering| answering.holds()) {
            this.flags.end_held_back.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.flags.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.flags.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        // Whoever writes through a buffer of its own flushes when that is empty.
        if let (Poll::Ready(Ok(())), Some(answering)) = (&polled, &self.holds_end) {
            answering.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flags.reset_on_close.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
