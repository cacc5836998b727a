//! Until when each part of a request must have happened. Computed once, when the request head is whole.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::{Duration, Instant};

use mesh_core::model::policy::Policy;

/// What kind of exchange a request turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// One request, one response: the whole-request timeout holds to its last byte.
    Plain,
    /// The response goes on for as long as there is news (server-sent events, gRPC streams): once its head is there, the
    /// whole-request timeout no longer ends it.
    Streaming,
    /// The connection has become something else (WebSocket, CONNECT): as for streaming.
    Upgraded,
}

/// The deadlines of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    request: Option<Instant>,
    connect_timeout: Duration,
}

impl Exchange {
    /// Tells by the response head. `switching` is a 101, or a 2xx to CONNECT.
    #[must_use]
    pub fn of_response(switching: bool, content_type: Option<&[u8]>) -> Self {
        let essence = content_type.map(|value| {
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            value[..end].trim_ascii()
        });
        let streams = |essence: &[u8]| {
            let grpc = essence.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
            grpc || essence.eq_ignore_ascii_case(b"text/event-stream")
        };
        match (switching, essence) {
            (true, _) => Self::Upgraded,
            (false, Some(essence)) if streams(essence) => Self::Streaming,
            _ => Self::Plain,
        }
    }
}

impl Deadlines {
    /// `now` is when the request head was whole; a timeout of zero is none.
    #[must_use]
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let timeout = policy.timeout.filter(|timeout| !timeout.is_zero());
        Self {
            request: timeout.and_then(|timeout| now.checked_add(timeout)),
            connect_timeout: policy.connect_timeout.0,
        }
    }

    /// When the response head must be there, whatever the exchange is.
    #[must_use]
    pub fn response_head(&self) -> Option<Instant> {
        self.request
    }

    /// When the last byte of the response must be there.
    #[must_use]
    pub fn response_end(&self, exchange: Exchange) -> Option<Instant> {
        match exchange {
            Exchange::Plain => self.request,
            Exchange::Streaming | Exchange::Upgraded => None,
        }
    }

    /// When a connect that starts at `now` must have succeeded: its own limit, and never past the request's.
    #[must_use]
    pub fn connect(&self, now: Instant) -> Instant {
        let own = now.checked_add(self.connect_timeout).unwrap_or(now);
        self.request.map_or(own, |request| own.min(request))
    }

    /// Whether the request has run out of time: nothing is tried again then.
    #[must_use]
    pub fn expired(&self, now: Instant) -> bool {
        self.request.is_some_and(|request| request <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::start;

    #[test]
    fn the_request_bounds_everything_but_streams() {
        let now = start();
        let policy = Policy { timeout: Some(Duration::from_millis(1500)), ..Policy::default() };
        let deadlines = Deadlines::new(&policy, now);
        let after = |millis: u64| now + Duration::from_millis(millis);
        assert_eq!(deadlines.response_end(Exchange::Plain), Some(after(1500)));
        assert_eq!(deadlines.response_end(Exchange::Streaming), None);
        assert_eq!(deadlines.response_end(Exchange::Upgraded), None);
        assert_eq!(deadlines.response_head(), Some(after(1500)));
        assert_eq!(deadlines.connect(now), after(1000));
        assert_eq!(deadlines.connect(after(1200)), after(1500));
        assert!(!deadlines.expired(after(1499)) && deadlines.expired(after(1500)));
    }

    #[test]
    fn none_and_zero_are_no_timeout() {
        let now = start();
        for timeout in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            let deadlines = Deadlines::new(&Policy { timeout, ..Policy::default() }, now);
            assert_eq!(deadlines.response_head(), None, "{timeout:?}");
            assert!(!deadlines.expired(now + Duration::from_secs(1 << 30)));
        }
    }

    #[test]
    fn streams_are_told_by_their_content_type() {
        let check = |switching: bool, content_type: Option<&str>, expected: Exchange| {
            let bytes = content_type.map(str::as_bytes);
            assert_eq!(Exchange::of_response(switching, bytes), expected, "{content_type:?}");
        };
        check(false, None, Exchange::Plain);
        check(false, Some("text/html"), Exchange::Plain);
        check(false, Some("text/event-stream; charset=utf-8"), Exchange::Streaming);
        check(false, Some("Application/gRPC+proto"), Exchange::Streaming);
        check(false, Some("äpplication/grpc"), Exchange::Plain);
        check(true, Some("text/html"), Exchange::Upgraded);
    }
}
