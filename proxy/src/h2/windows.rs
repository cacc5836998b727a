//! Flow control (RFC 9113 sections 5.2 and 6.9): a reader that does not read holds up its own stream, and nobody else.
//!
//! What was received counts against the windows until it was read. A stream begins with a small window, which grows as its
//! reader reads. Half of the connection's window is never given to grown ones, so that many readers can stall before a stream waits for
//! another's.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::connection::Connection;
use super::error::ConnectionError;
use super::frame::{Code, WINDOW_BYTES_MAX, kind};
use super::streams::{Received, StreamKey, Unread};
use crate::message::Frame;

impl Connection {
    /// What comes next on a stream; none if there is nothing yet: [`super::Event::Readable`] tells when there is.
    pub fn read(&mut self, key: StreamKey) -> Option<Received> {
        let Some(stream) = self.streams.get(key) else { return Some(Received::End) };
        match stream.unread.pop_front() {
            Some(Unread::Head(head)) => {
                stream.interims = stream.interims.saturating_sub(1);
                Some(Received::Head(*head))
            }
            Some(Unread::Trailers(fields)) => Some(Received::Frame(Frame::Trailers(fields))),
            Some(Unread::Data(data)) => {
                self.consumed(key, data.len() as u32);
                Some(Received::Frame(Frame::Data(data.into())))
            }
            None if stream.received_end => Some(Received::End),
            None => match stream.reset {
                Some(reset) => Some(Received::Reset(reset)),
                None => {
                    stream.reader_waits = true;
                    None
                }
            },
        }
    }

    /// Whether everything was received, and all of it was read.
    #[must_use]
    pub fn is_read_to_end(&self, key: StreamKey) -> bool {
        self.streams.peek(key).is_none_or(|stream| stream.received_end && stream.unread.is_empty())
    }

    /// Whether everything was received, and not all of it was read.
    #[must_use]
    pub fn is_unread_end(&self, key: StreamKey) -> bool {
        self.streams.peek(key).is_some_and(|stream| stream.received_end && !stream.unread.is_empty())
    }

    /// How many bytes are still to be read, if that is known, and nothing comes behind them.
    #[must_use]
    pub fn length_left(&self, key: StreamKey) -> Option<u64> {
        let stream = self.streams.peek(key)?;
        match stream.unread.back() {
            Some(Unread::Trailers(_)) => None,
            // What is there is all there is.
            _ if stream.received_end => Some(u64::from(stream.unread_bytes)),
            _ => stream.length_left.map(|left| left + u64::from(stream.unread_bytes)),
        }
    }

    /// So much was taken out of a stream's window, and will not be read any more than it was.
    fn consumed(&mut self, key: StreamKey, bytes: u32) {
        self.unread_bytes -= u64::from(bytes);
        self.give_back(bytes);
        let Some(stream) = self.streams.get(key) else { return };
        stream.unread_bytes -= bytes;
        self.give_back_to_stream(key, bytes);
    }

    /// The connection's window gets so much back: at once by our count, in the peer's once it is worth a frame.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.owed += bytes;
        if self.owed >= self.settings.connection_window_bytes / 2 && self.failed.is_none() {
            self.output.frame(kind::WINDOW_UPDATE, 0, 0, &self.owed.to_be_bytes());
            self.receive_window += i64::from(self.owed);
            self.owed = 0;
        }
    }

    pub(super) fn give_back_to_stream(&mut self, key: StreamKey, bytes: u32) {
        let settings = &self.settings;
        let Some(stream) = self.streams.get(key) else { return };
        stream.owed += bytes;
        // Nobody needs the window of a message that is whole, or that nobody reads.
        if stream.received_end || !stream.held || stream.reset.is_some() || stream.owed < stream.receive_target / 2 {
            return;
        }
        let target = stream.receive_target.saturating_mul(2).min(settings.stream_window_bytes_max);
        let more = target.saturating_sub(stream.receive_target);
        let grown_max = u64::from(settings.connection_window_bytes / 2);
        if self.grown_bytes + u64::from(more) <= grown_max {
            self.grown_bytes += u64::from(more);
            stream.receive_target += more;
            stream.owed += more;
        }
        stream.receive_window += i64::from(stream.owed);
        let increment = std::mem::take(&mut stream.owed).to_be_bytes();
        self.output.frame(kind::WINDOW_UPDATE, 0, key.id, &increment);
    }

    /// The peer gives the connection a larger window (RFC 9113 section 6.9).
    pub(super) fn enlarge_connection(&mut self, increment: u32) -> Result<(), ConnectionError> {
        let refused = |code, what| Err(ConnectionError::Protocol { code, what });
        if increment == 0 {
            return refused(Code::PROTOCOL_ERROR, "a WINDOW_UPDATE of 0");
        }
        self.send_window += i64::from(increment);
        if self.send_window > WINDOW_BYTES_MAX {
            return refused(Code::FLOW_CONTROL_ERROR, "a window above 2^31-1");
        }
        Ok(())
    }

    /// The same for one stream.
    pub(super) fn enlarge_stream(&mut self, key: StreamKey, increment: u32) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if stream.is_closed() {
            return Ok(());
        }
        if increment == 0 {
            return self.stream_error(key.id, Code::PROTOCOL_ERROR, "a WINDOW_UPDATE of 0");
        }
        stream.send_window += i64::from(increment);
        if stream.send_window > WINDOW_BYTES_MAX {
            return self.stream_error(key.id, Code::FLOW_CONTROL_ERROR, "a window above 2^31-1");
        }
        self.streams.enter_ring(key);
        Ok(())
    }

    /// The peer's SETTINGS_INITIAL_WINDOW_SIZE changed by so much: windows may become negative (RFC 9113 section 6.9.2).
    pub(super) fn shift_windows(&mut self, by: i64) -> Result<(), ConnectionError> {
        if by == 0 {
            return Ok(());
        }
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            let Some(stream) = self.streams.get(key) else { continue };
            stream.send_window += by;
            if stream.send_window > WINDOW_BYTES_MAX {
                let what = "an INITIAL_WINDOW_SIZE that makes a window larger than 2^31-1";
                return Err(ConnectionError::Protocol { code: Code::FLOW_CONTROL_ERROR, what });
            }
            self.streams.enter_ring(key);
        }
        Ok(())
    }

    /// What must hold between any two calls.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        let streams = || keys.iter().filter_map(|key| self.streams.peek(*key));
        assert_eq!(streams().filter(|stream| !stream.is_closed()).count(), self.streams.active as usize);
        assert!(streams().all(|stream| stream.held || !stream.is_closed()), "a closed stream that nobody holds");
        let unread: u64 = streams().map(|stream| u64::from(stream.unread_bytes)).sum();
        assert_eq!(unread, self.unread_bytes);
        let grown: u64 =
            streams().map(|stream| u64::from(stream.receive_target - self.settings.stream_window_bytes)).sum();
        assert_eq!(grown, self.grown_bytes);
        let on_its_way = self.input.data_left() as i64;
        let window = self.receive_window + i64::from(self.owed) + self.unread_bytes as i64 + on_its_way;
        assert_eq!(window, i64::from(self.settings.connection_window_bytes), "a byte of the window was lost or made");
        for stream in streams() {
            let on_its_way = if self.input.data_stream() == Some(stream.id) { on_its_way } else { 0 };
            let window = stream.receive_window + i64::from(stream.owed) + i64::from(stream.unread_bytes) + on_its_way;
            assert_eq!(window, i64::from(stream.receive_target), "stream {}", stream.id);
            let unsent: usize = stream.unsent.iter().map(bytes::Bytes::len).sum();
            assert_eq!(unsent, stream.unsent_bytes, "stream {}", stream.id);
            let in_ring = self.streams.ring.iter().filter(|slot| self.streams.key_of(**slot).id == stream.id).count();
            assert_eq!(in_ring, usize::from(stream.in_ring), "stream {}", stream.id);
            assert!(stream.in_ring || !stream.can_send(), "stream {} has no turn", stream.id);
        }
    }
}
