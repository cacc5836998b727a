//! What is sent upstream: the client's body, remembered as far as the request may be sent again.
//!
//! A body is remembered up to a limit, and only while a retry is possible at all. The first try reads from the client
//! and remembers; the next one sends what is remembered, then goes on reading from the client.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::idle::IdleTimer;
use crate::error::Broken;
use crate::message::Frame;
use crate::message::body::{Body, ClientBody};

/// Why the client's body could not be read to its end.
#[derive(Debug, Error)]
pub enum ClientBodyError {
    #[error("the client's body broke off")]
    Cut,
    #[error("the client's body was silent for too long")]
    Idle,
}

/// What went wrong on the client's side, for the one who sees only that the upstream exchange failed.
#[derive(Debug)]
pub enum ClientFault {
    Cut(Broken),
    Idle(Duration),
}

/// One request's body, shared by all its tries.
pub struct SharedBody {
    source: ClientBody,
    idle: IdleTimer,
    /// None once it can no longer be sent again.
    remembered: Option<Vec<Bytes>>,
    remembered_bytes: usize,
    /// A body that is longer can no longer be sent again.
    remembered_bytes_max: usize,
    /// The last frame has been read from the client.
    ended: bool,
    read_anything: bool,
    fault: Option<ClientFault>,
}

/// The body of one try.
pub enum RequestBody {
    Empty,
    /// Whether anything may be sent is still to be answered: it neither ends nor begins.
    Unanswered,
    Client {
        shared: Rc<RefCell<SharedBody>>,
        next_remembered: usize,
        sent_bytes: u64,
    },
}

/// A request's body between tries.
#[derive(Clone)]
pub enum ReplayableBody {
    Empty,
    /// What the client sends goes into a tunnel, once there is one.
    Unanswered,
    Client(Rc<RefCell<SharedBody>>),
}

impl ReplayableBody {
    /// `remember`: up to how many bytes; none where no retry is possible at all.
    #[must_use]
    pub fn new(source: Option<ClientBody>, remember: Option<u32>, idle_timeout: Option<Duration>) -> Self {
        let Some(source) = source else { return Self::Empty };
        let shared = SharedBody {
            source,
            idle: IdleTimer::new(idle_timeout),
            remembered: remember.map(|_| Vec::new()),
            remembered_bytes: 0,
            remembered_bytes_max: remember.unwrap_or_default() as usize,
            ended: false,
            read_anything: false,
            fault: None,
        };
        Self::Client(Rc::new(RefCell::new(shared)))
    }

    /// For one more try; the one before must have ended.
    #[must_use]
    pub fn attempt(&self) -> RequestBody {
        match self {
            Self::Empty => RequestBody::Empty,
            Self::Unanswered => RequestBody::Unanswered,
            Self::Client(shared) => {
                RequestBody::Client { shared: Rc::clone(shared), next_remembered: 0, sent_bytes: 0 }
            }
        }
    }

    /// Whether another try could send the whole body.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        match self {
            Self::Empty | Self::Unanswered => true,
            Self::Client(shared) => {
                let shared = shared.borrow();
                shared.fault.is_none() && (shared.remembered.is_some() || !shared.read_anything)
            }
        }
    }

    /// No further try will come: nothing has to be remembered from here on.
    pub fn forget(&self) {
        if let Self::Client(shared) = self {
            let mut shared = shared.borrow_mut();
            // What an ongoing try still has to send of the memory is read from it, so only an unread memory is dropped.
            if shared.remembered.as_ref().is_some_and(Vec::is_empty) {
                shared.remembered = None;
            }
        }
    }

    /// All of it has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Empty | Self::Unanswered => true,
            Self::Client(shared) => {
                let shared = shared.borrow();
                shared.ended || shared.source.is_end()
            }
        }
    }

    /// What the client did wrong, if it was the client.
    #[must_use]
    pub fn take_fault(&self) -> Option<ClientFault> {
        match self {
            Self::Empty | Self::Unanswered => None,
            Self::Client(shared) => shared.borrow_mut().fault.take(),
        }
    }
}

impl SharedBody {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ClientBodyError>>> {
        match self.source.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.progressed();
                self.read_anything = true;
                self.remember(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.fault = Some(ClientFault::Cut(error));
                Poll::Ready(Some(Err(ClientBodyError::Cut)))
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => match self.idle.poll_silent(cx) {
                Poll::Ready(after) => {
                    self.fault = Some(ClientFault::Idle(after));
                    Poll::Ready(Some(Err(ClientBodyError::Idle)))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn remember(&mut self, frame: &Frame) {
        let Some(remembered) = &mut self.remembered else { return };
        match frame {
            Frame::Data(data) if self.remembered_bytes + data.len() <= self.remembered_bytes_max => {
                self.remembered_bytes += data.len();
                remembered.push(data.clone());
            }
            // Too long, or trailers: they come with gRPC streams only, which are not sent again.
            _ => self.remembered = None,
        }
    }
}

impl RequestBody {
    /// The client did not send all of it, and will not.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Empty | Self::Unanswered => false,
            Self::Client { shared, .. } => shared.borrow().fault.is_some(),
        }
    }
}

impl Body for RequestBody {
    type Error = ClientBodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ClientBodyError>>> {
        let (shared, next_remembered, sent_bytes) = match self {
            Self::Empty => return Poll::Ready(None),
            Self::Unanswered => return Poll::Pending,
            Self::Client { shared, next_remembered, sent_bytes } => (shared, next_remembered, sent_bytes),
        };
        let mut shared = shared.borrow_mut();
        if let Some(data) = shared.remembered.as_ref().and_then(|remembered| remembered.get(*next_remembered)) {
            *next_remembered += 1;
            *sent_bytes += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::Data(data.clone()))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let polled = shared.poll_source(cx);
        if let Poll::Ready(Some(Ok(Frame::Data(data)))) = &polled {
            *sent_bytes += data.len() as u64;
            *next_remembered += 1;
        }
        polled
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Unanswered => false,
            Self::Client { shared, next_remembered, .. } => {
                let shared = shared.borrow();
                let all_sent = shared.remembered.as_ref().is_none_or(|remembered| *next_remembered >= remembered.len());
                all_sent && (shared.ended || shared.source.is_end())
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Unanswered => None,
            Self::Client { shared, sent_bytes, .. } => {
                let shared = shared.borrow();
                let left = shared.source.length()?;
                let remembered = if shared.remembered.is_some() { shared.remembered_bytes as u64 } else { *sent_bytes };
                Some((left + remembered).saturating_sub(*sent_bytes))
            }
        }
    }
}
