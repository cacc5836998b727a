//! The response's body, and what must end with it: the deadline of the whole request, and the record.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::record::Record;
use crate::error::ProxyError;
use crate::http::timer::LazyTimer;
use crate::message::Frame;
use crate::message::body::Body;
use crate::upstream::response_body::UpstreamBody;

/// What a client is answered with.
pub struct AnswerBody(Kind);

enum Kind {
    Local { text: Option<Bytes>, _record: Box<Record> },
    Upstream(Box<FromUpstream>),
}

struct FromUpstream {
    body: UpstreamBody,
    deadline: Option<Deadline>,
    record: Record,
    /// All of it was read, or its end was told as an error.
    over: bool,
}

struct Deadline {
    began: Instant,
    until: Instant,
    timer: LazyTimer,
    /// Frames that were ready at once since it was looked at the clock.
    frames: u32,
}

/// So many frames may be ready at once before it is looked at the clock.
const FRAMES_UNTIMED: u32 = 16;

impl Deadline {
    fn is_over(&mut self) -> bool {
        self.frames += 1;
        if self.frames < FRAMES_UNTIMED {
            return false;
        }
        self.frames = 0;
        self.until <= Instant::now()
    }
}

impl AnswerBody {
    pub(super) fn local(text: Bytes, record: Record) -> Self {
        Self(Kind::Local { text: Some(text).filter(|text| !text.is_empty()), _record: Box::new(record) })
    }

    /// `is_bodiless`: whoever is answered gets no body, whatever comes.
    pub(super) fn upstream(body: UpstreamBody, is_bodiless: bool, until: Option<Instant>, record: Record) -> Self {
        let began = record.started();
        let deadline = until.filter(|_| !body.is_end()).map(|until| Deadline {
            began,
            until,
            timer: LazyTimer::default(),
            frames: 0,
        });
        Self(Kind::Upstream(Box::new(FromUpstream { body, deadline, record, over: is_bodiless })))
    }
}

impl FromUpstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ProxyError>>> {
        // A response that always has more is bound by it too.
        if self.deadline.as_mut().is_some_and(Deadline::is_over) {
            return Poll::Ready(Some(Err(self.too_late())));
        }
        let polled = self.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => self.record.note_trailers(trailers),
            Poll::Ready(Some(Ok(Frame::Data(_)))) => {}
            Poll::Ready(Some(Err(error))) => {
                self.over = true;
                self.record.broke_off(error, Instant::now());
            }
            Poll::Ready(None) => self.over = true,
            Poll::Pending => return self.poll_deadline(cx).map(|error| Some(Err(error))),
        }
        polled
    }

    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        if let Poll::Ready(error) = self.body.poll_aside(cx) {
            self.over = true;
            self.record.broke_off(&error, Instant::now());
            return Poll::Ready(error);
        }
        self.poll_deadline(cx)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        match &mut self.deadline {
            Some(deadline) => deadline.timer.poll_until(deadline.until, cx).map(|()| self.too_late()),
            None => Poll::Pending,
        }
    }

    fn too_late(&mut self) -> ProxyError {
        let after = self.deadline.take().map_or_else(Default::default, |deadline| deadline.began.elapsed());
        let error = ProxyError::RequestTimeout { after };
        self.over = true;
        self.record.broke_off(&error, Instant::now());
        error
    }
}

impl Drop for FromUpstream {
    fn drop(&mut self) {
        if !self.over && !self.body.is_end() {
            self.record.abandoned();
        }
    }
}

impl Body for AnswerBody {
    type Error = ProxyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ProxyError>>> {
        match &mut self.0 {
            Kind::Local { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::Data(text)))),
            Kind::Upstream(upstream) => upstream.poll_frame(cx),
        }
    }

    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        match &mut self.0 {
            Kind::Local { .. } => Poll::Pending,
            Kind::Upstream(upstream) => upstream.poll_aside(cx),
        }
    }

    fn is_end(&self) -> bool {
        match &self.0 {
            Kind::Local { text, .. } => text.is_none(),
            Kind::Upstream(upstream) => upstream.body.is_end(),
        }
    }

    fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Local { text, .. } => Some(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Upstream(upstream) => upstream.body.length(),
        }
    }
}
