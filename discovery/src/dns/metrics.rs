//! What the DNS server counts.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use mesh_core::telemetry::metrics::DURATION_BUCKETS_SECONDS;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::answer::Transport;

/// How asking the upstreams ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardOutcome {
    Answered,
    /// No upstream answered in time, or none is configured.
    Failed,
    /// Too many were under way.
    Overflow,
}

impl ForwardOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Overflow => "overflow",
        }
    }
}

/// The server's counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
    duration: Histogram,
    forwards: IntCounterVec,
    pub forwards_in_flight: IntGauge,
    pub tcp_connections: IntGauge,
    pub tcp_connections_refused: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = DURATION_BUCKETS_SECONDS.to_vec();
        let duration = HistogramOpts::new("mesh_dns_request_duration_seconds", "From a DNS query to its response.");
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("mesh_dns_requests_total", "DNS queries, by transport and type asked for."),
                &["transport", "type"],
            )?,
            responses: IntCounterVec::new(
                Opts::new("mesh_dns_responses_total", "DNS responses, by response code."),
                &["rcode"],
            )?,
            duration: Histogram::with_opts(duration.buckets(buckets))?,
            forwards: IntCounterVec::new(
                Opts::new("mesh_dns_forwards_total", "Queries for other zones, by how asking the upstreams ended."),
                &["outcome"],
            )?,
            forwards_in_flight: IntGauge::new("mesh_dns_forwards_in_flight", "Queries that wait for an upstream.")?,
            tcp_connections: IntGauge::new("mesh_dns_tcp_connections", "Open TCP connections of DNS clients.")?,
            tcp_connections_refused: IntCounter::new(
                "mesh_dns_tcp_connections_refused_total",
                "TCP connections closed at once, as too many were open.",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.responses.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.forwards.clone()))?;
        registry.register(Box::new(metrics.forwards_in_flight.clone()))?;
        registry.register(Box::new(metrics.tcp_connections.clone()))?;
        registry.register(Box::new(metrics.tcp_connections_refused.clone()))?;
        Ok(metrics)
    }

    pub fn asked(&self, transport: Transport, kind: Option<RecordType>) {
        self.requests.with_label_values(&[transport.as_str(), kind_label(kind)]).inc();
    }

    pub fn answered(&self, code: ResponseCode, took: Duration) {
        self.responses.with_label_values(&[code_label(code)]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub fn forwarded(&self, outcome: ForwardOutcome) {
        self.forwards.with_label_values(&[outcome.as_str()]).inc();
    }
}

/// A client chooses among 65,536 types; a label has these.
fn kind_label(kind: Option<RecordType>) -> &'static str {
    match kind {
        None => "none",
        Some(RecordType::A) => "A",
        Some(RecordType::AAAA) => "AAAA",
        Some(RecordType::ANY) => "ANY",
        Some(RecordType::CNAME) => "CNAME",
        Some(RecordType::HTTPS) => "HTTPS",
        Some(RecordType::MX) => "MX",
        Some(RecordType::NS) => "NS",
        Some(RecordType::PTR) => "PTR",
        Some(RecordType::SOA) => "SOA",
        Some(RecordType::SRV) => "SRV",
        Some(RecordType::TXT) => "TXT",
        Some(_) => "other",
    }
}

fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
