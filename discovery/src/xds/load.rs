//! What proxies tell back, on the same port: `envoy.service.load_stats.v3.LoadReportingService` (LRS), the xDS v3 API's own way,
//! so that a proxy has to reach nothing else. A client says who it is, is asked for a report every [`REPORT_INTERVAL`], and
//! reports; ours do so the moment they take an endpoint out or in again, too. Envoy's reports (`load_stats_config`) are taken
//! as well, and say nothing about ejections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use futures_util::{Stream, stream};
use mesh_core::task::drain::Drain;
use mesh_xds::{decode, encode};
use tonic::{Request, Response, Status, Streaming};

use super::metrics::{Metrics, OpenReports};
use super::reporters::{REPORTERS_MAX, Reporters, Reporting};
use super::server::{Answer, Boxed};

/// How often a client reports while nothing special happens.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A report beyond this ends its stream: it holds some ten thousand endpoints.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a node's id beyond which it is refused: it is shown to people.
const NODE_BYTES_MAX: usize = 256;

/// The service, on the way into the server.
#[derive(Debug, Clone)]
pub(super) struct LoadReports {
    pub reporters: Reporters,
    pub metrics: Metrics,
    pub drain: Drain,
}

impl LoadReports {
    pub(super) fn service(self) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self).max_decoding_message_size(REPORT_BYTES_MAX)
    }
}

impl LoadReportingService for LoadReports {
    type StreamLoadStatsStream = Boxed<LoadStatsResponse>;

    fn stream_load_stats<'a, 'async_trait>(
        &'a self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Answer<'async_trait, LoadStatsResponse>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        let peer = request.remote_addr();
        let responses: Boxed<LoadStatsResponse> = Box::pin(serve(self.clone(), request.into_inner(), peer));
        Box::pin(async move { Ok(Response::new(responses)) })
    }
}

/// The one response, and then nothing but listening, for as long as the client stays.
fn serve(
    shared: LoadReports,
    requests: Streaming<LoadStatsRequest>,
    peer: Option<SocketAddr>,
) -> impl Stream<Item = Result<LoadStatsResponse, Status>> {
    let client = Client { open: shared.metrics.open_reports(), shared, requests, peer, reporting: None };
    stream::unfold(Some(client), |client| async move {
        let mut client = client?;
        match client.next().await {
            Ok(true) => Some((Ok(encode::load::asking(REPORT_INTERVAL)), Some(client))),
            Ok(false) => None,
            // The last word on this stream.
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Client {
    shared: LoadReports,
    requests: Streaming<LoadStatsRequest>,
    peer: Option<SocketAddr>,
    /// None until its first message, which says who it is.
    reporting: Option<Reporting>,
    /// Counts it while it lives.
    #[expect(dead_code, reason = "held for its Drop")]
    open: OpenReports,
}

impl Client {
    /// True when the client has said who it is, and is to be told what we want; false when it is gone.
    async fn next(&mut self) -> Result<bool, Status> {
        loop {
            let message = tokio::select! {
                () = self.shared.drain.started() => return Err(Status::unavailable("discovery is shutting down")),
                message = self.requests.message() => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(false),
                Err(error) => {
                    tracing::debug!(%error, "a stream of load reports ended");
                    return Ok(false);
                }
            };
            let is_first = self.reporting.is_none();
            if is_first {
                self.reporting = Some(self.meet(message.node.as_ref())?);
            }
            self.take(&message);
            if is_first {
                return Ok(true);
            }
        }
    }

    fn meet(&self, node: Option<&Node>) -> Result<Reporting, Status> {
        let refuse = |status| {
            self.shared.metrics.refused();
            status
        };
        let id = node.map(|node| node.id.as_str()).filter(|id| !id.is_empty());
        let id = match (id, self.peer) {
            (Some(id), _) => id.to_owned(),
            (None, Some(peer)) => peer.to_string(),
            (None, None) => return Err(refuse(Status::invalid_argument("node.id is missing"))),
        };
        if id.len() > NODE_BYTES_MAX || id.chars().any(char::is_control) {
            let wanted = format!("node.id is not of 1 to {NODE_BYTES_MAX} printable bytes");
            return Err(refuse(Status::invalid_argument(wanted)));
        }
        let reporting = self.shared.reporters.begin(&id, Instant::now);
        reporting.ok_or_else(|| {
            refuse(Status::resource_exhausted(format!("{REPORTERS_MAX} clients report their load already")))
        })
    }

    /// What is wrong with a report costs what is wrong, and nobody else.
    fn take(&self, message: &LoadStatsRequest) {
        let Some(reporting) = &self.reporting else { return };
        let taken = decode::load::report(message);
        self.shared.metrics.reported();
        if let Some(error) = &taken.first_error {
            self.shared.metrics.refused();
            let node = reporting.node();
            tracing::debug!(node, refused = taken.refused, %error, "a part of a load report is not understood");
        }
        let left_out = reporting.told(&taken.report, Instant::now());
        if left_out > 0 {
            self.shared.metrics.refused();
            tracing::debug!(node = reporting.node(), left_out, "a load report names too many ejections");
        }
    }
}
