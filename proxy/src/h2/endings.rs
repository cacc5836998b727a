//! The ends of streams: what changes with them, who is woken, and what is remembered of those that are gone (RFC 9113 section 5.1).
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::connection::{Connection, Event, Role};
use super::error::{ConnectionError, Reset, ResetBy};
use super::frame::{Code, kind};
use super::head::HeadError;
use super::limits::Limit;
use super::streams::{Stream, StreamKey};

/// Streams that we reset lately, to know frames that were on their way then.
const RESETS_REMEMBERED: usize = 1024;

impl Connection {
    /// A stream ends because of what the peer sent on it. A client that was answered nothing yet is told why.
    pub(super) fn stream_error(&mut self, id: u32, code: Code, what: &'static str) -> Result<(), ConnectionError> {
        let unanswered = self.streams.find(id).and_then(|key| self.streams.get(key)).filter(|stream| {
            code == Code::PROTOCOL_ERROR && self.role == Role::Server && !stream.sent_head && stream.reset.is_none()
        });
        if let Some(window) = unanswered.map(|stream| stream.send_window) {
            self.answer_refused(id, window, &HeadError::Malformed(what));
        }
        self.output.answer(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
        match self.streams.find(id) {
            Some(key) => self.mark_reset(key, Reset { code, by: ResetBy::Rules { what }, seen: true }),
            None => self.remember_reset(id),
        }
        self.count(Limit::Resets)
    }

    pub(super) fn count(&mut self, limit: Limit) -> Result<(), ConnectionError> {
        self.counts.count(limit, &self.limits).map_err(|limit| ConnectionError::Flood { limit })
    }

    pub(super) fn mark_received_end(&mut self, key: StreamKey) {
        self.change(key, |stream| stream.received_end = true);
        self.wake_reader(key);
    }

    pub(super) fn mark_sent_end(&mut self, key: StreamKey) {
        self.change(key, |stream| stream.sent_end = true);
    }

    /// What was received before stays readable; what was to be sent is not.
    pub(super) fn mark_reset(&mut self, key: StreamKey, reset: Reset) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.reset.is_some() {
            return;
        }
        if !stream.received_end && !matches!(reset.by, ResetBy::Peer | ResetBy::Connection) {
            self.remember_reset(key.id);
        }
        self.streams.leave_ring(key);
        self.change(key, |stream| {
            stream.reset = Some(reset);
            stream.unsent.clear();
            stream.unsent_bytes = 0;
            stream.unsent_trailers = None;
        });
        self.wake_reader(key);
        self.wake_writer(key);
    }

    fn change(&mut self, key: StreamKey, change: impl FnOnce(&mut Stream)) {
        let Some(stream) = self.streams.get(key) else { return };
        let was_closed = stream.is_closed();
        change(stream);
        if stream.is_closed() {
            if !was_closed {
                self.streams.active -= 1;
            }
            self.remove_if_free(key);
        }
    }

    /// A closed stream that nobody holds has no place any more.
    pub(super) fn remove_if_free(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.held || !stream.is_closed() {
            return;
        }
        let unread = stream.unread_bytes;
        let grown = stream.receive_target.saturating_sub(self.settings.stream_window_bytes);
        self.grown_bytes -= u64::from(grown);
        self.unread_bytes -= u64::from(unread);
        self.streams.remove(key);
        self.give_back(unread);
    }

    pub(super) fn wake_reader(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get(key)
            && std::mem::take(&mut stream.reader_waits)
        {
            self.events.push_back(Event::Readable(key));
        }
    }

    pub(super) fn wake_writer(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get(key)
            && std::mem::take(&mut stream.writer_waits)
        {
            self.events.push_back(Event::Writable(key));
        }
    }

    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.resets.len() == RESETS_REMEMBERED
            && let Some(oldest) = self.resets.pop_front()
        {
            self.resets_forgotten = self.resets_forgotten.max(oldest);
        }
        self.resets.push_back(id);
    }

    /// Whether frames for a stream that is gone may be such that were on their way when we reset it.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        id <= self.resets_forgotten || self.resets.iter().rev().any(|reset| *reset == id)
    }

    /// Whether nobody has ever opened that stream.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        let by_client = id % 2 == 1;
        match self.role {
            Role::Server => !by_client || id > self.peer_last,
            Role::Client => !by_client || id >= self.next_id,
        }
    }
}
