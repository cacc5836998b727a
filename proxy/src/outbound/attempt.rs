//! One try: a connection to the endpoint that was picked, reused or new, and the exchange on it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::choice::{self, Opening, Ready, Yet};
use super::{Walk, acquire};
use crate::endpoint::LiveEndpoint;
use crate::error::ProxyError;
use crate::http::{grpc, headers};
use crate::message::ResponseHead;
use crate::message::name::Name;
use crate::resilience::breaker::Limit;
use crate::resilience::timeout::Deadlines;
use crate::state::local::LocalCluster;
use crate::upstream::connect::{self, Origin};
use crate::upstream::h1::{ExchangeError, H1Connection};
use crate::upstream::pool_h1::PoolKey;
use crate::upstream::pool_h2::{Checkout, Connecting, H2Stream};
use crate::upstream::response_body::{Patience, UpstreamBody, exchange_h1, exchange_h2};

/// A failed try.
pub(super) struct FailedTry {
    pub(super) error: ProxyError,
    /// The connection had carried an exchange before.
    pub(super) reused: bool,
    pub(super) bytes_sent: bool,
    pub(super) response_begun: bool,
}

/// A failure before any byte of the request was sent.
impl From<ProxyError> for FailedTry {
    fn from(error: ProxyError) -> Self {
        Self { error, reused: false, bytes_sent: false, response_begun: false }
    }
}

/// Sends the request on what there is for it, and waits for the response head.
pub(super) async fn run(walk: &Walk, ready: Ready) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    match ready {
        Ready::H1(connection) => over_h1(walk, connection).await,
        Ready::H2(stream) => over_h2(walk, stream).await,
    }
}

async fn over_h1(walk: &Walk, connection: Box<H1Connection>) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    let reused = connection.reused();
    let pool = Rc::clone(&walk.worker.pool_h1);
    let idle_timeout = walk.client.limits.body_idle_timeout;
    let exchange = exchange_h1(connection, pool, &walk.head, walk.body.attempt(), idle_timeout, tell_interim(walk));
    exchange.await.map_err(|failed| FailedTry::of(failed, reused))
}

/// Passes interim responses on.
fn tell_interim(walk: &Walk) -> impl FnMut(ResponseHead) {
    |mut head| {
        headers::strip_hop_by_hop_of_response(&mut head.fields);
        // Nothing follows it (RFC 9110 section 8.6).
        head.fields.remove(Name::ContentLength);
        walk.interim.tell(&head);
    }
}

async fn over_h2(walk: &Walk, stream: H2Stream) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    if walk.upgrade.is_some() {
        // In a box: most requests are none, and shall not make room for it.
        Box::pin(tunnels(walk, &stream)).await?;
    }
    let reused = stream.reused();
    let silent = walk.client.limits.body_idle_timeout;
    let patience = Patience { stalled: Some(silent).filter(|_| !grpc::is_grpc(&walk.head.fields)), silent };
    let exchange = exchange_h2(stream, &walk.head, walk.body.attempt(), patience, tell_interim(walk));
    exchange.await.map_err(|failed| FailedTry::of(failed, reused))
}

/// An endpoint that opens no tunnels is not asked for one (RFC 8441 section 3). A new connection is waited for until it has said so.
async fn tunnels(walk: &Walk, stream: &H2Stream) -> Result<(), ProxyError> {
    let address = stream.address();
    let began = Instant::now();
    let said = tokio::time::timeout_at(walk.deadlines.connect(began).into(), stream.opens_tunnels()).await;
    match said {
        Ok(true) => Ok(()),
        Ok(false) => Err(ProxyError::TunnelUnsupported { address }),
        Err(_) => Err(ProxyError::ConnectTimeout { address, after: began.elapsed() }),
    }
}

/// Opens the connection for a try, or waits for whoever does.
pub(super) async fn open(
    walk: &Walk,
    cluster: &LocalCluster,
    endpoint: &LiveEndpoint,
    address: SocketAddr,
    yet: Yet,
) -> Result<Ready, ProxyError> {
    let key = PoolKey::new(walk.way.origin.id, endpoint, address);
    let dial = || dial(cluster, &walk.way.origin, address, &walk.deadlines);
    let (connecting, opening) = match yet {
        Yet::H1(Opening { place, _pending }) => {
            return Ok(Ready::H1(H1Connection::new(
                key,
                endpoint,
                dial().await?,
                place,
                cluster.live.policy().upstream,
            )));
        }
        Yet::H2(connecting, opening) => (connecting, opening),
        Yet::Await(opened) => match stream_h2(walk, cluster, &key, opened).await? {
            Stream::On(stream) => return Ok(Ready::H2(stream)),
            Stream::OnNew(connecting, opening) => (connecting, opening),
        },
    };
    let Opening { place, _pending } = opening;
    Ok(Ready::H2(connecting.opened(endpoint, dial().await?, place, cluster.live.policy().upstream)))
}

enum Stream {
    On(H2Stream),
    OnNew(Connecting, Opening),
}

/// A stream on the connection that somebody is opening; if it has no room left then, on a new one, which only one request at a time opens.
async fn stream_h2(
    walk: &Walk,
    cluster: &LocalCluster,
    key: &PoolKey,
    mut opened: Rc<Notify>,
) -> Result<Stream, ProxyError> {
    // Those who wait for one connection give up together.
    let began = Instant::now();
    let until = walk.deadlines.connect(began);
    loop {
        let mut pending = Some(acquire(cluster, Limit::Pending)?);
        let (address, after) = (key.address(), began.elapsed());
        let waited = tokio::time::timeout_at(until.into(), opened.notified()).await;
        waited.map_err(|_| ProxyError::ConnectTimeout { address, after })?;
        match walk.worker.pool_h2.checkout(key) {
            Checkout::Stream(stream) => return Ok(Stream::On(stream)),
            Checkout::Wait(other) => opened = other,
            Checkout::Connect(connecting) => {
                let opening = choice::opening(&walk.worker, cluster, &mut pending)?;
                let opening = opening.ok_or_else(|| choice::full(cluster))?;
                return Ok(Stream::OnNew(connecting, opening));
            }
        }
    }
}

/// A new connection, counted.
pub(super) async fn dial(
    cluster: &LocalCluster,
    origin: &Origin,
    address: SocketAddr,
    deadlines: &Deadlines,
) -> Result<TcpStream, ProxyError> {
    let counts = &cluster.metrics.counts;
    counts.connects.increase();
    // In a box: most requests need none, and shall not make room for it.
    let connecting = Box::pin(connect::connect(origin, address, deadlines.connect(Instant::now())));
    connecting.await.inspect_err(|_| counts.connect_failures.increase())
}

impl FailedTry {
    fn of(failed: ExchangeError, reused: bool) -> Self {
        let ExchangeError { error, bytes_sent, response_begun } = failed;
        Self { error, reused, bytes_sent, response_begun }
    }
}
