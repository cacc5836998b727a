//! A body on its way: whoever reads it drives what it comes from. And what comes before it.

use std::task::{Context, Poll};

use super::{Frame, ResponseHead};
use crate::error::Broken;

/// A body that comes in frames.
pub trait Body {
    type Error;

    /// The next frame; none when the body was whole.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Self::Error>>>;

    /// While nobody takes a frame: what has to go on all the same, such as a request that is still being sent, or a deadline. Ready with
    /// what ended the body.
    fn poll_aside(&mut self, _cx: &mut Context<'_>) -> Poll<Self::Error> {
        Poll::Pending
    }

    /// Nothing is to come, which is known without asking.
    fn is_end(&self) -> bool;

    /// How many bytes are still to come, where that is known.
    fn length(&self) -> Option<u64>;
}

/// Maybe a body: none has nothing to come.
impl<B: Body> Body for Option<B> {
    type Error = B::Error;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, B::Error>>> {
        match self {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<B::Error> {
        self.as_mut().map_or(Poll::Pending, |body| body.poll_aside(cx))
    }

    fn is_end(&self) -> bool {
        self.as_ref().is_none_or(Body::is_end)
    }

    fn length(&self) -> Option<u64> {
        self.as_ref().map_or(Some(0), Body::length)
    }
}

/// What a client sends.
pub type ClientBody = Box<dyn Body<Error = Broken>>;

/// How a client is told interim responses (RFC 9110 section 15.2), as soon as they come.
pub trait Interim {
    /// A 1xx other than 101. It is dropped where the client's version has none.
    fn tell(&self, head: &ResponseHead);

    /// Ready when the request was ended because it turned out to be malformed, and has been answered so, whoever reads its body.
    fn poll_malformed(&self, _: &mut Context<'_>) -> Poll<Broken> {
        Poll::Pending
    }
}
