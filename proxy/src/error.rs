//! What can go wrong with a request or a connection. Each error answers four questions, by exhaustive match: whose fault is it,
//! which status does the client get, which reason code is counted and logged, and may the request be sent again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_core::config::duration::rounded;
use mesh_core::model::reason::Reason;
use thiserror::Error;

use crate::balance::Unavailable;
use crate::h1::chunked::BadChunk;
use crate::h1::head::BadHead;
use crate::h2::{self, ConnectionError, HeadError, Reset, ResetBy};
use crate::identity::handshake::{HandshakeError, Why};
use crate::listen::proxied::ProxiedError;
use crate::resilience::breaker::Limit;

/// What ended a message, or its connection, before it was whole.
#[derive(Debug, Error)]
pub enum Broken {
    #[error("the connection ended in the middle of it")]
    Ended,
    #[error("the connection broke off")]
    Connection { source: io::Error },
    #[error("its head is malformed")]
    Head { source: BadHead },
    #[error("its chunks are malformed")]
    Chunks { source: BadChunk },
    #[error("its stream was reset")]
    Stream { source: Reset },
    #[error("the request that it answers broke off")]
    Request,
}

impl Broken {
    /// What came is no HTTP, or not what it said it would be.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Head { .. } | Self::Chunks { .. } => true,
            Self::Stream { source } => matches!(source.by, ResetBy::Rules { .. }),
            Self::Ended | Self::Connection { .. } | Self::Request => false,
        }
    }
}

/// Why a request or a raw connection failed.
#[derive(Debug, Error)]
pub enum ProxyError {
    #[error("nobody here is called {authority:?}; known are: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoRoute { authority: String, known: Arc<[Arc<str>]> },
    #[error("the route leads to {cluster:?}, of which nothing is known yet")]
    UnknownCluster { cluster: Arc<str> },
    #[error("this listener carries no HTTP: it has no route table")]
    NoRouteTable { listener: Arc<str> },
    #[error("this listener has no destination for raw connections")]
    NoTcpCluster { listener: Arc<str> },
    #[error("no service has the virtual IP and port {address}")]
    Nobody { address: SocketAddr },
    #[error("CONNECT to {authority:?} is refused: this proxy opens no tunnels")]
    TunnelRefused { authority: String },
    #[error("{address} opens no tunnels for other protocols (RFC 8441 section 3)")]
    TunnelUnsupported { address: SocketAddr },
    #[error("{method} was not to be forwarded any further (Max-Forwards: 0)")]
    ForwardsExceeded { method: http::Method },
    #[error("{cluster}: {why}")]
    NoHealthyUpstream { cluster: Arc<str>, why: Unavailable },
    #[error("{endpoint} is on no network of the caller")]
    NoSharedNetwork { endpoint: Arc<str> },
    #[error("{address} cannot be reached")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address} did not answer a connect within {}", rounded(*after))]
    ConnectTimeout { address: SocketAddr, after: Duration },
    #[error("{cluster} has its limit of {max} {limit} under way already")]
    Overflow { cluster: Arc<str>, limit: Limit, max: u32 },
    #[error("no connection to {cluster} came free within {}: {connections} are in use, of {max} allowed", rounded(*after))]
    PendingTimeout { cluster: Arc<str>, after: Duration, connections: u32, max: u32 },
    #[error("the whole request took longer than {}", rounded(*after))]
    RequestTimeout { after: Duration },
    /// The request had not begun to be written.
    #[error("the connection to {address} had closed before the request was sent")]
    NotSent { address: SocketAddr, source: Broken },
    #[error("{address} closed the connection before it answered")]
    Closed { address: SocketAddr, reused: bool, source: Broken },
    #[error("{address} refused the stream unseen")]
    StreamRefused { address: SocketAddr, source: Broken },
    #[error("{address} reset the stream")]
    StreamReset { address: SocketAddr, source: Broken },
    #[error("{address} answered what is no HTTP")]
    Protocol { address: SocketAddr, source: Broken },
    #[error("{address} ended its response before it was whole")]
    ResponseCut { address: SocketAddr, source: Broken },
    #[error("{address} sent nothing of its response for {}", rounded(*after))]
    ResponseIdle { address: SocketAddr, after: Duration },
    #[error("the head of the request is larger than {address} takes")]
    HeadTooLarge { address: SocketAddr },
    #[error("the client's request cannot be read")]
    ClientCut { source: Broken },
    #[error("the client went away before its response was whole")]
    ClientGone,
    #[error("the client sent nothing of its request for {}", rounded(*after))]
    ClientIdle { after: Duration },
    #[error("the client's request head was not whole in time")]
    HeaderTimeout,
    #[error("{}", bad_message(source))]
    BadMessage { source: BadHead },
    #[error("{}", bad_stream(source))]
    BadStream { source: HeadError },
    #[error("the client's connection cannot be gone on with")]
    BadConnection { source: ConnectionError },
    /// The client may try again.
    #[error("the client has as many streams under way as it may ({})", h2::Limit::Streams)]
    TooManyStreams,
    #[error("the listener has {max} connections, as many as it may")]
    TooManyConnections { max: u32 },
    #[error("{by} may not say whose connection it is: it is not in proxy_protocol.trusted")]
    Untrusted { by: IpAddr },
    #[error("the connection does not say whose it is")]
    Unproxied { source: ProxiedError },
    #[error("the TLS handshake failed ({})", source.why.as_str())]
    Handshake { source: HandshakeError },
    #[error("{problem}")]
    BadRequest { problem: &'static str },
    #[error("{problem}")]
    BadResponse { problem: &'static str },
    #[error("switching protocols with {address} failed")]
    Upgrade { address: SocketAddr, source: Broken },
    #[error("the proxy is shutting down")]
    Draining,
    #[error("every try failed, {attempts} in all; the last one: {last}")]
    RetriesExhausted { attempts: u32, last: Box<ProxyError> },
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Client,
    /// What we were told, or not told.
    Mesh,
    Upstream,
}

/// Whether the same request may be sent again, somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// No application has seen any of it.
    Safe,
    /// An idle connection was closed under it, as keep-alive allows; an idempotent request may go again.
    IfConnectionWasReused,
    /// An application may have acted on it, or nobody waits for it any more.
    Never,
}

impl ProxyError {
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoRoute { .. }
            | Self::Nobody { .. }
            | Self::TunnelRefused { .. }
            | Self::ForwardsExceeded { .. }
            | Self::HeadTooLarge { .. }
            | Self::ClientCut { .. }
            | Self::ClientGone
            | Self::ClientIdle { .. }
            | Self::HeaderTimeout
            | Self::BadMessage { .. }
            | Self::BadStream { .. }
            | Self::BadConnection { .. }
            | Self::TooManyStreams
            | Self::Untrusted { .. }
            | Self::Unproxied { .. }
            | Self::Handshake { .. }
            | Self::BadRequest { .. } => Fault::Client,
            Self::UnknownCluster { .. }
            | Self::NoRouteTable { .. }
            | Self::NoTcpCluster { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::NoSharedNetwork { .. }
            | Self::Overflow { .. }
            | Self::PendingTimeout { .. }
            | Self::TooManyConnections { .. }
            | Self::Draining => Fault::Mesh,
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::RequestTimeout { .. }
            | Self::NotSent { .. }
            | Self::Closed { .. }
            | Self::StreamRefused { .. }
            | Self::StreamReset { .. }
            | Self::Protocol { .. }
            | Self::ResponseCut { .. }
            | Self::ResponseIdle { .. }
            | Self::BadResponse { .. }
            | Self::Upgrade { .. }
            | Self::TunnelUnsupported { .. }
            | Self::RetriesExhausted { .. } => Fault::Upstream,
        }
    }

    /// What the client is answered, as long as nothing else was answered.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } | Self::Nobody { .. } => StatusCode::NOT_FOUND,
            Self::TunnelRefused { .. } | Self::ForwardsExceeded { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TunnelUnsupported { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::BadMessage { source } => match source {
                BadHead::Malformed { .. } => StatusCode::BAD_REQUEST,
                BadHead::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
                BadHead::TooLarge { .. } | BadHead::TooManyFields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                BadHead::Version { .. } => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                BadHead::Coding => StatusCode::NOT_IMPLEMENTED,
            },
            Self::HeadTooLarge { .. }
            | Self::BadStream { source: HeadError::TooLarge { .. } | HeadError::TooManyFields { .. } } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::ClientCut { .. }
            | Self::ClientGone
            | Self::BadRequest { .. }
            | Self::BadStream { source: HeadError::Malformed(_) }
            | Self::BadConnection { .. }
            | Self::Untrusted { .. }
            | Self::Unproxied { .. }
            | Self::Handshake { .. } => StatusCode::BAD_REQUEST,
            Self::ClientIdle { .. } | Self::HeaderTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownCluster { .. }
            | Self::NoRouteTable { .. }
            | Self::NoTcpCluster { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::NoSharedNetwork { .. }
            | Self::Overflow { .. }
            | Self::TooManyStreams
            | Self::TooManyConnections { .. }
            | Self::Draining
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::NotSent { .. }
            | Self::Closed { .. }
            | Self::StreamRefused { .. }
            | Self::StreamReset { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Protocol { .. } | Self::ResponseCut { .. } | Self::BadResponse { .. } | Self::Upgrade { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::PendingTimeout { .. } | Self::RequestTimeout { .. } | Self::ResponseIdle { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::RetriesExhausted { last, .. } => last.status(),
        }
    }

    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoRoute { .. }
            | Self::UnknownCluster { .. }
            | Self::NoRouteTable { .. }
            | Self::NoTcpCluster { .. }
            | Self::Nobody { .. }
            | Self::TunnelRefused { .. }
            | Self::TunnelUnsupported { .. }
            | Self::ForwardsExceeded { .. } => Reason::NoRoute,
            Self::NoHealthyUpstream { .. } | Self::NoSharedNetwork { .. } => Reason::NoHealthyUpstream,
            Self::Connect { .. } | Self::ConnectTimeout { .. } => Reason::UpstreamConnectionFailure,
            Self::Overflow { .. } => Reason::UpstreamOverflow,
            Self::PendingTimeout { .. } | Self::RequestTimeout { .. } => Reason::UpstreamRequestTimeout,
            Self::NotSent { .. } | Self::Closed { .. } | Self::ResponseCut { .. } => {
                Reason::UpstreamConnectionTermination
            }
            Self::StreamRefused { .. } | Self::StreamReset { .. } => Reason::UpstreamRemoteReset,
            Self::Protocol { .. } | Self::BadResponse { .. } | Self::Upgrade { .. } => Reason::UpstreamProtocolError,
            Self::RetriesExhausted { .. } => Reason::UpstreamRetryLimitExceeded,
            Self::ClientCut { source } if source.is_malformed() => Reason::DownstreamProtocolError,
            Self::ClientCut { .. } | Self::ClientGone => Reason::DownstreamConnectionTermination,
            Self::Handshake { source } if source.why == Why::Closed => Reason::DownstreamConnectionTermination,
            Self::Handshake { source } if source.why == Why::NoConfig => Reason::NoRoute,
            Self::Handshake { source } if source.why == Why::Timeout => Reason::StreamIdleTimeout,
            Self::Unproxied { source: ProxiedError::Timeout(_) } => Reason::StreamIdleTimeout,
            Self::Unproxied { source: ProxiedError::Broken(_) } => Reason::DownstreamConnectionTermination,
            Self::BadConnection { source: ConnectionError::Silent | ConnectionError::SlowHead } => {
                Reason::StreamIdleTimeout
            }
            Self::BadConnection { source: ConnectionError::Flood { .. } }
            | Self::TooManyStreams
            | Self::TooManyConnections { .. } => Reason::OverloadManager,
            Self::BadMessage { .. }
            | Self::BadRequest { .. }
            | Self::HeadTooLarge { .. }
            | Self::BadStream { .. }
            | Self::BadConnection { .. }
            | Self::Untrusted { .. }
            | Self::Unproxied { .. }
            | Self::Handshake { .. } => Reason::DownstreamProtocolError,
            Self::ClientIdle { .. } | Self::HeaderTimeout | Self::ResponseIdle { .. } => Reason::StreamIdleTimeout,
            Self::Draining => Reason::DrainTimeout,
        }
    }

    /// What the client sent is malformed, or did not all come: nothing more can be read of its connection.
    #[must_use]
    pub fn leaves_request_unread(&self) -> bool {
        matches!(
            self,
            Self::BadRequest { .. } | Self::ClientCut { .. } | Self::ClientIdle { .. } | Self::TunnelRefused { .. }
        )
    }

    #[must_use]
    pub fn replay(&self) -> Replay {
        match self {
            Self::NoSharedNetwork { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::NotSent { .. }
            | Self::StreamRefused { .. }
            | Self::TunnelUnsupported { .. }
            | Self::Overflow { limit: Limit::Connections, .. } => Replay::Safe,
            Self::Closed { reused: true, .. } => Replay::IfConnectionWasReused,
            Self::Closed { reused: false, .. }
            | Self::Overflow { .. }
            | Self::NoRoute { .. }
            | Self::UnknownCluster { .. }
            | Self::NoRouteTable { .. }
            | Self::NoTcpCluster { .. }
            | Self::Nobody { .. }
            | Self::TunnelRefused { .. }
            | Self::ForwardsExceeded { .. }
            | Self::HeadTooLarge { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::PendingTimeout { .. }
            | Self::RequestTimeout { .. }
            | Self::StreamReset { .. }
            | Self::Protocol { .. }
            | Self::ResponseCut { .. }
            | Self::ResponseIdle { .. }
            | Self::ClientCut { .. }
            | Self::ClientGone
            | Self::ClientIdle { .. }
            | Self::HeaderTimeout
            | Self::BadMessage { .. }
            | Self::BadStream { .. }
            | Self::BadConnection { .. }
            | Self::TooManyStreams
            | Self::TooManyConnections { .. }
            | Self::Untrusted { .. }
            | Self::Unproxied { .. }
            | Self::Handshake { .. }
            | Self::BadRequest { .. }
            | Self::BadResponse { .. }
            | Self::Upgrade { .. }
            | Self::Draining
            | Self::RetriesExhausted { .. } => Replay::Never,
        }
    }
}

/// What is over a limit, or not spoken here, is HTTP all the same.
fn bad_message(source: &BadHead) -> &'static str {
    match source {
        BadHead::Malformed { .. } => "what the client sent is no HTTP",
        BadHead::TargetTooLong { .. } | BadHead::TooLarge { .. } | BadHead::TooManyFields { .. } => HEAD_OVER_LIMIT,
        BadHead::Version { .. } | BadHead::Coding => "the client's request asks for what is not known here",
    }
}

fn bad_stream(source: &HeadError) -> &'static str {
    match source {
        HeadError::Malformed(_) => "what the client opened a stream with is no request",
        HeadError::TooLarge { .. } | HeadError::TooManyFields { .. } => HEAD_OVER_LIMIT,
    }
}

const HEAD_OVER_LIMIT: &str = "the head of the client's request is over a limit";

/// An error and all its sources, in one line: for logs.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_over_a_limit_is_not_called_something_else() {
        let check = |error: &ProxyError, status: u16, text: &str| {
            assert_eq!((error.status().as_u16(), chain(error).as_str()), (status, text));
        };
        let large = ProxyError::BadMessage { source: BadHead::TooLarge { bytes_max: 9 } };
        check(&large, 431, "the head of the client's request is over a limit: the head is larger than 9 bytes");
        let many = ProxyError::BadStream { source: HeadError::TooManyFields { fields_max: 9 } };
        check(&many, 431, "the head of the client's request is over a limit: the head has more than 9 fields");
        let version = ProxyError::BadMessage { source: BadHead::Version { major: '3' } };
        check(&version, 505, "the client's request asks for what is not known here: HTTP/3 is not spoken here");
        let garbage = ProxyError::BadMessage { source: BadHead::Malformed { problem: "a line" } };
        check(&garbage, 400, "what the client sent is no HTTP: a line");
    }

    #[test]
    fn times_are_told_as_people_configure_them() {
        let error = ProxyError::RequestTimeout { after: Duration::from_nanos(501_065_213) };
        assert_eq!(error.to_string(), "the whole request took longer than 500ms");
        let address = ([10, 0, 0, 1], 80).into();
        let error = ProxyError::ConnectTimeout { address, after: Duration::from_nanos(1_001_194_633) };
        assert_eq!(error.to_string(), "10.0.0.1:80 did not answer a connect within 1s");
    }
}
