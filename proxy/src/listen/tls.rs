//! A client's connection inside of TLS: records on the wire, bytes to whoever reads.
//!
//! All of a thread's connections read and write through two buffers that they share. One that is idle holds none of its own: only
//! part of a record, or what a slow client does not take, is kept aside for as long as it must be. (rustls' buffered connections hold
//! 4 KiB each, and read no more than that at once.)

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once: a few records, and the part of one that came before.
const INCOMING: usize = 64 * 1024;

/// Less is not asked of the kernel at once.
const READ_MIN: usize = 4096;

/// What is encrypted at once: as many whole records.
const OUTGOING: usize = 4 * RECORD;

/// The most that one record carries (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;

/// More than header, content type and tag of a record take, in any version.
const OVERHEAD: usize = 64;

/// What waits to be sent goes out in front of what is written, in one call, if it is no more than this: the tickets of a handshake.
const FRONT: usize = 4096;

/// What is not whole waits for its end in no more than this: more than any record takes, and what rustls lets a handshake's message take.
const HANDSHAKE_MAX: usize = INCOMING - 1024;

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::new(Shared {
        incoming: vec![0; INCOMING],
        plain: Vec::with_capacity(RECORD),
        outgoing: vec![0; FRONT + OUTGOING + 8 * OVERHEAD],
    });
}

/// Buffers that belong to nobody for longer than one poll.
struct Shared {
    incoming: Vec<u8>,
    /// Several pieces on their way into one record.
    plain: Vec<u8>,
    outgoing: Vec<u8>,
}

/// One connection. Reading and writing know nothing of records; a shutdown says `close_notify`, and reading may go on after it.
pub struct TlsStream<S> {
    io: S,
    connection: UnbufferedServerConnection,
    /// Part of a record, or of a handshake message.
    part: Vec<u8>,
    /// Decrypted, and not taken by whoever reads; the first begins at `taken`.
    plain: VecDeque<Vec<u8>>,
    taken: usize,
    /// Encrypted, and not taken by the kernel; it begins at `sent`.
    unsent: Vec<u8>,
    sent: usize,
    /// The client said that it is done sending.
    is_read_closed: bool,
    is_write_closed: bool,
}

/// How far the records went that were there.
enum Went {
    /// More must come.
    On,
    /// The client is done sending.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// A connection whose handshake is still to come: [`TlsStream::poll_handshake`].
    ///
    /// # Errors
    /// When the configuration makes no connection.
    pub fn new(io: S, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        let (part, plain, unsent) = (Vec::new(), VecDeque::new(), Vec::new());
        let (taken, sent, is_read_closed, is_write_closed) = (0, 0, false, false);
        Ok(Self { io, connection, part, plain, taken, unsent, sent, is_read_closed, is_write_closed })
    }

    #[must_use]
    pub fn get_ref(&self) -> (&S, &UnbufferedServerConnection) {
        (&self.io, &self.connection)
    }

    /// Shakes hands. `look` sees every first byte that came, as long as nothing was made of them.
    ///
    /// # Errors
    /// A [`rustls::Error`] inside of an [`io::Error`], or one of the connection.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>, look: &mut dyn FnMut(&[u8])) -> Poll<io::Result<()>> {
        loop {
            if !self.connection.is_handshaking() {
                // A client of TLS 1.2 waits for our last words; tickets of TLS 1.3 go out with whatever is sent next.
                if self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                    ready!(self.poll_unsent(cx))?;
                }
                return Poll::Ready(Ok(()));
            }
            if let Went::Closed = ready!(self.poll_records(cx, INCOMING, None, look))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, and goes through the records that are whole. What they hold goes to `into`, as far as there is room.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        into: Option<&mut ReadBuf<'_>>,
        look: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<Went>> {
        SHARED.with_borrow_mut(|shared| {
            let before = self.part.len();
            let incoming = &mut shared.incoming;
            incoming[..before].copy_from_slice(&self.part);
            let end = (before + wanted).min(INCOMING);
            let mut buffer = ReadBuf::new(&mut incoming[before..end]);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer)? {
                Poll::Pending => {
                    // Whoever waits for us to speak must not wait for us to be spoken to.
                    let _ = self.poll_unsent(cx)?;
                    return Poll::Pending;
                }
                Poll::Ready(()) => {}
            }
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let filled = before + read;
            look(&incoming[..filled]);
            let went = self.process(&mut incoming[..filled], into);
            if went.is_err() {
                // The alert that says why; nobody waits for it.
                let _ = self.poll_unsent(cx);
            }
            let (rest, went) = went?;
            if filled - rest >= HANDSHAKE_MAX {
                self.fail();
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a message has no end")));
            }
            self.part = incoming[rest..filled].to_vec();
            Poll::Ready(Ok(went))
        })
    }

    /// Goes through whole records; returns where the rest begins.
    fn process(&mut self, bytes: &mut [u8], mut into: Option<&mut ReadBuf<'_>>) -> io::Result<(usize, Went)> {
        let mut begin = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut bytes[begin..]);
            let went = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        keep(&mut self.plain, into.as_deref_mut(), record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.unsent, |room| data.encode(room))?;
                    None
                }
                // It is sent from where it was encoded to.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_read_closed = true;
                    Some(Went::Closed)
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Some(Went::On),
                // Data before the handshake's end is not offered.
                Ok(_) => return Err(io::Error::other("an unforeseen state of TLS")),
                Err(error) => {
                    self.fail();
                    return Err(broken(error));
                }
            };
            begin += discard;
            if let Some(went) = went {
                return Ok((begin, went));
            }
        }
    }

    /// After a failure, the alert that tells the client. Nothing is read any more, and nothing else written: what came before the
    /// mistake was taken apart by half, and must not be shown to rustls again.
    fn fail(&mut self) {
        (self.is_read_closed, self.is_write_closed) = (true, true);
        self.part = Vec::new();
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            if encode(&mut self.unsent, |room| data.encode(room)).is_err() {
                return;
            }
        }
    }

    /// Sends what was encrypted before.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Takes `plain`, which is no more than [`OUTGOING`]: encrypts it, sends what the kernel takes, and keeps the rest.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, plain: &[u8], outgoing: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_write_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if plain.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let front = loop {
            if self.unsent.len() - self.sent > FRONT {
                ready!(self.poll_unsent(cx))?;
            }
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.part);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let waiting = &self.unsent[self.sent..];
                    let front = waiting.len();
                    outgoing[..front].copy_from_slice(waiting);
                    break front + traffic.encrypt(plain, &mut outgoing[front..]).map_err(io::Error::other)?;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut self.unsent, |room| data.encode(room))?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) => {
                    self.fail();
                    return Poll::Ready(Err(broken(error)));
                }
            }
            self.part.drain(..discard);
        };
        let sent = match Pin::new(&mut self.io).poll_write(cx, &outgoing[..front])? {
            Poll::Ready(sent) => sent,
            Poll::Pending => 0,
        };
        (self.unsent, self.sent) = (outgoing[sent..front].to_vec(), 0);
        Poll::Ready(Ok(plain.len()))
    }

    /// Says that nothing more comes.
    fn close_write(&mut self) -> io::Result<()> {
        while !self.is_write_closed {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.part);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let length = self.unsent.len();
                    self.unsent.resize(length + 2 * OVERHEAD, 0);
                    let queued = traffic.queue_close_notify(&mut self.unsent[length..]).map_err(io::Error::other)?;
                    self.unsent.truncate(length + queued);
                    self.is_write_closed = true;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut self.unsent, |room| data.encode(room))?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => self.is_write_closed = true,
                Err(error) => {
                    self.fail();
                    return Err(broken(error));
                }
            }
            self.part.drain(..discard);
        }
        Ok(())
    }
}

/// Encodes behind what is there, asking for as much room as it takes.
fn encode(unsent: &mut Vec<u8>, mut into: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> io::Result<()> {
    let (length, mut room) = (unsent.len(), 512);
    loop {
        unsent.resize(length + room, 0);
        match into(&mut unsent[length..]) {
            Ok(encoded) => {
                unsent.truncate(length + encoded);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => room = needed.required_size,
            Err(error) => {
                unsent.truncate(length);
                return Err(io::Error::other(error));
            }
        }
    }
}

/// Gives what was decrypted to whoever reads, and keeps what there is no room for.
fn keep(kept: &mut VecDeque<Vec<u8>>, into: Option<&mut ReadBuf<'_>>, payload: &[u8]) {
    let taken = match into {
        Some(into) if kept.is_empty() => {
            let taken = payload.len().min(into.remaining());
            into.put_slice(&payload[..taken]);
            taken
        }
        _ => 0,
    };
    if taken < payload.len() {
        kept.push_back(payload[taken..].to_vec());
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            while let Some(first) = this.plain.front() {
                let rest = &first[this.taken..];
                let length = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..length]);
                this.taken += length;
                if this.taken < first.len() {
                    return Poll::Ready(Ok(()));
                }
                (_, this.taken) = (this.plain.pop_front(), 0);
                if this.plain.is_empty() {
                    this.plain = VecDeque::new();
                }
            }
            if buf.filled().len() > before || this.is_read_closed || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let wanted = (buf.remaining() + OVERHEAD).max(READ_MIN);
            ready!(this.poll_records(cx, wanted, Some(buf), &mut |_| {}))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let plain = &buf[..buf.len().min(OUTGOING)];
        SHARED.with_borrow_mut(|shared| self.poll_encrypt(cx, plain, &mut shared.outgoing))
    }

    /// A head and what follows it share a record, as long as both fit in one.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == first.len() || total > RECORD {
            return self.poll_write(cx, first);
        }
        SHARED.with_borrow_mut(|Shared { plain, outgoing, .. }| {
            plain.clear();
            bufs.iter().for_each(|buf| plain.extend_from_slice(buf));
            self.poll_encrypt(cx, plain, outgoing)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_write()?;
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
