//! Which limit of HTTP/1.1 a client reached.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::head::BadHead;

/// A limit on what a client may take of us, or on how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Of a request head, its target included.
    HeaderBytes,
    Headers,
    /// It took nothing of its response.
    BodyIdle,
    HalfClosed,
    Linger,
    UnreadBody,
}

impl Limit {
    pub const ALL: [Self; 6] =
        [Self::HeaderBytes, Self::Headers, Self::BodyIdle, Self::HalfClosed, Self::Linger, Self::UnreadBody];

    /// The one that a head is past.
    #[must_use]
    pub fn of_head(bad: &BadHead) -> Option<Self> {
        match bad {
            BadHead::TooLarge { .. } | BadHead::TargetTooLong { .. } => Some(Self::HeaderBytes),
            BadHead::TooManyFields { .. } => Some(Self::Headers),
            BadHead::Malformed { .. } | BadHead::Version { .. } | BadHead::Coding => None,
        }
    }

    /// Its key in the configuration of a listener, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeaderBytes => "max_header_bytes",
            Self::Headers => "max_headers",
            Self::BodyIdle => "body_idle_timeout",
            Self::HalfClosed => "half_closed_timeout",
            Self::Linger => "linger_timeout",
            Self::UnreadBody => "max_unread_body_bytes",
        }
    }
}
