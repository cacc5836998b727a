//! h2 on one connection: every stream is a request of its own, in a task of its own, which ends with its stream.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mesh_core::task::drain::Drain;

use super::asked::{Answer, Asked};
use super::client::Client;
use super::refuse;
use super::timer::LazyTimer;
use crate::error::{Broken, ProxyError};
use crate::h2::drive::{Driver, Ended, Serve};
use crate::h2::head::join_cookies;
use crate::h2::{
    Code, Connection, ConnectionError, Limits, Link, Refused, Reset, ResetBy, Sending, Settings, Stream, StreamBody,
};
use crate::listen::stream::ClientStream;
use crate::message::body::{Body, ClientBody, Interim};
use crate::message::{RequestHead, ResponseHead};

/// How a connection ended.
#[derive(Debug)]
pub enum Served {
    /// By the client.
    Closed,
    /// No request came for too long.
    Idle,
    /// We were told to end.
    Drained,
    /// Its socket broke.
    Broken(io::Error),
    /// The client broke a rule, or went past a limit. It was told.
    Failed(ConnectionError),
}

/// Serves h2 until the connection ends. `answer` answers each request; nothing is switched to in h2. `refused` hears of streams that
/// were not taken; a client whose request was none has been answered.
pub async fn serve_h2<B, S, F>(
    stream: ClientStream,
    client: Rc<Client>,
    drain: Drain,
    answer: impl Fn(Asked) -> F + Clone + 'static,
    refused: impl FnMut(Refused),
) -> Served
where
    B: Body<Error = ProxyError> + Unpin + 'static,
    S: 'static,
    F: Future<Output = Answer<B, S>> + 'static,
{
    let limits = Limits {
        head_bytes_max: client.limits.header_bytes_max,
        head_fields_max: client.limits.header_count_max,
        ..Limits::default()
    };
    // Tunnels for other protocols are opened by whoever routes requests, which knows none yet.
    let settings = Settings {
        extended_connect: false,
        head_timeout: client.limits.header_timeout,
        refusal: |error| refuse::response(&ProxyError::BadStream { source: *error }, false),
        ..Settings::default()
    };
    let link = Link::new(Connection::server(&settings, &limits, Instant::now()));
    let mut driver = Driver::new(stream, Rc::clone(&link));
    let mut requests = Requests { answer, refused, idle_timeout: client.limits.body_idle_timeout };
    let mut started = drain.clone();
    let mut started = pin!(started.started());
    let mut timer = LazyTimer::default();
    let (mut is_draining, mut is_idle) = (false, false);
    std::future::poll_fn(|cx| {
        if !is_draining && started.as_mut().poll(cx).is_ready() {
            is_draining = true;
            link.with(|connection| connection.shutdown(Instant::now()));
        }
        loop {
            match driver.poll(cx, &mut requests) {
                Poll::Ready(Ended::Closed) if is_draining => return Poll::Ready(Served::Drained),
                Poll::Ready(Ended::Closed) if is_idle => return Poll::Ready(Served::Idle),
                Poll::Ready(Ended::Closed) => return Poll::Ready(Served::Closed),
                Poll::Ready(Ended::Broken(error)) => return Poll::Ready(Served::Broken(error)),
                Poll::Ready(Ended::Failed(error)) => return Poll::Ready(Served::Failed(error)),
                Poll::Pending if is_idle || !client.is_idle() => return Poll::Pending,
                Poll::Pending => {
                    let deadline = client.idle_since() + client.limits.idle_timeout;
                    if timer.poll_until(deadline, cx).is_pending() {
                        return Poll::Pending;
                    }
                    is_idle = true;
                    link.with(|connection| connection.shutdown(Instant::now()));
                }
            }
        }
    })
    .await
}

/// Starts a task for each request.
struct Requests<A, R> {
    answer: A,
    refused: R,
    /// So long a client may take nothing of a response.
    idle_timeout: Duration,
}

impl<B, S, F, A, R> Serve for Requests<A, R>
where
    B: Body<Error = ProxyError> + Unpin + 'static,
    S: 'static,
    F: Future<Output = Answer<B, S>> + 'static,
    A: Fn(Asked) -> F + Clone + 'static,
    R: FnMut(Refused),
{
    fn request(&mut self, stream: Stream, head: RequestHead) {
        tokio::task::spawn_local(respond(stream, head, self.answer.clone(), self.idle_timeout));
    }

    fn refused(&mut self, refused: Refused) {
        (self.refused)(refused);
    }
}

/// Answers one request. It ends when the client resets its stream: nobody waits for the answer any more.
async fn respond<B, S, F>(stream: Stream, mut head: RequestHead, answer: impl Fn(Asked) -> F, idle_timeout: Duration)
where
    B: Body<Error = ProxyError>,
    F: Future<Output = Answer<B, S>>,
{
    join_cookies(&mut head.fields);
    let stream = Rc::new(stream);
    let body = (!stream.is_read_to_end()).then(|| Box::new(StreamBody(Rc::clone(&stream))) as ClientBody);
    let interim: Rc<dyn Interim> = Rc::clone(&stream) as Rc<dyn Interim>;
    let answered = {
        let mut answering = pin!(answer(Asked { head, body, interim }));
        std::future::poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => stream.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let (head, body) = match answered {
        Some(Answer::Response(head, body) | Answer::Last(head, body)) => (head, Some(body)),
        // Nobody was asked to switch anything.
        Some(Answer::Switch(head, _)) => (head, None),
        None => return,
    };
    send(&stream, &head, Sending::new(body), idle_timeout).await;
}

/// What the client is told of a response that broke off. An endpoint's own word is passed on where it means the same to the client: not
/// that a rule was broken, which the client would take for its own mistake, nor that nothing was done.
fn reset_code(error: &ProxyError) -> Code {
    match error {
        ProxyError::ResponseCut {
            source: Broken::Stream { source: Reset { code, by: ResetBy::Peer, .. } }, ..
        } if matches!(*code, Code::CANCEL | Code::ENHANCE_YOUR_CALM) => *code,
        _ => Code::INTERNAL_ERROR,
    }
}

async fn send<B: Body<Error = ProxyError>>(
    stream: &Stream,
    head: &ResponseHead,
    mut sending: Sending<B>,
    idle_timeout: Duration,
) {
    if stream.send_response(head, sending.is_over()).is_err() {
        return stream.reset(Code::INTERNAL_ERROR);
    }
    let mut timer = LazyTimer::default();
    let mut stalled: Option<(usize, Instant)> = None;
    std::future::poll_fn(|cx| {
        // A body that broke has reset the stream, and was counted where it broke.
        if sending.poll(stream, reset_code, cx).is_ready() || stream.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        let unsent = stream.unsent_bytes();
        if unsent == 0 {
            stalled = None;
            return Poll::Pending;
        }
        // The client opens no window for now.
        let since = match stalled {
            Some((before, since)) if before == unsent => since,
            _ => Instant::now(),
        };
        stalled = Some((unsent, since));
        timer.poll_until(since + idle_timeout, cx).map(|()| stream.reset(Code::CANCEL))
    })
    .await;
}
