//! A connection on a socket: reads what there is, lets every task that was woken by it run, and writes all that they said at once.
//!
//! What is to be written waits for one turn of the scheduler. Streams that become ready in that turn, by this connection or by another
//! one, share one write; that is worth more than all other savings on this path together.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::connection::Refused;
use super::error::ConnectionError;
use super::link::{Link, Stream, Told};
use crate::message::RequestHead;

/// Read at once. It lies on the stack for the time of the call: an idle connection holds no buffer.
const READ_BYTES: usize = 32 << 10;

/// Reads before others have their turn.
const READS_MAX: usize = 4;

/// How long the last words on a connection may take to be taken.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Pieces written at once.
const SLICES: usize = 32;

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// In good order, by either side.
    Closed,
    /// The socket broke.
    Broken(io::Error),
    /// The peer broke a rule or went past a limit, and was told.
    Failed(ConnectionError),
}

/// What the owner of a server's connection is told.
pub trait Serve {
    /// A request on a stream of its own.
    fn request(&mut self, stream: Stream, head: RequestHead);

    /// A request was not taken.
    fn refused(&mut self, _refused: Refused) {}
}

/// For clients, whose peers ask nothing.
impl Serve for () {
    fn request(&mut self, _stream: Stream, _head: RequestHead) {}
}

/// A connection and its socket.
#[derive(Debug)]
pub struct Driver<I> {
    io: I,
    link: Rc<Link>,
    /// The output waits for others to add to it.
    waits: bool,
    read_ended: bool,
    /// Written, but perhaps not on its way yet.
    unflushed: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Until it is closed over what its peer does not take.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    #[must_use]
    pub fn new(io: I, link: Rc<Link>) -> Self {
        Self { io, link, waits: false, read_ended: false, unflushed: false, timer: None, linger: None }
    }

    #[must_use]
    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// Drives the connection until it ends.
    pub async fn run(mut self, mut serve: impl Serve) -> Ended {
        std::future::poll_fn(|cx| self.poll(cx, &mut serve)).await
    }

    /// Drives it as far as it goes now.
    pub fn poll(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> Poll<Ended> {
        self.link.driver_is_awake();
        if let Err(error) = self.read(cx, serve) {
            return Poll::Ready(self.break_off(error));
        }
        self.tick(cx);
        if self.waits || self.is_done() {
            self.waits = false;
            match self.write(cx, serve) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(self.break_off(error)),
                Poll::Pending if self.is_done() => return self.poll_linger(cx),
                Poll::Pending => return Poll::Pending,
            }
            if self.is_done() {
                return self.close(cx);
            }
        }
        if self.link.with(|connection| connection.wants_write()) {
            self.waits = true;
            // Wakes us when everybody else who is ready has run, so that nobody else has to.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        if self.link.with(|connection| connection.active_streams() == 0) {
            self.link.with(|connection| connection.shrink());
        }
        self.link.driver_sleeps(cx);
        Poll::Pending
    }

    fn is_done(&self) -> bool {
        self.link.with(|connection| connection.is_done())
    }

    fn read(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> io::Result<()> {
        let mut room = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        for turn in 0..READS_MAX {
            if self.read_ended || self.is_done() {
                return Ok(());
            }
            let mut buffer = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.read_ended = true;
                self.link.with(|connection| connection.receive_end());
            } else {
                // What is wrong with it is kept by the connection, which says so to its peer.
                let _ = self.link.with(|connection| connection.receive(bytes, Instant::now()));
            }
            self.tell(serve);
            if turn + 1 == READS_MAX {
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    fn tell(&self, serve: &mut impl Serve) {
        while let Some(told) = self.link.next_told() {
            match told {
                Told::Request(stream, head) => serve.request(stream, head),
                Told::Refused(refused) => serve.refused(refused),
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, serve: &mut impl Serve) -> Poll<io::Result<()>> {
        loop {
            let wrote = {
                let io = Pin::new(&mut self.io);
                self.link.with(|connection| {
                    let output = connection.output();
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let filled = output.slices(&mut slices);
                    if filled == 0 {
                        return None;
                    }
                    let written = match io.poll_write_vectored(cx, &slices[..filled]) {
                        Poll::Ready(Ok(0)) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                        Poll::Ready(written) => written,
                        Poll::Pending => return Some(Poll::Pending),
                    };
                    Some(Poll::Ready(written.map(|bytes| output.advance(bytes))))
                })
            };
            match wrote {
                None => break,
                Some(polled) => {
                    self.tell(serve);
                    if polled.is_pending() {
                        // It goes on as soon as the socket takes more.
                        self.waits = true;
                    }
                    ready!(polled)?;
                    self.unflushed = true;
                }
            }
        }
        if self.unflushed {
            let flushed = Pin::new(&mut self.io).poll_flush(cx);
            // The same for what lies in the socket's own buffer.
            self.waits = flushed.is_pending();
            ready!(flushed)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// A peer that takes nothing any more does not get its last words; it gets some time for them.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        linger.as_mut().poll(cx).map(|()| self.ended())
    }

    fn ended(&self) -> Ended {
        match self.link.with(|connection| connection.failed()) {
            Some(error) => Ended::Failed(error),
            None => Ended::Closed,
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        // It is moved when it fires too early, not whenever a byte comes.
        loop {
            let Some(deadline) = self.link.with(|connection| connection.deadline()) else { return };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if timer.deadline() > deadline.into() {
                timer.as_mut().reset(deadline.into());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            let now = timer.deadline().into_std();
            // A silent peer is told, and the connection is done with that.
            let _ = self.link.with(|connection| connection.tick(now));
            let next = self.link.with(|connection| connection.deadline());
            match next {
                Some(next) => timer.as_mut().reset(next.into()),
                None => return self.timer = None,
            }
        }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            return Poll::Ready(self.break_off(error));
        }
        // A socket that is closed over unread bytes takes our last words with it.
        let mut room = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        for _ in 0..READS_MAX {
            let mut buffer = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
            if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(self.ended())
    }

    fn break_off(&mut self, error: io::Error) -> Ended {
        let (failed, was_over) = self.link.with(|connection| {
            let was_over = connection.is_done();
            connection.break_off();
            (connection.failed(), was_over)
        });
        self.tell(&mut ());
        match failed {
            Some(error) => Ended::Failed(error),
            // The peer closed first.
            None if was_over => Ended::Closed,
            None => Ended::Broken(error),
        }
    }
}

impl<I> Drop for Driver<I> {
    fn drop(&mut self) {
        // Nobody moves its streams any more.
        self.link.with(|connection| connection.break_off());
        while let Some(told) = self.link.next_told() {
            drop(told);
        }
        self.link.wake_curious();
    }
}
