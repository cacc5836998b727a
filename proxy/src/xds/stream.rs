//! One stream after the other, for ever: connect, say what we have, take what changed; when it ends, wait and begin again.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_core::model::resource::Resources;
use mesh_core::task::backoff::Backoff;
use mesh_xds::Kind;
use mesh_xds::client::{Reserved, Session, Step};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::cache::Cache;
use super::connect::{ConnectError, connect};
use super::metrics::Metrics;
use super::{XdsConfig, XdsStatus};
use crate::error::chain;

/// Between two tries to connect: at first, and at most.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
pub(super) enum StreamError {
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
    /// The proxy's own file, if it has one.
    file: Option<watch::Receiver<Arc<Resources>>>,
    outputs: Outputs,
}

/// Where it is told on.
pub(super) struct Outputs {
    pub resources: watch::Sender<Arc<Resources>>,
    pub status: watch::Sender<XdsStatus>,
    pub metrics: Metrics,
}

impl Client {
    pub fn new(config: XdsConfig, session: Session, cache: Option<Cache>, outputs: Outputs) -> Self {
        Self { config, session, cache, cache_due: None, patience: None, settled: false, file: None, outputs }
    }

    /// The proxy has a file too, whose names are its own.
    pub fn beside(mut self, file: Option<watch::Receiver<Arc<Resources>>>) -> Self {
        self.file = file;
        self
    }

    pub async fn run(mut self) {
        // Clients that lost the same server must not come back in step.
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1, fastrand::u64(..));
        loop {
            let before = self.outputs.status.borrow().responses;
            let Err(error) = self.stream().await;
            let words = chain(&error);
            if self.outputs.status.borrow().responses > before {
                backoff.reset();
            }
            if backoff.failures() == 0 {
                tracing::warn!(server = self.config.server, error = words, "no control plane; serving what is known");
            } else {
                tracing::debug!(server = self.config.server, error = words, "still no control plane");
            }
            self.outputs.metrics.disconnected();
            self.outputs.status.send_modify(|status| {
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
        // Whatever became of the file while there was no stream.
        let _nobody_to_tell = self.reserve();
        // The first requests go along with the call: a server may answer nothing, headers included, before it has them.
        for request in self.session.connected(self.config.node()) {
            send(&requests, request).await?;
        }
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let responses = service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await;
        let mut responses = responses.map_err(StreamError::Refused)?.into_inner();
        tracing::info!(server = self.config.server, "connected to the control plane");
        self.outputs.metrics.connected(self.outputs.status.borrow().streams == 0);
        self.outputs.status.send_modify(|status| {
            status.connected = true;
            status.streams += 1;
        });
        self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        loop {
            tokio::select! {
                response = next(&mut responses) => self.response(response?, &requests).await?,
                () = due(self.cache_due) => self.write_cache().await,
                () = due(self.patience), if !self.settled => self.settle(),
                () = changed(&mut self.file) => {
                    let step = self.reserve();
                    for request in step.requests {
                        self.outputs.metrics.answered(Kind::from_type_url(&request.type_url), request.error_detail.is_some());
                        send(&requests, request).await?;
                    }
                }
            }
        }
    }

    /// Leaves the file its names.
    fn reserve(&mut self) -> Step {
        let Some(file) = &mut self.file else { return Step::default() };
        let reserved = Reserved::by(&file.borrow_and_update());
        let step = self.session.reserve(reserved);
        self.refused(&step);
        step
    }

    /// Tells what is refused newly. A clash is told by whoever has both sides before its eyes, see [`crate::sources`].
    fn refused(&self, step: &Step) {
        for error in step.refused.iter().filter(|error| !error.is_clash()) {
            tracing::warn!(error = chain(error), "a resource of the control plane is refused");
        }
        for kind in Kind::ALL {
            self.outputs.metrics.clashing(kind, self.session.clashing(kind));
        }
        self.outputs.status.send_modify(|status| {
            status.refused += step.refused.len() as u64;
            if let Some(error) = step.refused.last() {
                status.last_error = Some(chain(error));
            }
        });
    }

    async fn response(
        &mut self,
        response: DeltaDiscoveryResponse,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), StreamError> {
        let kind = Kind::from_type_url(&response.type_url);
        let step = self.session.response(response);
        self.outputs.metrics.answered(kind, step.rejected);
        self.refused(&step);
        if step.published {
            self.publish();
        }
        if step.held {
            self.cache_due.get_or_insert_with(|| Instant::now() + CACHE_DELAY);
        }
        let waiting_for: Vec<String> = self.session.waiting_for().iter().cloned().collect();
        self.outputs.status.send_modify(|status| {
            status.responses += 1;
            status.from_cache = false;
            status.waiting_for = waiting_for;
        });
        for request in step.requests {
            send(requests, request).await?;
        }
        Ok(())
    }

    fn publish(&self) {
        if let Some(published) = self.session.published() {
            self.outputs.resources.send_replace(published.clone());
            self.outputs.status.send_modify(|status| status.published = true);
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
}

pub(super) async fn next<T>(responses: &mut Streaming<T>) -> Result<T, StreamError> {
    responses.message().await.map_err(StreamError::Refused)?.ok_or(StreamError::Ended)
}

pub(super) async fn send<T>(requests: &mpsc::Sender<T>, request: T) -> Result<(), StreamError> {
    requests.send_timeout(request, SEND_TIMEOUT).await.map_err(|_| StreamError::Stuck)
}

/// Ends when the file changed; never, without one.
async fn changed(file: &mut Option<watch::Receiver<Arc<Resources>>>) {
    let Some(receiver) = file else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        // Nobody follows the file any more; its names stay.
        *file = None;
        std::future::pending().await
    }
}

/// Ends at `when`; never, without one.
async fn due(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
