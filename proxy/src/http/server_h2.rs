//! h2 on one connection: every stream is a request of its own, in a task of its own, which ends with its stream.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mesh_core::model::limits::H2Limits;
use mesh_core::model::resource::{self, Listener};
use mesh_core::task::drain::Drain;

use super::asked::{Answer, Asked, Tunnel};
use super::client::Client;
use super::refuse;
use super::timer::LazyTimer;
use crate::error::{Broken, ProxyError};
use crate::h2::drive::{Driver, Ended, Serve};
use crate::h2::frame::FRAME_BYTES_MAX;
use crate::h2::head::join_cookies;
use crate::h2::{
    Code, Connection, ConnectionError, Duplex, Limits, Link, Refused, Reset, ResetBy, Sending, Settings, Stream,
    StreamBody,
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

/// Serves h2 until the connection ends. `answer` answers each request; a stream may become a tunnel. `refused` hears of streams that
/// were not taken; a client whose request was none has been answered.
pub async fn serve_h2<B, S, F>(
    stream: ClientStream,
    client: Rc<Client>,
    listener: Option<Arc<Listener>>,
    drain: Drain,
    answer: impl Fn(Asked) -> F + Clone + 'static,
    refused: impl FnMut(Refused),
) -> Served
where
    B: Body<Error = ProxyError> + Unpin + 'static,
    S: Tunnel,
    F: Future<Output = Answer<B, S>> + 'static,
{
    let link = {
        let (settings, limits) = configured(listener.as_deref(), &client.limits);
        Link::new(Connection::server(&settings, &limits, Instant::now()))
    };
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

/// How a listener has it; none has the defaults.
fn configured(listener: Option<&Listener>, of_all: &resource::Limits) -> (Settings, Limits) {
    let defaults;
    let h2 = if let Some(listener) = listener {
        &listener.h2_limits
    } else {
        defaults = H2Limits::default();
        &defaults
    };
    let head_bytes_max = of_all.header_bytes_max;
    // A head that is small enough is let in, into however many frames it was cut.
    let continuations_needed = u32::try_from(head_bytes_max / FRAME_BYTES_MAX).unwrap_or(u32::MAX);
    let limits = Limits {
        streams_max: h2.streams_max,
        head_bytes_max,
        head_fields_max: of_all.header_count_max,
        header_block_bytes_max: h2.header_block_bytes_max.max(head_bytes_max),
        continuations_max: h2.continuations_max.saturating_add(continuations_needed),
        resets_max: h2.resets_max,
        pings_max: h2.pings_max,
        settings_max: h2.settings_max,
        empty_data_max: h2.empty_data_max,
        priorities_max: h2.priorities_max,
        window_updates_max: h2.window_updates_max,
        ignored_max: h2.ignored_max,
        answers_unread_bytes_max: h2.unread_answer_bytes_max,
        ..Limits::default()
    };
    let settings = Settings {
        stream_window_bytes_max: h2.stream_window_bytes_max,
        connection_window_bytes: h2.connection_window_bytes,
        extended_connect: true,
        keepalive_interval: h2.keepalive_interval,
        keepalive_timeout: h2.keepalive_timeout,
        head_timeout: of_all.header_timeout,
        refusal: |error| refuse::response(&ProxyError::BadStream { source: *error }, false),
        ..Settings::default()
    };
    (settings, limits)
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
    S: Tunnel,
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
    S: Tunnel,
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
        Some(Answer::Response(head, body) | Answer::Last(head, body)) => (head, body),
        Some(Answer::Switch(head, with)) => {
            return match stream.send_response(&head, false) {
                // No request waits for the room that a tunnel takes.
                Ok(()) => Box::pin(with.carry(Duplex::new(stream))).await,
                Err(_) => stream.reset(Code::INTERNAL_ERROR),
            };
        }
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
    sending: Sending<B>,
    idle_timeout: Duration,
) {
    if stream.send_response(head, sending.is_over()).is_err() {
        return stream.reset(Code::INTERNAL_ERROR);
    }
    let mut sending = Some(sending);
    let mut timer = LazyTimer::default();
    let mut stalled: Option<(usize, Instant)> = None;
    std::future::poll_fn(|cx| {
        // A body that broke has reset the stream, and was counted where it broke.
        if sending.as_mut().is_some_and(|sending| sending.poll(stream, reset_code, cx).is_ready()) {
            sending = None;
        }
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        let unsent = stream.unsent_bytes();
        if unsent == 0 {
            stalled = None;
            return if sending.is_none() { Poll::Ready(()) } else { Poll::Pending };
        }
        // The client opens no window for now. That holds for the last of a response too: nobody else would wait for it.
        let since = match stalled {
            Some((before, since)) if before == unsent => since,
            _ => Instant::now(),
        };
        stalled = Some((unsent, since));
        timer.poll_until(since + idle_timeout, cx).map(|()| stream.reset(Code::CANCEL))
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_on_limits_the_defaults_hold() {
        let (settings, limits) = configured(None, &resource::Limits::default());
        let expected = Limits {
            head_fields_max: resource::Limits::default().header_count_max,
            // What the largest head needs, and the default beyond it.
            continuations_max: Limits::default().continuations_max + 4,
            ..Limits::default()
        };
        assert_eq!(limits, expected);
        let Settings { stream_window_bytes_max, connection_window_bytes, keepalive_interval, .. } = Settings::default();
        assert_eq!(settings.stream_window_bytes_max, stream_window_bytes_max);
        assert_eq!(settings.connection_window_bytes, connection_window_bytes);
        assert_eq!(settings.keepalive_interval, keepalive_interval);
        assert_eq!(settings.keepalive_timeout, Settings::default().keepalive_timeout);
    }

    #[test]
    fn a_head_that_is_small_enough_fits_however_it_is_cut() {
        let of_all = resource::Limits { header_bytes_max: 1 << 20, ..resource::Limits::default() };
        let (_, limits) = configured(None, &of_all);
        assert_eq!((limits.head_bytes_max, limits.header_block_bytes_max), (1 << 20, 1 << 20));
        assert!(limits.continuations_max as usize * FRAME_BYTES_MAX >= 1 << 20);
    }
}
