//! One h2 connection: what it is made of, what its owner asks of it, and how it ends.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::{ConnectionError, Reset, ResetBy};
use super::frame::{Code, STREAM_ID_MAX, WINDOW_BYTES_DEFAULT, kind};
use super::head::HeadError;
use super::hpack::decoder::Decoder;
use super::hpack::encoder::Encoder;
use super::limits::{Counts, Limit, Limits};
use super::output::Output;
use super::receive::Input;
use super::settings::{self, PeerSettings, Settings};
use super::streams::{StreamKey, Streams};
use crate::message::RequestHead;

/// What the peer's table may take; what everybody begins with (RFC 9113 section 6.5.2).
const TABLE_BYTES: usize = 4096;

/// A client that was told to go has so long until what it still opens is refused.
const GOING_MAX: Duration = Duration::from_secs(1);

/// The PING by which we learn that a client has read our GOAWAY, and the one that asks whether it is there.
const GOING_PING: [u8; 8] = *b"mesh-bye";
const ALIVE_PING: [u8; 8] = *b"mesh-hey";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What the owner of a connection has to know.
#[derive(Debug)]
pub enum Event {
    /// Servers only. The stream is held from here on: [`Connection::release`] ends that.
    Request { stream: StreamKey, head: RequestHead },
    /// There is something to read where there was nothing.
    Readable(StreamKey),
    /// There is room to send where there was none.
    Writable(StreamKey),
    /// The peer said how many streams it takes, or changed it.
    Settings,
    /// The peer opens, or takes, no more streams.
    GoAway { code: Code },
    /// Servers only: what a client opened a stream for is no request of anybody.
    Refused(Refused),
}

/// Why a client's stream was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no request. The client was answered.
    Head(HeadError),
    /// There were as many streams as there may be. The client may try again (RFC 9113 section 8.7).
    Full,
}

impl Refused {
    /// The limit that was reached, if that is why.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::Head(HeadError::Malformed(_)) => None,
            Self::Head(HeadError::TooLarge { .. }) => Some(Limit::HeadBytes),
            Self::Head(HeadError::TooManyFields { .. }) => Some(Limit::HeadFields),
            Self::Full => Some(Limit::Streams),
        }
    }
}

/// How far we are in leaving (RFC 9113 section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    No,
    /// The peer was told, but may have opened streams since.
    Told {
        at: Instant,
    },
    /// Streams behind this one are not taken any more.
    Last(u32),
}

/// One connection, in one role.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) peer: PeerSettings,
    pub(super) input: Input,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) streams: Streams,
    pub(super) events: VecDeque<Event>,
    pub(super) output: Output,
    pub(super) counts: Counts,

    /// How much the peer may send, and what was read and not given back to it yet.
    pub(super) receive_window: i64,
    pub(super) owed: u32,
    /// How much is there unread, on all streams.
    pub(super) unread_bytes: u64,
    /// By how much the windows of all streams have grown.
    pub(super) grown_bytes: u64,
    pub(super) send_window: i64,

    /// The highest stream that the peer opened, and how many.
    pub(super) peer_last: u32,
    pub(super) peer_opened: u32,
    pub(super) next_id: u32,
    pub(super) resets: VecDeque<u32>,
    /// Resets of streams up to this one may be forgotten already.
    pub(super) resets_forgotten: u32,
    pub(super) going: Going,
    /// What the peer said in its last GOAWAY: the last stream it looked at.
    pub(super) peer_going: Option<u32>,
    pub(super) failed: Option<ConnectionError>,
    /// The peer will send nothing more.
    pub(super) ended: bool,
    heard_at: Instant,
    asked_at: Option<Instant>,
    /// When a frame or header block began that is not whole.
    pub(super) within_since: Option<Instant>,
    /// How much text the last head had.
    pub(super) head_text_bytes: usize,
}

impl Connection {
    /// Its first output is there at once.
    #[must_use]
    pub fn server(settings: &Settings, limits: &Limits, now: Instant) -> Self {
        Self::new(Role::Server, settings, limits, now)
    }

    /// Its first output, the preface, is there at once; streams may be opened before the peer has said anything.
    #[must_use]
    pub fn client(settings: &Settings, limits: &Limits, now: Instant) -> Self {
        Self::new(Role::Client, settings, limits, now)
    }

    fn new(role: Role, settings: &Settings, limits: &Limits, now: Instant) -> Self {
        let mut settings = settings.clone();
        settings.stream_window_bytes = settings.stream_window_bytes.min(WINDOW_BYTES_DEFAULT);
        settings.connection_window_bytes = settings.connection_window_bytes.clamp(WINDOW_BYTES_DEFAULT, STREAM_ID_MAX);
        let mut connection = Self {
            role,
            limits: limits.clone(),
            peer: PeerSettings::default(),
            input: Input::new(role),
            decoder: Decoder::new(TABLE_BYTES),
            encoder: Encoder::default(),
            streams: Streams::default(),
            events: VecDeque::new(),
            output: Output::default(),
            counts: Counts::default(),
            receive_window: i64::from(settings.connection_window_bytes),
            settings,
            owed: 0,
            unread_bytes: 0,
            grown_bytes: 0,
            send_window: i64::from(WINDOW_BYTES_DEFAULT),
            peer_last: 0,
            peer_opened: 0,
            next_id: 1,
            resets: VecDeque::new(),
            resets_forgotten: 0,
            going: Going::No,
            peer_going: None,
            failed: None,
            ended: false,
            heard_at: now,
            asked_at: None,
            within_since: None,
            head_text_bytes: 256,
        };
        connection.introduce();
        connection
    }

    /// The preface of our side (RFC 9113 section 3.4).
    fn introduce(&mut self) {
        let mut payload = Vec::new();
        let is_server = self.role == Role::Server;
        settings::write(&self.settings, is_server, self.limits.streams_max, self.limits.head_bytes_max, &mut payload);
        if !is_server {
            self.output.buffer().extend_from_slice(super::frame::PREFACE);
        }
        self.output.frame(kind::SETTINGS, 0, 0, &payload);
        let more = self.settings.connection_window_bytes - WINDOW_BYTES_DEFAULT;
        if more > 0 {
            self.output.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// Feeds what was read, all of it. The peer has been told of an error in the output, and every stream has ended with it.
    ///
    /// # Errors
    /// [`ConnectionError`]: the connection is to be closed as soon as its output is written.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.counts.at(now);
        (self.heard_at, self.asked_at) = (now, None);
        self.take_bytes(bytes, now).inspect_err(|error| self.fail(*error))?;
        self.within_since = self.input.is_within().then(|| self.within_since.unwrap_or(now));
        Ok(())
    }

    /// The peer will send nothing more: messages of its that are not whole are cut, and what a client asked for is wanted no more.
    pub fn receive_end(&mut self) {
        self.ended = true;
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            // A client that left waits for no answer either.
            let is_server = self.role == Role::Server;
            if self.streams.get(key).is_some_and(|stream| is_server || !stream.received_end) {
                self.mark_reset(key, Reset { code: Code::CANCEL, by: ResetBy::Connection, seen: true });
            }
        }
    }

    /// The connection broke: all streams are over.
    pub fn break_off(&mut self) {
        self.ended = true;
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            self.mark_reset(key, Reset { code: Code::CANCEL, by: ResetBy::Connection, seen: true });
        }
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be written. Streams that may send have had their turn.
    pub fn output(&mut self) -> &mut Output {
        self.fill();
        &mut self.output
    }

    /// Whether there is something to write.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty() || (self.send_window > 0 && !self.streams.ring.is_empty())
    }

    /// Why a stream is over before its time; if it is not, [`Event::Writable`] tells when that changes.
    pub fn watch_reset(&mut self, key: StreamKey) -> Option<Reset> {
        let stream = self.streams.get(key)?;
        stream.writer_waits |= stream.reset.is_none();
        stream.reset
    }

    /// Tells a client that we leave: streams that it opened are answered, further ones are refused once it may know.
    pub fn shutdown(&mut self, now: Instant) {
        if self.going != Going::No || self.failed.is_some() {
            return;
        }
        if self.role == Role::Client {
            return self.go(0);
        }
        self.going = Going::Told { at: now };
        self.goaway(STREAM_ID_MAX, Code::NO_ERROR, "");
        self.output.frame(kind::PING, 0, 0, &GOING_PING);
    }

    fn go(&mut self, last: u32) {
        self.going = Going::Last(last);
        self.goaway(last, Code::NO_ERROR, "");
    }

    fn goaway(&mut self, last: u32, code: Code, words: &str) {
        let payload = [&last.to_be_bytes(), &code.0.to_be_bytes(), words.as_bytes()].concat();
        self.output.frame(kind::GOAWAY, 0, 0, &payload);
    }

    pub(super) fn ping_answered(&mut self, payload: &[u8]) {
        if payload == GOING_PING && matches!(self.going, Going::Told { .. }) {
            self.go(self.peer_last);
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.failed.is_some() || self.ended {
            return None;
        }
        let going = match self.going {
            Going::Told { at } => Some(at + GOING_MAX),
            Going::No | Going::Last(_) => None,
        };
        going.into_iter().chain(self.silent_deadline()).chain(self.head_deadline()).min()
    }

    fn head_deadline(&self) -> Option<Instant> {
        self.within_since.map(|since| since + self.settings.head_timeout)
    }

    fn silent_deadline(&self) -> Option<Instant> {
        let interval = self.settings.keepalive_interval?;
        match self.asked_at {
            Some(asked_at) => Some(asked_at + self.settings.keepalive_timeout),
            // Nobody waits for a server that answers nothing at the moment.
            None if self.role == Role::Client && self.streams.active == 0 => None,
            None => Some(self.heard_at + interval),
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`ConnectionError::Silent`] and [`ConnectionError::SlowHead`].
    pub fn tick(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if let Going::Told { at } = self.going
            && now >= at + GOING_MAX
        {
            self.go(self.peer_last);
        }
        if self.failed.is_none() && !self.ended && self.head_deadline().is_some_and(|deadline| now >= deadline) {
            self.fail(ConnectionError::SlowHead);
            return Err(ConnectionError::SlowHead);
        }
        if self.failed.is_some() || self.ended || self.silent_deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        if self.asked_at.is_some() {
            self.fail(ConnectionError::Silent);
            return Err(ConnectionError::Silent);
        }
        self.asked_at = Some(now);
        self.output.frame(kind::PING, 0, 0, &ALIVE_PING);
        Ok(())
    }

    /// Whether one more stream may be opened now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && self.takes_streams()
            && self.streams.active < self.peer.streams_max
            && self.next_id <= STREAM_ID_MAX
    }

    /// Whether streams may be opened, now or when others have ended.
    #[must_use]
    pub fn takes_streams(&self) -> bool {
        self.failed.is_none() && !self.ended && self.peer_going.is_none() && self.going == Going::No
    }

    /// How many streams may be open at once, as far as that is known.
    #[must_use]
    pub fn streams_max(&self) -> u32 {
        self.peer.streams_max
    }

    #[must_use]
    pub fn peer_settings(&self) -> &PeerSettings {
        &self.peer
    }

    /// Streams that are not closed.
    #[must_use]
    pub fn active_streams(&self) -> usize {
        self.streams.active as usize
    }

    /// How much was received and is not read yet.
    #[must_use]
    pub fn unread_bytes(&self) -> u64 {
        self.unread_bytes
    }

    #[must_use]
    pub fn failed(&self) -> Option<ConnectionError> {
        self.failed
    }

    /// Whether nothing is left to do but to write the output and close.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let leaving = self.ended || matches!(self.going, Going::Last(_)) || self.peer_going.is_some();
        self.failed.is_some() || (leaving && self.streams.active == 0)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        self.output.shrink();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    pub(super) fn fail(&mut self, error: ConnectionError) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(error);
        // In words: whoever looks at the other end need not ask us (RFC 9113 section 6.8).
        self.goaway(self.peer_last, error.code(), &error.to_string());
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            self.mark_reset(key, Reset { code: error.code(), by: ResetBy::Connection, seen: true });
        }
    }
}
