//! Bytes both ways between two connections, until both directions are done. Either side may finish sending and go on receiving
//! (half-close), which is passed on.
//!
//! An idle connection holds no buffer: all of a worker's connections read into one, and only what a slow receiver does not take
//! is kept aside.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is read at once; measured as the best trade of copies against system calls.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Reads in a row before others get their turn.
const TURNS_MAX: usize = 8;

/// The buffer that all connections of one worker read into.
pub struct Scratch(RefCell<Vec<u8>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_BYTES]))
    }
}

/// What went over a connection, and how it ended.
#[derive(Debug)]
pub struct Copied {
    pub to_upstream_bytes: u64,
    pub to_client_bytes: u64,
    /// Who broke it off, if anybody did.
    pub broken: Option<(Side, io::Error)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
}

/// Copies until both directions are done, or one breaks. `read_ahead` was read from upstream already, and goes to the client
/// first.
pub async fn copy(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut upstream: impl AsyncRead + AsyncWrite + Unpin,
    read_ahead: Bytes,
    scratch: &Scratch,
) -> Copied {
    let mut up = Direction::new(Side::Client, Side::Upstream, Bytes::new());
    let mut down = Direction::new(Side::Upstream, Side::Client, read_ahead);
    let ended = std::future::poll_fn(|cx| {
        let sent = up.poll(&mut client, &mut upstream, scratch, cx);
        let received = down.poll(&mut upstream, &mut client, scratch, cx);
        match (sent, received) {
            (Poll::Ready(Err(broken)), _) | (_, Poll::Ready(Err(broken))) => Poll::Ready(Some(broken)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(None),
            _ => Poll::Pending,
        }
    })
    .await;
    Copied { to_upstream_bytes: up.bytes, to_client_bytes: down.bytes, broken: ended }
}

/// One direction.
struct Direction {
    from: Side,
    to: Side,
    state: State,
    /// Read, and not taken by the receiver yet.
    held: Bytes,
    bytes: u64,
}

#[derive(Clone, Copy)]
enum State {
    Copying,
    /// The sender is done; what is held goes out, then the receiver is told.
    Ending,
    Done,
}

impl Direction {
    fn new(from: Side, to: Side, held: Bytes) -> Self {
        Self { from, to, state: State::Copying, held, bytes: 0 }
    }

    fn poll(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        scratch: &Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        for _ in 0..TURNS_MAX {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.held)).map_err(|e| (self.to, e))?;
                self.wrote(written)?;
                self.held.advance(written);
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    // A receiver that is gone by now has what it wanted.
                    let _ = ready!(Pin::new(&mut *writer).poll_shutdown(cx));
                    self.state = State::Done;
                }
                State::Copying => ready!(self.poll_move(reader, writer, scratch, cx))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and as much of it written as the receiver takes.
    fn poll_move(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        scratch: &Scratch,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        let mut scratch = scratch.0.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        if Pin::new(reader).poll_read(cx, &mut buffer).map_err(|e| (self.from, e))?.is_pending() {
            // What was written must not wait for more to come, where the writer keeps it back (TLS). One that broke meanwhile says so.
            return match Pin::new(writer).poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err((self.to, error))),
                _ => Poll::Pending,
            };
        }
        let mut rest = buffer.filled();
        if rest.is_empty() {
            self.state = State::Ending;
        }
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest).map_err(|e| (self.to, e))? {
                Poll::Ready(written) => {
                    self.wrote(written)?;
                    rest = &rest[written..];
                }
                Poll::Pending => {
                    self.held = Bytes::copy_from_slice(rest);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> Result<(), (Side, io::Error)> {
        self.bytes += written as u64;
        if written == 0 { Err((self.to, io::ErrorKind::WriteZero.into())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_side_that_is_done_sending_still_receives() {
        // Small pipes, so that receivers are slow and bytes are held back.
        let ((mut caller, client), (upstream, mut server)) = (duplex(7), duplex(5));
        let serve = async {
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).await.unwrap();
            server.write_all(&asked.repeat(100)).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let call = async {
            caller.write_all(b"hello, half-close").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let scratch = Scratch::default();
        let (copied, (), answer) = tokio::join!(copy(client, upstream, Bytes::from("> "), &scratch), serve, call);
        assert_eq!(answer, [b"> ".as_slice(), &b"hello, half-close".repeat(100)].concat());
        assert_eq!((copied.to_upstream_bytes, copied.to_client_bytes), (17, 1702));
        assert!(copied.broken.is_none());
    }
}
