//! One try: a connection to the endpoint that was picked, reused or new, and the exchange on it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::protocol::UpstreamProtocol;
use tokio::net::TcpStream;

use super::{Walk, Worker, acquire};
use crate::endpoint::LiveEndpoint;
use crate::error::ProxyError;
use crate::http::{grpc, headers};
use crate::message::ResponseHead;
use crate::message::name::Name;
use crate::resilience::breaker::{Limit, Permit};
use crate::resilience::timeout::Deadlines;
use crate::state::local::LocalCluster;
use crate::upstream::connect::{self, Origin};
use crate::upstream::h1::{ExchangeError, H1Connection};
use crate::upstream::pool_h1::PoolKey;
use crate::upstream::pool_h2::{Checkout, H2Stream};
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

/// Sends the request to `endpoint` and waits for the response head. `fresh`: on a new connection, since old ones have just
/// turned out to be dead.
pub(super) async fn run(
    walk: &Walk,
    endpoint: &Arc<LiveEndpoint>,
    address: SocketAddr,
    fresh: bool,
) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    let key = PoolKey::new(walk.way.origin.id, endpoint, address);
    match walk.protocol {
        UpstreamProtocol::Http2 => over_h2(walk, endpoint, &key).await,
        UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream => over_h1(walk, endpoint, key, fresh).await,
    }
}

async fn over_h1(
    walk: &Walk,
    endpoint: &Arc<LiveEndpoint>,
    key: PoolKey,
    fresh: bool,
) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    let pooled = if fresh { None } else { walk.worker.pool_h1.take(&key) };
    let connection = match pooled {
        Some(connection) => connection,
        None => open_h1(walk, endpoint, key).await?,
    };
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

async fn open_h1(walk: &Walk, endpoint: &Arc<LiveEndpoint>, key: PoolKey) -> Result<Box<H1Connection>, ProxyError> {
    let _pending = walk.acquire(Limit::Pending)?;
    let permit = connection_permit(&walk.worker, &walk.cluster)?;
    let stream = dial(&walk.cluster, &walk.way.origin, key.address(), &walk.deadlines).await?;
    Ok(H1Connection::new(key, endpoint, stream, permit))
}

async fn over_h2(
    walk: &Walk,
    endpoint: &Arc<LiveEndpoint>,
    key: &PoolKey,
) -> Result<(ResponseHead, UpstreamBody), FailedTry> {
    let address = key.address();
    let stream = stream_h2(walk, endpoint, key).await?;
    if walk.upgrade.is_some() {
        // In a box, as below.
        Box::pin(tunnels(walk, address, &stream)).await?;
    }
    let reused = stream.reused();
    let silent = walk.client.limits.body_idle_timeout;
    let patience = Patience { stalled: Some(silent).filter(|_| !grpc::is_grpc(&walk.head.fields)), silent };
    let exchange = exchange_h2(stream, address, &walk.head, walk.body.attempt(), patience, tell_interim(walk));
    exchange.await.map_err(|failed| FailedTry::of(failed, reused))
}

/// An endpoint that opens no tunnels is not asked for one (RFC 8441 section 3). A new connection is waited for until it has said so.
async fn tunnels(walk: &Walk, address: SocketAddr, stream: &H2Stream) -> Result<(), ProxyError> {
    let began = Instant::now();
    let said = tokio::time::timeout_at(walk.deadlines.connect(began).into(), stream.opens_tunnels()).await;
    match said {
        Ok(true) => Ok(()),
        Ok(false) => Err(ProxyError::TunnelUnsupported { address }),
        Err(_) => Err(ProxyError::ConnectTimeout { address, after: began.elapsed() }),
    }
}

/// A stream on a connection that has room; if there is none, on a new one, which only one request at a time opens.
async fn stream_h2(walk: &Walk, endpoint: &Arc<LiveEndpoint>, key: &PoolKey) -> Result<H2Stream, ProxyError> {
    // Those who wait for one connection give up together.
    let began = Instant::now();
    let until = walk.deadlines.connect(began);
    loop {
        match walk.worker.pool_h2.checkout(key) {
            Checkout::Stream(stream) => return Ok(stream),
            Checkout::Wait(opened) => {
                let opened = opened.notified();
                let _pending = walk.acquire(Limit::Pending)?;
                let (address, after) = (key.address(), began.elapsed());
                let waited = tokio::time::timeout_at(until.into(), opened).await;
                waited.map_err(|_| ProxyError::ConnectTimeout { address, after })?;
            }
            Checkout::Connect(connecting) => {
                let _pending = walk.acquire(Limit::Pending)?;
                let permit = connection_permit(&walk.worker, &walk.cluster)?;
                let stream = dial(&walk.cluster, &walk.way.origin, key.address(), &walk.deadlines).await?;
                return Ok(connecting.opened(endpoint, stream, permit));
            }
        }
    }
}

/// A place among the cluster's connections; an idle one of this worker gives up its own if there is none left.
pub(super) fn connection_permit(worker: &Worker, cluster: &LocalCluster) -> Result<Permit, ProxyError> {
    acquire(cluster, Limit::Connections).or_else(|refused| {
        if worker.pool_h1.evict(cluster.live.stats()) { acquire(cluster, Limit::Connections) } else { Err(refused) }
    })
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
