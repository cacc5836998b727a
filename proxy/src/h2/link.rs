//! A connection in the hands of several tasks of one thread: one drives it, each of the others reads and writes a stream.
//!
//! Tasks are woken by the slot of their stream. Whoever makes the connection want to write wakes its driver, once.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Connection, Event, Refused};
use super::error::{Reset, SendError};
use super::frame::Code;
use super::settings::PeerSettings;
use super::streams::{Received, StreamKey};
use crate::message::fields::Fields;
use crate::message::{RequestHead, ResponseHead};

/// A connection, shared on one thread.
#[derive(Debug)]
pub struct Link {
    connection: RefCell<Connection>,
    /// By the slots of streams.
    wakers: RefCell<Vec<Wakers>>,
    /// None while the driver is awake, or comes by itself.
    driver: RefCell<Option<Waker>>,
    /// Who waits for the peer to say what it can.
    curious: RefCell<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the driver has to pass on.
#[derive(Debug)]
pub(super) enum Told {
    Request(Stream, RequestHead),
    Refused(Refused),
}

impl Link {
    #[must_use]
    pub fn new(connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            connection: RefCell::new(connection),
            wakers: RefCell::default(),
            driver: RefCell::default(),
            curious: RefCell::default(),
        })
    }

    /// Asks the connection something, or has it do something.
    pub fn with<R>(&self, act: impl FnOnce(&mut Connection) -> R) -> R {
        let mut connection = self.connection.borrow_mut();
        let done = act(&mut connection);
        if connection.wants_write() || connection.is_done() {
            self.wake_driver();
        }
        done
    }

    fn wake_driver(&self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    /// Whoever has something to write, or ends the connection, wakes its driver.
    pub(super) fn driver_sleeps(&self, cx: &Context<'_>) {
        self.driver.replace(Some(cx.waker().clone()));
    }

    /// Nobody needs to wake its driver.
    pub(super) fn driver_is_awake(&self) {
        self.driver.take();
    }

    /// Opens a stream (clients only), with the head of a request.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn open(self: &Rc<Self>, head: &RequestHead, end: bool) -> Result<Stream, SendError> {
        let key = self.with(|connection| connection.send_request(head, end, Instant::now()))?;
        Ok(Stream { link: Rc::clone(self), key })
    }

    /// Wakes whom events concern; what concerns nobody yet is handed over.
    pub(super) fn next_told(self: &Rc<Self>) -> Option<Told> {
        loop {
            let event = self.connection.borrow_mut().next_event()?;
            match event {
                Event::Request { stream, head } => {
                    let stream = Stream { link: Rc::clone(self), key: stream };
                    return Some(Told::Request(stream, head));
                }
                Event::Refused(refused) => return Some(Told::Refused(refused)),
                Event::Readable(key) => self.wake(key, |wakers| &mut wakers.reader),
                Event::Writable(key) => self.wake(key, |wakers| &mut wakers.writer),
                Event::Settings | Event::GoAway { .. } => self.wake_curious(),
            }
        }
    }

    /// Waits for what the peer says of itself; none when it will not say it any more.
    pub fn poll_peer(&self, cx: &mut Context<'_>) -> Poll<Option<PeerSettings>> {
        let (settings, goes_on) = self.with(|connection| (*connection.peer_settings(), connection.takes_streams()));
        if settings.received || !goes_on {
            return Poll::Ready(Some(settings).filter(|settings| settings.received));
        }
        self.curious.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// The peer has said what it can, or will not say it any more.
    pub(super) fn wake_curious(&self) {
        self.curious.take().into_iter().for_each(Waker::wake);
    }

    fn wake(&self, key: StreamKey, which: impl FnOnce(&mut Wakers) -> &mut Option<Waker>) {
        if let Some(waker) = self.wakers.borrow_mut().get_mut(key.slot()).and_then(|wakers| which(wakers).take()) {
            waker.wake();
        }
    }

    fn park(&self, key: StreamKey, cx: &Context<'_>, which: impl FnOnce(&mut Wakers) -> &mut Option<Waker>) {
        let mut wakers = self.wakers.borrow_mut();
        if wakers.len() <= key.slot() {
            wakers.resize_with(key.slot() + 1, Wakers::default);
        }
        let waker = which(&mut wakers[key.slot()]);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// One stream of a shared connection. When it is dropped, what is missing of its messages ends it before its time.
#[derive(Debug)]
pub struct Stream {
    link: Rc<Link>,
    key: StreamKey,
}

impl Stream {
    #[must_use]
    pub fn id(&self) -> u32 {
        self.key.id
    }

    #[must_use]
    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// What comes next.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Received> {
        match self.link.with(|connection| connection.read(self.key)) {
            Some(received) => Poll::Ready(received),
            None => {
                self.link.park(self.key, cx, |wakers| &mut wakers.reader);
                Poll::Pending
            }
        }
    }

    /// Whether everything was received and read.
    #[must_use]
    pub fn is_read_to_end(&self) -> bool {
        self.link.with(|connection| connection.is_read_to_end(self.key))
    }

    /// Whether everything was received, and not all of it was read.
    #[must_use]
    pub fn is_unread_end(&self) -> bool {
        self.link.with(|connection| connection.is_unread_end(self.key))
    }

    #[must_use]
    pub fn length_left(&self) -> Option<u64> {
        self.link.with(|connection| connection.length_left(self.key))
    }

    /// What was handed over and waits for the peer to take it.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.link.with(|connection| connection.unsent_bytes(self.key))
    }

    /// Waits for room to send data; there is room on a stream that is over, where sending says so.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.link.with(|connection| connection.has_room(self.key)) {
            return Poll::Ready(());
        }
        self.link.park(self.key, cx, |wakers| &mut wakers.writer);
        Poll::Pending
    }

    /// Waits until the stream is over before its time: nobody wants what would be sent on it.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Reset> {
        match self.link.with(|connection| connection.watch_reset(self.key)) {
            Some(reset) => Poll::Ready(reset),
            None => {
                self.link.park(self.key, cx, |wakers| &mut wakers.writer);
                Poll::Pending
            }
        }
    }

    /// # Errors
    /// [`SendError`].
    pub fn send_response(&self, head: &ResponseHead, end: bool) -> Result<(), SendError> {
        self.link.with(|connection| connection.send_response(self.key, head, end))
    }

    /// # Errors
    /// [`SendError`].
    pub fn send_data(&self, data: Bytes, end: bool) -> Result<(), SendError> {
        self.link.with(|connection| connection.send_data(self.key, data, end))
    }

    /// # Errors
    /// [`SendError`].
    pub fn send_trailers(&self, fields: Fields) -> Result<(), SendError> {
        self.link.with(|connection| connection.send_trailers(self.key, fields))
    }

    pub fn reset(&self, code: Code) {
        self.link.with(|connection| connection.reset(self.key, code));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Another stream will have this slot.
        let gone = self.link.wakers.borrow_mut().get_mut(self.key.slot()).map(std::mem::take);
        drop(gone);
        self.link.with(|connection| connection.release(self.key));
    }
}
