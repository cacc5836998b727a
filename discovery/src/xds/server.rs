//! The listener, and both variants of the protocol on it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::Stream;
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::cache::Cache;
use super::clients::Clients;
use super::load::LoadReports;
use super::metrics::Metrics;
use super::reporters::{EjectionSink, Reporters};
use super::resources::Settings;
use super::stream::{Delta, Shared, StateOfTheWorld, Variant, serve};

/// A silent connection is asked this often whether it is still there ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// ... and is closed when it does not say so within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests carry every name a client asks for.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why xDS is not served.
#[derive(Debug, Error)]
pub enum XdsError {
    #[error("cannot listen for xDS on {listen}")]
    Bind { listen: SocketAddr, source: io::Error },
    #[error("the xDS server on {listen} ended")]
    Serve { listen: SocketAddr, source: tonic::transport::Error },
}

/// The xDS server, bound but not running yet.
#[derive(Debug)]
pub struct XdsServer {
    listen: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    reporters: Option<Reporters>,
}

impl XdsServer {
    /// Binds the listener. Nobody is answered before the first snapshot with a number above 0.
    ///
    /// # Errors
    /// [`XdsError::Bind`].
    pub async fn bind(
        listen: SocketAddr,
        settings: Settings,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, XdsError> {
        let wrong = |source| XdsError::Bind { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(wrong)?;
        let listen = listener.local_addr().map_err(wrong)?;
        let shared = Shared { snapshots, cache: Cache::new(settings), clients: Clients::default(), metrics, drain };
        Ok(Self { listen, listener, shared: Arc::new(shared), reporters: None })
    }

    /// Serves load reports too, and tells `sink` whom clients took out. Without it, who wants to report is told that nobody
    /// listens (UNIMPLEMENTED).
    #[must_use]
    pub fn reporting_to(self, sink: Arc<dyn EjectionSink>) -> Self {
        Self { reporters: Some(Reporters::new(sink)), ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Who is connected.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.shared.clients.clone()
    }

    /// Serves until drained.
    ///
    /// # Errors
    /// [`XdsError::Serve`].
    pub async fn run(self) -> Result<(), XdsError> {
        let listen = self.listen;
        let mut drain = self.shared.drain.clone();
        let (metrics, reports_drain) = (self.shared.metrics.clone(), self.shared.drain.clone());
        let reports = self.reporters.map(|reporters| LoadReports { reporters, metrics, drain: reports_drain });
        let service = Service { shared: self.shared };
        let service = AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(service)
            .add_optional_service(reports.map(LoadReports::service))
            .serve_with_incoming_shutdown(incoming, async move { drain.started().await })
            .await
            .map_err(|source| XdsError::Serve { listen, source })
    }
}

#[derive(Debug)]
struct Service {
    shared: Arc<Shared>,
}

impl Service {
    fn serve<V: Variant>(&self, request: Request<Streaming<V::Request>>) -> Responses<V::Response> {
        let peer = request.remote_addr();
        Response::new(Box::pin(serve::<V>(self.shared.clone(), request.into_inner(), peer)))
    }
}

pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Responses<T> = Response<Boxed<T>>;
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Responses<T>, Status>> + Send + 'a>>;

impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Boxed<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Boxed<DeltaDiscoveryResponse>;

    fn stream_aggregated_resources<'a, 'async_trait>(
        &'a self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Answer<'async_trait, DiscoveryResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move { Ok(self.serve::<StateOfTheWorld>(request)) })
    }

    fn delta_aggregated_resources<'a, 'async_trait>(
        &'a self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Answer<'async_trait, DeltaDiscoveryResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move { Ok(self.serve::<Delta>(request)) })
    }
}
