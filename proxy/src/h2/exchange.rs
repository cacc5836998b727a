//! Messages on a stream: bodies as they are read, bodies as they are sent, and a client's whole exchange.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::error::{Reset, ResetBy, SendError};
use super::frame::Code;
use super::link::{Link, Stream};
use super::streams::Received;
use crate::error::Broken;
use crate::message::body::{Body, Interim};
use crate::message::{Frame, RequestHead, ResponseHead};

/// What the peer sends on a stream, as a body.
#[derive(Debug)]
pub struct StreamBody(pub Rc<Stream>);

impl Body for StreamBody {
    type Error = Broken;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        poll_frame(&self.0, cx)
    }

    fn is_end(&self) -> bool {
        self.0.is_read_to_end()
    }

    fn length(&self) -> Option<u64> {
        self.0.length_left()
    }
}

fn poll_frame(stream: &Stream, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
    loop {
        return Poll::Ready(match ready!(stream.poll_read(cx)) {
            Received::Frame(frame) => Some(Ok(frame)),
            Received::End => None,
            Received::Reset(source) => Some(Err(Broken::Stream { source })),
            // Behind the head there is none; the connection sees to that.
            Received::Head(_) => continue,
        });
    }
}

/// A server's stream, which tells its client interim responses.
impl Interim for Stream {
    fn tell(&self, head: &ResponseHead) {
        // A client that left needs to be told nothing.
        let _ = self.send_response(head, false);
    }

    fn poll_malformed(&self, cx: &mut Context<'_>) -> Poll<Broken> {
        match self.poll_reset(cx) {
            Poll::Ready(source) if matches!(source.by, ResetBy::Rules { .. }) => Poll::Ready(Broken::Stream { source }),
            _ => Poll::Pending,
        }
    }
}

/// A body on its way out.
#[derive(Debug)]
pub struct Sending<B> {
    body: B,
    is_over: bool,
}

impl<B: Body> Sending<B> {
    /// `body` goes behind a head that was sent without the end of the stream, unless there is nothing of it.
    #[must_use]
    pub fn new(body: B) -> Self {
        let is_over = body.is_end();
        Self { body, is_over }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends as much as there is and there is room for. Ready when the last of it has been handed over, or the peer wants no more: what
    /// it makes of that, the reader hears. A body that breaks resets the stream with its `code`, so that it never looks whole.
    ///
    /// # Errors
    /// Of the body.
    pub fn poll(
        &mut self,
        stream: &Stream,
        code: impl Fn(&B::Error) -> Code,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), B::Error>> {
        while !self.is_over {
            if stream.poll_room(cx).is_pending() {
                // What has to go on goes on while the peer takes nothing.
                let error = ready!(self.body.poll_aside(cx));
                self.is_over = true;
                stream.reset(code(&error));
                return Poll::Ready(Err(error));
            }
            let sent = match ready!(self.body.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => {
                    self.is_over = self.body.is_end();
                    stream.send_data(data, self.is_over)
                }
                Some(Ok(Frame::Trailers(fields))) => {
                    self.is_over = true;
                    stream.send_trailers(fields)
                }
                None => {
                    self.is_over = true;
                    stream.send_data(Bytes::new(), true)
                }
                Some(Err(error)) => {
                    self.is_over = true;
                    stream.reset(code(&error));
                    return Poll::Ready(Err(error));
                }
            };
            match sent {
                Ok(()) => {}
                Err(SendError::HeadTooLarge { .. } | SendError::NoRoom) => {
                    self.is_over = true;
                    stream.reset(Code::INTERNAL_ERROR);
                }
                Err(SendError::Over) => self.is_over = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failed<E> {
    /// The request's own body.
    Request(E),
    Stream(Reset),
    /// The stream ended without a response.
    Nothing,
}

/// A client's exchange: the request goes out while the response comes in, whichever is longer.
#[derive(Debug)]
pub struct Exchange<B> {
    stream: Rc<Stream>,
    /// What is still to be sent of the request.
    sending: Option<Sending<B>>,
}

impl<B: Body> Exchange<B> {
    /// Sends the head; the body follows as the exchange is polled.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn begin(link: &Rc<Link>, head: &RequestHead, body: B) -> Result<Self, SendError> {
        let sending = Sending::new(body);
        let stream = Rc::new(link.open(head, sending.is_over())?);
        Ok(Self { stream, sending: Some(sending).filter(|sending| !sending.is_over()) })
    }

    /// The next response head: interim ones first.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failed<B::Error>>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(Failed::Request(error)));
        }
        Poll::Ready(match ready!(self.stream.poll_read(cx)) {
            Received::Head(head) => Ok(head),
            Received::Reset(reset) => Err(Failed::Stream(reset)),
            Received::Frame(_) | Received::End => Err(Failed::Nothing),
        })
    }

    /// The stream, for a response that needs nothing of the request any more.
    #[must_use]
    pub fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.poll(&self.stream, |_| Code::CANCEL, cx));
        self.sending = None;
        Poll::Ready(sent)
    }
}

/// The response's body, behind its head. What is left of the request goes on being sent.
impl<B: Body> Body for Exchange<B> {
    type Error = Broken;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        match self.poll_send(cx) {
            // It has reset the stream. Whose fault that was is told apart from a peer's reset.
            Poll::Ready(Err(_)) => Poll::Ready(Some(Err(Broken::Request))),
            _ => poll_frame(&self.stream, cx),
        }
    }

    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match self.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Broken::Request),
            _ => Poll::Pending,
        }
    }

    fn is_end(&self) -> bool {
        self.stream.is_read_to_end()
    }

    fn length(&self) -> Option<u64> {
        self.stream.length_left()
    }
}
