//! One client's stream: requests and snapshots in, responses out. It is polled by whoever writes the responses, so a client
//! that does not read is not served, and holds up nobody else; changes gather meanwhile, and nothing piles up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::{Stream, stream};
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use mesh_xds::server::{Flavor, Outcome, RequestError, Response, Session, Verdict};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::cache::Cache;
use super::clients::{CLIENTS_MAX, Clients, Connection, Introduction};
use super::metrics::{Metrics, OpenStream};
use super::node::ClientKind;

/// What all streams share.
#[derive(Debug)]
pub(super) struct Shared {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub cache: Cache,
    pub clients: Clients,
    pub metrics: Metrics,
    pub drain: Drain,
}

/// What differs between the two variants of the protocol.
pub(super) trait Variant: Send + 'static {
    const FLAVOR: Flavor;
    type Request: Send + Sync + 'static;
    type Response: Send + 'static;
    fn node(request: &Self::Request) -> Option<&Node>;
    fn request(session: &mut Session, request: &Self::Request) -> Result<Outcome, RequestError>;
    fn response(response: Response) -> Self::Response;
}

#[derive(Debug)]
pub(super) struct Delta;

impl Variant for Delta {
    const FLAVOR: Flavor = Flavor::Delta;
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(session: &mut Session, request: &Self::Request) -> Result<Outcome, RequestError> {
        session.delta_request(request)
    }

    fn response(response: Response) -> Self::Response {
        response.into_delta()
    }
}

#[derive(Debug)]
pub(super) struct StateOfTheWorld;

impl Variant for StateOfTheWorld {
    const FLAVOR: Flavor = Flavor::StateOfTheWorld;
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(session: &mut Session, request: &Self::Request) -> Result<Outcome, RequestError> {
        session.sotw_request(request)
    }

    fn response(response: Response) -> Self::Response {
        response.into_sotw()
    }
}

/// The responses to `requests`, for as long as the client stays.
pub(super) fn serve<V: Variant>(
    shared: Arc<Shared>,
    requests: Streaming<V::Request>,
    peer: Option<SocketAddr>,
) -> impl Stream<Item = Result<V::Response, Status>> {
    let client = Client::<V> {
        open: shared.metrics.open(V::FLAVOR),
        snapshots: shared.snapshots.clone(),
        drain: shared.drain.clone(),
        shared,
        requests,
        peer,
        met: None,
        outgoing: VecDeque::new(),
    };
    stream::unfold(Some(client), |client| async move {
        let mut client = client?;
        match client.next().await {
            Ok(Some(response)) => Some((Ok(V::response(response)), Some(client))),
            Ok(None) => None,
            // The last word on this stream.
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Client<V: Variant> {
    shared: Arc<Shared>,
    requests: Streaming<V::Request>,
    peer: Option<SocketAddr>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    drain: Drain,
    /// None until its first request, which says who it is.
    met: Option<Met>,
    outgoing: VecDeque<Response>,
    /// Counts it while it lives.
    #[expect(dead_code, reason = "held for its Drop")]
    open: OpenStream,
}

/// A client that said who it is.
struct Met {
    session: Session,
    kind: ClientKind,
    node: String,
    connection: Connection,
    snapshot: Arc<Snapshot>,
}

impl<V: Variant> Client<V> {
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        loop {
            if let Some(response) = self.outgoing.pop_front() {
                self.shared.metrics.sent(response.kind, response.resources.len());
                return Ok(Some(response));
            }
            tokio::select! {
                () = self.drain.started() => return Err(Status::unavailable("discovery is shutting down")),
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.request(&request).await?,
                    Ok(None) => return Ok(None),
                    Err(error) => {
                        tracing::debug!(%error, "an xDS stream ended");
                        return Ok(None);
                    }
                },
                changed = self.snapshots.changed(), if self.met.is_some() => match changed {
                    Ok(()) => self.catch_up(),
                    Err(_) => return Err(Status::unavailable("discovery is shutting down")),
                },
            }
        }
    }

    async fn request(&mut self, request: &V::Request) -> Result<(), Status> {
        if self.met.is_none() {
            self.met = Some(self.meet(V::node(request)).await?);
        }
        let Some(met) = &mut self.met else { return Ok(()) };
        match V::request(&mut met.session, request) {
            Ok(outcome) => {
                if let Some(verdict) = outcome.verdict {
                    tell(&self.shared.metrics, &met.node, &verdict);
                }
                self.outgoing.extend(outcome.responses);
                met.connection.update(&met.snapshot, met.session.status());
            }
            Err(error) => {
                self.shared.metrics.refused();
                tracing::debug!(node = met.node, %error, "an xDS request is not understood");
            }
        }
        Ok(())
    }

    /// Who are they, and what do they get. A snapshot numbered 0 means that nothing is known yet: to answer with it would take
    /// everything away from proxies that are still at work.
    async fn meet(&mut self, node: Option<&Node>) -> Result<Met, Status> {
        let node = node.cloned().unwrap_or_default();
        let kind = ClientKind::of(&node).map_err(|error| {
            self.shared.metrics.refused();
            tracing::warn!(node = node.id, %error, "an xDS client is refused");
            Status::invalid_argument(error.to_string())
        })?;
        let introduction = Introduction {
            node: node.id.clone(),
            user_agent: user_agent(&node),
            address: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            flavor: V::FLAVOR,
            kind: kind.clone(),
        };
        let connection = self.shared.clients.connect(introduction).ok_or_else(|| {
            self.shared.metrics.refused();
            Status::resource_exhausted(format!("{CLIENTS_MAX} xDS clients are connected already"))
        })?;
        let snapshot = tokio::select! {
            () = self.drain.started() => return Err(Status::unavailable("discovery is shutting down")),
            known = self.snapshots.wait_for(|snapshot| snapshot.number > 0) => match known {
                Ok(snapshot) => snapshot.clone(),
                Err(_) => return Err(Status::unavailable("discovery is shutting down")),
            },
        };
        let session = Session::new(V::FLAVOR, self.shared.cache.get(&snapshot, &kind));
        tracing::info!(node = node.id, ?kind, "an xDS client is connected");
        Ok(Met { session, kind, node: node.id, connection, snapshot })
    }

    fn catch_up(&mut self) {
        let Some(met) = &mut self.met else { return };
        met.snapshot = self.snapshots.borrow_and_update().clone();
        let set = self.shared.cache.get(&met.snapshot, &met.kind);
        self.outgoing.extend(met.session.update(set));
        met.connection.update(&met.snapshot, met.session.status());
    }
}

fn tell(metrics: &Metrics, node: &str, verdict: &Verdict) {
    metrics.verdict(verdict);
    match verdict {
        Verdict::Accepted { kind, version } => tracing::debug!(node, %kind, %version, "accepted"),
        Verdict::Rejected { kind, version, words } => {
            tracing::warn!(node, %kind, %version, words, "an xDS client rejects what it was sent");
        }
    }
}

fn user_agent(node: &Node) -> String {
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => format!("{} {version}", node.user_agent_name),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => match &build.version {
            Some(version) => {
                format!("{} {}.{}.{}", node.user_agent_name, version.major_number, version.minor_number, version.patch)
            }
            None => node.user_agent_name.clone(),
        },
        None => node.user_agent_name.clone(),
    }
}
