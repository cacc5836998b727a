//! Stage 4 of a request's walk, the composer of what a connection passes through: who is it → where was it going → may it come in → TLS →
//! which protocol → HTTP or bytes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::model::names::ServiceId;
use mesh_core::model::protocol::{ListenProtocol, is_raw_port};
use mesh_core::model::resource::{Limits, Listener, ProxyProtocol, TlsServer};
use mesh_core::task::drain::Drain;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::detect::peek::{peek, peek_http};
use crate::detect::verdict::{Detected, asks_a_proxy};
use crate::error::{ProxyError, chain};
use crate::h2::{ConnectionError, Refused};
use crate::http::asked::Asked;
use crate::http::client::Client;
use crate::http::forwarded::Forwarding;
use crate::http::server_h1::{self, serve_h1};
use crate::http::server_h2::{self, serve_h2};
use crate::identity::handshake::{self, HandshakeError};
use crate::identity::rotate::SharedTls;
use crate::intercept::original_dst::original_destination;
use crate::listen::limits::Admission;
use crate::listen::proxied;
use crate::listen::proxy_protocol::Said;
use crate::listen::spread::Place;
use crate::listen::stream::ClientStream;
use crate::metrics::{ConnectionEnd, Spoken};
use crate::outbound::way::{self, Toward, Way};
use crate::outbound::{self, Told, Worker, raw};
use crate::route::dialled::{CallerView, Destination};
use crate::upstream::connect::Origin;

/// Whose connections arrive at a socket, and what is to become of them.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// Those of the listener of this name.
    Listener { name: Arc<str>, origin: Origin },
    /// Connections that were redirected to us inside a network namespace. What is known about their caller may change.
    Captured(watch::Receiver<Caller>),
}

/// Who calls from a captured namespace.
#[derive(Debug, Clone)]
pub struct Caller {
    pub origin: Origin,
    /// Its services: more than one where containers share the namespace.
    pub services: Arc<[ServiceId]>,
    /// False while nobody has said yet whose namespace it is.
    pub is_known: bool,
    /// Until then somebody may be about to say it.
    pub naming_until: Instant,
    /// Begins when the namespace is gone.
    pub gone: Drain,
}

/// A connection that was just accepted.
pub struct Accepted<S = TcpStream> {
    pub stream: S,
    pub peer: SocketAddr,
    pub entrance: Entrance,
    /// Where its place among those of its listener is taken.
    pub admission: Arc<Admission>,
    /// Its place among those of its worker; none where there is one worker.
    pub place: Option<Place>,
    /// Begins when its listener goes away, or the proxy ends.
    pub drain: Drain,
    /// Held until it is over.
    pub held: Drain,
}

/// What is known about a connection before anything is read of it.
struct Arrival {
    name: Arc<str>,
    /// None where there is none of its own.
    listener: Option<Arc<Listener>>,
    protocol: ListenProtocol,
    limits: Limits,
    /// What the client dialled.
    dialled: SocketAddr,
    way: Rc<Way>,
}

/// How long a connection out of a namespace that nobody has named waits for its name, as long as one may still come.
const NAMING_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long a connection to a container that is about to start waits until it is known what that is, and how often it looks. A start
/// takes some hundred milliseconds, on a busy machine a second or two.
const COMING_WAIT_MAX: Duration = Duration::from_secs(3);
const COMING_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Carries one connection to its end.
pub async fn serve(worker: Rc<Worker>, tls: SharedTls, accepted: Accepted) {
    worker.metrics.connections_accepted.increase();
    worker.metrics.connections_active.increase();
    let peer = accepted.peer;
    let end = match &accepted.entrance {
        Entrance::Listener { name, origin } => match arrive(&worker, &accepted.stream, name, origin) {
            Some(arrival) => carry(&worker, &tls, arrival, accepted).await,
            None => ConnectionEnd::Drained,
        },
        Entrance::Captured(caller) => {
            let (caller, gone) = (caller.clone(), caller.borrow().gone.clone());
            // In a box, so that those of listeners take no room for what they never are.
            let carried = Box::pin(carry_captured(&worker, &tls, accepted, caller));
            tokio::select! {
                end = carried => end,
                () = way::gone(Some(gone)) => ConnectionEnd::Closed,
            }
        }
    };
    tracing::trace!(%peer, end = end.as_str(), "a connection ended");
    worker.metrics.ended(end);
    worker.metrics.connections_active.decrease();
}

/// Who is it, and which listener. One that went away in between takes nobody any more.
fn arrive(worker: &Worker, stream: &TcpStream, listener: &Arc<str>, origin: &Origin) -> Option<Arrival> {
    let dialled = stream.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let local = worker.state.current();
    let listener = local.view.listener(listener)?;
    let way = Way { origin: origin.clone(), toward: Toward::Listener, gone: None };
    Some(Arrival::at(listener, dialled, way))
}

/// Who is it, and where was it going. A refusal is a reset: nothing was read that could be answered.
async fn carry_captured(
    worker: &Rc<Worker>,
    tls: &SharedTls,
    accepted: Accepted,
    mut caller: watch::Receiver<Caller>,
) -> ConnectionEnd {
    let dialled = match original_destination(&accepted.stream) {
        Ok(Some(dialled)) => dialled,
        // Somebody inside dialled our port itself.
        Ok(None) => return ConnectionEnd::Closed,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "where a redirected connection was going cannot be found out");
            return ConnectionEnd::Closed;
        }
    };
    // Whoever it is when the time is up is taken as it is.
    let until = caller.borrow().naming_until.min(Instant::now() + NAMING_WAIT_MAX);
    let _ = tokio::time::timeout_at(until, caller.wait_for(|caller| caller.is_known)).await;
    let Caller { origin, services, gone, .. } = caller.borrow().clone();
    drop(caller);
    let gone = Some(gone);
    let view = CallerView { services: &services, networks: &origin.networks };
    wait_for_coming(worker, dialled, view).await;
    let local = worker.state.current();
    let arrival = match local.view.book.look_up(dialled, view) {
        Destination::Virtual(name) => {
            let Some(listener) = local.view.listener(&name) else { return ConnectionEnd::Drained };
            Arrival::at(listener, dialled, Way { origin, toward: Toward::Listener, gone })
        }
        Destination::Endpoint(found) => {
            let protocol = found.protocol.listen();
            Arrival::behind(protocol, dialled, Way::to_endpoint(origin, found, gone))
        }
        // It never came.
        Destination::Elsewhere | Destination::Coming => {
            let toward = Toward::Elsewhere(dialled);
            Arrival::behind(ListenProtocol::Tcp, dialled, Way { origin, toward, gone })
        }
        Destination::Nobody => {
            let way = Way { origin, toward: Toward::Elsewhere(dialled), gone };
            let arrival = Arrival::behind(ListenProtocol::Tcp, dialled, way);
            let client = arrival.client(&accepted);
            let stream = ClientStream::plain(accepted.stream, Bytes::new());
            let error = ProxyError::Nobody { address: dialled };
            raw::refuse(worker, &client, &arrival.way, &stream, &error);
            return ConnectionEnd::Closed;
        }
    };
    drop(local);
    carry(worker, tls, arrival, accepted).await
}

/// As long as what was dialled is about to start. Carried before that is known, its calls would stay with it alone.
async fn wait_for_coming(worker: &Worker, dialled: SocketAddr, caller: CallerView<'_>) {
    let is_coming = || matches!(worker.state.current().view.book.look_up(dialled, caller), Destination::Coming);
    let until = Instant::now() + COMING_WAIT_MAX;
    while is_coming() && Instant::now() < until {
        tokio::time::sleep(COMING_LOOK_EVERY).await;
    }
}

impl Arrival {
    fn at(listener: &Arc<Listener>, dialled: SocketAddr, way: Way) -> Self {
        let Listener { protocol, limits, .. } = **listener;
        let (name, listener) = (Arc::clone(&listener.name), Some(Arc::clone(listener)));
        Self { name, listener, protocol, limits, dialled, way: Rc::new(way) }
    }

    /// Behind no listener of its own.
    fn behind(protocol: ListenProtocol, dialled: SocketAddr, way: Way) -> Self {
        let (name, limits) = (Arc::from("captured"), Limits::default());
        Self { name, listener: None, protocol, limits, dialled, way: Rc::new(way) }
    }

    fn tls(&self) -> Option<&TlsServer> {
        self.listener.as_ref()?.tls.as_ref()
    }

    fn client(&self, accepted: &Accepted) -> Rc<Client> {
        let (name, held) = (Arc::clone(&self.name), accepted.held.clone());
        let forwarding = match &self.listener {
            Some(listener) => Forwarding::of(&listener.forwarded_headers, accepted.peer.ip(), self.tls().is_some()),
            None => Forwarding::captured(),
        };
        Rc::new(Client::new(accepted.peer, self.dialled, forwarding, name, self.limits, held))
    }
}

async fn carry(worker: &Rc<Worker>, tls: &SharedTls, mut arrival: Arrival, mut accepted: Accepted) -> ConnectionEnd {
    // May it come in. Whoever is too much is closed at once: one that waits for a place might wait for ever.
    let max = arrival.limits.connections_max;
    let Some(_admitted) = accepted.admission.enter(max) else {
        if accepted.admission.tells_refusal(std::time::Instant::now()) {
            tracing::warn!(listener = %arrival.name, max_connections = max, "connections are refused: the listener is full");
        }
        refuse(worker, &arrival, &accepted, &ProxyError::TooManyConnections { max });
        return ConnectionEnd::TooMany;
    };

    // Whose is it, where somebody in between says so.
    let proxied = arrival.listener.as_ref().and_then(|listener| listener.proxy_protocol.as_ref());
    if let Some(proxied) = proxied {
        match said(&mut accepted, proxied, arrival.limits.handshake_timeout).await {
            Ok(Said::Client { source, destination }) => (accepted.peer, arrival.dialled) = (source, destination),
            Ok(Said::Itself) => {}
            Err(error) => {
                tracing::info!(peer = %accepted.peer, error = %chain(&error), "a connection is refused");
                refuse(worker, &arrival, &accepted, &error);
                return ConnectionEnd::ProxyProtocol;
            }
        }
    }
    let client = arrival.client(&accepted);
    let Accepted { stream, peer, drain, place: _place, .. } = accepted;

    // Which protocol: settled by the handshake where the listener wants TLS; else as declared, or from the first bytes. What was
    // read is put back.
    let (detected, stream) = match arrival.tls() {
        Some(wanted) => match shake_hands(worker, tls, wanted, &arrival, stream, peer).await {
            Ok(stream) => (agreed(arrival.protocol, &stream), ClientStream::tls(stream)),
            Err(source) => {
                let error = ProxyError::Handshake { source };
                outbound::unheard(worker, &client, &arrival.way, Spoken::Tcp, Told::Nothing, &error);
                return ConnectionEnd::TlsFailed;
            }
        },
        None => match protocol(worker, &arrival, stream).await {
            Ok(found) => found,
            Err(end) => return end,
        },
    };
    // In boxes: the rest of a connection's life takes no more room than its protocol needs.
    match detected {
        Detected::Http1 | Detected::Http2 => {
            let http2 = detected == Detected::Http2;
            Box::pin(http(worker, client, arrival.way, arrival.listener, stream, drain, http2)).await
        }
        Detected::Tls | Detected::Raw => Box::pin(raw_until_end(worker, client, arrival.way, stream, drain)).await,
    }
}

/// What is spoken inside of TLS. Bytes are the two ends' own business.
fn agreed(protocol: ListenProtocol, stream: &TlsStream<TcpStream>) -> Detected {
    match (protocol, stream.get_ref().1.alpn_protocol()) {
        (ListenProtocol::Tcp, _) => Detected::Raw,
        (_, Some(b"h2")) => Detected::Http2,
        (_, _) => Detected::Http1,
    }
}

/// Counts a connection that is closed before anything is read of it that could be answered.
fn refuse(worker: &Rc<Worker>, arrival: &Arrival, accepted: &Accepted, error: &ProxyError) {
    outbound::unheard(worker, &arrival.client(accepted), &arrival.way, Spoken::Tcp, Told::Nothing, error);
}

/// What somebody in between says of a connection.
async fn said(accepted: &mut Accepted, proxied: &ProxyProtocol, timeout: Duration) -> Result<Said, ProxyError> {
    let by = accepted.peer.ip().to_canonical();
    if !proxied.trusted.iter().any(|network| network.contains(&by)) {
        return Err(ProxyError::Untrusted { by });
    }
    proxied::read(&mut accepted.stream, timeout).await.map_err(|source| ProxyError::Unproxied { source })
}

async fn shake_hands(
    worker: &Worker,
    shared: &SharedTls,
    wanted: &TlsServer,
    arrival: &Arrival,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let configs = shared.load();
    let found = configs.iter().find(|(one, _)| one.is_by(arrival.protocol, wanted));
    let config: Option<Arc<ServerConfig>> = found.map(|(_, config)| Arc::clone(config));
    drop(configs);
    let shaken = match config {
        // In a box, so that what only a handshake needs is not held by the connection for its whole life.
        Some(config) => Box::pin(handshake::accept(stream, config, arrival.limits.handshake_timeout)).await,
        None => Err(HandshakeError::no_config()),
    };
    match &shaken {
        Ok(_) => worker.metrics.tls_handshakes.increase(),
        Err(error) => {
            worker.metrics.handshake_failed(error.why);
            let (listener, server_name) = (&arrival.name, error.server_name.as_deref().unwrap_or("-"));
            tracing::info!(%peer, %listener, server_name, why = error.why.as_str(), %error, "a TLS handshake failed");
        }
    }
    shaken
}

/// What the client speaks. On a listener for HTTP only h2 is told from HTTP/1.1, and all the time for a head is given.
async fn protocol(
    worker: &Worker,
    arrival: &Arrival,
    mut stream: TcpStream,
) -> Result<(Detected, ClientStream), ConnectionEnd> {
    let limits = &arrival.limits;
    // In boxes, as the handshake is.
    let peeked = match arrival.protocol {
        ListenProtocol::Tcp => return Ok((Detected::Raw, ClientStream::plain(stream, Bytes::new()))),
        ListenProtocol::Auto if is_raw_port(arrival.dialled.port()) => {
            return Ok((Detected::Raw, ClientStream::plain(stream, Bytes::new())));
        }
        ListenProtocol::Auto => {
            let wait = arrival.listener.as_ref().map_or(Listener::DETECT_TIMEOUT, |one| one.detect_timeout);
            Box::pin(peek(&mut stream, wait)).await
        }
        ListenProtocol::Http => Box::pin(peek_http(&mut stream, limits.idle_timeout, limits.header_timeout)).await,
    };
    let Ok(peeked) = peeked else { return Err(ConnectionEnd::Closed) };
    let detected = match (arrival.protocol, peeked.detected) {
        (ListenProtocol::Http, _) if peeked.timed_out && peeked.bytes.is_empty() => return Err(ConnectionEnd::Idle),
        (ListenProtocol::Http, Detected::Http2) => Detected::Http2,
        (ListenProtocol::Http, _) => Detected::Http1,
        (_, detected) => detected,
    };
    let is_for_a_proxy = matches!(arrival.way.toward, Toward::Endpoint { .. }) && asks_a_proxy(&peeked.bytes);
    let detected = if detected == Detected::Http1 && is_for_a_proxy { Detected::Raw } else { detected };
    if peeked.timed_out {
        worker.metrics.detect_timeouts.increase();
    }
    Ok((detected, ClientStream::plain(stream, peeked.bytes).begun_at(peeked.began.map(Into::into))))
}

async fn http(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    listener: Option<Arc<Listener>>,
    stream: ClientStream,
    drain: Drain,
    http2: bool,
) -> ConnectionEnd {
    let answer = {
        let (worker, client, way) = (Rc::clone(worker), Rc::clone(&client), Rc::clone(&way));
        move |asked: Asked| outbound::answer(Rc::clone(&worker), Rc::clone(&client), Rc::clone(&way), asked)
    };
    if http2 {
        let refused = |refused: Refused| {
            if let Some(limit) = refused.limit() {
                worker.metrics.h2_limit_reached(limit);
            }
            let (told, error) = match refused {
                Refused::Head(source) => (Told::Status, ProxyError::BadStream { source }),
                Refused::Full => (Told::Nothing, ProxyError::TooManyStreams),
            };
            outbound::unheard(worker, &client, &way, Spoken::Http2, told, &error);
        };
        return match serve_h2(stream, Rc::clone(&client), listener, drain, answer, refused).await {
            server_h2::Served::Closed => ConnectionEnd::Closed,
            server_h2::Served::Idle => ConnectionEnd::Idle,
            server_h2::Served::Drained => ConnectionEnd::Drained,
            server_h2::Served::Broken(error) => {
                tracing::debug!(peer = %client.peer, error = %chain(&error), "a connection broke off");
                ConnectionEnd::Closed
            }
            server_h2::Served::Failed(source) => {
                if let ConnectionError::Flood { limit } = source {
                    worker.metrics.h2_limit_reached(limit);
                }
                let error = ProxyError::BadConnection { source };
                tracing::debug!(peer = %client.peer, error = %chain(&error), "an h2 connection was given up");
                outbound::unheard(worker, &client, &way, Spoken::Http2, Told::Nothing, &error);
                match source {
                    ConnectionError::SlowHead => ConnectionEnd::HeaderTimeout,
                    ConnectionError::Silent => ConnectionEnd::Closed,
                    ConnectionError::Flood { .. }
                    | ConnectionError::Protocol { .. }
                    | ConnectionError::Hpack { .. } => ConnectionEnd::BadRequest,
                }
            }
        };
    }
    match serve_h1(stream, Rc::clone(&client), drain, answer, |limit| worker.metrics.h1_limit_reached(limit)).await {
        server_h1::Served::Closed => ConnectionEnd::Closed,
        server_h1::Served::Idle => ConnectionEnd::Idle,
        server_h1::Served::Drained => ConnectionEnd::Drained,
        server_h1::Served::Broken(broken) => {
            tracing::debug!(peer = %client.peer, error = %chain(&broken), "a connection broke off");
            ConnectionEnd::Closed
        }
        server_h1::Served::Refused(error) => {
            tracing::debug!(peer = %client.peer, error = %chain(&error), "a request was refused before it was one");
            outbound::unheard(worker, &client, &way, Spoken::Http1, Told::Status, &error);
            if matches!(error, ProxyError::HeaderTimeout) {
                ConnectionEnd::HeaderTimeout
            } else {
                ConnectionEnd::BadRequest
            }
        }
        server_h1::Served::Foreign(error) => {
            tracing::debug!(peer = %client.peer, error = %chain(&error), "a connection speaks another protocol");
            outbound::unheard(worker, &client, &way, Spoken::Http1, Told::Nothing, &error);
            ConnectionEnd::BadRequest
        }
        server_h1::Served::Switched(stream, switched) => {
            switched.run(stream).await;
            ConnectionEnd::Closed
        }
    }
}

/// Raw connections go on while the proxy drains, until they end or the time is up.
async fn raw_until_end(
    worker: &Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    stream: ClientStream,
    drain: Drain,
) -> ConnectionEnd {
    let carried = raw::carry(Rc::clone(worker), client, way, stream);
    carried.await;
    if drain.is_draining() { ConnectionEnd::Drained } else { ConnectionEnd::Closed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_takes_little_room_of_its_own() {
        // What its protocol needs lies in a box beside it.
        let bytes = room(serve);
        assert!(bytes <= 2048, "{bytes} bytes");
    }
}
