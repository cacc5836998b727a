//! What one peer may make us do. Every limit has a name, a default, and is told when it is reached.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::fmt;
use std::time::{Duration, Instant};

/// The time over which frames are counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits of one connection. Counts are per 10 s; those of frames that a busy peer sends with good reason grow with what is done for
/// it: by one (or as the field says) for every stream opened and every DATA frame that carried something, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Streams that a client may have open at once. More are refused, which harms nobody.
    pub streams_max: u32,
    /// A head, as RFC 9113 section 6.5.2 counts it. A client with more gets a 431.
    pub head_bytes_max: usize,
    /// Fields of a head. A client with more gets a 431.
    pub head_fields_max: u32,
    /// A head as it stands on the wire, compressed.
    pub header_block_bytes_max: usize,
    /// CONTINUATION frames of one head (CVE-2024-27316).
    pub continuations_max: u32,
    /// Streams that the peer resets within a second, or makes us reset (CVE-2023-44487, CVE-2025-8671); half of all opened
    /// streams may end so before this counts.
    pub resets_max: u32,
    /// PING frames (CVE-2019-9512).
    pub pings_max: u32,
    /// SETTINGS frames (CVE-2019-9515).
    pub settings_max: u32,
    /// DATA frames with nothing in them that end nothing (CVE-2019-9518).
    pub empty_data_max: u32,
    /// PRIORITY frames (CVE-2019-9513).
    pub priorities_max: u32,
    /// WINDOW_UPDATE frames; four are allowed for each frame that is of use.
    pub window_updates_max: u32,
    /// Frames that mean nothing: of unknown types, or for streams that are over.
    pub ignored_max: u32,
    /// Interim responses (1xx) of one stream.
    pub interims_max: u32,
    /// Answers to what the peer sent (acknowledgements, resets, windows) that it does not read (CVE-2019-9517).
    pub answers_unread_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 1024,
            head_bytes_max: 64 << 10,
            head_fields_max: 512,
            header_block_bytes_max: 128 << 10,
            continuations_max: 16,
            resets_max: 500,
            pings_max: 1000,
            settings_max: 100,
            empty_data_max: 100,
            priorities_max: 1000,
            window_updates_max: 2000,
            ignored_max: 2000,
            interims_max: 32,
            answers_unread_bytes_max: 128 << 10,
        }
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    Streams,
    HeadBytes,
    HeadFields,
    HeaderBlockBytes,
    Continuations,
    Resets,
    Pings,
    Settings,
    EmptyData,
    Priorities,
    WindowUpdates,
    Ignored,
    Interims,
    AnswersUnread,
}

impl Limit {
    pub const ALL: [Self; 14] = [
        Self::Streams,
        Self::HeadBytes,
        Self::HeadFields,
        Self::HeaderBlockBytes,
        Self::Continuations,
        Self::Resets,
        Self::Pings,
        Self::Settings,
        Self::EmptyData,
        Self::Priorities,
        Self::WindowUpdates,
        Self::Ignored,
        Self::Interims,
        Self::AnswersUnread,
    ];

    /// Its key in the configuration of a listener, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "max_concurrent_streams",
            Self::HeadBytes => "max_header_bytes",
            Self::HeadFields => "max_headers",
            Self::HeaderBlockBytes => "max_header_block_bytes",
            Self::Continuations => "max_continuations",
            Self::Resets => "max_resets",
            Self::Pings => "max_pings",
            Self::Settings => "max_settings",
            Self::EmptyData => "max_empty_data",
            Self::Priorities => "max_priorities",
            Self::WindowUpdates => "max_window_updates",
            Self::Ignored => "max_ignored",
            Self::Interims => "max_interims",
            Self::AnswersUnread => "max_unread_answer_bytes",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was counted in the current interval.
#[derive(Debug, Default)]
pub(super) struct Counts {
    since: Option<Instant>,
    opened: u32,
    /// Frames that are of use to somebody.
    useful: u32,
    resets: u32,
    pings: u32,
    settings: u32,
    empty_data: u32,
    priorities: u32,
    window_updates: u32,
    ignored: u32,
}

impl Counts {
    /// Begins anew when the interval is over.
    pub(super) fn at(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL) {
            *self = Self { since: Some(now), ..Self::default() };
        }
    }

    pub(super) fn stream_opened(&mut self) {
        self.opened = self.opened.saturating_add(1);
        self.useful();
    }

    pub(super) fn useful(&mut self) {
        self.useful = self.useful.saturating_add(1);
    }

    /// Counts one more.
    ///
    /// # Errors
    /// The limit that it breaks.
    pub(super) fn count(&mut self, limit: Limit, limits: &Limits) -> Result<(), Limit> {
        let useful = self.useful;
        let (count, max) = match limit {
            Limit::Resets => (&mut self.resets, limits.resets_max.max(self.opened / 2)),
            Limit::Pings => (&mut self.pings, limits.pings_max.saturating_add(useful)),
            Limit::Settings => (&mut self.settings, limits.settings_max),
            Limit::EmptyData => (&mut self.empty_data, limits.empty_data_max.saturating_add(useful)),
            Limit::Priorities => (&mut self.priorities, limits.priorities_max.saturating_add(useful)),
            Limit::WindowUpdates => {
                (&mut self.window_updates, limits.window_updates_max.saturating_add(useful.saturating_mul(4)))
            }
            Limit::Ignored => (&mut self.ignored, limits.ignored_max.saturating_add(useful)),
            // Counted where they occur, not over time.
            Limit::Streams
            | Limit::HeadBytes
            | Limit::HeadFields
            | Limit::HeaderBlockBytes
            | Limit::Continuations
            | Limit::Interims
            | Limit::AnswersUnread => return Ok(()),
        };
        *count = count.saturating_add(1);
        if *count > max { Err(limit) } else { Ok(()) }
    }
}
