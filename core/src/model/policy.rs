//! How calls to a service are treated. Every default here is the one that holds when nobody configures anything.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::percent::Percent;

/// All that is decided about calls to one service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    pub balance: Balance,
    /// Whole request, from its head to the last byte of the response head's stream; none by default. It never ends an
    /// upgraded or streaming connection.
    pub timeout: Option<Duration>,
    pub connect_timeout: ConnectTimeout,
    pub retry: Retry,
    pub circuit: Circuit,
    pub outlier: Outlier,
    #[serde(default)]
    pub upstream: Upstream,
}

/// Which endpoint is taken (`lb`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Two candidates drawn by weight, the less loaded one taken (power of two choices).
    #[default]
    LeastRequest,
    /// Smooth weighted round robin.
    RoundRobin,
}

impl Balance {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request",
            Self::RoundRobin => "round_robin",
        }
    }
}

/// How long one connect may take. An address whose container died answers nothing, so this is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectTimeout(pub Duration);

impl Default for ConnectTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

/// What makes a try worth repeating, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No connection came about: no application has seen the request.
    ConnectFailure,
    /// The h2 peer refused the stream unseen (RFC 9113 section 8.7), or said GOAWAY below it.
    RefusedStream,
    /// The connection ended before the response head was whole.
    Reset,
    /// The response was 5xx, or none came.
    #[serde(rename = "5xx")]
    ServerError,
    /// The response was 502, 503 or 504.
    GatewayError,
}

impl RetryOn {
    pub const ALL: [Self; 5] =
        [Self::ConnectFailure, Self::RefusedStream, Self::Reset, Self::ServerError, Self::GatewayError];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::Reset => "reset",
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
        }
    }
}

/// Which methods may be tried again after an application may have seen them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 section 9.2.2).
    #[default]
    Idempotent,
    Any,
}

/// When, how often and within what budget a request is tried again, each time on another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub on: BTreeSet<RetryOn>,
    /// Further tries after the first.
    pub attempts: u32,
    /// Retries allowed as a share of requests ...
    pub budget: Percent,
    /// ... plus these a second. Tries that never reached an application are free.
    pub budget_min_per_second: u32,
    pub methods: RetryMethods,
    /// So much of a request's body is kept for another try; with a longer one there is none once some of it was sent.
    #[serde(default = "Retry::body_bytes_max")]
    pub body_bytes_max: u32,
}

impl Retry {
    /// What holds where nobody says it.
    fn body_bytes_max() -> u32 {
        64 << 10
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            on: [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Reset, RetryOn::ServerError].into(),
            attempts: 2,
            budget: Percent::from_hundredths(20_00),
            budget_min_per_second: 10,
            methods: RetryMethods::Idempotent,
            body_bytes_max: Self::body_bytes_max(),
        }
    }
}

/// What one service may have under way at once in a proxy, over all of its workers. Who finds all connections in use waits for one, in
/// order of arrival; beyond the other two limits the refusal is immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Circuit {
    /// Open connections, idle ones among them: an idle one is closed where another is needed. A worker that has none opens one beyond
    /// this, as Envoy's does, so that none waits for what others never give back: with `n` workers there may be `n - 1` more.
    pub connections_max: u32,
    /// Requests and raw connections that wait for a connection, to come free or to be opened. A request waits until its own deadline, or
    /// as long as its client does where there is none; a raw connection as long as a connect may take.
    pub pending_max: u32,
    /// Requests under way, and raw connections. Who waits for a connection to come free is not among them. Over HTTP/1.1 a request that
    /// finds this limit and that of connections reached waits, too; over h2, where many share a connection, it is refused.
    pub requests_max: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { connections_max: 1024, pending_max: 1024, requests_max: 1024 }
    }
}

/// What connections to endpoints may cost, and the answers that come over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// A connection without a request is closed after this long. None: after 4 s over HTTP/1.1, before common servers close theirs, so
    /// that no request is sent into a closing connection; after 60 s over h2, which announces that it closes.
    pub idle_timeout: Option<Duration>,
    /// Idle connections over HTTP/1.1 that a worker keeps, to each endpoint.
    pub idle_connections_max: u32,
    /// How large the head of a response may be, and so its trailers, in bytes.
    pub header_bytes_max: u32,
    /// How many fields it may have.
    pub header_count_max: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { idle_timeout: None, idle_connections_max: 256, header_bytes_max: 256 << 10, header_count_max: 512 }
    }
}

/// When an endpoint is taken out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outlier {
    /// Failures in a row (5xx, resets, refused connects) that eject; 0 turns ejection off.
    pub consecutive_5xx: u32,
    /// Ejected for this long times the number of ejections so far ...
    pub base_ejection_time: Duration,
    /// ... but never longer than this.
    pub max_ejection_time: Duration,
    /// The share of endpoints that may be out at once, counted after the ejection; never the last one.
    pub max_ejection_percent: Percent,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: Percent::from_hundredths(50_00),
        }
    }
}
