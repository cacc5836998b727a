//! What is counted and logged when a request ends, however it ends: the record lives as long as anything of the request does,
//! and is written when it drops.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::model::reason::Reason;

use super::Worker;
use super::way::Way;
use crate::endpoint::{ActiveRequest, LiveEndpoint, OpenConnection};
use crate::error::{ProxyError, chain};
use crate::http::access_log::{Entry, began_ms};
use crate::http::client::Client;
use crate::http::grpc;
use crate::message::RequestHead;
use crate::message::fields::Fields;
use crate::message::name::Name;
use crate::metrics::{ClusterMetrics, Spoken};
use crate::resilience::breaker::Permit;
use crate::resilience::outlier::{self, Outcome, Verdict};
use crate::state::local::LocalCluster;
use crate::tcp::forward::{Copied, Scratch, Side};

/// One request, or one raw connection.
pub struct Record {
    worker: Rc<Worker>,
    client: Rc<Client>,
    way: Rc<Way>,
    destination: Rc<ClusterMetrics>,
    /// Told how each try ended; none when that says nothing about who may be balanced on.
    cluster: Option<Rc<LocalCluster>>,
    spoken: Spoken,
    started: Instant,
    /// 0 until something was answered.
    status: u16,
    reason: Option<Reason>,
    attempts: u32,
    stage: Stage,
    permit: Option<Permit>,
    /// Some of its time went by before any endpoint had to do with it.
    has_waited: bool,
    log: Option<Box<LogFields>>,
}

/// How far it has come.
enum Stage {
    Nowhere,
    /// It waits for a connection.
    InLine(Instant),
    /// The endpoint tried last, counted as busy until the next try or the end.
    At {
        endpoint: Arc<LiveEndpoint>,
        address: SocketAddr,
        _active: ActiveRequest,
    },
}

/// What only the access log wants to know.
#[derive(Default)]
struct LogFields {
    method: Option<http::Method>,
    path: Option<String>,
    authority: Option<String>,
    request_id: Option<String>,
    details: Option<String>,
}

impl Record {
    pub(super) fn begin(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        way: &Rc<Way>,
        spoken: Spoken,
        started: Instant,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            client: Rc::clone(client),
            way: Rc::clone(way),
            destination: Rc::clone(&worker.nowhere),
            cluster: None,
            spoken,
            started,
            status: 0,
            reason: None,
            attempts: 0,
            stage: Stage::Nowhere,
            permit: None,
            has_waited: false,
            log: worker.log.is_on().then(Box::default),
        }
    }

    pub(super) fn note_head(&mut self, head: &RequestHead) {
        if let Some(log) = &mut self.log {
            log.method = Some(head.method.clone());
            let path = head.path().split(|byte| *byte == b'?').next();
            log.path = path.filter(|path| !path.is_empty()).map(text);
        }
    }

    pub(super) fn note_authority(&mut self, head: &RequestHead) {
        if let Some(log) = &mut self.log {
            log.authority = head.authority().map(text);
        }
    }

    pub(super) fn note_request_id(&mut self, fields: &Fields) {
        if let Some(log) = &mut self.log {
            log.request_id = fields.get(Name::XRequestId).map(text);
        }
    }

    /// What is meant for one endpoint alone goes there even while it is taken out, and does not count towards that.
    pub(super) fn destined(&mut self, cluster: &Rc<LocalCluster>, exact: bool) {
        self.destination = Rc::clone(&cluster.metrics);
        self.cluster = (!exact).then(|| Rc::clone(cluster));
    }

    pub(super) fn passes_through(&mut self) {
        self.destination = Rc::clone(&self.worker.passthrough);
    }

    /// A try begins: its endpoint is busy from now on.
    pub(super) fn trying(&mut self, endpoint: &Arc<LiveEndpoint>, address: SocketAddr) {
        self.attempts += 1;
        self.stage = Stage::At { endpoint: Arc::clone(endpoint), address, _active: endpoint.begin_request() };
    }

    /// It waits for a connection: nobody is busy with it, and it is not under way.
    pub(super) fn waits(&mut self, since: Instant) {
        self.stage = Stage::InLine(since);
        self.permit = None;
        self.has_waited = true;
    }

    /// The try that began came to nothing, by no fault of the endpoint's.
    pub(super) fn withdraw(&mut self) {
        self.attempts -= 1;
        self.stage = Stage::Nowhere;
    }

    pub(super) fn waits_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::InLine(since) => Some(since),
            Stage::Nowhere | Stage::At { .. } => None,
        }
    }

    /// Whether some of its time went by before any endpoint had to do with it: that it ran out says nothing about one then.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Held until the request is over, or waits. None: it is not under way yet.
    pub(super) fn hold(&mut self, permit: Option<Permit>) {
        self.permit = permit;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.permit.is_some()
    }

    pub(super) fn answered(&mut self, status: u16, fields: &Fields) {
        self.status = if self.spoken == Spoken::Grpc { grpc::status(fields).unwrap_or(status) } else { status };
    }

    /// gRPC tells how it went at the very end.
    pub(super) fn note_trailers(&mut self, trailers: &Fields) {
        if self.spoken == Spoken::Grpc
            && let Some(status) = grpc::status(trailers)
        {
            self.status = status;
        }
    }

    pub(super) fn refused(&mut self, error: &ProxyError) {
        self.status = error.status().as_u16();
        self.permit = None;
        self.failed(error);
    }

    /// There is no way to tell the client more than that it is over.
    pub(super) fn cut(&mut self, error: &ProxyError) {
        self.failed(error);
    }

    /// The response was on its way already.
    pub(super) fn broke_off(&mut self, error: &ProxyError, now: Instant) {
        self.failed(error);
        if matches!(error, ProxyError::ResponseCut { .. } | ProxyError::ResponseIdle { .. }) {
            self.judge(Outcome::LocalFailure, now);
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn abandoned(&mut self) {
        self.reason = Some(Reason::DownstreamConnectionTermination);
    }

    /// A raw or switched connection is over.
    pub(super) fn copied(&mut self, copied: &Copied) {
        let counts = &self.destination.counts;
        counts.sent_bytes.add(copied.to_upstream_bytes);
        counts.received_bytes.add(copied.to_client_bytes);
        if let Some((side, error)) = &copied.broken {
            self.reason = Some(match side {
                Side::Client => Reason::DownstreamConnectionTermination,
                Side::Upstream => Reason::UpstreamConnectionTermination,
            });
            if let Some(log) = &mut self.log {
                log.details = Some(error.to_string());
            }
        }
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.worker.copying
    }

    /// Counts a connection on the endpoint tried last, until the guard drops.
    pub(super) fn open_connection(&self) -> Option<OpenConnection> {
        self.endpoint().map(|(endpoint, _)| endpoint.open_connection())
    }

    fn endpoint(&self) -> Option<(&Arc<LiveEndpoint>, SocketAddr)> {
        match &self.stage {
            Stage::At { endpoint, address, .. } => Some((endpoint, *address)),
            Stage::Nowhere | Stage::InLine(_) => None,
        }
    }

    fn failed(&mut self, error: &ProxyError) {
        self.reason = Some(error.reason());
        if let Some(log) = &mut self.log {
            log.details = Some(chain(error));
        }
    }

    /// Tells the outlier rule how the last try ended.
    pub(super) fn judge(&self, outcome: Outcome, now: Instant) {
        let (Some(cluster), Some((endpoint, address))) = (&self.cluster, self.endpoint()) else { return };
        match outlier::record(&cluster.live, endpoint, outcome, now) {
            Verdict::Keep => {}
            Verdict::Ejected { duration, ejections } => {
                cluster.metrics.counts.ejections.increase();
                let (cluster, endpoint) = (cluster.live.name(), endpoint.id());
                tracing::info!(%cluster, %endpoint, %address, ?duration, ejections, "an endpoint is taken out");
            }
            Verdict::KeptToServe { out, ready } => {
                let (cluster, endpoint) = (cluster.live.name(), endpoint.id());
                tracing::debug!(%cluster, %endpoint, out, ready, "an endpoint fails, but is kept to serve");
            }
        }
    }

    fn write_log(&self, log: &LogFields, now: Instant) {
        let duration = now.saturating_duration_since(self.started);
        self.worker.log.write(&Entry {
            time_ms: began_ms(duration),
            protocol: self.spoken.as_str(),
            client: self.client.peer,
            source: &self.way.origin.source,
            method: log.method.as_ref().map(http::Method::as_str),
            authority: log.authority.as_deref(),
            path: log.path.as_deref(),
            request_id: log.request_id.as_deref(),
            destination: self.destination.destination(),
            endpoint: self.endpoint().map(|(_, address)| address),
            status: self.status,
            duration_ms: duration.as_secs_f64() * 1e3,
            attempts: self.attempts,
            reason: self.reason.map_or("-", Reason::flag),
            details: log.details.as_deref(),
        });
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.spoken != Spoken::Tcp {
            self.client.end_request(now);
            if self.status == 0 && self.reason.is_none() {
                // Dropped while the answer was still awaited: whoever asked is gone.
                self.abandoned();
            }
        }
        let series = self.destination.series(&self.way.origin.source, self.spoken);
        series.record(self.status, self.reason, now.saturating_duration_since(self.started));
        if let Some(log) = &self.log {
            self.write_log(log, now);
        }
    }
}
