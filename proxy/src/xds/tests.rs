//! Both streams, held against a control plane that a test drives.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use futures_util::{Stream, StreamExt};
use mesh_core::model::policy::Policy;
use mesh_xds::{Kind, decode, encode};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::endpoint::LiveCluster;
use crate::endpoint::tests::{cluster_with, target};
use crate::resilience::outlier::{Outcome, record};

const PATIENCE: Duration = Duration::from_secs(20);

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<Boxed<T>>, Status>> + Send + 'a>>;

/// What the client does, as the server sees it.
enum Seen {
    /// A stream of resources was opened; responses go in here, and dropping it ends the stream.
    Resources(mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>),
    /// A stream of reports was asked for; as above.
    Reports(mpsc::UnboundedSender<Result<LoadStatsResponse, Status>>),
    Report(Box<LoadStatsRequest>),
}

#[derive(Clone)]
struct Fake {
    seen: mpsc::UnboundedSender<Seen>,
    takes_reports: Arc<AtomicBool>,
}

impl AggregatedDiscoveryService for Fake {
    type StreamAggregatedResourcesStream = Boxed<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Boxed<DeltaDiscoveryResponse>;

    fn stream_aggregated_resources<'a, 'async_trait>(
        &'a self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Answer<'async_trait, DiscoveryResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Err(Status::unimplemented("delta only")) })
    }

    fn delta_aggregated_resources<'a, 'async_trait>(
        &'a self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Answer<'async_trait, DeltaDiscoveryResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        let (sender, responses) = mpsc::unbounded_channel();
        let _ = self.seen.send(Seen::Resources(sender));
        let mut requests = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
        Box::pin(async { Ok(Response::new(UnboundedReceiverStream::new(responses).boxed())) })
    }
}

impl LoadReportingService for Fake {
    type StreamLoadStatsStream = Boxed<LoadStatsResponse>;

    fn stream_load_stats<'a, 'async_trait>(
        &'a self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Answer<'async_trait, LoadStatsResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        let (sender, responses) = mpsc::unbounded_channel();
        let _ = self.seen.send(Seen::Reports(sender));
        if !self.takes_reports.load(Ordering::Relaxed) {
            return Box::pin(async { Err(Status::unimplemented("no reports here")) });
        }
        let (mut requests, seen) = (request.into_inner(), self.seen.clone());
        tokio::spawn(async move {
            while let Ok(Some(report)) = requests.message().await {
                let _ = seen.send(Seen::Report(Box::new(report)));
            }
        });
        Box::pin(async { Ok(Response::new(UnboundedReceiverStream::new(responses).boxed())) })
    }
}

/// A client at work against a control plane of the test's own.
struct World {
    seen: mpsc::UnboundedReceiver<Seen>,
    takes_reports: Arc<AtomicBool>,
    cluster: Arc<LiveCluster>,
    registry: Registry,
    tasks: Vec<AbortHandle>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl World {
    async fn start(takes_reports: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let (sender, seen) = mpsc::unbounded_channel();
        let fake = Fake { seen: sender, takes_reports: Arc::new(AtomicBool::new(takes_reports)) };
        let takes_reports = Arc::clone(&fake.takes_reports);
        let serve = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(fake.clone()))
            .add_service(LoadReportingServiceServer::new(fake))
            .serve_with_incoming(TcpIncoming::from(listener));
        let metadata = serde_json::json!({ "mesh": {} });
        let config = XdsConfig { server, node_id: "node-1".into(), metadata, cache_dir: None };
        let (metrics, registry) = (Metrics::new().unwrap(), Registry::new());
        metrics.register(&registry).unwrap();
        let (_, status, run) = XdsClient::start(config.clone(), metrics.clone(), None);
        let cluster = Arc::new(cluster_with(vec![target(0, 1), target(1, 1)], Policy::default(), Instant::now()));
        let shared = Arc::clone(&cluster);
        let report = XdsClient::report(config, status, Box::new(move || vec![Arc::clone(&shared)]), metrics);
        let serving = tokio::spawn(async move { drop(serve.await) });
        let tasks = vec![serving.abort_handle(), tokio::spawn(run).abort_handle(), tokio::spawn(report).abort_handle()];
        Self { seen, takes_reports, cluster, registry, tasks }
    }

    /// What comes next of those things that `pick` picks; everything else is held, so that no stream ends by that.
    async fn next<T>(&mut self, held: &mut Vec<Seen>, mut pick: impl FnMut(Seen) -> Result<T, Seen>) -> T {
        let waiting = async {
            loop {
                match pick(self.seen.recv().await.expect("the server runs")) {
                    Ok(found) => return found,
                    Err(other) => held.push(other),
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("the client does what is waited for")
    }

    async fn report(&mut self, held: &mut Vec<Seen>) -> LoadStatsRequest {
        self.next(held, |seen| if let Seen::Report(report) = seen { Ok(*report) } else { Err(seen) }).await
    }

    async fn reports_asked(
        &mut self,
        held: &mut Vec<Seen>,
    ) -> mpsc::UnboundedSender<Result<LoadStatsResponse, Status>> {
        self.next(held, |seen| if let Seen::Reports(sender) = seen { Ok(sender) } else { Err(seen) }).await
    }

    async fn resources_asked(
        &mut self,
        held: &mut Vec<Seen>,
    ) -> mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>> {
        self.next(held, |seen| if let Seen::Resources(sender) = seen { Ok(sender) } else { Err(seen) }).await
    }

    fn eject(&self, index: usize) {
        let endpoint = &self.cluster.endpoints()[index];
        for _ in 0..5 {
            drop(endpoint.begin_request());
            record(&self.cluster, endpoint, Outcome::ServerError, Instant::now());
        }
    }

    /// The value of `family`, with that label where one is given.
    fn metric(&self, family: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let found = families.iter().find(|one| one.name() == family).unwrap_or_else(|| panic!("no {family}"));
        let fits = |metric: &&prometheus::proto::Metric| {
            label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
        };
        let metric = found.get_metric().iter().find(fits).unwrap_or_else(|| panic!("no {label:?} of {family}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

/// Far beyond the test's own patience.
const RARELY: Duration = Duration::from_secs(3000);

#[tokio::test]
async fn an_ejection_is_told_at_once_and_again_on_a_new_stream() {
    let (mut world, mut held) = (World::start(true).await, Vec::new());
    let asking = world.reports_asked(&mut held).await;
    let hello = world.report(&mut held).await;
    let node = hello.node.expect("the first message says who");
    assert_eq!((&*node.id, &*node.user_agent_name), ("node-1", "mesh-proxy"));
    assert!(node.client_features.iter().any(|feature| feature == load::SENDS_ALL_CLUSTERS));
    world.eject(1);
    // Nothing is told before it is asked for; then at once, whatever the interval.
    asking.send(Ok(encode::load::asking(RARELY))).unwrap();
    let message = world.report(&mut held).await;
    assert!(message.node.is_none());
    let taken = decode::load::report(&message);
    assert!(taken.first_error.is_none(), "{:?}", taken.first_error);
    let endpoint = &taken.report.clusters[0].endpoints[0];
    assert_eq!((endpoint.issued, endpoint.failed, endpoint.succeeded), (5, 5, 0));
    let [(id, ejection)] = &taken.report.ejections().collect::<Vec<_>>()[..] else { panic!("{message:?}") };
    assert_eq!((id.to_string(), &*ejection.reason), ("endpoint-000001@0".to_owned(), "5 failures in a row"));
    // The stream ends; the next server knows nothing.
    drop(asking);
    let asking = world.reports_asked(&mut held).await;
    assert!(world.report(&mut held).await.node.is_some());
    asking.send(Ok(encode::load::asking(RARELY))).unwrap();
    let again = decode::load::report(&world.report(&mut held).await).report;
    assert_eq!(again.ejections().map(|(id, _)| id).collect::<Vec<_>>(), [world.cluster.endpoints()[1].id()]);
    assert_eq!(again.clusters[0].endpoints[0].issued, 0, "requests are told once");
    assert!(world.metric("mesh_xds_reports_sent_total", None) >= 2.0);
}

#[tokio::test]
async fn numbers_come_at_the_interval_and_only_what_is_asked_for() {
    let (mut world, mut held) = (World::start(true).await, Vec::new());
    let asking = world.reports_asked(&mut held).await;
    world.report(&mut held).await;
    drop(world.cluster.endpoints()[0].begin_request());
    let second = encode::load::asking(Duration::from_millis(1)).load_reporting_interval;
    let sums = LoadStatsResponse { send_all_clusters: true, load_reporting_interval: second, ..Default::default() };
    asking.send(Ok(sums.clone())).unwrap();
    let message = world.report(&mut held).await;
    let [stats] = &message.cluster_stats[..] else { panic!("{message:?}") };
    let [group] = &stats.upstream_locality_stats[..] else { panic!("{message:?}") };
    assert_eq!((&*stats.cluster_name, group.total_issued_requests, group.total_successful_requests), ("web", 1, 1));
    assert!(group.upstream_endpoint_stats.is_empty(), "endpoints were not asked for");
    // Another cluster's numbers are not ours to tell.
    let others = LoadStatsResponse { send_all_clusters: false, clusters: vec!["api".into()], ..sums.clone() };
    asking.send(Ok(others)).unwrap();
    world.eject(0);
    let silent = timeout(Duration::from_millis(1500), world.seen.recv()).await;
    assert!(silent.is_err(), "a report that was not asked for");
    asking.send(Ok(LoadStatsResponse { send_all_clusters: false, clusters: vec!["web".into()], ..sums })).unwrap();
    let message = world.report(&mut held).await;
    assert_eq!(message.cluster_stats[0].upstream_locality_stats[0].total_error_requests, 5);
}

#[tokio::test]
async fn a_server_without_reports_is_asked_once_per_stream_of_resources() {
    let (mut world, mut held) = (World::start(false).await, Vec::new());
    for _ in 0..2 {
        let resources = world.resources_asked(&mut held).await;
        world.reports_asked(&mut held).await;
        let asked_again = timeout(Duration::from_millis(700), world.seen.recv()).await;
        assert!(asked_again.is_err(), "it was told that nobody takes reports");
        drop(resources);
    }
    world.takes_reports.store(true, Ordering::Relaxed);
    let _resources = world.resources_asked(&mut held).await;
    let _asking = world.reports_asked(&mut held).await;
    assert!(world.report(&mut held).await.node.is_some());
}

#[tokio::test]
async fn it_is_counted_how_it_goes() {
    let (mut world, mut held) = (World::start(false).await, Vec::new());
    let resources = world.resources_asked(&mut held).await;
    let response = |type_url: &str| DeltaDiscoveryResponse { type_url: type_url.into(), ..Default::default() };
    resources.send(Ok(response(Kind::Cluster.type_url()))).unwrap();
    resources.send(Ok(response("type.googleapis.com/unheard.of"))).unwrap();
    let mut bad = response(Kind::Listener.type_url());
    bad.resources.push(Default::default());
    resources.send(Ok(bad)).unwrap();
    until(|| world.metric("mesh_xds_updates_rejected_total", Some("lds")) == 1.0).await;
    assert_eq!(world.metric("mesh_xds_updates_accepted_total", Some("cds")), 1.0);
    assert_eq!(world.metric("mesh_xds_updates_rejected_total", Some("other")), 1.0);
    assert_eq!(world.metric("mesh_xds_updates_rejected_total", Some("cds")), 0.0);
    assert_eq!((world.metric("mesh_xds_connected", None), world.metric("mesh_xds_reconnects_total", None)), (1.0, 0.0));
    drop(resources);
    let resources = world.resources_asked(&mut held).await;
    until(|| world.metric("mesh_xds_reconnects_total", None) == 1.0).await;
    assert_eq!(world.metric("mesh_xds_connected", None), 1.0);
    world.tasks[0].abort();
    drop(resources);
    until(|| world.metric("mesh_xds_connected", None) == 0.0).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
        }
    };
    timeout(PATIENCE, looking).await.expect("it comes to hold");
}
