//! How a connection or a stream of it ends before its time.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;

use thiserror::Error;

use super::frame::Code;
use super::hpack::HpackError;
use super::limits::Limit;

/// Why a connection is of no use any more. The peer has been told in a GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConnectionError {
    #[error("the peer breaks the rules of h2 ({code}): {what}")]
    Protocol { code: Code, what: &'static str },
    #[error("the peer's header block cannot be read")]
    Hpack {
        #[from]
        source: HpackError,
    },
    #[error("the peer goes past the limit {limit}")]
    Flood { limit: Limit },
    #[error("the peer answers no PING")]
    Silent,
    #[error("the peer took too long with a head")]
    SlowHead,
}

impl ConnectionError {
    /// What the peer is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Protocol { code, .. } => *code,
            Self::Hpack { .. } => Code::COMPRESSION_ERROR,
            Self::Flood { .. } => Code::ENHANCE_YOUR_CALM,
            Self::Silent | Self::SlowHead => Code::NO_ERROR,
        }
    }
}

/// The end of a stream before its messages were whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream ended with {code}, {by}")]
pub struct Reset {
    pub code: Code,
    pub by: ResetBy,
    /// Whether the peer may have acted on what we sent. If not, it may be sent again (RFC 9113 section 8.7).
    pub seen: bool,
}

/// Who ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetBy {
    Peer,
    /// Because of what the peer sent.
    Rules {
        what: &'static str,
    },
    /// The caller.
    Us,
    /// The connection broke, or the peer leaves it.
    Connection,
}

impl fmt::Display for ResetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("which the peer sent"),
            Self::Rules { what } => write!(f, "because of {what}"),
            Self::Us => f.write_str("which we sent"),
            Self::Connection => f.write_str("with its connection"),
        }
    }
}

/// What cannot be sent on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// [`Reset`] is what the reader is told.
    #[error("the stream is over")]
    Over,
    #[error("the head has {bytes} bytes; the peer takes {bytes_max}")]
    HeadTooLarge { bytes: usize, bytes_max: usize },
    /// The peer takes no more streams on this connection for now, or never again.
    #[error("the connection has no room for a stream")]
    NoRoom,
}
