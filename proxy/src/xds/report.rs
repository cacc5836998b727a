//! What the proxy tells back: one stream of load reports after the other, to the same server and port, by
//! `envoy.service.load_stats.v3.LoadReportingService` (LRS) of the xDS v3 API. A report goes out at the interval that the server
//! asks for, and at once when an endpoint is taken out or let in again. Counters are looked at from here, off the path of
//! requests.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use mesh_core::task::backoff::Backoff;
use mesh_xds::encode::load::Granularity;
use mesh_xds::{decode, encode};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::connect::connect;
use super::ledger::{Ejections, Ledger, ejections};
use super::metrics::Metrics;
use super::stream::{BACKOFF, StreamError, next, send};
use super::{XdsConfig, XdsStatus};
use crate::endpoint::LiveCluster;
use crate::error::chain;

/// How often it is looked whether somebody was taken out or let in again.
const LOOK_PERIOD: Duration = Duration::from_millis(150);

/// How often a server is told while nothing special happens: when it says nothing, and within what it may say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Answers are a list of cluster names at most.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reports under way. The next one is made when there is room for it, of what is counted then.
const REPORTS_MAX: usize = 1;

/// All clusters at this moment.
pub type ClusterSource = Box<dyn Fn() -> Vec<Arc<LiveCluster>> + Send>;

/// The reporting half of one control plane's client.
pub(super) struct Reporter {
    config: XdsConfig,
    status: watch::Receiver<XdsStatus>,
    clusters: ClusterSource,
    metrics: Metrics,
    ledger: Ledger,
}

/// What the server wants to be told.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// None: all.
    clusters: Option<BTreeSet<String>>,
    interval: Duration,
    granularity: Granularity,
}

impl Asked {
    fn by(response: LoadStatsResponse) -> Self {
        let interval = response.load_reporting_interval.as_ref().and_then(decode::load::interval);
        let granularity = match response.report_endpoint_granularity {
            true => Granularity::Endpoint,
            false => Granularity::Locality,
        };
        Self {
            clusters: (!response.send_all_clusters).then(|| response.clusters.into_iter().collect()),
            interval: interval.unwrap_or(INTERVAL_DEFAULT).clamp(INTERVAL_MIN, INTERVAL_MAX),
            granularity,
        }
    }

    fn wants(&self, cluster: &LiveCluster) -> bool {
        self.clusters.as_ref().is_none_or(|names| names.contains(&**cluster.name()))
    }
}

impl Reporter {
    pub fn new(
        config: XdsConfig,
        status: watch::Receiver<XdsStatus>,
        clusters: ClusterSource,
        metrics: Metrics,
    ) -> Self {
        Self { config, status, clusters, metrics, ledger: Ledger::new(Instant::now()) }
    }

    /// Ends when the client of the control plane does.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1, fastrand::u64(..));
        loop {
            // While resources cannot be had there, nobody takes reports there either.
            let Ok(streams) = self.status.wait_for(|status| status.connected).await.map(|status| status.streams) else {
                return;
            };
            let mut was_asked = false;
            let Err(error) = self.stream(&mut was_asked).await;
            if was_asked {
                backoff.reset();
            }
            if matches!(&error, StreamError::Refused(status) if status.code() == Code::Unimplemented) {
                tracing::info!(server = self.config.server, "the control plane takes no load reports");
                if self.status.wait_for(|status| status.streams > streams).await.is_err() {
                    return;
                }
                continue;
            }
            tracing::debug!(server = self.config.server, error = chain(&error), "load reports are not taken");
            sleep(backoff.next_wait()).await;
        }
    }

    /// One stream, until it ends.
    async fn stream(&mut self, was_asked: &mut bool) -> Result<Infallible, StreamError> {
        let channel = connect(&self.config.server).await?;
        let (reports, outgoing) = mpsc::channel(REPORTS_MAX);
        // Who we are goes along with the call: a server may answer nothing, headers included, before it has it.
        let hello = LoadStatsRequest { node: Some(self.config.node()), cluster_stats: Vec::new() };
        send(&reports, hello).await?;
        let mut service = LoadReportingServiceClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let responses = service.stream_load_stats(ReceiverStream::new(outgoing)).await;
        let mut responses = responses.map_err(StreamError::Refused)?.into_inner();
        let mut asked = Asked::by(next(&mut responses).await?);
        *was_asked = true;
        tracing::debug!(server = self.config.server, ?asked, "load reports are wanted");
        let mut told = Ejections::new();
        let mut due = Instant::now() + asked.interval;
        let mut look = interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                response = next(&mut responses) => asked = Asked::by(response?),
                _ = look.tick() => {
                    let now = Instant::now();
                    let mut clusters = (self.clusters)();
                    clusters.retain(|cluster| asked.wants(cluster));
                    let out = ejections(&clusters, now);
                    if out == told && now < due {
                        continue;
                    }
                    due = now + asked.interval;
                    self.tell(&clusters, &asked, out != told, &reports).await?;
                    told = out;
                }
            }
        }
    }

    /// Sends a report; one without content only when it takes something back.
    async fn tell(
        &mut self,
        clusters: &[Arc<LiveCluster>],
        asked: &Asked,
        is_news: bool,
        reports: &mpsc::Sender<LoadStatsRequest>,
    ) -> Result<(), StreamError> {
        let (report, deferred) = self.ledger.report(clusters, Instant::now());
        if report.clusters.is_empty() && !is_news {
            return Ok(());
        }
        send(reports, encode::load::report(&report, asked.granularity)).await?;
        self.metrics.reported(deferred);
        Ok(())
    }
}
