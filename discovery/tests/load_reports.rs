//! The real `App`, told by load reports (LRS) whom proxies took out: what the API shows, until when, and what does no harm.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamEndpointStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mesh_core::model::names::EndpointId;
use mesh_core::task::drain::{self, Drainer};
use mesh_discovery::app::{App, AppError};
use mesh_discovery::config::Config;
use mesh_xds::encode::load::{Granularity, report};
use mesh_xds::load::{ClusterLoad, Ejection, EndpointLoad, LoadReport};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(20);

const SHOP: &str = r#"
services:
  - {name: web, namespace: shop, ports: [{name: http, port: 80, protocol: http}],
     endpoints: [{address: "10.0.0.5:8080"}, {address: "10.0.0.6:8080"}]}
"#;

/// A discovery at work.
struct Running {
    api: SocketAddr,
    xds: SocketAddr,
    drainer: Drainer,
    ended: JoinHandle<Result<(), AppError>>,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh.yaml");
        std::fs::write(&path, SHOP).unwrap();
        let (drainer, drain) = drain::channel();
        let app = App::bind(Config { file: Some(path), ..Config::ephemeral() }, &[], drain).await.unwrap();
        let (api, xds) = (app.addresses().api, app.addresses().xds);
        let running = Self { api, xds, drainer, ended: tokio::spawn(app.run()), _folder: folder };
        running.until_states(&["ready", "ready"]).await;
        running
    }

    async fn get(&self, path: &str) -> String {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
        let request = Request::get(format!("http://{}{path}", self.api)).body(Full::default()).unwrap();
        let body = client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn endpoints(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.get("/v1/endpoints").await).unwrap();
        answer["items"].as_array().unwrap().clone()
    }

    async fn until_states(&self, expected: &[&str]) {
        let mut seen = Vec::new();
        let looking = async {
            loop {
                seen = self.endpoints().await;
                if seen.iter().map(|endpoint| &endpoint["state"]).eq(expected.iter()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
            }
        };
        if timeout(PATIENCE, looking).await.is_err() {
            panic!("{expected:?} are not the states of {seen:?}");
        }
    }

    async fn until_metric(&self, line: &str) {
        let looking = async {
            while !self.get("/metrics").await.lines().any(|one| one == line) {
                tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("no {line}"));
    }

    async fn connect(&self) -> Reporter {
        let service = LoadReportingServiceClient::connect(format!("http://{}", self.xds)).await.unwrap();
        let (reports, outgoing) = mpsc::channel(4);
        let responses = service.clone().stream_load_stats(ReceiverStream::new(outgoing)).await.unwrap();
        Reporter { reports, responses: responses.into_inner() }
    }

    /// A stream that has said who it is, and was told what is wanted.
    async fn reporter(&self, node: &str) -> Reporter {
        let mut reporter = self.connect().await;
        reporter.hello(node).await;
        let asked = reporter.next().await.unwrap().unwrap();
        assert!(asked.send_all_clusters && asked.report_endpoint_granularity, "{asked:?}");
        assert_eq!(asked.load_reporting_interval.unwrap().seconds, 5);
        reporter
    }

    async fn stop(self) {
        self.drainer.start();
        timeout(PATIENCE, self.ended).await.expect("it ends").unwrap().unwrap();
    }
}

struct Reporter {
    reports: mpsc::Sender<LoadStatsRequest>,
    responses: Streaming<LoadStatsResponse>,
}

impl Reporter {
    async fn hello(&self, node: &str) {
        let node = Some(Node { id: node.into(), ..Node::default() });
        self.reports.send(LoadStatsRequest { node, cluster_stats: Vec::new() }).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<LoadStatsResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.expect("an answer")
    }

    async fn says(&self, out: &[&str]) {
        let endpoint = |address: &&str| EndpointLoad {
            id: EndpointId::new(address, 0),
            address: address.parse().unwrap(),
            zone: None,
            priority: 0,
            issued: 5,
            succeeded: 0,
            failed: 5,
            in_progress: 0,
            ejection: Some(Ejection { left: Duration::from_secs(30), reason: "5 failures in a row".into() }),
        };
        let endpoints = out.iter().map(endpoint).collect();
        let cluster = ClusterLoad { cluster: "web".into(), interval: Duration::from_secs(5), endpoints };
        self.reports.send(report(&LoadReport { clusters: vec![cluster] }, Granularity::Endpoint)).await.unwrap();
    }
}

#[tokio::test]
async fn an_ejection_is_shown_for_as_long_as_the_stream_says_so() {
    let running = Running::start().await;
    let proxy = running.reporter("node-1").await;
    proxy.says(&["10.0.0.6:8080"]).await;
    running.until_states(&["ready", "ejected"]).await;
    let reason = running.endpoints().await[1]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("5 failures in a row (taken out by node-1 for "), "{reason}");
    // The next report is the whole truth.
    proxy.says(&["10.0.0.5:8080"]).await;
    running.until_states(&["ejected", "ready"]).await;
    // Another proxy that went by the same name, and goes.
    let other = running.reporter("node-1").await;
    other.says(&["10.0.0.6:8080"]).await;
    running.until_states(&["ejected", "ejected"]).await;
    drop(other);
    running.until_states(&["ejected", "ready"]).await;
    running.until_metric("mesh_xds_load_streams 1").await;
    drop(proxy);
    running.until_states(&["ready", "ready"]).await;
    running.until_metric("mesh_xds_load_reports_total 5").await;
    running.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_harms_nobody() {
    let running = Running::start().await;
    let proxy = running.reporter("node-1").await;
    proxy.says(&["10.0.0.6:8080"]).await;
    running.until_states(&["ready", "ejected"]).await;
    let refused = |count: u32| format!("mesh_xds_requests_refused_total {count}");
    // An endpoint without an address, as nobody sends it.
    let nonsense = |count: usize| {
        let group = UpstreamLocalityStats {
            upstream_endpoint_stats: vec![UpstreamEndpointStats::default(); count],
            ..UpstreamLocalityStats::default()
        };
        let stats = ClusterStats { upstream_locality_stats: vec![group], ..ClusterStats::default() };
        LoadStatsRequest { node: None, cluster_stats: vec![stats] }
    };
    let mut bad = running.reporter("node-2").await;
    bad.reports.send(nonsense(3)).await.unwrap();
    running.until_metric(&refused(1)).await;
    // Its stream goes on, until it sends more than anybody may.
    bad.says(&["10.0.0.5:8080"]).await;
    running.until_states(&["ejected", "ejected"]).await;
    bad.reports.send(nonsense(3_000_000)).await.unwrap();
    assert!(!matches!(bad.next().await, Ok(Some(_))), "the stream ends");
    running.until_states(&["ready", "ejected"]).await;
    // A node with a name that nobody could print.
    let mut nameless = running.connect().await;
    nameless.hello("no\nde").await;
    assert_eq!(nameless.next().await.unwrap_err().code(), Code::InvalidArgument);
    running.until_metric(&refused(2)).await;
    drop((bad, nameless));
    proxy.says(&["10.0.0.5:8080"]).await;
    running.until_states(&["ejected", "ready"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_drain_ends_the_streams() {
    let running = Running::start().await;
    let mut proxy = running.reporter("node-1").await;
    running.drainer.start();
    assert_eq!(proxy.next().await.unwrap_err().code(), Code::Unavailable);
    drop(proxy);
    running.stop().await;
}
