//! One stream after the other, for ever: connect, say what we have, take what changed; when it ends, wait and begin again.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_core::model::resource::Resources;
use mesh_core::task::backoff::Backoff;
use mesh_core::telemetry::build_info;
use mesh_xds::client::Session;
use mesh_xds::metadata;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::cache::Cache;
use super::connect::{ConnectError, connect};
use super::{XdsConfig, XdsStatus};

/// Between two tries to connect: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long the first resources may stay incomplete before what is whole of them is served.
const PATIENCE: Duration = Duration::from_secs(15);

/// Changes gather this long before the cache is written.
const CACHE_DELAY: Duration = Duration::from_millis(200);

/// Requests under way; each response brings three at most, and they are taken as fast as the server reads.
const REQUESTS_MAX: usize = 64;

/// A server that takes no request for this long is not there.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why a stream ended.
#[derive(Debug, Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("the control plane refused the stream")]
    Refused(#[source] tonic::Status),
    #[error("the control plane takes no requests")]
    Stuck,
}

pub(super) struct Client {
    config: XdsConfig,
    session: Session,
    cache: Option<Cache>,
    /// When the cache is to be written next.
    cache_due: Option<Instant>,
    /// When to stop waiting for what is missing of the first resources; set by the first stream, once.
    patience: Option<Instant>,
    settled: bool,
    resources: watch::Sender<Arc<Resources>>,
    status: watch::Sender<XdsStatus>,
}

impl Client {
    pub fn new(
        config: XdsConfig,
        session: Session,
        cache: Option<Cache>,
        resources: watch::Sender<Arc<Resources>>,
        status: watch::Sender<XdsStatus>,
    ) -> Self {
        Self { config, session, cache, cache_due: None, patience: None, settled: false, resources, status }
    }

    pub async fn run(mut self) {
        // Clients that lost the same server must not come back in step.
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1, fastrand::u64(..));
        loop {
            let before = self.status.borrow().responses;
            let Err(error) = self.stream().await;
            let words = chain(&error);
            if self.status.borrow().responses > before {
                backoff.reset();
            }
            if backoff.failures() == 0 {
                tracing::warn!(server = self.config.server, error = words, "no control plane; serving what is known");
            } else {
                tracing::debug!(server = self.config.server, error = words, "still no control plane");
            }
            self.status.send_modify(|status| {
                status.connected = false;
                status.last_error = Some(words);
            });
            let until = Instant::now() + backoff.next_wait();
            while Instant::now() < until {
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = due(self.cache_due) => self.write_cache().await,
                }
            }
        }
    }

    /// One stream, until it ends.
    async fn stream(&mut self) -> Result<std::convert::Infallible, StreamError> {
        let channel = connect(&self.config.server).await?;
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        // The first requests go along with the call: a server may answer nothing, headers included, before it has them.
        for request in self.session.connected(self.node()) {
            send(&requests, request).await?;
        }
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let responses = service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await;
        let mut responses = responses.map_err(StreamError::Refused)?.into_inner();
        tracing::info!(server = self.config.server, "connected to the control plane");
        self.status.send_modify(|status| {
            status.connected = true;
            status.streams += 1;
        });
        self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        loop {
            tokio::select! {
                response = next(&mut responses) => self.response(response?, &requests).await?,
                () = due(self.cache_due) => self.write_cache().await,
                () = due(self.patience), if !self.settled => self.settle(),
            }
        }
    }

    async fn response(
        &mut self,
        response: DeltaDiscoveryResponse,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), StreamError> {
        let step = self.session.response(response);
        for error in &step.refused {
            tracing::warn!(error = chain(error), "a resource of the control plane is refused");
        }
        if step.published {
            self.publish();
        }
        if step.held {
            self.cache_due.get_or_insert_with(|| Instant::now() + CACHE_DELAY);
        }
        let waiting_for: Vec<String> = self.session.waiting_for().iter().cloned().collect();
        self.status.send_modify(|status| {
            status.responses += 1;
            status.from_cache = false;
            status.refused += step.refused.len() as u64;
            status.waiting_for = waiting_for;
            if let Some(error) = step.refused.last() {
                status.last_error = Some(chain(error));
            }
        });
        for request in step.requests {
            send(requests, request).await?;
        }
        Ok(())
    }

    fn publish(&self) {
        if let Some(published) = self.session.published() {
            self.resources.send_replace(published.clone());
            self.status.send_modify(|status| status.published = true);
        }
    }

    fn settle(&mut self) {
        self.settled = true;
        if self.session.settle() {
            let missing = self.session.waiting_for().len();
            tracing::warn!(missing, "serving without what the control plane refers to but does not send");
            self.publish();
        }
    }

    async fn write_cache(&mut self) {
        self.cache_due = None;
        let Some(cache) = self.cache.clone() else { return };
        let wire = self.session.wire();
        match tokio::task::spawn_blocking(move || cache.store(&wire)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the last resources cannot be kept on disk"),
            Err(error) => tracing::error!(%error, "writing the xDS cache panicked"),
        }
    }

    fn node(&self) -> Node {
        Node {
            id: self.config.node_id.clone(),
            metadata: Some(metadata::to_struct(&self.config.metadata)),
            user_agent_name: "mesh-proxy".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(build_info::VERSION.to_owned())),
            ..Node::default()
        }
    }
}

async fn next(responses: &mut Streaming<DeltaDiscoveryResponse>) -> Result<DeltaDiscoveryResponse, StreamError> {
    responses.message().await.map_err(StreamError::Refused)?.ok_or(StreamError::Ended)
}

async fn send(
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    request: DeltaDiscoveryRequest,
) -> Result<(), StreamError> {
    requests.send_timeout(request, SEND_TIMEOUT).await.map_err(|_| StreamError::Stuck)
}

/// Ends at `when`; never, without one.
async fn due(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// An error with everything behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}
