//! Why a request or connection was refused or cut: one code, the same in the access log, the metrics label, the
//! `Proxy-Status` header (RFC 9209) and `mesh-ctl why`. Letters are Envoy's response flags.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason code of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No route: nobody is called that.
    #[serde(rename = "NR")]
    NoRoute,
    /// A route to a service that has no ready endpoint.
    #[serde(rename = "UH")]
    NoHealthyUpstream,
    /// The connection to the endpoint failed.
    #[serde(rename = "UF")]
    UpstreamConnectionFailure,
    /// A circuit limit was reached.
    #[serde(rename = "UO")]
    UpstreamOverflow,
    /// The request timed out.
    #[serde(rename = "UT")]
    UpstreamRequestTimeout,
    /// The endpoint closed the connection before its response was whole.
    #[serde(rename = "UC")]
    UpstreamConnectionTermination,
    /// The endpoint reset the stream.
    #[serde(rename = "UR")]
    UpstreamRemoteReset,
    /// The response made no sense.
    #[serde(rename = "UPE")]
    UpstreamProtocolError,
    /// Every try failed; the last one's failure is in the details.
    #[serde(rename = "URX")]
    UpstreamRetryLimitExceeded,
    /// The client went away first.
    #[serde(rename = "DC")]
    DownstreamConnectionTermination,
    /// The request made no sense, or was over a limit.
    #[serde(rename = "DPE")]
    DownstreamProtocolError,
    /// The client was silent for too long.
    #[serde(rename = "SI")]
    StreamIdleTimeout,
    /// Over the proxy's own limit.
    #[serde(rename = "OM")]
    OverloadManager,
    /// The proxy is shutting down and no longer waits.
    #[serde(rename = "DT")]
    DrainTimeout,
}

impl Reason {
    pub const ALL: [Self; 14] = [
        Self::NoRoute,
        Self::NoHealthyUpstream,
        Self::UpstreamConnectionFailure,
        Self::UpstreamOverflow,
        Self::UpstreamRequestTimeout,
        Self::UpstreamConnectionTermination,
        Self::UpstreamRemoteReset,
        Self::UpstreamProtocolError,
        Self::UpstreamRetryLimitExceeded,
        Self::DownstreamConnectionTermination,
        Self::DownstreamProtocolError,
        Self::StreamIdleTimeout,
        Self::OverloadManager,
        Self::DrainTimeout,
    ];

    /// Envoy's letters: `UH`.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamOverflow => "UO",
            Self::UpstreamRequestTimeout => "UT",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamRemoteReset => "UR",
            Self::UpstreamProtocolError => "UPE",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::DownstreamConnectionTermination => "DC",
            Self::DownstreamProtocolError => "DPE",
            Self::StreamIdleTimeout => "SI",
            Self::OverloadManager => "OM",
            Self::DrainTimeout => "DT",
        }
    }

    /// The long word: `no_healthy_upstream`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::UpstreamConnectionFailure => "upstream_connection_failure",
            Self::UpstreamOverflow => "upstream_overflow",
            Self::UpstreamRequestTimeout => "upstream_request_timeout",
            Self::UpstreamConnectionTermination => "upstream_connection_termination",
            Self::UpstreamRemoteReset => "upstream_remote_reset",
            Self::UpstreamProtocolError => "upstream_protocol_error",
            Self::UpstreamRetryLimitExceeded => "upstream_retry_limit_exceeded",
            Self::DownstreamConnectionTermination => "downstream_connection_termination",
            Self::DownstreamProtocolError => "downstream_protocol_error",
            Self::StreamIdleTimeout => "stream_idle_timeout",
            Self::OverloadManager => "overload_manager",
            Self::DrainTimeout => "drain_timeout",
        }
    }

    /// The error type of the `Proxy-Status` header (RFC 9209 section 2.3).
    #[must_use]
    pub fn proxy_status(self) -> &'static str {
        match self {
            Self::NoRoute | Self::NoHealthyUpstream => "destination_unavailable",
            Self::UpstreamConnectionFailure => "connection_refused",
            Self::UpstreamOverflow => "connection_limit_reached",
            Self::UpstreamRequestTimeout => "http_response_timeout",
            Self::UpstreamConnectionTermination | Self::UpstreamRemoteReset => "connection_terminated",
            Self::UpstreamProtocolError => "http_protocol_error",
            Self::UpstreamRetryLimitExceeded => "destination_unavailable",
            Self::DownstreamConnectionTermination => "http_request_error",
            Self::DownstreamProtocolError => "http_request_error",
            Self::StreamIdleTimeout => "http_request_error",
            Self::OverloadManager | Self::DrainTimeout => "proxy_internal_response",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.flag())
    }
}
