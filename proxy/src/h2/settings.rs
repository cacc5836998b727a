//! What each end tells the other of itself (RFC 9113 section 6.5).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version};

use super::error::ConnectionError;
use super::frame::{Code, FRAME_BYTES_MAX, WINDOW_BYTES_DEFAULT, WINDOW_BYTES_MAX};
use super::head::HeadError;
use crate::message::ResponseHead;
use crate::message::fields::Fields;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
/// RFC 9218 section 2.1.
const NO_RFC7540_PRIORITIES: u16 = 0x9;

const ENTRY_BYTES: usize = 6;

/// How many streams we open before the peer said how many it takes.
const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// Our end of a connection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much of one stream may be under way unread at its beginning; [`WINDOW_BYTES_DEFAULT`] at most, so that it holds for
    /// frames that were sent before the peer had read our settings.
    pub stream_window_bytes: u32,
    /// How far a stream's window grows as its reader reads.
    pub stream_window_bytes_max: u32,
    /// How much of all streams may be under way unread. Half of it is for streams whose window has not grown, so that it takes many
    /// stalled readers before any other stream has to wait.
    pub connection_window_bytes: u32,
    /// The peer may open tunnels for other protocols (RFC 8441). Servers only.
    pub extended_connect: bool,
    /// After so long without a byte from the peer it is asked whether it is there.
    pub keepalive_interval: Option<Duration>,
    /// It has so long to answer.
    pub keepalive_timeout: Duration,
    /// From the first byte of a head, or of any frame but DATA, to its last.
    pub head_timeout: Duration,
    /// What a client is answered whose request is none. Servers only.
    pub refusal: fn(&HeadError) -> (ResponseHead, Bytes),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window_bytes: WINDOW_BYTES_DEFAULT,
            stream_window_bytes_max: 1 << 20,
            connection_window_bytes: 16 << 20,
            extended_connect: true,
            keepalive_interval: Some(Duration::from_secs(60)),
            keepalive_timeout: Duration::from_secs(20),
            head_timeout: Duration::from_secs(10),
            refusal: status_alone,
        }
    }
}

fn status_alone(error: &HeadError) -> (ResponseHead, Bytes) {
    let status = match error {
        HeadError::Malformed(_) => StatusCode::BAD_REQUEST,
        // RFC 6585 section 5.
        HeadError::TooLarge { .. } | HeadError::TooManyFields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    };
    (ResponseHead::new(status, Version::HTTP_2, Fields::default()), Bytes::new())
}

/// What a SETTINGS frame of ours says.
pub(super) fn write(settings: &Settings, is_server: bool, streams_max: u32, head_bytes_max: usize, out: &mut Vec<u8>) {
    let mut entry = |name: u16, value: u32| {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    };
    if is_server {
        entry(MAX_CONCURRENT_STREAMS, streams_max);
        if settings.extended_connect {
            entry(ENABLE_CONNECT_PROTOCOL, 1);
        }
    } else {
        entry(ENABLE_PUSH, 0);
    }
    if settings.stream_window_bytes != WINDOW_BYTES_DEFAULT {
        entry(INITIAL_WINDOW_SIZE, settings.stream_window_bytes);
    }
    entry(MAX_HEADER_LIST_SIZE, u32::try_from(head_bytes_max).unwrap_or(u32::MAX));
    entry(NO_RFC7540_PRIORITIES, 1);
}

/// The peer's end, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// Whether it has said anything yet.
    pub received: bool,
    pub header_table_bytes: u32,
    pub streams_max: u32,
    pub stream_window_bytes: u32,
    pub frame_bytes_max: usize,
    /// What it takes of a head, as RFC 9113 section 6.5.2 counts it.
    pub head_bytes_max: u32,
    pub extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            received: false,
            header_table_bytes: 4096,
            streams_max: STREAMS_BEFORE_SETTINGS,
            stream_window_bytes: WINDOW_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            head_bytes_max: u32::MAX,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Takes over what the payload of a SETTINGS frame says.
    ///
    /// # Errors
    /// A payload that is cut within an entry, and values that are not allowed (RFC 9113 section 6.5.2, RFC 8441 section 3).
    pub(super) fn read(&mut self, payload: &[u8], from_server: bool) -> Result<(), ConnectionError> {
        let refused = |code, what| Err(ConnectionError::Protocol { code, what });
        let (entries, rest) = payload.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return refused(Code::FRAME_SIZE_ERROR, "SETTINGS whose length is no multiple of 6");
        }
        if !self.received {
            self.received = true;
            self.streams_max = u32::MAX;
        }
        for [a, b, value @ ..] in entries {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                HEADER_TABLE_SIZE => self.header_table_bytes = value,
                ENABLE_PUSH if value > 1 || (from_server && value == 1) => {
                    return refused(Code::PROTOCOL_ERROR, "a value of ENABLE_PUSH that is not allowed");
                }
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_BYTES_MAX => {
                    return refused(Code::FLOW_CONTROL_ERROR, "an INITIAL_WINDOW_SIZE above 2^31-1");
                }
                INITIAL_WINDOW_SIZE => self.stream_window_bytes = value,
                MAX_FRAME_SIZE if !(FRAME_BYTES_MAX as u32..1 << 24).contains(&value) => {
                    return refused(Code::PROTOCOL_ERROR, "a MAX_FRAME_SIZE out of its range");
                }
                MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                MAX_HEADER_LIST_SIZE => self.head_bytes_max = value,
                ENABLE_CONNECT_PROTOCOL if value > 1 || (self.extended_connect && value == 0) => {
                    return refused(Code::PROTOCOL_ERROR, "a value of ENABLE_CONNECT_PROTOCOL that is not allowed");
                }
                ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
                NO_RFC7540_PRIORITIES if value > 1 => {
                    return refused(Code::PROTOCOL_ERROR, "a value of NO_RFC7540_PRIORITIES that is not allowed");
                }
                // Unknown ones mean nothing (section 6.5.2).
                _ => {}
            }
        }
        Ok(())
    }
}
