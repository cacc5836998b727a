//! Stage 4 of a request's walk, the composer of what a connection passes through: who is it → TLS → which protocol → HTTP or
//! bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_core::model::protocol::{ListenProtocol, is_raw_port};
use mesh_core::model::resource::{Listener, TlsServer};
use mesh_core::task::drain::Drain;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::detect::peek::{WAIT_MAX, peek};
use crate::detect::verdict::Detected;
use crate::error::{ProxyError, chain};
use crate::http::client::Client;
use crate::http::server::{Served, serve_h1, serve_h2};
use crate::identity::rotate::SharedTls;
use crate::listen::stream::ClientStream;
use crate::metrics::ConnectionEnd;
use crate::outbound::{self, Worker, raw};
use crate::upstream::connect::{Origin, tune};
use crate::upstream::pool_h2::LocalExecutor;

/// A connection that was just accepted.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub listener: Arc<str>,
    pub origin: Origin,
    /// Begins when its listener goes away, or the proxy ends.
    pub drain: Drain,
    /// Held until it is over.
    pub held: Drain,
}

/// Carries one connection to its end.
pub async fn serve(worker: Rc<Worker>, tls: SharedTls, accepted: Accepted) {
    worker.metrics.connections_accepted.increase();
    worker.metrics.connections_active.increase();
    let peer = accepted.peer;
    let end = carry(&worker, &tls, accepted).await;
    tracing::trace!(%peer, end = end.as_str(), "a connection ended");
    worker.metrics.ended(end);
    worker.metrics.connections_active.decrease();
}

async fn carry(worker: &Rc<Worker>, tls: &SharedTls, accepted: Accepted) -> ConnectionEnd {
    // Who is it. A listener that went away in between takes nobody any more.
    let Accepted { stream, peer, listener, origin, drain, held } = accepted;
    tune(&stream);
    let local = worker.state.current();
    let Some(listener) = local.view.listener(&listener).map(Arc::clone) else { return ConnectionEnd::Drained };
    let dialled = stream.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    drop(local);
    let client =
        |tls| Rc::new(Client::new(peer, dialled, tls, Arc::clone(&listener.name), listener.limits, held.clone()));

    // TLS, where the listener wants it; the handshake settles the protocol.
    if let Some(wanted) = &listener.tls {
        let Some(stream) = handshake(worker, tls, wanted, stream, peer, listener.limits.header_timeout).await else {
            return ConnectionEnd::TlsFailed;
        };
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = ClientStream::tls(stream);
        return match listener.protocol {
            ListenProtocol::Tcp => raw_until_end(worker, client(true), origin, stream, drain).await,
            _ if http2 => http(worker, client(true), origin, stream, drain, true).await,
            _ => http(worker, client(true), origin, stream, drain, false).await,
        };
    }

    // Which protocol: as declared, or from the first bytes. What was read is put back.
    let (detected, stream) = match protocol(worker, &listener, dialled, stream).await {
        Ok(found) => found,
        Err(end) => return end,
    };
    match detected {
        Detected::Http1 => http(worker, client(false), origin, stream, drain, false).await,
        Detected::Http2 => http(worker, client(false), origin, stream, drain, true).await,
        Detected::Tls | Detected::Raw => raw_until_end(worker, client(false), origin, stream, drain).await,
    }
}

async fn handshake(
    worker: &Worker,
    shared: &SharedTls,
    wanted: &TlsServer,
    stream: TcpStream,
    peer: SocketAddr,
    timeout: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let failed = |error: &str| {
        worker.metrics.tls_handshake_failures.increase();
        tracing::info!(%peer, error, certificate = %wanted.certificate.display(), "a TLS handshake failed");
        None
    };
    let config: Option<Arc<ServerConfig>> =
        shared.load().iter().find(|(tls, _)| tls == wanted).map(|(_, config)| Arc::clone(config));
    let Some(config) = config else { return failed("its certificate cannot be used") };
    match tokio::time::timeout(timeout, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => {
            worker.metrics.tls_handshakes.increase();
            Some(stream)
        }
        Ok(Err(error)) => failed(&error.to_string()),
        Err(_) => failed("it took too long"),
    }
}

/// What the client speaks. On a listener for HTTP only h2 is told from HTTP/1.1, and all the time for a head is given.
async fn protocol(
    worker: &Worker,
    listener: &Listener,
    dialled: SocketAddr,
    mut stream: TcpStream,
) -> Result<(Detected, ClientStream), ConnectionEnd> {
    let wait = match listener.protocol {
        ListenProtocol::Tcp => return Ok((Detected::Raw, ClientStream::plain(stream, Bytes::new()))),
        ListenProtocol::Auto if is_raw_port(dialled.port()) => {
            return Ok((Detected::Raw, ClientStream::plain(stream, Bytes::new())));
        }
        ListenProtocol::Auto => WAIT_MAX,
        ListenProtocol::Http => listener.limits.idle_timeout,
    };
    let Ok(peeked) = peek(&mut stream, wait).await else { return Err(ConnectionEnd::Closed) };
    let detected = match (listener.protocol, peeked.detected) {
        (ListenProtocol::Http, _) if peeked.timed_out && peeked.bytes.is_empty() => return Err(ConnectionEnd::Idle),
        (ListenProtocol::Http, Detected::Http2) => Detected::Http2,
        (ListenProtocol::Http, _) => Detected::Http1,
        (_, detected) => detected,
    };
    if peeked.timed_out {
        worker.metrics.detect_timeouts.increase();
    }
    Ok((detected, ClientStream::plain(stream, peeked.bytes)))
}

async fn http(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    origin: Origin,
    stream: ClientStream,
    drain: Drain,
    http2: bool,
) -> ConnectionEnd {
    let caller = origin.clone();
    let answer = {
        let (worker, client) = (Rc::clone(worker), Rc::clone(&client));
        service_fn(move |request: Request<Incoming>| {
            let answered = outbound::answer(Rc::clone(&worker), Rc::clone(&client), origin.clone(), request);
            async move { Ok::<_, Infallible>(answered.await) }
        })
    };
    let served = if http2 {
        serve_h2(stream, Rc::clone(&client), drain, answer, LocalExecutor).await
    } else {
        serve_h1(stream, Rc::clone(&client), drain, answer).await
    };
    match served {
        Served::Closed => ConnectionEnd::Closed,
        Served::Drained => ConnectionEnd::Drained,
        Served::Idle => ConnectionEnd::Idle,
        Served::HeaderTimeout => {
            outbound::unheard(worker, &client, &caller, &ProxyError::HeaderTimeout);
            ConnectionEnd::HeaderTimeout
        }
        Served::Broken(error) => {
            tracing::debug!(peer = %client.peer, error = %chain(&error), "a connection broke off");
            if !error.is_parse() {
                return ConnectionEnd::Closed;
            }
            // hyper has answered it already, with 400, 414 or 431.
            outbound::unheard(worker, &client, &caller, &ProxyError::BadMessage { source: error });
            ConnectionEnd::BadRequest
        }
    }
}

/// Raw connections go on while the proxy drains, until they end or the time is up.
async fn raw_until_end(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    origin: Origin,
    stream: ClientStream,
    drain: Drain,
) -> ConnectionEnd {
    let carried = raw::carry(Rc::clone(worker), client, origin, stream);
    carried.await;
    if drain.is_draining() { ConnectionEnd::Drained } else { ConnectionEnd::Closed }
}
