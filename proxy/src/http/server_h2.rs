//! h2 on one connection: every stream is a request of its own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::task::drain::Drain;

use super::asked::{Answer, Asked};
use super::client::Client;
use super::timer::LazyTimer;
use crate::error::ProxyError;
use crate::listen::stream::ClientStream;
use crate::message::ResponseHead;
use crate::message::body::{Body, ClientBody, Interim};
use crate::message::hyper::{Carried, read_request, write_response};

/// Streams one h2 client may have open at once.
const STREAMS_MAX: u32 = 1024;

/// How much of a client's bodies may be under way unread, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// An h2 client that answers no PING for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug)]
pub enum Served {
    /// By the client.
    Closed,
    /// No request came for too long.
    Idle,
    /// We were told to end.
    Drained,
    /// Broken off, by either side.
    Broken(hyper::Error),
}

/// Runs streams on the worker's own thread.
#[derive(Debug, Clone, Copy, Default)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves h2 until the connection ends. `answer` answers each request; nothing is switched to in h2.
pub async fn serve_h2<B, S, F>(
    stream: ClientStream,
    client: Rc<Client>,
    drain: Drain,
    answer: impl Fn(Asked) -> F + Clone + 'static,
) -> Served
where
    B: Body<Error = ProxyError> + Unpin + 'static,
    S: 'static,
    F: Future<Output = Answer<B, S>> + 'static,
{
    let header_bytes_max = u32::try_from(client.limits.header_bytes_max).unwrap_or(u32::MAX);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(respond(request, answer).await) }
    });
    let mut connection = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(header_bytes_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut started = drain.clone();
    let mut started = pin!(started.started());
    let mut timer = LazyTimer::default();
    let mut is_draining = false;
    std::future::poll_fn(|cx| {
        if !is_draining && started.as_mut().poll(cx).is_ready() {
            is_draining = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(Ok(())) if is_draining => Poll::Ready(Served::Drained),
            Poll::Ready(Ok(())) => Poll::Ready(Served::Closed),
            Poll::Ready(Err(error)) => Poll::Ready(Served::Broken(error)),
            Poll::Pending => {
                let deadline = client.idle_since() + client.limits.idle_timeout;
                let over = timer.poll_until(deadline, cx).is_ready();
                if over && client.is_idle() { Poll::Ready(Served::Idle) } else { Poll::Pending }
            }
        }
    })
    .await
}

async fn respond<B, S, F>(request: Request<Incoming>, answer: impl Fn(Asked) -> F) -> Response<Carried<Option<B>>>
where
    B: Body<Error = ProxyError>,
    F: Future<Output = Answer<B, S>>,
{
    let (head, body) = read_request(request);
    let body = body.map(|body| Box::new(body) as ClientBody);
    match answer(Asked { head, body, interim: Rc::new(NoInterim) }).await {
        Answer::Response(head, body) => write_response(&head, Carried(Some(body))),
        // Nobody was asked to switch anything.
        Answer::Switch(head, _) => write_response(&head, Carried(None)),
    }
}

/// hyper passes no interim response on.
struct NoInterim;

impl Interim for NoInterim {
    fn tell(&self, _head: &ResponseHead) {}
}
