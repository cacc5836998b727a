//! Waiting for a connection, where as many are open as the cluster's circuit allows and all are in use: in line with all others of this
//! worker, until it is one's turn, or one's deadline, or whoever asked has gone.
//!
//! Who waits is counted as pending, and no longer among the requests under way; beyond `max_pending` nobody waits. Nothing is held
//! while waiting, so that the endpoint is picked once it is known that there is something to go on, from those there are then.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mesh_core::model::names::EndpointId;
use mesh_core::model::protocol::UpstreamProtocol;
use tokio::time::Sleep;

use super::choice::{Chosen, find, place};
use super::record::Record;
use super::{Walk, Worker, acquire};
use crate::error::ProxyError;
use crate::metrics::ClusterMetrics;
use crate::resilience::breaker::{self, Limit, Permit};
use crate::resilience::line::{Class, Ticket, Turn};
use crate::resilience::places::{Place, Places};
use crate::resilience::timeout::Deadlines;
use crate::state::local::LocalCluster;

/// What another worker gives back calls nobody here: so often the next in line looks by itself.
const LOOK_EVERY: Duration = Duration::from_millis(8);

/// One in line. Whoever is behind is called when it goes, for whatever reason.
struct Waiting {
    places: Rc<Places>,
    ticket: Ticket,
    began: Instant,
    metrics: Rc<ClusterMetrics>,
    /// Only who is next has one.
    look: Option<Pin<Box<Sleep>>>,
}

/// A request waits until it has something to go on; where to, is decided then. `cluster` is as it stands then, too.
pub(super) async fn wait(
    walk: &Walk,
    cluster: &mut Rc<LocalCluster>,
    tried: &mut Vec<EndpointId>,
    fresh: bool,
    record: &mut Record,
) -> Result<Chosen, ProxyError> {
    let mut pending = Some(acquire(cluster, Limit::Pending)?);
    record.waits(Instant::now());
    let class = match walk.protocol {
        UpstreamProtocol::Http2 => {
            Class::Stream { origin: walk.way.origin.id, only: walk.exact.as_ref().map(|exact| exact.address) }
        }
        UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream => Class::Connection,
    };
    let mut waiting = Waiting::join(cluster, class);
    loop {
        waiting.turn().await;
        // Whoever gave its connection up may have done so for a deadline that is this one's, too: nothing is begun behind it.
        if walk.deadlines.expired(Instant::now()) {
            return Err(too_long(cluster, waiting.began.elapsed()));
        }
        *cluster = newest(&walk.worker, cluster)?;
        // A connection comes free a little before the request that had it is over.
        let Ok(request) = breaker::acquire(&cluster.live, Limit::Requests) else { continue };
        if let Some(chosen) = find(walk, cluster, tried, fresh, &mut pending)? {
            record.hold(Some(request));
            return Ok(chosen);
        }
    }
}

/// A place for a raw connection, waited for as long as a connect may take. Its client is not told anything meanwhile.
pub(super) async fn wait_for_place(
    worker: &Worker,
    cluster: &mut Rc<LocalCluster>,
) -> Result<(Place, Option<Permit>), ProxyError> {
    if !cluster.places.anyone_waits()
        && let Some(place) = place(worker, cluster)
    {
        return Ok((place, None));
    }
    let pending = acquire(cluster, Limit::Pending)?;
    let began = Instant::now();
    let until = Deadlines::new(cluster.live.policy(), began).connect(began);
    let mut waiting = Waiting::join(cluster, Class::Connection);
    loop {
        if tokio::time::timeout_at(until.into(), waiting.turn()).await.is_err() {
            return Err(too_long(cluster, began.elapsed()));
        }
        *cluster = newest(worker, cluster)?;
        if let Some(place) = place(worker, cluster) {
            return Ok((place, Some(pending)));
        }
    }
}

/// Nothing came free in time.
pub(super) fn too_long(cluster: &LocalCluster, after: Duration) -> ProxyError {
    let (name, stats) = (Arc::clone(cluster.live.name()), cluster.live.stats());
    ProxyError::PendingTimeout {
        cluster: name,
        after,
        connections: stats.connections(),
        max: Limit::Connections.max(&cluster.live.policy().circuit),
    }
}

/// The cluster as it stands by now: endpoints may have left, and limits may have changed.
fn newest(worker: &Worker, cluster: &LocalCluster) -> Result<Rc<LocalCluster>, ProxyError> {
    let name = cluster.live.name();
    let newest = worker.state.current().clusters.get(name).map(Rc::clone);
    newest.ok_or_else(|| ProxyError::UnknownCluster { cluster: Arc::clone(name) })
}

impl Waiting {
    fn join(cluster: &LocalCluster, class: Class) -> Self {
        let (places, metrics) = (Rc::clone(&cluster.places), Rc::clone(&cluster.metrics));
        metrics.counts.overflowed(Limit::Connections);
        let ticket = places.join(class);
        Self { places, ticket, began: Instant::now(), metrics, look: None }
    }

    /// Until it is worth looking.
    async fn turn(&mut self) {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await;
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self.places.turn(self.ticket, cx) {
            Turn::Called => true,
            Turn::Behind => false,
            Turn::Next => {
                let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
                look.as_mut().poll(cx).is_ready()
            }
        };
        if ready {
            self.look = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.leave(self.ticket);
        self.metrics.counts.waited(self.began.elapsed());
    }
}
