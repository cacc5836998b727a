//! A client's connection, as bytes: plain or TLS, with what was read of it to find out its protocol put back in front.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What the owner of a connection's task tells the layer that closes it.
#[derive(Debug, Default)]
pub struct StreamFlags {
    /// A response was cut: closing must not look like an orderly end.
    reset_on_close: AtomicBool,
}

impl StreamFlags {
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
    /// When the first of it came.
    begun_at: Option<Instant>,
    flags: Arc<StreamFlags>,
}

impl ClientStream {
    #[must_use]
    pub fn plain(stream: TcpStream, prefix: Bytes) -> Self {
        Self { transport: Transport::Plain(stream), prefix, begun_at: None, flags: Arc::default() }
    }

    #[must_use]
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        let transport = Transport::Tls(Box::new(stream));
        Self { transport, prefix: Bytes::new(), begun_at: None, flags: Arc::default() }
    }

    #[must_use]
    pub fn begun_at(mut self, begun_at: Option<Instant>) -> Self {
        self.begun_at = begun_at;
        self
    }

    /// When the client began to speak, if that was looked at; told once.
    pub fn take_begun_at(&mut self) -> Option<Instant> {
        self.begun_at.take()
    }

    #[must_use]
    pub fn flags(&self) -> Arc<StreamFlags> {
        Arc::clone(&self.flags)
    }

    /// Puts bytes back in front of what is read next.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.prefix = if self.prefix.is_empty() { bytes } else { [bytes, self.prefix.clone()].concat().into() };
    }

    /// Why it broke off, if it has (`SO_ERROR`): with bytes that nobody read yet, nothing else tells.
    #[must_use]
    pub fn error(&self) -> Option<io::Error> {
        self.socket().take_error().unwrap_or_else(Some)
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
        if !this.prefix.is_empty() {
            let length = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..length]);
            this.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
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
