//! What an h2 client may make a listener do, beside what holds for every client.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of one h2 connection. Counts are per 10 s; what a client sends with good reason (pings, windows, and so on) may be more where
/// the connection does more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct H2Limits {
    /// Open at once. Further ones are refused, which harms nobody.
    pub streams_max: u32,
    /// A request head as it stands on the wire, compressed. One that `Limits::header_bytes_max` allows always fits.
    pub header_block_bytes_max: usize,
    /// Frames that continue one request head, beyond what its size needs.
    pub continuations_max: u32,
    /// Streams that are reset soon after they began; half of all may be.
    pub resets_max: u32,
    pub pings_max: u32,
    /// SETTINGS frames.
    pub settings_max: u32,
    /// DATA frames with nothing in them.
    pub empty_data_max: u32,
    /// PRIORITY frames.
    pub priorities_max: u32,
    /// WINDOW_UPDATE frames.
    pub window_updates_max: u32,
    /// Frames that mean nothing: of unknown types, or for streams that are over.
    pub ignored_max: u32,
    /// Our answers to such frames that the client does not read.
    pub unread_answer_bytes_max: usize,
    /// How far the window of a stream grows whose body is read fast enough.
    pub stream_window_bytes_max: u32,
    /// The window of all streams together.
    pub connection_window_bytes: u32,
    /// After so long without a byte a client is asked whether it is there; none: never.
    pub keepalive_interval: Option<Duration>,
    /// It has so long to answer.
    pub keepalive_timeout: Duration,
}

impl Default for H2Limits {
    fn default() -> Self {
        Self {
            streams_max: 1024,
            header_block_bytes_max: 128 << 10,
            continuations_max: 16,
            resets_max: 500,
            pings_max: 1000,
            settings_max: 100,
            empty_data_max: 100,
            priorities_max: 1000,
            window_updates_max: 2000,
            ignored_max: 2000,
            unread_answer_bytes_max: 128 << 10,
            stream_window_bytes_max: 1 << 20,
            connection_window_bytes: 16 << 20,
            keepalive_interval: Some(Duration::from_secs(60)),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}
