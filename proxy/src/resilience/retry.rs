//! Whether a failed try is tried again, on another endpoint. The rule answers from the failure alone, and says whether the
//! retry must be paid for out of the budget.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;

use mesh_core::model::policy::{Retry, RetryMethods, RetryOn};

/// How a try ended without a response that may go to the client as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection came about: refused, unreachable, timed out, TLS failed.
    Connect,
    /// The peer said that it never looked at the stream (h2 REFUSED_STREAM, or a GOAWAY below it: RFC 9113 section 8.7).
    RefusedStream,
    /// The connection or stream ended before the response head was whole.
    Reset {
        /// The connection had carried a request before: it may have been closed while this one was on its way (RFC 9112
        /// section 9.3.1), without anybody having looked at it.
        connection_reused: bool,
        /// At least one byte of the request was given to the kernel.
        bytes_sent: bool,
        /// At least one byte of the response came: an application certainly saw the request.
        response_begun: bool,
    },
    /// A whole response head with this status.
    Status(u16),
    /// No response in time: the request is out of time, nothing is left to try in.
    Timeout,
}

/// The request, as far as a retry cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    /// By its method: see [`is_idempotent`].
    pub idempotent: bool,
    /// Its body can be sent once more: it has none, or all of it is still held. A body of which nothing was sent yet counts too.
    pub replayable: bool,
    /// 0 for the first try.
    pub attempt: u32,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// On another endpoint. `charged`: an application may have seen the try, so that [`super::budget::withdraw`] must agree
    /// too; `on` is the word of the policy it happens under, for metrics.
    Retry {
        on: RetryOn,
        charged: bool,
    },
    No(Refusal),
}

/// Why a try is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing failed.
    Success,
    /// All attempts are used up.
    Attempts,
    /// The policy does not name this kind of failure.
    NotConfigured,
    /// The method may have had an effect that a second time would double.
    NotIdempotent,
    /// Part of the body is gone.
    NotReplayable,
    /// Part of the response is gone, or no time is left.
    TooLate,
}

/// The rule.
#[must_use]
pub fn decide(policy: &Retry, request: Request, failure: Failure) -> Verdict {
    let Some(on) = matching(policy, failure) else {
        return Verdict::No(match failure {
            Failure::Status(status) if status < 500 => Refusal::Success,
            Failure::Timeout => Refusal::TooLate,
            _ => Refusal::NotConfigured,
        });
    };
    let unseen = failure.never_reached_an_application();
    let harmless = unseen || request.idempotent || policy.methods == RetryMethods::Any;
    if request.attempt >= policy.attempts {
        Verdict::No(Refusal::Attempts)
    } else if !harmless {
        Verdict::No(Refusal::NotIdempotent)
    } else if !request.replayable {
        Verdict::No(Refusal::NotReplayable)
    } else {
        Verdict::Retry { on, charged: !failure.is_free() }
    }
}

/// The first word of the policy that covers this failure.
fn matching(policy: &Retry, failure: Failure) -> Option<RetryOn> {
    let words: &[RetryOn] = match failure {
        Failure::Connect => &[RetryOn::ConnectFailure, RetryOn::ServerError],
        Failure::RefusedStream => &[RetryOn::RefusedStream, RetryOn::Reset, RetryOn::ServerError],
        Failure::Reset { .. } => &[RetryOn::Reset, RetryOn::ServerError],
        Failure::Status(502..=504) => &[RetryOn::GatewayError, RetryOn::ServerError],
        Failure::Status(500..) => &[RetryOn::ServerError],
        Failure::Status(_) | Failure::Timeout => &[],
    };
    words.iter().copied().find(|word| policy.on.contains(word))
}

impl Failure {
    /// Whether it is certain that no application saw the request. A reused connection that ended is *not* certain: the
    /// request may have been read before it did.
    #[must_use]
    pub fn never_reached_an_application(self) -> bool {
        match self {
            Self::Connect | Self::RefusedStream => true,
            Self::Reset { bytes_sent, response_begun, .. } => !bytes_sent && !response_begun,
            Self::Status(_) | Self::Timeout => false,
        }
    }
}

impl Failure {
    /// Whether a retry costs the budget nothing: no application saw the request, or most likely none did, since the connection
    /// was closed while the request was on its way. The latter happens at most once per pooled connection, so that it cannot
    /// multiply load, and it happens to many at once when a server restarts, which the budget must not turn into errors.
    fn is_free(self) -> bool {
        let stale = matches!(self, Self::Reset { connection_reused: true, response_begun: false, .. });
        stale || self.never_reached_an_application()
    }
}

impl Refusal {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Attempts => "attempts used up",
            Self::NotConfigured => "not in the policy",
            Self::NotIdempotent => "method not idempotent",
            Self::NotReplayable => "body not replayable",
            Self::TooLate => "too late",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 section 9.2.2). Methods are case-sensitive.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests;
