//! Where one try goes, and on what: the endpoint that the balancer picks, and a connection to it that is there or may be opened.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::names::EndpointId;
use mesh_core::model::protocol::UpstreamProtocol;
use tokio::sync::Notify;

use super::way::Exact;
use super::{Walk, Worker, acquire};
use crate::endpoint::LiveEndpoint;
use crate::error::ProxyError;
use crate::resilience::breaker::{Limit, Permit};
use crate::resilience::places::Place;
use crate::state::local::LocalCluster;
use crate::upstream::h1::H1Connection;
use crate::upstream::pool_h1::PoolKey;
use crate::upstream::pool_h2::{Checkout, Connecting, H2Stream};

/// Where one try goes.
pub(super) struct Chosen {
    pub(super) endpoint: Arc<LiveEndpoint>,
    pub(super) address: SocketAddr,
    /// Nobody else may take it.
    pub(super) is_only: bool,
    pub(super) carrier: Carrier,
}

/// What it goes on.
pub(super) enum Carrier {
    Ready(Ready),
    Yet(Box<Yet>),
}

/// It is there.
pub(super) enum Ready {
    H1(Box<H1Connection>),
    H2(H2Stream),
}

/// It is still to be opened.
pub(super) enum Yet {
    H1(Opening),
    H2(Connecting, Opening),
    /// Somebody else is connecting there.
    Await(Rc<Notify>),
}

/// What it takes to open a connection.
pub(super) struct Opening {
    pub(super) place: Place,
    /// Counted as waiting until it is open.
    pub(super) _pending: Permit,
}

/// Looks for an endpoint and something to go on. None where all connections are in use. `tried` gets those that cannot be reached at all;
/// `fresh`: on a new connection, since old ones have just turned out to be dead; `pending` is held already by whoever has waited.
pub(super) fn find(
    walk: &Walk,
    cluster: &LocalCluster,
    tried: &mut Vec<EndpointId>,
    fresh: bool,
    pending: &mut Option<Permit>,
) -> Result<Option<Chosen>, ProxyError> {
    // Endpoints whose connections are in use.
    let mut full: Vec<EndpointId> = Vec::new();
    loop {
        let avoided = if full.is_empty() { &*tried } else { &full };
        let (endpoint, address, is_only) = pick_for(walk, cluster, avoided, Instant::now())?;
        let Some(address) = address else {
            if !full.is_empty() {
                return Ok(None);
            }
            let unreachable = ProxyError::NoSharedNetwork { endpoint: Arc::clone(&endpoint.id().unit) };
            if tried.contains(endpoint.id()) {
                return Err(unreachable);
            }
            tried.push(endpoint.id().clone());
            continue;
        };
        let key = PoolKey::new(walk.way.origin.id, &endpoint, address);
        if let Some(carrier) = carrier(walk, cluster, &key, fresh, pending)? {
            return Ok(Some(Chosen { endpoint, address, is_only, carrier }));
        }
        // Another endpoint may have a connection with room for one more stream. Connections that carry one exchange each are in use
        // wherever they lead to.
        if is_only || walk.protocol != UpstreamProtocol::Http2 {
            return Ok(None);
        }
        if full.is_empty() {
            full.clone_from(tried);
        }
        if full.contains(endpoint.id()) {
            return Ok(None);
        }
        full.push(endpoint.id().clone());
    }
}

type Picked = (Arc<LiveEndpoint>, Option<SocketAddr>, bool);

/// An endpoint, its address where it has a network in common with the caller, and whether nobody else may take it. None at all is
/// told as such only before anything was tried.
fn pick_for(walk: &Walk, cluster: &LocalCluster, tried: &[EndpointId], now: Instant) -> Result<Picked, ProxyError> {
    let only = |Exact { endpoint, address }: Exact| (endpoint, Some(address), true);
    if let Some(exact) = &walk.exact {
        return Ok(only(exact.clone()));
    }
    match pick(cluster, tried, now) {
        Ok(endpoint) => {
            let address = walk.way.origin.address_of(&endpoint.target);
            Ok((endpoint, address, false))
        }
        Err(error) => walk.way.last_resort(&cluster.live).map(only).ok_or(error),
    }
}

/// The endpoint for one try, not one tried before if there is another.
pub(super) fn pick(
    cluster: &LocalCluster,
    tried: &[EndpointId],
    now: Instant,
) -> Result<Arc<LiveEndpoint>, ProxyError> {
    let picked = cluster.balancer.borrow_mut().pick(&cluster.live, tried, now).map(|pick| Arc::clone(pick.endpoint));
    picked.map_err(|why| ProxyError::NoHealthyUpstream { cluster: Arc::clone(cluster.live.name()), why })
}

fn carrier(
    walk: &Walk,
    cluster: &LocalCluster,
    key: &PoolKey,
    fresh: bool,
    pending: &mut Option<Permit>,
) -> Result<Option<Carrier>, ProxyError> {
    let worker = &walk.worker;
    let yet = match walk.protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream => {
            if !fresh && let Some(connection) = worker.pool_h1.take(key) {
                return Ok(Some(Carrier::Ready(Ready::H1(connection))));
            }
            opening(worker, cluster, pending)?.map(Yet::H1)
        }
        UpstreamProtocol::Http2 => match worker.pool_h2.checkout(key) {
            Checkout::Stream(stream) => return Ok(Some(Carrier::Ready(Ready::H2(stream)))),
            Checkout::Wait(opened) => Some(Yet::Await(opened)),
            Checkout::Connect(connecting) => {
                opening(worker, cluster, pending)?.map(|opening| Yet::H2(connecting, opening))
            }
        },
    };
    Ok(yet.map(|yet| Carrier::Yet(Box::new(yet))))
}

/// What it takes to open one more connection; none where as many are open as may be.
pub(super) fn opening(
    worker: &Worker,
    cluster: &LocalCluster,
    pending: &mut Option<Permit>,
) -> Result<Option<Opening>, ProxyError> {
    let Some(place) = place(worker, cluster) else { return Ok(None) };
    let pending = match pending.take() {
        Some(pending) => pending,
        None => acquire(cluster, Limit::Pending)?,
    };
    Ok(Some(Opening { place, _pending: pending }))
}

/// A place among the cluster's connections; an idle one of this worker gives up its own if there is none left.
pub(super) fn place(worker: &Worker, cluster: &LocalCluster) -> Option<Place> {
    let stats = cluster.live.stats();
    cluster.places.take(&cluster.live, || worker.pool_h1.evict(stats) || worker.pool_h2.evict(stats))
}

/// As many connections are open as may be.
pub(super) fn full(cluster: &LocalCluster) -> ProxyError {
    let (limit, name) = (Limit::Connections, Arc::clone(cluster.live.name()));
    ProxyError::Overflow { cluster: name, limit, max: limit.max(&cluster.live.policy().circuit) }
}
