//! The response's body, and what must end with it: the deadline of the whole request, and the record.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::time::Sleep;

use super::record::Record;
use crate::error::ProxyError;
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
    sleep: Pin<Box<Sleep>>,
}

impl AnswerBody {
    pub(super) fn local(text: Bytes, record: Record) -> Self {
        Self(Kind::Local { text: Some(text).filter(|text| !text.is_empty()), _record: Box::new(record) })
    }

    pub(super) fn upstream(body: UpstreamBody, until: Option<Instant>, record: Record) -> Self {
        let began = record.started();
        let deadline = until
            .filter(|_| !body.is_end())
            .map(|until| Deadline { began, sleep: Box::pin(tokio::time::sleep_until(until.into())) });
        Self(Kind::Upstream(Box::new(FromUpstream { body, deadline, record, over: false })))
    }
}

impl FromUpstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ProxyError>>> {
        let polled = self.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => self.record.note_trailers(trailers),
            Poll::Ready(Some(Ok(Frame::Data(_)))) => {}
            Poll::Ready(Some(Err(error))) => {
                self.over = true;
                self.record.broke_off(error, Instant::now());
            }
            Poll::Ready(None) => self.over = true,
            Poll::Pending => {
                if let Some(deadline) = &mut self.deadline
                    && deadline.sleep.as_mut().poll(cx).is_ready()
                {
                    let error = ProxyError::RequestTimeout { after: deadline.began.elapsed() };
                    self.over = true;
                    self.record.broke_off(&error, Instant::now());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        polled
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
